"""A lake on S3: exclusive creates, checksums, and answers that get lost."""

import asyncio
import hashlib
import os
from collections.abc import Iterator

import pytest

from airflow_provider_hkex_rap.lake import claims, store
from airflow_provider_hkex_rap.lake.layout import MANIFESTS
from airflow_provider_hkex_rap.lake.spool import MEMORY_BYTES, Spool
from airflow_provider_hkex_rap.lake.store import Lake
from airflow_provider_hkex_rap.lake.verify import Problem
from airflow_provider_hkex_rap.lake.verify import verify as find_problems

from ..in_memory_rap import CUSTOMER, NOW, InMemoryRap, an_hour_later, assert_holds_once, landed, landing, run

s3fs = pytest.importorskip("s3fs")
moto = pytest.importorskip("moto.server")

DAY = f"reports/customer={CUSTOMER}/folder=DCASS/report=TP001/business_date=2026-11-20"
MTIME = NOW.int_timestamp - 3600
PART = 5 * 2**20
LARGE = 2 * PART + 1
"""Bytes of a file that is uploaded in three parts."""


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setitem(store._S3_UPLOAD, "chunksize", PART)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = moto.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


class Bucket(s3fs.S3FileSystem):
    """S3 with faults by method."""

    cachable = False

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.faults = {}
        self.calls = []

    async def _call_s3(self, method, *args, **kwargs):
        self.calls.append(method)
        when, error = self.faults.get(method, ("", None))
        if when == "before":
            raise error
        result = await super()._call_s3(method, *args, **kwargs)
        if when == "after":
            raise error
        return result


@pytest.fixture(scope="module")
def s3(endpoint):
    return Bucket(
        key="key", secret="secret", endpoint_url=endpoint, client_kwargs={"region_name": "ap-east-1"}
    )


@pytest.fixture
def lake(s3, request):
    bucket = f"b{hashlib.md5(request.node.nodeid.encode()).hexdigest()[:20]}"
    s3.faults.clear()
    s3.mkdir(bucket)
    s3.calls.clear()
    return Lake(s3, f"{bucket}/rap", f"s3://aws_default@{bucket}/rap")


@pytest.fixture
def rap():
    rap = InMemoryRap()
    for number in range(5):
        rap.put(f"TP00{number}_20261120.csv", b"report %d" % number, MTIME - number)
    return rap


def verify(lake, customer) -> list[Problem]:
    return asyncio.run(find_problems(lake, customer)).problems


def spooled(tmp_path, content):
    spool = Spool(str(tmp_path / "spool"), len(content), md5=True)
    spool.write(content)
    spool.finish()
    return spool


@pytest.mark.parametrize("size", [0, 1, MEMORY_BYTES + 1, LARGE])
def test_a_file_lands_whole_in_one_part_or_many(lake, tmp_path, size):
    spool = spooled(tmp_path, os.urandom(size))
    result = lake.commit(DAY, "a.csv", spool, MTIME)
    assert (result.name, result.adopted) == ("a.csv", False)
    assert lake.measure(f"{DAY}/a.csv") == (size, spool.sha256)
    assert result.etag == spool.md5 or (size == LARGE and result.etag.endswith("-3"))


def test_every_file_lands_once_and_the_manifest_proves_it(lake, rap):
    rap.put("large_20261120.bin", os.urandom(LARGE))
    result = run(rap, lake)
    assert (result.landed, result.failed) == (6, 0)
    assert verify(lake, CUSTOMER) == []
    entry = next(e for e in result.entries if e.text == "TP001_20261120.csv")
    assert entry.uri == f"{lake.uri}/{DAY}/TP001_20261120.csv"
    assert entry.etag == hashlib.md5(b"report 1").hexdigest()
    (manifest,) = [lake.read(path) for path in lake.walk(MANIFESTS)]
    assert len(manifest.splitlines()) == 6
    rap.reads.clear()
    assert run(rap, lake).already == 6
    assert not rap.reads


def test_a_file_of_one_part_is_not_read_back(lake, rap):
    run(rap, lake)
    assert "get_object" not in lake.fs.calls


def test_an_etag_that_is_no_md5_is_not_trusted(lake, tmp_path):
    spool = spooled(tmp_path, b"bytes")
    # A bucket with its own encryption key reports such ETags.
    spool._md5 = hashlib.md5(b"another")
    assert lake.commit(DAY, "a.csv", spool, MTIME).name == "a.csv"
    assert "get_object" in lake.fs.calls


@pytest.mark.parametrize("size", [10, LARGE])
def test_the_same_bytes_are_adopted_and_others_become_a_version(lake, tmp_path, size):
    one, two = os.urandom(size), os.urandom(size)
    for content, name, adopted in [
        (one, "a.csv", False),
        (one, "a.csv", True),
        (two, "a.v2.csv", False),
        (two, "a.v2.csv", True),
    ]:
        (tmp_path / "spool").unlink(missing_ok=True)
        result = lake.commit(DAY, "a.csv", spooled(tmp_path, content), MTIME)
        assert (result.name, result.adopted) == (name, adopted)
    assert sorted(landed(lake).values()) == sorted([one, two])


def test_a_created_file_is_never_overwritten(lake):
    lake.create("manifest/x.jsonl", b"first")
    with pytest.raises(FileExistsError):
        lake.create("manifest/x.jsonl", b"second")
    assert lake.read("manifest/x.jsonl") == b"first"


def test_a_lost_manifest_is_written_again_without_a_download(lake, rap, monkeypatch):
    monkeypatch.setattr(claims, "ADOPTION_SECONDS", -1.0)
    run(rap, lake)
    lake.fs.rm(f"{lake.root}/{MANIFESTS}", recursive=True)
    rap.reads.clear()
    assert run(rap, lake, store_clock=an_hour_later).landed == 5
    assert not rap.reads
    assert verify(lake, CUSTOMER) == []


def test_accounts_of_one_customer_share_the_lake(lake, rap):
    async def both():
        return await asyncio.gather(*(landing(rap, lake) for _ in range(4)))

    results = asyncio.run(both())
    assert sum(result.landed for result in results) == 5
    assert sum(result.already for result in results) == 15
    assert_holds_once(lake, rap)
    assert verify(lake, CUSTOMER) == []


@pytest.mark.parametrize("options", [{}, {"store_clock": an_hour_later}])
def test_killed_before_the_manifest_and_republished_every_content_is_claimed(lake, rap, options):
    run(rap, lake)
    lake.fs.rm(f"{lake.root}/{MANIFESTS}", recursive=True)
    rap.put("TP001_20261120.csv", b"republished", MTIME + 60)
    rap.reads.clear()
    result = run(rap, lake, **options)
    assert rap.reads == [b"TP001_20261120.csv"]
    assert (result.landed, result.already) == ((5, 0) if options else (1, 4))
    assert verify(lake, CUSTOMER) == []
    versions = [entry for entry in result.entries if entry.text == "TP001_20261120.csv"]
    first, second = sorted(versions, key=lambda entry: entry.mtime)
    assert (first.mtime, second.supersedes, second.disposition) == (MTIME - 1, first.uri, "landed")


@pytest.mark.parametrize(
    ("method", "size"), [("put_object", 10), ("upload_part", LARGE), ("complete_multipart_upload", LARGE)]
)
def test_a_failed_upload_leaves_nothing_and_the_next_run_lands_it(lake, rap, method, size):
    rap.files.clear()
    rap.put("a_20261120.csv", os.urandom(size))
    lake.fs.faults[method] = "before", OSError(121, "InternalError")
    result = run(rap, lake)
    assert (result.landed, result.failed) == (0, 1)
    assert "InternalError" in result.outcomes[0].reason
    assert not landed(lake)
    lake.fs.faults.clear()
    assert run(rap, lake).landed == 1
    assert_holds_once(lake, rap)


@pytest.mark.parametrize(("method", "size"), [("put_object", 10), ("complete_multipart_upload", LARGE)])
def test_an_answer_that_is_lost_after_success_is_no_failure(lake, tmp_path, method, size):
    lake.fs.faults[method] = "after", ConnectionResetError("lost")
    result = lake.commit(DAY, "a.csv", spooled(tmp_path, os.urandom(size)), MTIME)
    assert (result.name, result.adopted) == ("a.csv", True)
    assert list(landed(lake)) == [f"{DAY}/a.csv"]
