"""Storages that a lake can be on: the local disk, and servers of S3, Azure Storage and Google Cloud Storage.

The servers listen on the loopback interface and keep their objects in memory.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

import pytest
from airflow.sdk import ObjectStoragePath
from airflow.sdk.io import attach

from airflow_provider_hkex_rap.lake.opening import open_lake

from ..ports import free_port

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.lake.store import Lake

_AZURITE = Path(__file__).parents[2] / "build/azurite/node_modules/.bin/azurite-blob"
_START_SECONDS = 60


class Storage:
    """One kind of storage, which any number of lakes can be on.

    Its file system is attached to a connection id, so that `open_lake` and ``ObjectStoragePath`` find it
    without the Airflow provider of that storage.

    :param name: ``local``, ``s3``, ``azure`` or ``gcs``.
    :param scheme: the scheme of its URIs, such as ``s3``.
    :param fs: its fsspec file system; None for the local disk.
    :param directory: the directory of the lakes, if they are on the local disk.
    :param uploads: the parameters of the uploads that the server has received; only GCS records them.
    """

    def __init__(
        self,
        name: str,
        scheme: str,
        fs: Any = None,
        directory: str = "",
        uploads: list[dict[str, list[str]]] | None = None,
    ) -> None:
        self.name = name
        self.uploads = [] if uploads is None else uploads
        self._scheme = scheme
        self._fs = fs
        self._directory = directory
        self._connection = f"{name}_lake" if fs else None
        if fs:
            # An attached file system is kept for the life of the process, and its server is not.
            attach(scheme, self._connection, alias=f"{scheme}-{self._connection}").fs = fs

    @property
    def creates_exclusively(self) -> bool:
        """Whether the server refuses to overwrite an object; the server of GCS ignores that condition."""
        return self.name != "gcs"

    def new_lake(self, bucket: str) -> Lake:
        """Return an empty lake.

        :param bucket: the name of the bucket, container or directory to make for it.
        """
        if not self._fs:
            return open_lake(f"{self._scheme}://{self._directory}/{bucket}/rap")
        self._fs.mkdir(bucket)
        return open_lake(f"{self._scheme}://{self._connection}@{bucket}/rap")

    def read(self, uri: str) -> bytes:
        """Return the bytes at a URI of a manifest, read as a user's task reads them.

        :param uri: the URI.
        """
        return ObjectStoragePath(uri, conn_id=self._connection).read_bytes()


@contextlib.contextmanager
def local_storage(directory: Path) -> Iterator[Storage]:
    """Yield the local disk.

    :param directory: an empty directory.
    """
    yield Storage("local", "file", directory=str(directory))


@contextlib.contextmanager
def s3_storage(directory: Path) -> Iterator[Storage]:
    """Yield S3, by the server of moto, while that server runs."""
    s3fs = pytest.importorskip("s3fs")
    with s3_server() as endpoint:
        yield Storage(
            "s3",
            "s3",
            s3fs.S3FileSystem(
                key="key",
                secret="secret",
                endpoint_url=endpoint,
                client_kwargs={"region_name": "ap-east-1"},
                skip_instance_cache=True,
            ),
        )


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """Yield the URL of an S3 without buckets, the server of moto, while that server runs."""
    moto = pytest.importorskip("moto.moto_server.werkzeug_app")
    serving = pytest.importorskip("werkzeug.serving")
    # One request at a time: with threads, moto may let two exclusive creates of one object succeed.
    server = serving.make_server(
        "127.0.0.1",
        0,
        moto.DomainDispatcherApplication(moto.create_backend_app),
        request_handler=moto.MotoRequestHandler,
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.port}"
    try:
        # All servers of moto in one process share their buckets, so an earlier test may have left some.
        urlopen(Request(f"{url}/moto-api/reset", method="POST")).close()
        yield url
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def azure_storage(directory: Path) -> Iterator[Storage]:
    """Yield Azure Storage, by Azurite, while that server runs."""
    adlfs = pytest.importorskip("adlfs")
    if not _AZURITE.exists() or not shutil.which("node"):
        pytest.skip("Azurite is not installed; run `make azurite`, which needs npm.")
    key = base64.b64encode(os.urandom(64)).decode()
    server = subprocess.Popen(
        [
            str(_AZURITE),
            *("--blobHost", "127.0.0.1", "--blobPort", "0"),
            # The client may speak a newer version of the protocol than the server knows.
            *("--skipApiVersionCheck", "--disableTelemetry", "--inMemoryPersistence", "--silent"),
        ],
        cwd=directory,
        env=os.environ | {"AZURITE_ACCOUNTS": f"rap:{key}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with server:
        try:
            endpoint = _endpoint(server)
            connection = f"AccountName=rap;AccountKey={key};BlobEndpoint={endpoint}/rap;"
            fs = adlfs.AzureBlobFileSystem(connection_string=connection, skip_instance_cache=True)
            yield Storage("azure", "abfs", fs)
        finally:
            server.terminate()


def _endpoint(server: subprocess.Popen[str]) -> str:
    """Wait until Azurite listens, and return its URL."""
    assert server.stdout
    lines: list[str] = []
    too_late = threading.Timer(_START_SECONDS, server.kill)
    too_late.start()
    try:
        for line in server.stdout:
            if found := re.search(r"listens on (http://\S+)", line):
                return found[1]
            lines.append(line)
    finally:
        too_late.cancel()
    raise RuntimeError(f"Azurite did not start: {''.join(lines)}")


@contextlib.contextmanager
def gcs_storage(directory: Path) -> Iterator[Storage]:
    """Yield Google Cloud Storage, by gcp-storage-emulator, while that server runs."""
    # Not the file system that the gcsfs package itself offers: it asks for the kind of each bucket by gRPC,
    # which the server does not speak.
    core = pytest.importorskip("gcsfs.core")
    emulator = pytest.importorskip("gcp_storage_emulator.server")
    uploads: list[dict[str, list[str]]] = []

    class Handler(emulator.RequestHandler):
        def do_POST(self) -> None:  # noqa: N802 (the name that http.server calls)
            url = urlsplit(self.path)
            query = parse_qs(url.query)
            # A resumable upload sends its chunks in requests of their own.
            if url.path.startswith("/upload/") and "upload_id" not in query:
                uploads.append(query)
            super().do_POST()

    port = free_port()
    server = emulator.create_server("127.0.0.1", port, in_memory=True)
    with mock.patch.object(emulator, "RequestHandler", Handler):
        server.start()
    try:
        fs = core.GCSFileSystem(
            project="test", token="anon", endpoint_url=f"http://127.0.0.1:{port}", skip_instance_cache=True
        )
        yield Storage("gcs", "gs", fs, uploads=uploads)
    finally:
        server.stop()


STORAGES = {"local": local_storage, "s3": s3_storage, "azure": azure_storage, "gcs": gcs_storage}
"""How to start each storage, by its name; each is skipped if its server or its client is not installed."""
