"""Marks: small records beside the manifest."""

import asyncio
import logging

import pytest

from airflow_provider_hkex_rap.lake.layout import marks_directory, run_stamp
from airflow_provider_hkex_rap.lake.marks import MARK_DAYS, Mark, acquire_lease, read_marks, write_mark
from airflow_provider_hkex_rap.lake.storage_calls import StorageCalls
from airflow_provider_hkex_rap.rap.folders import Folder

from ...in_memory_rap import CUSTOMER, NOW

PLACE = (CUSTOMER, Folder.DCASS, "announced")


def write(lake, run, payload):
    async def write():
        async with StorageCalls(2) as calls:
            return await write_mark(calls, lake, *PLACE, run, payload)

    return asyncio.run(write())


def read(lake, **options):
    async def read():
        async with StorageCalls(2) as calls:
            return await read_marks(calls, lake, *PLACE, NOW.subtract(days=MARK_DAYS), NOW, **options)

    return asyncio.run(read())


def stamp(days_ago, suffix="1a2b3c"):
    return run_stamp(NOW.subtract(days=days_ago), suffix)


def test_the_marks_of_the_window_are_read_oldest_first(lake):
    for days_ago in (0, 44, 46, 400, 20):
        write(lake, stamp(days_ago), {"days": days_ago, "name": "賬"})
    assert read(lake) == [Mark(stamp(ago), {"days": ago, "name": "賬"}) for ago in (44, 20, 0)]


def test_the_newest_marks_are_read_with_those_of_the_same_second(lake):
    runs = [stamp(2), *(stamp(1, f"{number:06}") for number in range(3)), stamp(0)]
    for run in runs:
        write(lake, run, {})
    for newest, read_runs in ((1, runs[4:]), (2, runs[1:]), (4, runs[1:]), (5, runs), (None, runs)):
        assert [mark.run for mark in read(lake, newest=newest)] == read_runs


def test_the_same_mark_twice_is_one_and_another_is_refused(lake):
    assert write(lake, stamp(0), {"a": 1}) == write(lake, stamp(0), {"a": 1})
    with pytest.raises(FileExistsError):
        write(lake, stamp(0), {"a": 2})
    assert read(lake) == [Mark(stamp(0), {"a": 1})]


def test_a_refused_mark_keeps_the_cause_of_its_error(lake, monkeypatch):
    def refuse(path, content):
        raise PermissionError("refused") from ValueError("ExpiredToken")

    monkeypatch.setattr(lake, "create", refuse)
    with pytest.raises(PermissionError, match="refused") as caught:
        write(lake, stamp(0), {"a": 1})
    assert str(caught.value.__cause__) == "ExpiredToken"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_a_bad_mark_is_logged_and_left_out(lake, content, caplog):
    write(lake, stamp(1), {"a": 1})
    lake.create(f"{marks_directory(*PLACE)}/202611/{stamp(0)}.json", content)
    with caplog.at_level(logging.WARNING):
        assert read(lake) == [Mark(stamp(1), {"a": 1})]
    assert stamp(0) in caplog.text


def acquire(lake, runs, seconds_later=0):
    async def acquire():
        async with StorageCalls(8) as calls:
            now = NOW.add(seconds=seconds_later)
            place = (CUSTOMER, Folder.DCASS, "announcing")
            return await asyncio.gather(*(acquire_lease(calls, lake, *place, run, now, 30) for run in runs))

    return asyncio.run(acquire())


def test_one_of_several_runs_gets_the_lease_and_holds_it_until_it_expires(lake):
    runs = [f"run{number}" for number in range(8)]
    assert sorted(acquire(lake, runs)) == [False] * 7 + [True]
    assert acquire(lake, ["later"], seconds_later=30) == [False]
    assert sorted(acquire(lake, runs, seconds_later=31)) == [False] * 7 + [True]
    assert acquire(lake, ["last"], seconds_later=61) == [False]
