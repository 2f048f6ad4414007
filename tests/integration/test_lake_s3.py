"""A lake on S3: exclusive creates, checksums, and answers that get lost."""

import asyncio
import hashlib
import os
from collections import Counter
from collections.abc import Iterator

import pytest
from botocore.exceptions import ClientError

from airflow_provider_hkex_rap.lake import claims, store
from airflow_provider_hkex_rap.lake.layout import MANIFESTS
from airflow_provider_hkex_rap.lake.preflight import check_lake
from airflow_provider_hkex_rap.lake.spool import MEMORY_BYTES, Spool
from airflow_provider_hkex_rap.lake.store import Lake
from airflow_provider_hkex_rap.lake.verify import Problem
from airflow_provider_hkex_rap.lake.verify import verify as find_problems
from airflow_provider_hkex_rap.rap.errors import LakeConflict, LakeError

from ..in_memory_rap import (
    CUSTOMER,
    NOW,
    InMemoryRap,
    assert_holds_once,
    landed,
    landing,
    manifest_files,
    run,
)

s3fs = pytest.importorskip("s3fs")
moto = pytest.importorskip("moto.server")
translate_boto_error = s3fs.errors.translate_boto_error

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
        self.uploads = []

    async def _call_s3(self, method, *args, **kwargs):
        self.calls.append(method)
        when, error = self.faults.get(method, ("", None))
        if when == "before":
            raise error
        result = await super()._call_s3(method, *args, **kwargs)
        if when == "after":
            raise error
        if method == "put_object":
            self.uploads.append(kwargs)
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
    s3.uploads.clear()
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
    (manifest,) = [lake.read(path) for path in manifest_files(lake)]
    assert len(manifest.splitlines()) == 6
    rap.reads.clear()
    assert run(rap, lake).already == 6
    assert not rap.reads


@pytest.mark.parametrize("size", [0, 10, MEMORY_BYTES + 1, PART - 1])
def test_a_file_of_one_part_takes_one_request(lake, tmp_path, size):
    spool = spooled(tmp_path, os.urandom(size))
    lake.commit(DAY, "a.csv", spool, MTIME)
    assert lake.fs.calls == ["put_object"]
    (upload,) = lake.fs.uploads
    assert upload["IfNoneMatch"] == "*"


def test_a_landing_takes_one_request_per_file_and_one_per_directory(lake, rap):
    run(rap, lake)
    few = Counter(lake.fs.calls)
    rap.files.clear()
    lake.fs.calls.clear()
    for number in range(40):
        rap.put(f"TP00{number % 2}_20261119_{number:04}.csv", b"report %d" % number, MTIME - number)
    run(rap, lake)
    # The other requests are those of the manifest and of the marks; five reports had a directory each.
    grown = Counter(lake.fs.calls)
    assert grown["put_object"] - few["put_object"] == 40 - 5
    assert grown["list_objects_v2"] <= few["list_objects_v2"]
    assert grown["head_object"] <= few["head_object"]


def test_a_create_beside_another_request_for_its_key_is_sent_again(lake, tmp_path, monkeypatch):
    answer = {"Error": {"Code": "ConditionalRequestConflict"}, "ResponseMetadata": {"HTTPStatusCode": 409}}
    conflict = translate_boto_error(ClientError(answer, "PutObject"))
    pauses = []
    # The other request ends during the second pause.
    monkeypatch.setattr(
        store.time, "sleep", lambda s: pauses.append(s) or (pauses[1:] and lake.fs.faults.clear())
    )
    for create in (
        lambda: lake.commit(DAY, "a.csv", spooled(tmp_path, b"bytes"), MTIME),
        lambda: lake.create("manifest/a.jsonl", b"bytes"),
    ):
        lake.fs.faults["put_object"] = ("before", conflict)
        create()
        assert len(pauses) == 2
        pauses.clear()
    assert lake.read(f"{DAY}/a.csv") == lake.read("manifest/a.jsonl") == b"bytes"


def test_a_file_without_a_checksum_of_the_storage_is_read_back(lake, tmp_path):
    spool = spooled(tmp_path, b"bytes")
    spool._md5 = hashlib.md5(b"another")
    assert lake.commit(DAY, "a.csv", spool, MTIME).name == "a.csv"
    assert "get_object" in lake.fs.calls


def test_bytes_that_the_storage_has_changed_are_an_error(lake, tmp_path):
    spool = spooled(tmp_path, b"bytes")
    spool._md5, spool._sha256 = hashlib.md5(b"other"), hashlib.sha256(b"other")
    with pytest.raises(LakeConflict, match="does not hold the 5 bytes"):
        lake.commit(DAY, "a.csv", spool, MTIME)


def test_the_entry_has_the_version_of_the_object(lake, tmp_path):
    lake.fs.call_s3(
        "put_bucket_versioning",
        Bucket=lake.root.split("/")[0],
        VersioningConfiguration={"Status": "Enabled"},
    )
    result = lake.commit(DAY, "a.csv", spooled(tmp_path, b"bytes"), MTIME)
    head = lake.fs.call_s3("head_object", Bucket=lake.root.split("/")[0], Key=f"rap/{DAY}/a.csv")
    assert (result.version_id, f'"{result.etag}"') == (head["VersionId"], head["ETag"])
    assert result.version_id


def test_a_directory_is_listed_and_a_manifest_file_read_with_one_request(lake):
    assert lake.names(DAY) == frozenset()
    lake.create(f"{DAY}/a.csv", b"a")
    lake.create(f"{DAY}0/b.csv", b"b")
    assert lake.names(DAY) == {"a.csv"}
    assert lake.read(f"{DAY}/a.csv") == b"a"
    assert Counter(lake.fs.calls) == {"list_objects_v2": 2, "put_object": 2, "get_object": 1}


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
    monkeypatch.setattr(claims, "SETTLE_SECONDS", 0.0)
    run(rap, lake)
    lake.fs.rm(f"{lake.root}/{MANIFESTS}", recursive=True)
    rap.reads.clear()
    assert run(rap, lake).landed == 5
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


def test_killed_before_the_manifest_and_republished_every_content_is_claimed(lake, rap, monkeypatch):
    monkeypatch.setattr(claims, "SETTLE_SECONDS", 0.0)
    run(rap, lake)
    lake.fs.rm(f"{lake.root}/{MANIFESTS}", recursive=True)
    rap.put("TP001_20261120.csv", b"republished", MTIME + 60)
    rap.reads.clear()
    result = run(rap, lake)
    assert rap.reads == [b"TP001_20261120.csv"]
    assert (result.landed, result.already) == (5, 0)
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


def refused(code, status, message):
    """Return the error that s3fs raises for an answer of S3."""
    response = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return translate_boto_error(ClientError(response, "Call"))


def test_a_usable_bucket_is_left_empty(lake):
    assert check_lake(lake) == ""
    assert lake.fs.calls == ["put_object", "list_objects_v2", "get_object", "put_object", "delete_object"]
    assert lake.fs.find(lake.root) == []


def test_a_missing_bucket_is_found(s3):
    s3.faults.clear()
    with pytest.raises(LakeError, match=r"s3://aws_default@nowhere/rap .*bucket") as caught:
        check_lake(Lake(s3, "nowhere/rap", "s3://aws_default@nowhere/rap"))
    assert not caught.value.retryable
    assert "Create it, or correct the lake's URI." in str(caught.value)


@pytest.mark.parametrize(
    ("method", "error", "words"),
    [
        ("put_object", ("AccessDenied", 403, "Access Denied"), "Grant it the rights"),
        ("put_object", ("NotImplemented", 501, "A header is not implemented"), "If-None-Match"),
        ("get_object", ("AccessDenied", 403, "Access Denied"), "Grant it the rights"),
    ],
)
def test_a_right_or_a_function_that_the_bucket_lacks_is_found(lake, method, error, words):
    lake.fs.faults[method] = "before", refused(*error)
    with pytest.raises(LakeError, match=words) as caught:
        check_lake(lake)
    assert not caught.value.retryable


def test_a_missing_right_to_list_is_found(lake, monkeypatch):
    async def refuse(*arguments, **options):
        raise refused("AccessDenied", 403, "Access Denied")

    monkeypatch.setattr(lake.fs, "_lsdir", refuse)
    with pytest.raises(LakeError, match="rights to list") as caught:
        check_lake(lake)
    assert not caught.value.retryable


def test_a_bucket_without_the_right_to_delete_keeps_one_probe(lake):
    for method in ("delete_object", "delete_objects"):
        lake.fs.faults[method] = "before", refused("AccessDenied", 403, "Access Denied")
    for _ in range(3):
        check_lake(lake)
    assert [path.rpartition("/")[2] for path in lake.fs.find(lake.root)] == ["probe"]


def test_a_name_with_a_version_query_lands_under_a_key_of_its_own(lake, rap):
    rap.files.clear()
    for name in ("q?versionId=a_20261120.csv", "q?versionId=b_20261120.csv"):
        rap.put(name, name.encode(), MTIME)
    assert run(rap, lake).landed == 2
    assert sorted(path.rpartition("/")[2] for path in landed(lake)) == [
        "q?versionId=a_20261120.csv",
        "q?versionId=b_20261120.csv",
    ]
    for entry in run(rap, lake).entries:
        assert lake.fs.cat_file(entry.uri.replace("aws_default@", "")) == entry.text.encode()
    rap.reads.clear()
    assert run(rap, lake).already == 2
    assert not rap.reads
    assert verify(lake, CUSTOMER) == []


def test_folder_markers_of_the_console_are_no_files(lake, rap):
    directories = ["reports", f"reports/customer={CUSTOMER}", DAY, f"{MANIFESTS}/{CUSTOMER}", f"{DAY}/empty"]
    for directory in directories:
        lake.fs.call_s3("put_object", Bucket=lake.root.split("/")[0], Key=f"rap/{directory}/", Body=b"")
    lake.fs.invalidate_cache()
    assert lake.walk("") == []
    assert lake.names(DAY) == {"empty"}
    assert lake.list_directory(DAY) == ([], [f"{DAY}/empty"])
    assert run(rap, lake).landed == 5
    assert verify(lake, CUSTOMER) == []
