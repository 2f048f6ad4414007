"""A cancelled task: no storage call starts any more, and the committed files have their entries."""

import asyncio
import contextlib
import functools
import itertools
import os
import threading
from pathlib import Path

import fsspec
import pytest

from airflow_provider_hkex_rap.lake import local_files
from airflow_provider_hkex_rap.lake.entry import from_lines
from airflow_provider_hkex_rap.lake.landing import LOCAL_COMMIT_THREADS, Landing
from airflow_provider_hkex_rap.lake.layout import MANIFESTS, PART_PREFIX
from airflow_provider_hkex_rap.lake.ledger import Ledger
from airflow_provider_hkex_rap.lake.manifest import READERS
from airflow_provider_hkex_rap.lake.planning import plan
from airflow_provider_hkex_rap.lake.storage_calls import StorageCalls, finish
from airflow_provider_hkex_rap.lake.store import Lake
from airflow_provider_hkex_rap.lake.verify import verify
from airflow_provider_hkex_rap.rap.errors import LakeConflict, RapSessionSuperseded
from airflow_provider_hkex_rap.rap.folders import Folder
from airflow_provider_hkex_rap.rap.report_name import Naming

from ...in_memory_rap import CUSTOMER, NOW, ORIGIN, InMemoryRap, landed, landing, manifest_files, run

WAIT = 20
"""Fail a test that hangs after this many seconds."""
CALLS = ("names", "list_directory", "walk", "read", "stat", "proven", "commit", "create", "sync", "measure")
MANIFEST_WRITES = {"create", "sync"}

_numbers = itertools.count()


class GatedLake(Lake):
    """A lake that records its calls, and blocks those of one kind until the gate opens."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.calls = []
        self.gate = ""
        self.opened = threading.Event()
        self._changed = threading.Condition()
        self._blocked = 0
        self._inside = threading.local()

    async def blocks(self, number):
        """Wait until that many calls wait at the gate."""

        def wait():
            with self._changed:
                return self._changed.wait_for(lambda: self._blocked >= number, WAIT)

        assert await asyncio.to_thread(wait)

    def _call(self, name, *arguments, **options):
        method = functools.partial(getattr(Lake, name), self)
        if getattr(self._inside, "call", False):
            return method(*arguments, **options)
        self.calls.append(name)
        if name == self.gate:
            with self._changed:
                self._blocked += 1
                self._changed.notify_all()
            assert self.opened.wait(WAIT)
        self._inside.call = True
        try:
            return method(*arguments, **options)
        finally:
            self._inside.call = False


for _name in CALLS:
    setattr(GatedLake, _name, functools.partialmethod(GatedLake._call, _name))


@pytest.fixture(params=["file", "memory"])
def gated(request, tmp_path):
    root = str(tmp_path / "lake") if request.param == "file" else f"/gated-{next(_numbers)}"
    lake = GatedLake(fsspec.filesystem(request.param), root)
    yield lake
    lake.opened.set()


@pytest.fixture
def rap():
    rap = InMemoryRap()
    for number in range(100):
        rap.put(f"TP{number:03}_202611{11 + number % 5}.csv", b"report %d" % number)
    return rap


def entries(lake):
    paths = manifest_files(lake)
    return [entry for path in paths for entry in from_lines(lake.read(path)).entries]


def assert_committed_files_have_entries(lake):
    plain = Lake(lake.fs, lake.root)
    assert {entry.uri for entry in entries(plain)} == {plain.uri_of(path) for path in landed(plain)}


def recorded(monkeypatch, module, name):
    """Return a list that gets the arguments of each call of a function."""
    calls, function = [], getattr(module, name)

    def record(*arguments):
        calls.append(arguments)
        return function(*arguments)

    monkeypatch.setattr(module, name, record)
    return calls


def unfinished(lake):
    """Return the content of the unfinished files of a local lake."""
    found = Path(lake.root).rglob(f"{PART_PREFIX}*") if lake.is_local else []
    return [path.read_bytes() for path in found if path.is_file()]


def cancelled_at(lake, gate, blocked, work):
    """Cancel a task while calls wait at the gate; return the kinds of the calls that start afterwards."""
    lake.calls.clear()
    lake.gate = gate

    async def cancel():
        task = asyncio.create_task(work())
        await lake.blocks(blocked)
        started = len(lake.calls)
        task.cancel()
        await asyncio.wait({task}, timeout=0.05)
        assert not task.done(), "It must wait for the calls that run."
        assert len(lake.calls) == started
        lake.opened.set()
        async with asyncio.timeout(WAIT):
            with pytest.raises(asyncio.CancelledError):
                await task
        return set(lake.calls[started:])

    return asyncio.run(cancel())


# Reading the ledger


def load(lake):
    async def load():
        async with StorageCalls(READERS) as calls:
            return await Ledger.load(calls, lake, CUSTOMER, list(Folder), NOW)

    return load


def test_no_directory_is_listed_after_the_cancellation(gated, rap):
    run(rap, gated)
    assert cancelled_at(gated, "list_directory", READERS, load(gated)) == set()
    assert gated.calls == ["list_directory"] * READERS


def test_no_manifest_file_is_read_after_the_cancellation(gated, rap):
    for number in range(5):
        run(rap, gated)
        rap.put("TP000_20261111.csv", b"version %d" % number, NOW.int_timestamp - 3500 + number)
    for number in range(3 * READERS):
        path = f"{MANIFESTS}/{CUSTOMER}/DCASS/2026-11-11"
        gated.create(f"{path}/20261120T000000Z-{number:06x}-0001.jsonl", b"\n")
    assert cancelled_at(gated, "read", READERS, load(gated)) == set()
    assert gated.calls.count("read") == READERS


def test_verify_measures_no_file_after_the_cancellation(gated, rap):
    run(rap, gated)
    assert cancelled_at(gated, "measure", READERS, lambda: verify(gated, CUSTOMER)) == set()
    assert gated.calls.count("measure") == READERS


# Landing


def committing(lake):
    """Return how many files are committed at once; one, if the storage has no exclusive create."""
    return LOCAL_COMMIT_THREADS if lake.is_local else 1


def test_nothing_is_looked_up_after_the_cancellation(gated, rap):
    run(rap, gated)
    gated.fs.rm(f"{gated.root}/{MANIFESTS}", recursive=True)
    rap.reads.clear()
    threads = LOCAL_COMMIT_THREADS if gated.is_local else 16
    assert cancelled_at(gated, "stat", threads, lambda: landing(rap, gated)) == set()
    assert gated.calls.count("stat") == threads
    assert not rap.reads


def test_nothing_is_read_or_committed_after_a_slow_first_lookup(gated, rap):
    assert cancelled_at(gated, "names", 1, lambda: landing(rap, gated)) == set()
    assert set(gated.calls) == {"list_directory", "create", "names"}
    assert not rap.reads


def test_of_the_files_being_committed_none_starts_after_the_cancellation(gated, rap):
    threads = committing(gated)
    landings = []
    after = cancelled_at(gated, "commit", threads, lambda: landing(rap, gated, into=landings))
    assert after == MANIFEST_WRITES
    assert gated.calls.count("commit") == threads
    assert landings[0].result.landed == len(landings[0].result.entries) == len(landed(gated)) == threads
    assert_committed_files_have_entries(gated)
    assert unfinished(gated) == []
    rap.reads.clear()
    assert run(rap, gated).landed == 100 - threads
    assert len(rap.reads) == 100 - threads


def test_a_local_disk_stores_the_files_of_a_batch_before_the_first_commit(tmp_path, rap, monkeypatch):
    lake = GatedLake(fsspec.filesystem("file"), str(tmp_path))
    lake.gate = "commit"
    writes = recorded(monkeypatch, local_files, "_write")
    stores = recorded(monkeypatch, os, "posix_fadvise")

    async def work():
        task = asyncio.create_task(landing(rap, lake))
        await lake.blocks(LOCAL_COMMIT_THREADS)
        before = len(stores), unfinished(lake)
        lake.opened.set()
        await task
        return before

    stored, written = asyncio.run(work())
    assert stored == len(written) > LOCAL_COMMIT_THREADS
    contents = [content for _, content in writes if content.startswith(b"report ")]
    assert sorted(contents) == sorted(b"report %d" % number for number in range(100))
    assert set(written) <= set(contents)
    assert (len(landed(lake)), unfinished(lake)) == (100, [])


def test_no_file_is_written_ahead_after_the_cancellation(tmp_path, rap, monkeypatch):
    lake = Lake(fsspec.filesystem("file"), str(tmp_path))
    stores = []

    async def work():
        task, loop, cancelled = asyncio.current_task(), asyncio.get_running_loop(), threading.Event()

        def cancel():
            task.cancel()
            cancelled.set()

        def store(*arguments):
            stores.append(arguments)
            loop.call_soon_threadsafe(cancel)
            assert cancelled.wait(WAIT)

        monkeypatch.setattr(os, "posix_fadvise", store)
        await landing(rap, lake)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(work())
    assert 0 < len(stores) <= LOCAL_COMMIT_THREADS
    assert (landed(lake), unfinished(lake)) == ({}, [])


def test_only_a_file_that_may_be_new_is_written_ahead(tmp_path, rap, monkeypatch):
    lake = Lake(fsspec.filesystem("file"), str(tmp_path))
    run(rap, lake)
    lake.fs.rm(f"{lake.root}/{MANIFESTS}", recursive=True)
    monkeypatch.setattr(lake, "proven", lambda relative, info: None)
    writes = recorded(monkeypatch, local_files, "_write")
    assert len(run(rap, lake).entries) == 100
    assert [content for _, content in writes if content.startswith(b"report ")] == []


def test_a_read_that_hangs_is_given_up(gated, rap):
    async def cancel():
        hangs = asyncio.Event()

        async def hang(rap, file):
            hangs.set()
            await asyncio.Event().wait()

        rap.faults[b"TP050_20261111.csv"] = hang
        landings = []
        task = asyncio.create_task(landing(rap, gated, into=landings))
        await hangs.wait()
        while landings[0].result.landed < 99:
            await asyncio.sleep(0.001)
        started = len(gated.calls)
        task.cancel()
        async with asyncio.timeout(WAIT):
            with pytest.raises(asyncio.CancelledError):
                await task
        return set(gated.calls[started:])

    assert asyncio.run(cancel()) == MANIFEST_WRITES
    assert len(landed(gated)) == 99
    assert_committed_files_have_entries(gated)


def test_the_entries_are_written_side_by_side_after_the_cancellation(gated, rap):
    together = threading.Barrier(5)
    create = gated.create

    def create_together(relative, content):
        together.wait(WAIT)
        create(relative, content)

    async def cancel():
        async def hang(rap, file):
            await asyncio.Event().wait()

        rap.faults[b"TP050_20261111.csv"] = hang
        landings = []
        task = asyncio.create_task(landing(rap, gated, into=landings))
        async with asyncio.timeout(WAIT):
            while not landings or landings[0].result.landed < 99:
                await asyncio.sleep(0.001)
            gated.create = create_together
            task.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await task
        assert not hasattr(caught.value, "__notes__")

    asyncio.run(cancel())
    assert_committed_files_have_entries(gated)


@pytest.mark.parametrize("error", [None, RapSessionSuperseded("Thrown out.")])
def test_a_kill_that_comes_while_the_session_closes_stops_the_commits_too(gated, rap, error):
    threads = committing(gated)
    gated.gate = "commit"

    async def work(under_way):
        async with under_way:
            todo = plan(rap.listing(), Ledger(CUSTOMER), Naming(), NOW)
            await under_way.read(rap, Ledger(CUSTOMER), todo, ORIGIN)
            await gated.blocks(threads)
            # The count rises at once; the error of the session ends the block first.
            asyncio.current_task().cancel()
            if error:
                raise error

    async def kill(under_way):
        task = asyncio.create_task(work(under_way))
        while not task.cancelling():
            await asyncio.sleep(0.001)
        await asyncio.wait({task}, timeout=0.05)
        assert not task.done()
        gated.opened.set()
        async with asyncio.timeout(WAIT):
            with pytest.raises(asyncio.CancelledError):
                await task
        return under_way.result

    result = asyncio.run(kill(Landing(gated, CUSTOMER, naming=Naming(), clock=lambda: NOW)))
    assert gated.calls.count("commit") == result.landed == threads
    assert_committed_files_have_entries(gated)


def test_a_cancellation_that_the_block_swallowed_is_no_success(gated, rap):
    async def swallow():
        async with Landing(gated, CUSTOMER, naming=Naming(), clock=lambda: NOW):
            asyncio.current_task().cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(swallow())


def test_cancelled_twice_it_still_enters_the_committed_files(gated, rap):
    threads = committing(gated)
    gated.gate = "commit"

    async def cancel():
        task = asyncio.create_task(landing(rap, gated))
        await gated.blocks(threads)
        for _ in range(3):
            task.cancel()
            await asyncio.wait({task}, timeout=0.02)
        assert not task.done()
        gated.opened.set()
        async with asyncio.timeout(WAIT):
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(cancel())
    assert len(landed(gated)) == threads
    assert_committed_files_have_entries(gated)


def test_entries_that_cannot_be_written_do_not_hide_the_cancellation(gated, rap):
    def refuse(relative, content):
        if relative.endswith(".jsonl"):
            gated.calls.append("refused")
            raise OSError("The lake is full.")

    gated.create = refuse
    landings = []
    threads = committing(gated)
    after = cancelled_at(gated, "commit", threads, lambda: landing(rap, gated, into=landings))
    # The reading finds out if only the answer was lost.
    assert after <= {"refused", "sync", "read"}
    # One round of writes, without a second attempt: a file of each business date at the most.
    assert 1 <= gated.calls.count("refused") <= 5
    assert landings[0].result.landed == len(landed(gated))
    assert not landings[0].result.entries


def test_no_thread_or_spool_is_left_behind(tmp_path, rap):
    lake = GatedLake(fsspec.filesystem("file"), str(tmp_path / "lake"))
    rap.put("large_20261120.bin", bytes(3_000_000))
    before = set(threading.enumerate())
    cancelled_at(lake, "commit", 4, lambda: landing(rap, lake))
    assert not [name for name in os.listdir(lake.root) if name.startswith(".rap-")]
    assert set(threading.enumerate()) <= before


# Storage calls


def test_calls_that_wait_for_a_thread_are_dropped():
    gate, started = threading.Event(), []

    def call(number):
        started.append(number)
        assert gate.wait(WAIT)

    async def work():
        async with StorageCalls(2) as calls:
            await calls.map(call, range(10))

    async def cancel():
        task = asyncio.create_task(work())
        while len(started) < 2:
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.sleep(0.01)
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert len(started) == 2


def test_calls_of_other_tasks_are_dropped_once_the_owner_is_cancelled():
    gate, started = threading.Event(), []

    def call(number):
        started.append(number)
        assert gate.wait(WAIT)

    async def own():
        async with StorageCalls(2) as calls:
            others = [asyncio.create_task(calls.run(call, number)) for number in range(10)]
            while len(started) < 2:
                await asyncio.sleep(0.001)
            asyncio.current_task().cancel()
            gate.set()
            await finish(asyncio.wait(others))

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(own())
    assert len(started) == 2


def test_the_first_error_is_raised_after_the_other_calls_have_ended():
    ended = []

    def call(number):
        if number == 3:
            raise OSError("three")
        ended.append(number)

    async def work():
        async with StorageCalls(2) as calls:
            with pytest.raises(OSError, match="three"):
                await calls.map(call, range(10))
            return await calls.map(str, range(3)), await calls.run(pow, 2, 3)

    assert asyncio.run(work()) == (["0", "1", "2"], 8)
    assert len(ended) == 9


def test_after_the_end_no_call_starts():
    async def work():
        async with StorageCalls(2) as calls:
            pass
        await calls.run(str)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(work())


def test_work_that_must_finish_raises_its_own_error_first():
    async def fail():
        await asyncio.sleep(0.01)
        raise LakeConflict("lost")

    async def cancel():
        task = asyncio.create_task(finish(fail()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(LakeConflict):
            await task

    asyncio.run(cancel())
