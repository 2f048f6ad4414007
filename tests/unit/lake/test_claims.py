"""Several runs at once, killed runs, and the cost of the history."""

import asyncio
import contextlib
import logging
import os
import random
import signal
import threading
import unittest.mock
from collections import Counter
from dataclasses import replace
from unittest.mock import AsyncMock

import fsspec
import pytest

from airflow_provider_hkex_rap.lake import begun, reading
from airflow_provider_hkex_rap.lake.catalog import landed_reports
from airflow_provider_hkex_rap.lake.claims import Claims
from airflow_provider_hkex_rap.lake.entries import Entries
from airflow_provider_hkex_rap.lake.entry import Disposition, from_lines, to_lines
from airflow_provider_hkex_rap.lake.layout import manifest_path, marks_directory, run_stamp
from airflow_provider_hkex_rap.lake.ledger import Ledger
from airflow_provider_hkex_rap.lake.manifest import WINDOW_DAYS_BACK
from airflow_provider_hkex_rap.lake.manifest_writer import ManifestWriter
from airflow_provider_hkex_rap.lake.store import Lake
from airflow_provider_hkex_rap.lake.verify import verify
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

MTIME = NOW.int_timestamp - 3600


@pytest.fixture
def rap():
    rap = InMemoryRap()
    for number in range(20):
        rap.put(f"TP{number % 4:03}_202611{16 + number % 5}_{number:03}.csv", b"report %d" % number, MTIME)
    return rap


def entries(lake):
    return [entry for path in manifest_files(lake) for entry in from_lines(lake.read(path)).entries]


def problems(lake, **options):
    return asyncio.run(verify(lake, CUSTOMER, **options)).problems


def landed_entries(lake):
    return Counter(entry.uri for entry in entries(lake) if entry.disposition == Disposition.LANDED)


def killed_before_the_manifest(rap, lake, monkeypatch):
    """Land, and lose every entry, as a run that is killed between commit and manifest."""
    with monkeypatch.context() as patch:
        patch.setattr(ManifestWriter, "_create", lambda writer, batch: None)
        patch.setattr(begun.BegunRuns, "end", AsyncMock())
        run(rap, lake)
    assert not entries(lake)


@pytest.mark.usefixtures("entries_are_awaited")
def test_four_landings_at_once_leave_one_landed_entry_per_file(lake, rap, monkeypatch):
    monkeypatch.setattr(reading, "FILES_IN_FLIGHT", 5)
    monkeypatch.setattr(reading, "BATCH_FILES", 3)

    async def four():
        return await asyncio.gather(*(landing(rap, lake) for _ in range(4)))

    results = asyncio.run(four())
    assert landed_entries(lake) == Counter(lake.uri_of(path) for path in landed(lake))
    assert len(landed(lake)) == sum(result.landed for result in results) == 20
    assert sum(result.already for result in results) == 60
    assert problems(lake) == []


def test_what_another_run_entered_meanwhile_is_not_read(local_lake, rap, monkeypatch):
    monkeypatch.setattr(reading, "FILES_IN_FLIGHT", 1)
    monkeypatch.setattr(reading, "BATCH_FILES", 1)
    others = []

    async def another_run(rap, file):
        rap.faults.clear()
        others.append(await landing(rap, local_lake))
        rap.reads.clear()

    rap.faults[rap.listing()[0].name] = another_run
    result = run(rap, local_lake)
    assert others[0].landed == 20
    assert (result.landed, result.already) == (0, 20)
    # The readings of the manifest run beside the reads, so a few files may still be read.
    assert len(rap.reads) < 10
    assert set(landed_entries(local_lake).values()) == {1}


@pytest.mark.usefixtures("entries_are_awaited")
def test_four_landings_at_once_enter_what_a_killed_run_left_once(local_lake, rap, monkeypatch):
    killed_before_the_manifest(rap, local_lake, monkeypatch)
    for name in list(rap.files)[:5]:
        rap.put(name, b"republished", MTIME + 60)

    async def four():
        return await asyncio.gather(*(landing(rap, local_lake) for _ in range(4)))

    asyncio.run(four())
    assert landed_entries(local_lake) == Counter(local_lake.uri_of(path) for path in landed(local_lake))
    assert len(landed(local_lake)) == 25
    assert problems(local_lake) == []


@pytest.mark.usefixtures("entries_are_awaited")
def test_a_file_whose_entry_comes_late_is_not_adopted(local_lake, rap):
    slow = ManifestWriter._create
    entering = threading.Event()

    def create_late(writer, batch):
        entering.wait(10)
        slow(writer, batch)

    async def both():
        with unittest.mock.patch.object(ManifestWriter, "_create", create_late):
            first = asyncio.create_task(landing(rap, local_lake))
            while len(landed(local_lake)) < 20:
                await asyncio.sleep(0.01)
            second = asyncio.create_task(landing(rap, local_lake))
            await asyncio.sleep(0.1)
            entering.set()
            return await first, await second

    first, second = asyncio.run(both())
    assert (first.landed, second.landed, second.already) == (20, 0, 20)
    assert set(landed_entries(local_lake).values()) == {1}


def test_an_error_of_the_storage_does_not_lose_what_a_killed_run_left(local_lake, rap, monkeypatch):
    killed_before_the_manifest(rap, local_lake, monkeypatch)
    monkeypatch.setattr(begun, "_RUN_HOURS", -1)
    stat = Lake.stat

    def fail_once(lake, relative):
        if relative.endswith("TP000_20261116_000.csv"):
            raise ConnectionResetError("down")
        return stat(lake, relative)

    rap.files.clear()
    with monkeypatch.context() as patch:
        patch.setattr(Lake, "stat", fail_once)
        run(rap, local_lake)
    assert len(problems(local_lake)) == 1
    run(rap, local_lake)
    assert problems(local_lake) == []


def test_killed_before_the_manifest_and_republished_every_content_is_claimed(local_lake, rap, monkeypatch):
    killed_before_the_manifest(rap, local_lake, monkeypatch)
    before = {file.text for file in rap.listing()}
    name = rap.listing()[0].name
    rap.put(name, b"republished", MTIME + 60)
    rap.reads.clear()
    result = run(rap, local_lake)
    assert rap.reads == [name]
    assert (result.landed, result.already) == (20, 0)
    assert problems(local_lake) == []
    assert {entry.text for entry in entries(local_lake)} == before
    first, second = sorted(
        (entry for entry in entries(local_lake) if entry.name == name), key=lambda entry: entry.mtime
    )
    assert (first.mtime, first.size, first.supersedes) == (MTIME, len(b"report 0"), None)
    assert (second.disposition, second.supersedes) == ("landed", first.uri)
    assert first.disposition == "landed"
    assert not run(rap, local_lake).entries


@pytest.mark.parametrize(
    "name",
    [
        b"TP001_20261120.csv",
        b".hidden_20261120.csv",
        b"a?versionId=1.csv",
        b"x" * 251 + b".csv",
        b"R\xe9sum\xe9",
    ],
    ids=lambda name: ascii(name[:20]),
)
def test_every_content_of_any_name_is_claimed_under_its_name_on_rap(local_lake, monkeypatch, name):
    rap = InMemoryRap()
    for number in range(3):
        rap.put(name, b"content %d" % number, MTIME + number)
        killed_before_the_manifest(rap, local_lake, monkeypatch)
    rap.put(name, b"content 3", MTIME + 3)
    rap.reads.clear()
    run(rap, local_lake)
    assert rap.reads == [name]
    assert problems(local_lake) == []
    found = sorted(entries(local_lake), key=lambda entry: entry.mtime)
    assert [(entry.name, entry.mtime) for entry in found] == [(name, MTIME + n) for n in range(4)]
    assert [entry.supersedes for entry in found] == [None, *(entry.uri for entry in found[:-1])]
    assert len({entry.uri for entry in found}) == 4


def test_a_file_of_another_day_or_withdrawn_by_rap_is_claimed_too(lake, monkeypatch):
    rap = InMemoryRap()
    yesterday = NOW.subtract(days=1).int_timestamp
    rap.put("MARGIN.csv", b"of yesterday", yesterday)
    rap.put("WITHDRAWN_20261119.csv", b"sent in error", yesterday)
    killed_before_the_manifest(rap, lake, monkeypatch)
    rap.files.clear()
    rap.put("MARGIN.csv", b"of today", MTIME)
    run(rap, lake)
    has_proof = lake.is_local
    assert problems(lake) == [] or not has_proof
    assert Counter(entry.text for entry in entries(lake)) == (
        {"MARGIN.csv": 2, "WITHDRAWN_20261119.csv": 1} if has_proof else {"MARGIN.csv": 1}
    )
    days = {
        (entry.business_date, entry.business_date_rule)
        for entry in entries(lake)
        if entry.text == "MARGIN.csv"
    }
    assert days >= {("2026-11-20", "mtime")} | ({("2026-11-19", "mtime")} if has_proof else set())
    # RAP has nothing new: the files of a killed run are claimed all the same.
    for path in manifest_files(lake):
        lake.fs.rm(f"{lake.root}/{path}")
    lake.fs.rm(f"{lake.root}/{marks_directory(CUSTOMER, 'DCASS', 'ended')}", recursive=True)
    rap.files.clear()
    assert run(rap, lake).manifests or not has_proof
    assert problems(lake) == [] or not has_proof


def test_a_run_that_has_ended_is_not_looked_at_again(local_lake, rap, monkeypatch):
    killed_before_the_manifest(rap, local_lake, monkeypatch)
    monkeypatch.setattr(begun, "_RUN_HOURS", -1)
    assert run(rap, local_lake).landed == 20
    monkeypatch.setattr(Claims, "claim_left", None)
    assert run(rap, local_lake).already == 20
    assert not marked(local_lake, "begun") - marked(local_lake, "ended")


def marked(lake, kind):
    return {path.rpartition("/")[2] for path in lake.walk(marks_directory(CUSTOMER, "DCASS", kind))}


def test_each_claimed_file_has_one_outcome_however_few_are_read_at_once(local_lake, rap, monkeypatch):
    killed_before_the_manifest(rap, local_lake, monkeypatch)
    monkeypatch.setattr(reading, "FILES_IN_FLIGHT", 1)
    result = run(rap, local_lake)
    assert (result.landed, result.already, len(result.outcomes)) == (20, 0, 20)


def test_a_spoiled_mark_hides_no_file(local_lake, rap, monkeypatch, caplog):
    killed_before_the_manifest(rap, local_lake, monkeypatch)
    (mark,) = local_lake.walk(marks_directory(CUSTOMER, "DCASS", "begun"))
    for content in (b"{", b'{"directories":[1]}', b'{"directories":{"x":["TP000","soon","name"]}}', b"{}"):
        local_lake.fs.pipe_file(f"{local_lake.root}/{mark}", content)
        caplog.clear()
        run(InMemoryRap(), local_lake)
        assert "Ignoring the mark" in caplog.text
    assert run(rap, local_lake).landed == 20
    assert problems(local_lake) == []


def test_a_content_that_came_back_is_current_again_and_nothing_is_read(lake, monkeypatch):
    rap = InMemoryRap()
    rap.put("TP001_20261120.csv", b"one", MTIME)
    run(rap, lake)
    rap.put("TP001_20261120.csv", b"two", MTIME + 60)
    run(rap, lake)
    rap.reads.clear()
    rap.put("TP001_20261120.csv", b"one", MTIME)
    (entry,) = run(rap, lake).entries
    first, second = (lake.uri_of(path) for path in sorted(landed(lake)))
    assert (entry.disposition, entry.uri, entry.supersedes) == ("already", first, second)
    assert not rap.reads
    assert not run(rap, lake).entries
    (current,) = landed_reports(f"{lake.uri}", CUSTOMER) if lake.is_local else [entry]
    assert current.uri == first


def test_a_content_that_came_back_without_a_time_is_current_again(lake):
    rap = InMemoryRap()
    for content in (b"one", b"two", b"one"):
        rap.put("TP001_20261120.csv", content, MTIME)
        rap.lists_attributes = False
        result = run(rap, lake)
    (entry,) = result.entries
    assert (entry.disposition, entry.uri) == ("already", lake.uri_of(min(landed(lake))))
    assert entry.committed
    assert not run(rap, lake).entries


def test_a_file_of_rap_with_the_name_of_a_version_is_superseded_by_nothing_else(lake, monkeypatch):
    rap = InMemoryRap()
    rap.put("TP001_20261120.csv", b"one", MTIME)
    run(rap, lake)
    rap.put("TP001_20261120.csv", b"two", MTIME + 60)
    rap.put("TP001_20261120.v2.csv", b"of its own", MTIME + 1)
    # The entry of the other file is written later.
    monkeypatch.setattr(Entries, "add_landed", delayed(Entries.add_landed))
    run(rap, lake)
    by_uri = {entry.uri: entry for entry in entries(lake)}
    assert {e.text: by_uri[e.supersedes].text for e in by_uri.values() if e.supersedes} == {
        "TP001_20261120.csv": "TP001_20261120.csv"
    }


def delayed(add_landed):
    """Return a method after which the ledger does not yet have the file with the name of a version."""

    def add(entries, target, *arguments):
        if not target.file.text.endswith(".v2.csv"):
            return add_landed(entries, target, *arguments)
        ledger, entries.ledger = entries.ledger, Ledger(CUSTOMER)
        added = add_landed(entries, target, *arguments)
        entries.ledger = ledger
        return added

    return add


def test_a_file_that_did_not_come_from_rap_is_not_claimed(local_lake, rap):
    run(rap, local_lake)
    path = sorted(landed(local_lake))[0].rpartition("/")[0] + "/notes.txt"
    local_lake.fs.pipe_file(f"{local_lake.root}/{path}", b"x")
    rap.put(rap.listing()[0].name, b"republished", MTIME + 60)
    for file in rap.listing():
        rap.put(file.name, b"all again", MTIME + 120)
    run(rap, local_lake)
    assert [problem.uri for problem in problems(local_lake)] == [local_lake.uri_of(path)]


def kill_after(calls):
    """Kill this process at its n-th call that opens or links a file."""
    left = [calls]

    def dying(call):
        def die(*arguments, **options):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        return die

    for name in ("open", "link"):
        setattr(os, name, dying(getattr(os, name)))


def test_random_kills_and_republishing_leave_nothing_unclaimed(tmp_path):
    """Fault 24: SIGKILL at any moment; whatever was committed gets an entry in the next run that ends."""
    chance = random.Random(9)
    lake = Lake(fsspec.filesystem("file"), str(tmp_path / "lake"))
    rap = InMemoryRap()
    mtime = MTIME - 100_000
    killed = 0
    for number in range(60):
        for _ in range(3):
            mtime += 1
            name = f"TP{chance.randrange(5):03}_20261120.csv"
            rap.put(name, b"content %d" % chance.randrange(1000), mtime)
        child = os.fork()
        if not child:
            with contextlib.suppress(BaseException):
                logging.disable()
                kill_after(chance.randrange(1, 40))
                run(rap, lake)
            os._exit(0)
        killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        if number % 5 == 4:
            run(rap, lake)
            assert problems(lake) == []
            assert_holds_once(lake, rap)
            assert set(landed_entries(lake).values()) <= {1}
            superseded = {entry.supersedes for entry in entries(lake)}
            current = Counter(
                e.name for e in {e.uri: e for e in entries(lake)}.values() if e.uri not in superseded
            )
            assert set(current.values()) == {1}, current
    assert killed > 20


def test_another_naming_lands_nothing_twice(lake, rap):
    run(rap, lake)
    rap.reads.clear()
    for naming in (Naming(r"(?P<report>T)P"), Naming(r"_(?P<report>\d+)\.csv")):
        result = run(rap, lake, naming=naming)
        assert (result.landed, result.already, len(rap.reads)) == (0, 20, 0)


def test_only_the_same_rap_name_is_superseded(local_lake, rap, monkeypatch):
    rap.files.clear()
    rap.put("TP001_20261120.csv", b"one", MTIME)
    run(rap, local_lake)
    rap.put("TP002_20261120.csv", b"another", MTIME + 1)
    rap.put("TP001_20261120.csv", b"two", MTIME + 2)
    run(rap, local_lake, naming=Naming(r"(?P<report>TP)"))
    by_uri = {entry.uri: entry for entry in entries(local_lake)}
    superseded = {entry.text: by_uri[entry.supersedes].text for entry in by_uri.values() if entry.supersedes}
    assert superseded == {"TP001_20261120.csv": "TP001_20261120.csv"}


def test_a_file_that_is_listed_for_years_is_entered_once(lake):
    rap = InMemoryRap()
    rap.put("OLD_20241120.csv", b"old", NOW.subtract(years=2).int_timestamp)
    assert run(rap, lake).landed == 1
    rap.reads.clear()
    assert (run(rap, lake).already, rap.reads, len(entries(lake))) == (1, [], 1)


def test_a_lost_answer_to_a_manifest_write_enters_nothing_twice(lake, rap, monkeypatch):
    create = Lake.create

    def lose(lake, relative, content):
        create(lake, relative, content)
        raise ConnectionResetError("lost")

    monkeypatch.setattr(Lake, "create", lose)
    assert run(rap, lake).landed == 20
    assert len(entries(lake)) == 20


def test_an_answer_that_stays_lost_until_the_retry_enters_nothing_twice(lake, rap, monkeypatch):
    create, read = Lake.create, Lake.read
    lost = set()

    def lose(lake, relative, content):
        create(lake, relative, content)
        if relative.endswith(".jsonl"):
            lost.add(relative)
            raise ConnectionResetError("lost")

    def fail_once(lake, relative):
        if relative in lost:
            lost.discard(relative)
            raise ConnectionResetError("still down")
        return read(lake, relative)

    monkeypatch.setattr(Lake, "create", lose)
    monkeypatch.setattr(Lake, "read", fail_once)
    assert run(rap, lake).landed == 20
    monkeypatch.undo()
    assert len(entries(lake)) == 20


class CountingLake(Lake):
    """Count the storage calls, and the files that are read."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.calls = Counter()


for _name in ("names", "list_directory", "walk", "read", "stat", "proven", "measure"):

    def _counted(lake, *arguments, _name=_name):
        lake.calls[_name] += 1
        return getattr(Lake, _name)(lake, *arguments)

    setattr(CountingLake, _name, _counted)


def test_a_year_of_history_costs_what_a_month_does(tmp_path, rap):
    calls = []
    for days in (WINDOW_DAYS_BACK + 1, 365):
        lake = CountingLake(fsspec.filesystem("file"), str(tmp_path / f"lake-{days}"))
        run(rap, lake)
        template = entries(lake)[0]
        for ago in range(days):
            day = NOW.date().subtract(days=ago).isoformat()
            entry = replace(template, business_date=day, rap_path=f"/download/DCASS/old-{day}")
            run_ago = run_stamp(NOW.subtract(days=ago), "abcdef")
            lake.create(manifest_path(CUSTOMER, "DCASS", day, run_ago, 1), to_lines([entry]))
        lake.calls.clear()
        assert run(rap, lake).already == 20
        of_run = dict(lake.calls)
        lake.calls.clear()
        since = NOW.date().subtract(days=5)
        assert problems(lake, since=since, today=NOW.date()) == []
        calls.append((of_run, dict(lake.calls)))
    assert calls[0] == calls[1]
