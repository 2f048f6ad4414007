"""A RAP in memory for the lake's tests, and checks of a lake."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import pendulum

from airflow_provider_hkex_rap.lake.landing import Landing, LandingResult, Origin
from airflow_provider_hkex_rap.lake.layout import MANIFESTS
from airflow_provider_hkex_rap.lake.planning import plan
from airflow_provider_hkex_rap.rap.files import Attributes, Kind, ReadEnd, RemoteFile
from airflow_provider_hkex_rap.rap.folders import Folder
from airflow_provider_hkex_rap.rap.report_name import Naming

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.lake.store import Lake

NOW = pendulum.datetime(2026, 11, 20, 20, tz="Asia/Hong_Kong")
CUSTOMER = "CXYZ"
ORIGIN = Origin(
    account="DCXYZ001",
    site="primary",
    address="10.151.14.141:18801",
    host_key_fingerprint="SHA256:host",
    client_key_fingerprint="c1:b1",
    dag="daily",
    run="scheduled__2026-11-20",
    task="download",
    map_index=-1,
    try_number=1,
    package_version="0.0",
)


class InMemoryRap:
    """One folder of files; reads are recorded, and fail if a fault is set."""

    def __init__(self, folder: Folder = Folder.DCASS) -> None:
        self.folder = folder
        self.files: dict[bytes, tuple[bytes, int]] = {}
        self.others: list[RemoteFile] = []
        self.reads: list[bytes] = []
        self.faults: dict[bytes, Callable[[InMemoryRap, RemoteFile], Awaitable[Attributes | None]]] = {}
        self.lists_attributes = True

    def put(self, name: str | bytes, content: bytes, mtime: int | None = None) -> None:
        key = name.encode() if isinstance(name, str) else name
        self.files[key] = content, NOW.int_timestamp - 3600 if mtime is None else mtime

    def listing(self) -> list[RemoteFile]:
        return [*(self._listed(name) for name in self.files), *self.others]

    def _listed(self, name: bytes) -> RemoteFile:
        content, mtime = self.files[name]
        size, time = (len(content), mtime) if self.lists_attributes else (None, None)
        return RemoteFile(self.folder, name, size, time, Kind.FILE)

    async def list_folder(self, folder: Folder) -> list[RemoteFile]:
        return self.listing() if folder is self.folder else []

    async def read(self, file: RemoteFile, write: Callable[[bytes], object]) -> ReadEnd:
        self.reads.append(file.name)
        content, _ = self.files[file.name]
        await asyncio.sleep(0)
        for start in range(0, len(content), 32768):
            write(content[start : start + 32768])
        if fault := self.faults.get(file.name):
            after = await fault(self, file)
            if after:
                return ReadEnd(after)
        await asyncio.sleep(0)
        content, mtime = self.files[file.name]
        return ReadEnd(Attributes(len(content), mtime))


def clock() -> pendulum.DateTime:
    """Return a time that passes as real time does, from NOW on."""
    return NOW.add(seconds=time.time() - _STARTED)


_STARTED = time.time()


async def landing(
    rap: InMemoryRap,
    lake: Lake,
    *,
    now: pendulum.DateTime | None = None,
    naming: Naming | None = None,
    files: list[RemoteFile] | None = None,
    into: list[Landing] | None = None,
    **options,
) -> LandingResult:
    """Land what a RAP lists, or the files given, as a task does; append the `Landing` to *into*."""
    naming = naming or Naming()
    time_of = clock if now is None else lambda: now
    async with Landing(lake, CUSTOMER, naming=naming, clock=time_of, **options) as under_way:
        if into is not None:
            into.append(under_way)
        ledger = await under_way.load_ledger([rap.folder])
        await under_way.extend_ledger(ledger, rap.listing())
        todo = plan(rap.listing() if files is None else files, ledger, naming, time_of())
        await under_way.read(rap, ledger, todo, ORIGIN)
    return under_way.result


def run(rap: InMemoryRap, lake: Lake, **options) -> LandingResult:
    return asyncio.run(landing(rap, lake, **options))


def landed(lake: Lake) -> dict[str, bytes]:
    """Return the content of every file in a lake except its manifest."""
    paths = (path for path in lake.walk("") if not path.startswith(MANIFESTS))
    return {path: lake.read(path) for path in paths}


def manifest_files(lake: Lake) -> list[str]:
    """Return the paths of the manifest files, without the marks of runs."""
    return [path for path in lake.walk(MANIFESTS) if path.endswith(".jsonl")]


def assert_holds_once(lake: Lake, rap: InMemoryRap) -> None:
    """Check that the lake holds each content of each file once and complete."""
    held = Counter(
        (re.sub(r"\.v\d+(?=(\.\w+){0,2}$)", "", path.rpartition("/")[2]), hashlib.sha256(content).hexdigest())
        for path, content in landed(lake).items()
    )
    assert not [name for name, count in held.items() if count > 1]
    for file in rap.listing():
        if file.kind is Kind.FILE:
            content = rap.files[file.name][0]
            assert (file.text, hashlib.sha256(content).hexdigest()) in held
