"""Landing: the outcome of each file if files, session, disk or process fail."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import tracemalloc
from collections import Counter

import pytest

from airflow_provider_hkex_rap.lake import manifest_writer, reading
from airflow_provider_hkex_rap.lake.committing import BYTES_IN_FLIGHT
from airflow_provider_hkex_rap.lake.entries import Entries
from airflow_provider_hkex_rap.lake.entry import Disposition, from_lines
from airflow_provider_hkex_rap.lake.landing import Landing, LandingProgress
from airflow_provider_hkex_rap.lake.layout import MANIFESTS, REPORTS, manifest_directory, report_directory
from airflow_provider_hkex_rap.lake.ledger import Ledger
from airflow_provider_hkex_rap.lake.outcomes import Outcomes
from airflow_provider_hkex_rap.lake.planning import plan
from airflow_provider_hkex_rap.lake.reading import FILES_IN_FLIGHT
from airflow_provider_hkex_rap.lake.store import Lake
from airflow_provider_hkex_rap.lake.verify import verify as find_problems
from airflow_provider_hkex_rap.rap.errors import (
    LakeConflict,
    RapPermissionDenied,
    RapSessionSuperseded,
    RapTransferError,
)
from airflow_provider_hkex_rap.rap.files import Attributes, Kind, ReadEnd, RemoteFile
from airflow_provider_hkex_rap.rap.folders import Folder
from airflow_provider_hkex_rap.rap.report_name import Naming

from ...in_memory_rap import (
    CUSTOMER,
    NOW,
    InMemoryRap,
    assert_holds_once,
    landed,
    landing,
    manifest_files,
    run,
)
from .limits import file_size_limit

MTIME = NOW.int_timestamp - 3600


@pytest.fixture
def rap():
    rap = InMemoryRap()
    for number in range(5):
        rap.put(f"TP00{number}_20261120.csv", b"report %d" % number, MTIME - number)
    return rap


def directory(report):
    return report_directory(CUSTOMER, "DCASS", report, "2026-11-20")


def path(name):
    return f"{directory(Naming().read(name, MTIME, NOW).report)}/{name}"


def entries(lake):
    paths = lake.walk(f"{MANIFESTS}/{CUSTOMER}/DCASS")
    return [entry for path in paths for entry in from_lines(lake.read(path)).entries]


def verify(lake, customer):
    return asyncio.run(find_problems(lake, customer)).problems


def counts(result):
    return result.landed, result.already, result.deferred, result.quarantined, result.failed


def failing(error):
    async def fault(rap, file):
        raise error

    return fault


def meanwhile(change):
    async def fault(rap, file):
        return change(rap, file)

    return fault


# Without faults


def test_every_file_lands_once_and_the_manifest_proves_it(lake, rap):
    rap.put("empty_20261120.csv", b"")
    rap.put("large_20261120.bin", os.urandom(3_000_000))
    result = run(rap, lake)
    assert counts(result) == (7, 0, 0, 0, 0)
    assert result.bytes == sum(len(content) for content, _ in rap.files.values())
    assert landed(lake) == {path(name.decode()): content for name, (content, _) in rap.files.items()}
    assert verify(lake, CUSTOMER) == []
    assert sorted(result.entries, key=lambda e: e.rap_path) == sorted(entries(lake), key=lambda e: e.rap_path)
    assert all(
        uri.startswith(f"{lake.uri}/{manifest_directory(CUSTOMER, 'DCASS', '2026-11-20')}/")
        for uri in result.manifests
    )
    entry = next(entry for entry in result.entries if entry.text == "TP003_20261120.csv")
    assert (entry.uri, entry.report, entry.business_date_rule) == (
        lake.uri_of(path("TP003_20261120.csv")),
        "TP003",
        "name",
    )
    assert (entry.mtime, entry.account, entry.dag, entry.disposition) == (
        MTIME - 3,
        "DCXYZ001",
        "daily",
        "landed",
    )


def test_a_second_run_reads_nothing_and_writes_nothing(lake, rap):
    run(rap, lake)
    rap.reads.clear()
    result = run(rap, lake)
    assert counts(result) == (0, 5, 0, 0, 0)
    assert not rap.reads
    assert not result.manifests


def test_the_oldest_come_first(rap):
    rap.put("no time", b"x", 0)
    todo = plan(rap.listing(), Ledger(CUSTOMER), Naming(), NOW).todo
    assert [file.text[:5] for file in todo] == ["no ti", "TP004", "TP003", "TP002", "TP001", "TP000"]


def test_progress_is_reported_as_files_finish(lake, rap):
    reported = []
    run(rap, lake, progress=reported.append)
    assert [progress.files for progress in reported] == [1, 2, 3, 4, 5]
    assert reported[-1] == LandingProgress(5, 5, 40, 40)


def test_a_progress_that_fails_keeps_no_file_from_its_entry(lake, rap):
    run(rap, lake, progress=lambda progress: 1 / 0)
    assert len(entries(lake)) == 5


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"include": ["TP00[12]*"]}, "12"),
        ({"include": ["tp*"]}, ""),
        ({"exclude": ["*0_*", "*4_*"]}, "123"),
        ({"business_date": NOW.date()}, "01234"),
        ({"business_date": NOW.date().subtract(days=1)}, ""),
    ],
)
def test_a_plan_keeps_to_include_exclude_and_business_date(rap, options, names):
    todo = plan(rap.listing(), Ledger(CUSTOMER), Naming(), NOW, **options).todo
    assert sorted(file.text[4] for file in todo) == list(names)


def test_files_of_several_days_have_manifests_of_several_days(lake, rap):
    rap.put("TP001_20261119.csv", b"yesterday's")
    rap.put("TP001_20261123.csv", b"tomorrow's")
    result = run(rap, lake)
    assert len(result.manifests) == 3
    assert verify(lake, CUSTOMER) == []


def test_entries_are_written_while_files_land(local_lake, rap, monkeypatch):
    monkeypatch.setattr(manifest_writer, "BATCH_FILES", 2)
    assert len(run(rap, local_lake).manifests) == 3
    assert len(entries(local_lake)) == 5


def test_entries_do_not_wait_for_a_file_that_takes_long(local_lake, rap, monkeypatch):
    monkeypatch.setattr(manifest_writer, "BATCH_SECONDS", 0.01)

    async def until_the_others_are_entered(rap, file):
        async with asyncio.timeout(10):
            while len(entries(local_lake)) < 4:
                await asyncio.sleep(0.01)

    rap.faults[b"TP004_20261120.csv"] = until_the_others_are_entered
    assert counts(run(rap, local_lake)) == (5, 0, 0, 0, 0)


# Names


def test_bad_names_are_quarantined_once_and_the_rest_lands(lake, rap):
    for name in (b"../x", b"/abs", b"a\\b", b"a\0b"):
        rap.others.append(RemoteFile(Folder.DCASS, name, 1, MTIME))
    rap.others.append(RemoteFile(Folder.DCASS, b"link", 1, MTIME, Kind.SYMLINK))
    rap.others.append(RemoteFile(Folder.DCASS, b"sub", 1, MTIME, Kind.DIRECTORY))
    assert counts(run(rap, lake)) == (5, 0, 0, 6, 0)
    assert len(landed(lake)) == 5
    quarantined = [entry for entry in entries(lake) if entry.disposition == "quarantined"]
    assert {entry.name for entry in quarantined} == {file.name for file in rap.others}
    assert all(entry.reason and entry.uri is None for entry in quarantined)
    again = run(rap, lake)
    assert counts(again) == (0, 5, 0, 6, 0)
    assert not again.entries
    assert verify(lake, CUSTOMER) == []


def test_names_that_are_not_utf8_or_differ_in_normalisation_all_land(lake):
    rap = InMemoryRap()
    names = [b"caf\xe9.txt", b"caf%E9.txt", "café.txt".encode(), "cafe\u0301.txt".encode()]
    for number, name in enumerate(names):
        rap.put(name, b"report %d" % number)
    assert counts(run(rap, lake)) == (4, 0, 0, 0, 0)
    assert sorted(landed(lake).values()) == [b"report 0", b"report 1", b"report 2", b"report 3"]
    assert counts(run(rap, lake)) == (0, 4, 0, 0, 0)


def test_a_file_is_not_adopted_from_another_that_shows_as_the_same_name(local_lake):
    rap = InMemoryRap()
    rap.put(b"caf%E9.txt", b"report 1")
    run(rap, local_lake)
    rap.put(b"caf\xe9.txt", b"report 2")
    run(rap, local_lake)
    assert sorted(landed(local_lake).values()) == [b"report 1", b"report 2"]


# Contents


def test_new_content_becomes_a_version_that_says_what_it_supersedes(lake, rap):
    run(rap, lake)
    for content in (b"second", b"third"):
        rap.put("TP001_20261120.csv", content, MTIME + len(content))
        assert counts(run(rap, lake)) == (1, 4, 0, 0, 0)
    first, second, third = (
        lake.uri_of(path(f"TP001_20261120{version}.csv")) for version in ("", ".v2", ".v3")
    )
    supersedes = {e.uri: e.supersedes for e in entries(lake) if e.text == "TP001_20261120.csv"}
    assert supersedes == {first: None, second: first, third: second}
    assert_holds_once(lake, rap)


def test_a_file_of_rap_that_is_named_like_a_version_is_superseded_by_none_but_its_own(lake, rap):
    rap.put("TP009_20261120", b"first")
    rap.put("TP009_20261120.v2", b"a file of its own")
    run(rap, lake)
    rap.put("TP009_20261120", b"second", MTIME + 1)
    rap.put("TP009_20261120.v2", b"second of its own", MTIME + 1)
    run(rap, lake)
    uri = lake.uri_of(path("TP009_20261120"))
    supersedes = {e.uri: e.supersedes for e in entries(lake) if e.text.startswith("TP009")}
    assert supersedes == {
        uri: None,
        f"{uri}.v2": None,
        f"{uri}.v3": uri,
        f"{uri}.v2.v2": f"{uri}.v2",
    }


def test_the_same_content_at_another_time_is_noted_and_not_read_again(lake, rap):
    run(rap, lake)
    # After a switch of sites, the same files have other mtimes, here of another day.
    for name, (content, mtime) in rap.files.items():
        rap.files[name] = content, mtime + 100_000
    assert counts(run(rap, lake)) == (0, 5, 0, 0, 0)
    assert len(landed(lake)) == 5
    rap.reads.clear()
    assert not run(rap, lake).entries
    assert not rap.reads


def test_a_new_naming_lands_nothing_twice(lake, rap):
    run(rap, lake)
    result = run(rap, lake, naming=Naming(r"(?P<report>TP)00(?P<date>\d{8})?"))
    assert counts(result) == (0, 5, 0, 0, 0)


@pytest.mark.usefixtures("entries_are_awaited")
def test_accounts_of_one_customer_share_the_lake(lake, rap):
    async def both():
        return await asyncio.gather(*(landing(rap, lake) for _ in range(4)))

    results = asyncio.run(both())
    assert sum(result.landed for result in results) == 5
    assert sum(result.already for result in results) == 15
    assert sorted(e.text for e in entries(lake) if e.disposition == "landed") == sorted(
        name.decode() for name in rap.files
    )
    assert_holds_once(lake, rap)
    assert verify(lake, CUSTOMER) == []


# Files that change, fail, or lack attributes


@pytest.mark.parametrize(
    "change",
    [
        lambda rap, file: rap.put(file.name, b"grown beyond what was listed", MTIME),
        lambda rap, file: rap.put(file.name, rap.files[file.name][0], MTIME + 1),
        lambda rap, file: rap.put(file.name, b"Report 1", MTIME + 1),
        lambda rap, file: Attributes(9, None),
    ],
)
def test_a_file_that_changes_while_it_is_read_is_deferred(lake, rap, change):
    rap.faults[b"TP001_20261120.csv"] = meanwhile(change)
    result = run(rap, lake)
    assert counts(result) == (4, 0, 1, 0, 0)
    (outcome,) = [o for o in result.outcomes if o.disposition is Disposition.DEFERRED]
    assert outcome.file.text == "TP001_20261120.csv"
    assert outcome.reason
    rap.faults.clear()
    assert counts(run(rap, lake)) == (1, 4, 0, 0, 0)
    assert_holds_once(lake, rap)


def test_a_file_that_ends_early_is_deferred(lake, rap):
    listing = rap.listing()
    rap.put("TP001_20261120.csv", b"rep", MTIME - 1)
    assert counts(run(rap, lake, files=listing)) == (4, 0, 1, 0, 0)


@pytest.mark.parametrize("error", [RapTransferError("It broke."), RapPermissionDenied("It is denied.")])
def test_a_file_that_cannot_be_read_holds_up_no_other(lake, rap, error):
    rap.faults[b"TP001_20261120.csv"] = failing(error)
    result = run(rap, lake)
    assert counts(result) == (4, 0, 0, 0, 1)
    (outcome,) = [o for o in result.outcomes if o.disposition is Disposition.FAILED]
    assert (outcome.file.text, outcome.reason) == ("TP001_20261120.csv", str(error))


def test_without_attributes_in_the_listing_those_after_the_read_count(lake, rap):
    rap.lists_attributes = False
    assert counts(run(rap, lake)) == (5, 0, 0, 0, 0)
    assert {(entry.size, entry.mtime) for entry in entries(lake)} == {(8, MTIME - n) for n in range(5)}
    rap.lists_attributes = True
    assert counts(run(rap, lake)) == (0, 5, 0, 0, 0)
    rap.lists_attributes = False
    # Without a listed mtime they are read again, and their bytes are recognised.
    assert not run(rap, lake).entries


def test_if_rap_never_sends_an_mtime_the_entry_has_none(lake, rap):
    rap.lists_attributes = False
    for name in rap.files:
        rap.faults[name] = meanwhile(lambda rap, file: Attributes(None, None))
    assert counts(run(rap, lake)) == (5, 0, 0, 0, 0)
    assert {(entry.size, entry.mtime) for entry in entries(lake)} == {(8, None)}


# Session, disk or process ends


def test_when_the_session_ends_the_landed_files_are_entered_and_reported(lake, rap):
    rap.faults[b"TP000_20261120.csv"] = failing(RapSessionSuperseded("Thrown out."))
    landings = []
    with pytest.raises(RapSessionSuperseded):
        run(rap, lake, into=landings)
    done = landings[0].result
    assert len(entries(lake)) == len(landed(lake)) == done.landed
    assert verify(lake, CUSTOMER) == []
    rap.faults.clear()
    rap.reads.clear()
    assert counts(run(rap, lake)) == (5 - done.landed, done.landed, 0, 0, 0)
    assert len(rap.reads) == 5 - done.landed


def test_entries_that_cannot_be_written_do_not_hide_the_end_of_the_session(local_lake, rap, monkeypatch):
    def refuse(lake, relative, content):
        if relative.endswith(".jsonl"):
            raise OSError("The lake is full.")

    monkeypatch.setattr(Lake, "create", refuse)
    rap.faults[b"TP000_20261120.csv"] = failing(RapSessionSuperseded("Thrown out."))
    landings = []
    with pytest.raises(RapSessionSuperseded) as caught:
        run(rap, local_lake, into=landings)
    (note,) = caught.value.__notes__
    assert note.startswith("Later: LakeConflict: ")
    assert "The lake is full." in note
    assert landings[0].result.landed == len(landed(local_lake)) > 0


@pytest.mark.parametrize("size", [10, BYTES_IN_FLIGHT // 2])
def test_an_error_of_the_package_in_a_commit_is_raised_and_does_not_hang_the_reading(
    lake, rap, monkeypatch, size
):
    def fail(entries, target, landed, downloaded, reason):
        raise ZeroDivisionError

    monkeypatch.setattr(Entries, "add_landed", fail)
    rap.files.clear()
    for number in range(5):
        rap.put(f"TP00{number}_20261120.csv", bytes([number]) * size)
    with pytest.raises(ZeroDivisionError):
        run(rap, lake)
    assert len(rap.reads) == 5


def test_a_planned_file_without_an_outcome_fails_the_task(lake, rap, monkeypatch):
    add = Outcomes.add

    def lose_one(outcomes, file, disposition, reason=""):
        if file.text != "TP002_20261120.csv":
            add(outcomes, file, disposition, reason)

    monkeypatch.setattr(Outcomes, "add", lose_one)
    with pytest.raises(RapTransferError) as caught:
        run(rap, lake)
    assert caught.value.path == "/download/DCASS/TP002_20261120.csv"
    assert "/download/DCASS/TP002_20261120.csv" in str(caught.value)


def test_a_cancelled_landing_enters_the_landed_files_and_leaves_no_spool(local_lake, rap):
    rap.put("large_20261120.bin", bytes(2_000_000), MTIME)

    async def cancel():
        reading = asyncio.Event()

        async def never(rap, file):
            reading.set()
            await asyncio.Event().wait()

        rap.faults[b"large_20261120.bin"] = never
        landings = []
        task = asyncio.create_task(landing(rap, local_lake, into=landings))
        await reading.wait()
        assert any(name.startswith(".rap-") for name in os.listdir(local_lake.root))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return landings[0].result

    done = asyncio.run(cancel())
    assert len(entries(local_lake)) == len(landed(local_lake)) == done.landed
    assert set(os.listdir(local_lake.root)) <= {MANIFESTS, REPORTS}
    rap.faults.clear()
    assert run(rap, local_lake).landed == 6 - done.landed


@pytest.mark.parametrize("size", [500_000, 3_000_000])
def test_a_full_disk_fails_the_files_that_do_not_fit(local_lake, rap, size):
    rap.put("big_20261120.bin", os.urandom(size))
    with file_size_limit(200_000):
        result = run(rap, local_lake)
    assert counts(result) == (5, 0, 0, 0, 1)
    (outcome,) = [o for o in result.outcomes if o.disposition is Disposition.FAILED]
    assert "File too large" in outcome.reason
    assert len(landed(local_lake)) == 5
    assert counts(run(rap, local_lake)) == (1, 5, 0, 0, 0)
    assert verify(local_lake, CUSTOMER) == []


def test_a_file_that_the_lake_refuses_is_logged_on_one_line(caplog):
    file = RemoteFile(Folder.DCASS, "TP\u2028\u202e001.csv".encode(), 1, MTIME)
    Outcomes(None).add_refused(file, f"s3://bucket/{file.text}", OSError(f"no {file.text}"))
    (record,) = caplog.records
    assert record.getMessage().startswith(r"s3://bucket/TP\u2028\u202e001.csv did not land.")
    assert record.getMessage().isprintable()


def test_if_a_directory_of_the_lake_cannot_be_listed_its_files_fail(local_lake, monkeypatch):
    names = Lake.names

    def some_names(lake, directory):
        if directory.endswith("2026-11-18"):
            raise PermissionError("not yours")
        return names(lake, directory)

    monkeypatch.setattr(Lake, "names", some_names)
    rap = InMemoryRap()
    rap.put("today.csv", b"x")
    rap.put("listed_20261118.csv", b"x")
    assert counts(run(rap, local_lake)) == (1, 0, 0, 0, 1)
    rap.files.clear()
    rap.lists_attributes = False
    rap.put("new.csv", b"x")
    # The mtime that RAP sends after the read moves these to another business date.
    for number in range(10):
        rap.put(f"before{number}.csv", bytes(BYTES_IN_FLIGHT // 4), NOW.subtract(days=2).int_timestamp)
    result = run(rap, local_lake)
    assert counts(result) == (1, 0, 0, 0, 10)
    assert {o.reason for o in result.outcomes if o.reason} == {
        "The lake refused the file: PermissionError not yours."
    }
    monkeypatch.undo()
    assert counts(run(rap, local_lake))[0] == 10


def test_a_file_in_the_lake_that_cannot_be_looked_at_holds_up_no_other(local_lake, rap, monkeypatch):
    run(rap, local_lake)
    local_lake.fs.rm(f"{local_lake.root}/{MANIFESTS}", recursive=True)
    stat = Lake.stat

    def stat_some(lake, relative):
        if "/TP001" in relative:
            raise PermissionError("not yours")
        return stat(lake, relative)

    with monkeypatch.context() as patch:
        patch.setattr(Lake, "stat", stat_some)
        assert counts(run(rap, local_lake)) == (4, 0, 0, 0, 1)
    assert counts(run(rap, local_lake)) == (1, 4, 0, 0, 0)


def test_a_manifest_that_cannot_be_written_is_a_conflict_and_the_next_run_adopts_the_files(local_lake, rap):
    landings = []
    with file_size_limit(1000), pytest.raises(LakeConflict, match="File too large"):
        run(rap, local_lake, into=landings)
    assert landings[0].result.landed == 5
    assert not entries(local_lake)
    rap.reads.clear()
    assert counts(run(rap, local_lake)) == (5, 0, 0, 0, 0)
    assert not rap.reads
    assert verify(local_lake, CUSTOMER) == []


def test_a_lost_manifest_is_written_again_without_a_download(local_lake, rap):
    run(rap, local_lake)
    rap.put("TP001_20261120.csv", b"second", MTIME + 9)
    run(rap, local_lake)
    local_lake.fs.rm(f"{local_lake.root}/{MANIFESTS}", recursive=True)
    rap.reads.clear()
    assert counts(run(rap, local_lake)) == (5, 0, 0, 0, 0)
    assert not rap.reads
    adopted = {entry.text: entry for entry in sorted(entries(local_lake), key=lambda e: e.uri)}
    assert all(entry.reason and entry.downloaded is None for entry in adopted.values())
    assert adopted["TP001_20261120.csv"].uri.endswith(".v2.csv")
    assert adopted["TP001_20261120.csv"].supersedes.endswith("TP001_20261120.csv")


def test_a_lost_manifest_of_a_lake_without_proof_costs_a_download_and_no_second_copy(rap):
    import fsspec

    lake = Lake(fsspec.filesystem("memory"), "/without-proof")
    run(rap, lake)
    lake.fs.rm(f"{lake.root}/{MANIFESTS}", recursive=True)
    rap.reads.clear()
    assert counts(run(rap, lake)) == (5, 0, 0, 0, 0)
    assert len(rap.reads) == 5
    assert_holds_once(lake, rap)


STEPS = ("open", "write", "utime", "fsync", "link", "unlink", "close", "mkdir", "rmdir")


def _kill_at(step):
    """Kill this process at its n-th system call that touches the disk, before or after it."""
    count = 0

    def dying(call):
        def die(*args, **kwargs):
            nonlocal count
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*args, **kwargs)
            if count == step - 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return die

    for name in STEPS:
        setattr(os, name, dying(getattr(os, name)))


def test_killed_at_any_step_a_rerun_converges(tmp_path):
    import fsspec

    killed = Counter()
    for step in range(1, 200, 3):
        lake = Lake(fsspec.filesystem("file"), str(tmp_path / f"lake-{step}"))
        rap = InMemoryRap()
        for number in range(3):
            rap.put(f"TP00{number}_20261120.csv", b"report %d" % number)
        rap.put("large_20261120.bin", bytes(range(256)) * 5000)
        child = os.fork()
        if not child:
            with contextlib.suppress(BaseException):
                logging.disable()
                _kill_at(step)
                run(rap, lake)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        survived = not os.WIFSIGNALED(status)
        killed[survived] += 1
        whole = {os.path.basename(path).encode() for path in landed(lake)}
        for name in whole:
            assert lake.measure(path(name.decode()))[0] == len(rap.files[name][0])
        result = run(rap, lake)
        assert result.landed + result.already == 4
        assert not whole & set(rap.reads)
        assert sorted(landed(lake).values()) == sorted(content for content, _ in rap.files.values())
        assert counts(run(rap, lake)) == (0, 4, 0, 0, 0)
        assert verify(lake, CUSTOMER) == []
        if survived:
            break
    assert killed[False] > 10
    assert killed[True] == 1


# Bounds


def test_a_large_file_is_not_held_in_memory(local_lake):
    class Large(InMemoryRap):
        async def read(self, file, write):
            chunk = bytes(2**18)
            for _ in range(file.size // len(chunk)):
                write(chunk)
            return ReadEnd(Attributes(file.size, file.mtime))

    size = 3 * BYTES_IN_FLIGHT
    listing = [RemoteFile(Folder.DCASS, b"large_20261120.bin", size, MTIME)]
    tracemalloc.start()
    try:
        result = run(Large(), local_lake, files=listing)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert result.bytes == size
    assert peak < 8 * 2**20


def test_files_in_flight_are_bounded(local_lake, monkeypatch):
    monkeypatch.setattr(reading, "BATCH_FILES", 10_000)

    class Counting(InMemoryRap):
        now = most = 0
        full = asyncio.Event()

        async def read(self, file, write):
            self.now += 1
            self.most = max(self.most, self.now)
            if self.most >= FILES_IN_FLIGHT:
                self.full.set()
            try:
                # Each file is in a directory of its own, so they do not start together.
                await asyncio.wait_for(self.full.wait(), 20)
                return await super().read(file, write)
            finally:
                self.now -= 1

    rap = Counting()
    files = FILES_IN_FLIGHT + 100
    for number in range(files):
        rap.put(f"TP001_20261120_{number}.csv", b"x")
    assert run(rap, local_lake).landed == files
    assert rap.most == FILES_IN_FLIGHT


def test_a_listing_of_many_is_planned_in_linear_time():
    ledger = Ledger(CUSTOMER)
    files = [RemoteFile(Folder.DCASS, b"%d_20261120.csv" % number, 1, MTIME) for number in range(100_000)]
    assert len(plan(files, ledger, Naming(), NOW).todo) == 100_000


# Verify


def test_verify_names_each_problem(lake, rap):
    run(rap, lake)
    paths = sorted(landed(lake))
    lake.fs.rm(f"{lake.root}/{paths[0]}")
    lake.fs.pipe_file(f"{lake.root}/{paths[1]}", b"Report 1")
    lake.fs.pipe_file(f"{lake.root}/{directory('TP001')}/stranger", b"x")
    (manifest,) = manifest_files(lake)
    lake.fs.pipe_file(f"{lake.root}/{manifest.replace('-0001', '-0002')}", b"{")
    found = {problem.uri.rpartition("/")[2]: problem.what for problem in verify(lake, CUSTOMER)}
    assert found.pop(os.path.basename(manifest).replace("-0001", "-0002")).startswith("The manifest file")
    assert found.pop("stranger") == "It has no manifest entry."
    assert found.pop("TP000_20261120.csv") == "It is missing."
    assert "SHA-256" in found.pop("TP001_20261120.csv")
    assert not found


def test_verify_compares_a_version_with_its_own_entry(lake, rap):
    run(rap, lake)
    rap.put("TP001_20261120.csv", b"second", MTIME + 1)
    run(rap, lake)
    assert verify(lake, CUSTOMER) == []
    moved = Lake(lake.fs, lake.root, "s3://elsewhere/lake")
    assert verify(moved, CUSTOMER) == []


# Memory


def test_a_landed_file_takes_little_memory_until_the_run_ends(local_lake):
    def land(day: str, files: int) -> Landing:
        rap = InMemoryRap()
        for number in range(files):
            rap.put(f"TP001_{day}_{number:04}.csv", f"{day} {number}".encode(), MTIME + number)
        into: list[Landing] = []
        assert asyncio.run(landing(rap, local_lake, into=into)).landed == files
        return into[0]

    land("20261119", 10)
    tracemalloc.start()
    try:
        kept = land("20261120", 1_000)
        gc.collect()
        assert kept.result.landed == 1_000
        # The listed file, its name, its entry, and an index of the entries; an entry alone has 800 bytes.
        per_file = tracemalloc.get_traced_memory()[0] / 1_000
        assert per_file < 1_800
    finally:
        tracemalloc.stop()
