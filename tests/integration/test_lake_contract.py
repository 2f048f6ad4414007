"""The lake behaves in the same way on the local disk, S3, Azure Storage and Google Cloud Storage."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_hkex_rap.lake import claims
from airflow_provider_hkex_rap.lake.entry import Disposition, Entry
from airflow_provider_hkex_rap.lake.listing import list_directories
from airflow_provider_hkex_rap.lake.spool import MEMORY_BYTES, Spool
from airflow_provider_hkex_rap.lake.storage_calls import StorageCalls
from airflow_provider_hkex_rap.lake.store import ListedPath
from airflow_provider_hkex_rap.lake.verify import verify

from ..in_memory_rap import CUSTOMER, NOW, InMemoryRap, assert_holds_once, landed, manifest_files, run
from .lake_servers import STORAGES, Storage

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.lake.landing import LandingResult
    from airflow_provider_hkex_rap.lake.store import Lake, Landed

MTIME = NOW.int_timestamp - 3600
LARGE = 6 * 2**20
"""Bytes of a file that is spooled on disk, and that goes to Google Cloud Storage by a resumable upload."""
ODD = "50%25+a=b&c@d#1[x]?e"
NAMES = ["TP001_20261120.csv", "MT001 20261120 報表.csv.gz", f"{ODD}_20261120.txt"]


# The emulator of GCS takes as long as the other three together.
PARAMS = [pytest.param(name, marks=pytest.mark.slow if name == "gcs" else ()) for name in STORAGES]


@pytest.fixture(scope="session", params=PARAMS)
def storage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    with STORAGES[request.param](tmp_path_factory.mktemp(request.param)) as storage:
        yield storage


@pytest.fixture
def lake(storage: Storage, request: pytest.FixtureRequest) -> Lake:
    return storage.new_lake(f"b{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:20]}")


@pytest.fixture
def rap() -> InMemoryRap:
    """Return a RAP with files of odd names, an empty one, and a large one."""
    rap = InMemoryRap()
    for number, name in enumerate(NAMES):
        rap.put(name, b"report %d" % number, MTIME - number)
    rap.put("EMPTY_20261120.csv", b"", MTIME - 10)
    rap.put(f"LARGE{ODD}_20261120.zip", os.urandom(LARGE), MTIME - 11)
    return rap


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def assert_verified(lake: Lake) -> None:
    assert asyncio.run(verify(lake, CUSTOMER)).problems == []


def assert_entered(result: LandingResult, rap: InMemoryRap) -> None:
    """Check that a run has entered each file of RAP as landed, with the bytes that RAP has now."""
    contents = {name: sha256(content) for name, (content, _) in rap.files.items()}
    assert {entry.name: entry.sha256 for entry in result.entries} == contents
    assert {entry.disposition for entry in result.entries} == {Disposition.LANDED}


def lose_manifest(lake: Lake) -> None:
    """Leave the lake as runs do that were killed after the commits and before the entries."""
    for path in manifest_files(lake):
        lake.fs.rm_file(f"{lake.root}/{path}")


def spooled(directory: Path, content: bytes) -> Spool:
    spool = Spool(str(directory / sha256(content)), len(content), md5=True)
    spool.write(content)
    spool.finish()
    return spool


def test_each_file_lands_once_and_can_be_read_by_its_uri(
    storage: Storage, lake: Lake, rap: InMemoryRap
) -> None:
    result = run(rap, lake)
    assert (result.landed, result.failed) == (len(rap.files), 0)
    assert_entered(result, rap)
    for entry in result.entries:
        assert entry.uri
        assert storage.read(entry.uri) == rap.files[entry.name][0]
    assert_holds_once(lake, rap)
    assert_verified(lake)


def test_a_second_run_reads_and_writes_nothing(lake: Lake, rap: InMemoryRap) -> None:
    run(rap, lake)
    rap.reads.clear()
    before = lake.walk("")
    result = run(rap, lake)
    assert (result.landed, result.already, result.failed) == (0, len(rap.files), 0)
    assert not rap.reads
    assert lake.walk("") == before


def test_a_listing_shows_that_a_file_has_changed(lake: Lake) -> None:
    lake.fs.makedirs(f"{lake.root}/manifest", exist_ok=True)
    states = []
    for content in (b"a part", None, b"a part and the rest"):
        if content:
            lake.fs.pipe_file(f"{lake.root}/manifest/file", content)
        (listed,) = asyncio.run(list_one(lake))
        assert isinstance(listed, ListedPath)
        states.append(listed.state)
    assert states[0] == states[1] != states[2]


async def list_one(lake: Lake) -> list[str]:
    async with StorageCalls(1) as calls:
        return await list_directories(calls, lake, ["manifest"])


def test_republished_content_lands_beside_the_first_and_names_it(
    storage: Storage, lake: Lake, rap: InMemoryRap
) -> None:
    first = {entry.name: entry for entry in run(rap, lake).entries}
    old = {name: content for name, (content, _) in rap.files.items()}
    for number, name in enumerate(old):
        rap.put(name, b"republished %d" % number, MTIME + 100 + number)
    result = run(rap, lake)
    assert (result.landed, result.failed) == (len(old), 0)
    assert_entered(result, rap)
    for entry in result.entries:
        replaced: Entry = first[entry.name]
        assert entry.supersedes == replaced.uri != entry.uri
        assert storage.read(entry.uri) == rap.files[entry.name][0]
        assert storage.read(replaced.uri) == old[entry.name]
    assert_verified(lake)
    rap.reads.clear()
    assert run(rap, lake).already == len(old)
    assert not rap.reads


def test_files_that_a_killed_run_left_are_claimed_without_a_download(
    lake: Lake, rap: InMemoryRap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "SETTLE_SECONDS", 0.0)
    run(rap, lake)
    before = landed(lake)
    lose_manifest(lake)
    rap.reads.clear()
    result = run(rap, lake)
    assert (result.landed, result.failed) == (len(rap.files), 0)
    assert_entered(result, rap)
    assert not rap.reads
    assert landed(lake) == before
    assert_verified(lake)


def test_a_file_that_a_killed_run_left_is_no_proof_of_a_later_one_of_its_size(
    lake: Lake, rap: InMemoryRap, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No other run is about to enter these files, so a wait for their entries would only take time.
    monkeypatch.setattr(claims, "SETTLE_SECONDS", 0.0)
    run(rap, lake)
    before = landed(lake)
    lose_manifest(lake)
    rap.reads.clear()
    for name, (content, mtime) in list(rap.files.items()):
        rap.put(name, os.urandom(len(content)), mtime + 20)
    result = run(rap, lake)
    assert sorted(rap.reads) == sorted(rap.files)
    new = {content for content, _ in rap.files.values()}
    assert {sha256(content) for content in new} <= {entry.sha256 for entry in result.entries}
    assert set(landed(lake).values()) == {*before.values(), *new}


@pytest.mark.parametrize("size", [10, MEMORY_BYTES + 1, LARGE])
def test_no_writer_overwrites_another(storage: Storage, lake: Lake, tmp_path: Path, size: int) -> None:
    contents = [os.urandom(size) for _ in range(4)]
    if not storage.creates_exclusively:
        # The server ignores the condition of an upload, so only the condition itself can be checked.
        storage.uploads.clear()
        lake.commit("d", "a.csv", spooled(tmp_path, contents[0]), MTIME)
        # gcsfs may send an upload again.
        assert {tuple(upload["ifGenerationMatch"]) for upload in storage.uploads} == {("0",)}
        return

    def commit(content: bytes) -> Landed:
        return lake.commit("d", "a.csv", spooled(tmp_path, content), MTIME)

    with ThreadPoolExecutor(len(contents)) as threads:
        results = list(threads.map(commit, contents))
    assert len({result.name for result in results}) == len(contents)
    for result, content in zip(results, contents, strict=True):
        assert (result.sha256, result.adopted) == (sha256(content), False)
        assert lake.read(f"d/{result.name}") == content


def test_a_manifest_file_is_never_overwritten(storage: Storage, lake: Lake) -> None:
    storage.uploads.clear()
    lake.create("manifest.jsonl", b"first")
    if not storage.creates_exclusively:
        assert {tuple(upload["ifGenerationMatch"]) for upload in storage.uploads} == {("0",)}
        return
    with pytest.raises(FileExistsError):
        lake.create("manifest.jsonl", b"second")
    assert lake.read("manifest.jsonl") == b"first"


def test_a_small_file_is_not_read_back(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: str) -> str:
        raise AssertionError(f"{path} was read.")

    monkeypatch.setattr(lake, "_sha256", read)
    result = lake.commit("d", "a.csv", spooled(tmp_path, b"report"), MTIME)
    assert (result.sha256, result.adopted) == (sha256(b"report"), False)
