"""The manifest's form, and the ledger that is read from it."""

import asyncio
import json
import logging
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_hkex_rap.lake.entry import (
    Disposition,
    Entry,
    from_line,
    from_lines,
    rap_path,
    to_line,
    to_lines,
    utc,
)
from airflow_provider_hkex_rap.lake.layout import manifest_path, run_stamp
from airflow_provider_hkex_rap.lake.ledger import Ledger
from airflow_provider_hkex_rap.lake.manifest import READERS
from airflow_provider_hkex_rap.lake.storage_calls import StorageCalls
from airflow_provider_hkex_rap.rap.errors import LakeError
from airflow_provider_hkex_rap.rap.files import RemoteFile
from airflow_provider_hkex_rap.rap.folders import Folder

from ...in_memory_rap import CUSTOMER, NOW

DAY = "2026-11-20"


def load(*arguments):
    async def load():
        async with StorageCalls(READERS) as calls:
            return await Ledger.load(calls, *arguments)

    return asyncio.run(load())


def entry_of(file, sha256="0" * 64, **changes):
    path, path_base64 = rap_path(file)
    entry = Entry(
        schema_version=1,
        customer=CUSTOMER,
        folder=file.folder.value,
        rap_path=path,
        rap_path_base64=path_base64,
        report="TP001",
        business_date=DAY,
        business_date_rule="name",
        size=file.size,
        mtime=file.mtime,
        sha256=sha256,
        uri=f"file:///lake/reports/customer={CUSTOMER}/folder={file.folder}/report=TP001/business_date={DAY}/{file.text}",
        etag=None,
        version_id=None,
        supersedes=None,
        account="DCXYZ001",
        site="primary",
        address="10.151.14.141:18801",
        host_key_fingerprint=None,
        client_key_fingerprint=None,
        dag=None,
        run=None,
        task=None,
        map_index=None,
        try_number=None,
        first_seen=utc(NOW),
        downloaded=utc(NOW),
        committed=utc(NOW),
        package_version="0.0",
        disposition=Disposition.LANDED.value,
        reason="",
    )
    return replace(entry, **changes)


FILES = st.builds(
    RemoteFile,
    st.sampled_from(Folder),
    st.binary(min_size=1, max_size=40),
    st.none() | st.integers(0, 2**40),
    st.none() | st.integers(0, 2**32),
)
A_FILE = RemoteFile(Folder.DCASS, b"TP001_20261120.csv", 10, 1_795_000_000)


def write(lake, entries, *, days_ago=0, content=None, folder=Folder.DCASS, suffix="1a2b3c"):
    path = manifest_path(CUSTOMER, folder, DAY, run_stamp(NOW.subtract(days=days_ago), suffix), 1)
    lake.create(path, to_lines(entries) if content is None else content)


@given(st.lists(FILES, min_size=1, max_size=3), st.text(max_size=20))
def test_entries_survive_the_round_trip(files, reason):
    entries = [entry_of(file, reason=reason) for file in files]
    assert from_lines(to_lines(entries)) == (entries, [])
    assert [entry.name for entry in entries] == [file.name for file in files]
    assert [entry.text for entry in entries] == [file.text for file in files]


@given(st.lists(FILES, min_size=1, max_size=3), st.text(max_size=20))
def test_a_manifest_file_has_a_line_of_compact_json_for_each_entry_with_every_key(files, reason):
    entries = [entry_of(file, reason=reason) for file in files]
    lines = [json.dumps(asdict(entry), ensure_ascii=False, separators=(",", ":")) for entry in entries]
    assert to_lines(entries) == "".join(f"{line}\n" for line in lines).encode()


def test_an_entry_is_flat_and_its_times_are_in_utc():
    entry = json.loads(to_line(entry_of(A_FILE)))
    assert entry["schema_version"] == 1
    assert not [value for value in entry.values() if isinstance(value, list | dict)]
    assert entry["first_seen"] == "2026-11-20T12:00:00.000Z"


def test_a_bad_line_hides_no_other():
    good = [entry_of(A_FILE), entry_of(replace(A_FILE, name=b"x"))]
    content = to_line(good[0]) + b'\n{"folder": 3}\n\xff\n' + to_line(good[1]) + b"\n"
    lines = from_lines(content)
    assert lines.entries == good
    assert [bad.number for bad in lines.bad] == [2, 3]


def test_a_name_that_is_not_utf8_keeps_its_bytes():
    file = replace(A_FILE, name=b"caf\xe9.txt")
    assert entry_of(file).rap_path == "/download/DCASS/caf%E9.txt"
    assert entry_of(file).name == b"caf\xe9.txt"
    assert entry_of(replace(A_FILE, name=b"caf%E9.txt")).rap_path_base64 is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["schema_version", "entries", "folder", "x"]), inner, max_size=3)
    ),
)


@given(st.binary(max_size=50) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_content_of_a_manifest_file_is_read_or_named_as_bad(content):
    lines = from_lines(content)
    assert lines.entries == []
    assert lines.bad


@pytest.mark.parametrize(
    "change",
    [
        {"folder": "X"},
        {"rap_path": 5},
        {"rap_path_base64": "?"},
        {"size": "1"},
        {"size": 1.0},
        {"schema_version": None},
        {"uri": []},
        {"rap_path": ""},
        {"business_date": "2026-13-45"},
        {"first_seen": "2026-11-20T24:61Z"},
        {"committed": ""},
    ],
)
def test_an_entry_of_the_wrong_form_is_refused(change):
    with pytest.raises(ValueError, match="Folder|base64|" + next(iter(change))):
        from_line(json.dumps(asdict(entry_of(A_FILE)) | change).encode())


def test_an_entry_of_a_later_version_asks_for_an_upgrade():
    with pytest.raises(ValueError, match=r"schema_version: .* it is 2\. Upgrade the package"):
        from_line(json.dumps(asdict(entry_of(A_FILE)) | {"schema_version": 2}).encode())


def test_an_entry_without_one_of_its_fields_is_refused():
    values = asdict(entry_of(A_FILE))
    # A manifest of an earlier version does not have them.
    for name in values.keys() - {"listed_size", "map_index"}:
        entry = {key: value for key, value in values.items() if key != name}
        with pytest.raises(ValueError, match=f"{name}: Field required"):
            from_line(json.dumps(entry).encode())


def test_an_entry_of_an_earlier_version_does_not_say_if_its_task_is_mapped():
    values = asdict(entry_of(A_FILE, map_index=3))
    assert from_line(json.dumps(values).encode()).map_index == 3
    del values["map_index"]
    assert from_line(json.dumps(values).encode()).map_index is None


def test_keys_of_a_later_version_are_left_out():
    values = asdict(entry_of(A_FILE)) | {"weather": "fine"}
    assert from_line(json.dumps(values).encode()) == entry_of(A_FILE)


@pytest.mark.parametrize("change", [{"business_date": "soon"}, {"reason": "\ud800"}])
def test_an_entry_that_would_not_read_back_is_not_written(change):
    with pytest.raises(ValueError, match=r"Input|isoformat|JSON"):
        to_lines([entry_of(A_FILE), entry_of(A_FILE, **change)])


def test_the_entry_of_a_quarantined_file_without_a_name_reads_back():
    entry = entry_of(replace(A_FILE, name=b""), sha256=None, uri=None, disposition="quarantined")
    assert from_lines(to_lines([entry])).entries == [entry]


def test_the_ledger_knows_a_file_by_time_and_by_content(lake):
    write(lake, [entry_of(A_FILE)])
    ledger = load(lake, CUSTOMER, [Folder.DCASS], NOW)
    assert ledger.has(A_FILE)
    for change in (
        {"size": 11},
        {"mtime": 1},
        {"mtime": None},
        {"name": b"x"},
        {"folder": Folder.DCASS_OTHERS},
    ):
        assert not ledger.has(replace(A_FILE, **change))
    uri = entry_of(A_FILE).uri
    assert ledger.uri_of_content(replace(A_FILE, mtime=1), "0" * 64) == uri
    assert ledger.uri_of_content(A_FILE, "1" * 64) is None
    assert ledger.owner(uri) == A_FILE.name
    assert ledger.owner(f"{uri}.v2") is None


def test_a_quarantined_file_is_not_in_the_lake(lake):
    write(lake, [entry_of(A_FILE, sha256=None, uri=None, disposition="quarantined", reason="Its name.")])
    ledger = load(lake, CUSTOMER, [Folder.DCASS], NOW)
    assert ledger.quarantined(A_FILE)
    assert not ledger.has(A_FILE)


@pytest.mark.parametrize(
    ("days_later", "known"), [(-11, True), (0, True), (31, True), (32, False), (-12, False)]
)
def test_the_ledger_reads_the_window_of_business_dates_around_today(lake, days_later, known):
    write(lake, [entry_of(A_FILE)])
    now = NOW.add(days=days_later)
    assert load(lake, CUSTOMER, [Folder.DCASS], now).has(A_FILE) is known
    assert load(lake, CUSTOMER, [Folder.DCASS], now, NOW.date()).has(A_FILE)


def test_the_ledger_knows_its_folders_and_customer_only(lake):
    write(lake, [entry_of(A_FILE)])
    assert not load(lake, CUSTOMER, [Folder.DCASS_OTHERS], NOW).has(A_FILE)
    assert not load(lake, "CABC", list(Folder), NOW).has(A_FILE)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff", b"[]", b"[" * 100_000, b'{"schema_version": 2, "entries": []}']
)
def test_an_invalid_manifest_file_is_named_and_left_out(lake, content, caplog):
    write(lake, [entry_of(A_FILE)])
    write(lake, [], content=content, suffix="ffffff")
    with caplog.at_level(logging.WARNING):
        ledger = load(lake, CUSTOMER, [Folder.DCASS], NOW)
    assert ledger.has(A_FILE)
    record, *_ = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "-ffffff-0001.jsonl" in record.getMessage()


def test_credentials_that_expire_while_the_ledger_is_read_are_worth_a_retry(lake, monkeypatch):
    write(lake, [entry_of(A_FILE)])
    answer = type("ClientError", (Exception,), {"response": {"Error": {"Code": "ExpiredToken"}}})()

    def expired(path):
        # As s3fs does.
        raise PermissionError("The provided token has expired.") from answer

    monkeypatch.setattr(lake, "read", expired)
    with pytest.raises(LakeError, match="ExpiredToken") as caught:
        load(lake, CUSTOMER, list(Folder), NOW)
    assert caught.value.retryable


def test_many_manifest_files_are_read(lake):
    files = [replace(A_FILE, name=f"{number}.csv".encode()) for number in range(100)]
    for number, file in enumerate(files):
        write(lake, [entry_of(file)], suffix=f"{number:06x}")
    ledger = load(lake, CUSTOMER, list(Folder), NOW)
    assert all(map(ledger.has, files))
