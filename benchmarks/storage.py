"""S3 by the server of moto, in a process of its own, and what lies in it."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

from tests.ports import free_port

BUCKET = "rap"
_START_SECONDS = 60


@contextlib.contextmanager
def s3() -> Iterator[str]:
    """Run the server until the block ends; yield its URL."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + _START_SECONDS
            while server.poll() is None and time.monotonic() < deadline:
                with contextlib.suppress(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", port), 5).close()
                    break
                time.sleep(0.05)
            url = f"http://127.0.0.1:{port}"
            empty(url)
            yield url
        finally:
            server.terminate()


def empty(url: str) -> None:
    """Remove every object, and make the bucket.

    :param url: the URL of the server.
    """
    _request("POST", f"{url}/moto-api/reset")
    _request("PUT", f"{url}/{BUCKET}")


def count_objects(url: str, prefix: str) -> tuple[int, int]:
    """Return how many objects there are, and the bytes of all of them.

    :param url: the URL of the server.
    :param prefix: how their keys begin.
    """
    sizes: list[int] = []
    after = ""
    while True:
        page = _request("GET", f"{url}/{BUCKET}?list-type=2&prefix={prefix}&start-after={after}")
        found = re.findall(r"<Key>([^<]*)</Key>.*?<Size>(\d+)</Size>", page, re.DOTALL)
        sizes += [int(size) for _, size in found]
        if "<IsTruncated>true" not in page:
            return len(sizes), sum(sizes)
        after = found[-1][0]


def environment(url: str) -> dict[str, str]:
    """Return the variables with which Airflow and the AWS CLI find the server.

    :param url: the URL of the server.
    """
    connection = {
        "conn_type": "aws",
        "login": "key",
        "password": "secret",
        "extra": {"endpoint_url": url, "region_name": "us-east-1"},
    }
    return {
        "AIRFLOW_CONN_LAKE": json.dumps(connection),
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def _request(method: str, url: str) -> str:
    with urllib.request.urlopen(urllib.request.Request(url, method=method)) as response:
        return str(response.read().decode())
