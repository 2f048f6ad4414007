"""How a caller gets a session: its turn, the hours, the back-off, and what a kill or a time-out leaves."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pendulum
import pytest
from airflow.sdk.exceptions import AirflowTaskTimeout
from airflow.sdk.execution_time.timeout import timeout

from airflow_provider_hkex_rap.hooks.login_source import AirflowLoginSource
from airflow_provider_hkex_rap.keystore.record import KeyRecord
from airflow_provider_hkex_rap.rap.account import Account
from airflow_provider_hkex_rap.rap.errors import RapClosed, RapSessionSuperseded, RapUnavailable
from airflow_provider_hkex_rap.rap.folders import Folder, Service
from airflow_provider_hkex_rap.rap.service_hours import KEY_WORK, Wanted
from airflow_provider_hkex_rap.runner.account_lock import account_lock
from airflow_provider_hkex_rap.runner.policy import ATTENDED, Policy, unattended
from airflow_provider_hkex_rap.runner.runner import SessionRunner
from airflow_provider_hkex_rap.testing import Fault, RapSimulator

NOW = pendulum.datetime(2026, 11, 20, 23, 40, tz="Asia/Hong_Kong")
IMPATIENT = Policy(lock_wait=0.05)
Work = Callable[[], Coroutine[Any, Any, Any]]


@pytest.fixture
def rap(monkeypatch: pytest.MonkeyPatch) -> Iterator[RapSimulator]:
    with RapSimulator(now=NOW) as rap:
        use(monkeypatch, rap.connection("DCXYZ001"), NOW)
        yield rap


def use(monkeypatch: pytest.MonkeyPatch, connection: dict[str, Any], now: pendulum.DateTime) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_HKEX_RAP_DEFAULT", json.dumps(connection))
    offset = (now - pendulum.now()).total_seconds()
    monkeypatch.setenv("AIRFLOW__HKEX_RAP__CLOCK_OFFSET", str(offset))


def source() -> AirflowLoginSource:
    return AirflowLoginSource("hkex_rap_default")


def account_is_free(rap: RapSimulator) -> bool:
    """Log in anew, without waiting for the account."""
    runner = SessionRunner(source(), IMPATIENT)
    return bool(runner.run(lambda: log_in(runner)))


async def log_in(runner: SessionRunner) -> bool:
    async with runner.session():
        return True


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (list(Service), "CCMS and DCASS are not open together until Mon 2026-11-23 07:15 HKT."),
        ([Service.CCMS], "RAP is closed until Sat 2026-11-21 07:15 HKT. These are the service hours of CCMS"),
        ([KEY_WORK], "RAP is closed until Mon 2026-11-23 07:15 HKT. These are the service hours of key work"),
    ],
)
def test_the_services_that_are_shut_are_named(
    rap: RapSimulator, monkeypatch: pytest.MonkeyPatch, wanted: list[Wanted], said: str
) -> None:
    # DCASS is open.
    use(monkeypatch, rap.connection("DCXYZ001"), NOW.add(hours=2))
    with pytest.raises(RapClosed, match=re.escape(said)):
        SessionRunner(source(), ATTENDED).check_open(wanted)


def test_a_closed_rap_says_when_it_opens_and_sees_no_connection(
    rap: RapSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, rap.connection("DCXYZ001"), pendulum.datetime(2026, 11, 22, 12, tz="Asia/Hong_Kong"))
    runner = SessionRunner(source(), ATTENDED)
    with pytest.raises(RapClosed, match="Mon 2026-11-23 07:00") as caught:
        runner.run(lambda: log_in(runner), wanted=[Service.DCASS])
    assert caught.value.opens_at == pendulum.datetime(2026, 11, 23, 7, tz="Asia/Hong_Kong")
    assert not rap.events


def test_it_runs_under_a_running_event_loop(rap: RapSimulator) -> None:
    async def notebook() -> bool:
        runner = SessionRunner(source(), ATTENDED)
        return runner.run(lambda: log_in(runner))

    assert asyncio.run(notebook())


def test_an_attended_caller_is_told_who_holds_the_account(rap: RapSimulator) -> None:
    async def two() -> None:
        first, second = SessionRunner(source(), ATTENDED), SessionRunner(source(), IMPATIENT)
        async with first.session(), second.session():
            pass

    with pytest.raises(RapUnavailable, match=rf"by connection hkex_rap_default, process {os.getpid()}"):
        asyncio.run(two())
    assert len(rap.events.of("login")) == 1


def test_the_work_starts_again_after_a_superseded_session_with_the_settings_read_again(
    rap: RapSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RapSimulator(now=NOW, name="rap") as other_site:
        runner = SessionRunner(source(), unattended(0.05, superseded_retries=1))
        rap.faults.add(Fault("drop", at_byte=0))
        file = rap.put(Folder.DCASS, "R_20261120.csv", b"x", NOW)

        async def work() -> str:
            async with runner.session() as session:
                switched = {**rap.connection("DCXYZ001"), "port": other_site.port}
                use(monkeypatch, switched, NOW)
                (listed, *_) = await session.list_folder(Folder.DCASS) or (None,)
                if listed:
                    await session.read(listed, lambda data: None)
                return session.address

        assert runner.run(work) == f"127.0.0.1:{other_site.port}"
    assert len(rap.events.of("open", path=file.path)) == 1


def test_a_superseded_session_is_an_error_once_the_retries_are_used_up(rap: RapSimulator) -> None:
    rap.put(Folder.DCASS, "R_20261120.csv", b"x", NOW)
    rap.faults.add(Fault("drop", at_byte=0, times=None))
    runner = SessionRunner(source(), unattended(0.05, superseded_retries=2))

    async def work() -> None:
        async with runner.session() as session:
            (listed,) = await session.list_folder(Folder.DCASS)
            await session.read(listed, lambda data: None)

    with pytest.raises(RapSessionSuperseded):
        runner.run(work)
    assert len(rap.events.of("login")) == 3


def test_the_key_store_has_the_last_login_and_the_superseded_sessions(
    rap: RapSimulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    connection = rap.connection("DCXYZ001")
    use(monkeypatch, {**connection, "extra": {**connection["extra"], "key_store": tmp_path.as_uri()}}, NOW)
    rap.put(Folder.DCASS, "R_20261120.csv", b"x", NOW)
    rap.faults.add(Fault("drop", at_byte=0))
    runner = SessionRunner(source(), unattended(0.05, superseded_retries=1))

    async def work() -> None:
        async with runner.session() as session:
            (listed,) = await session.list_folder(Folder.DCASS)
            await session.read(listed, lambda data: None)

    runner.run(work)
    record = KeyRecord.from_json((tmp_path / "DCXYZ001.json").read_text(), Account("DCXYZ001"))
    assert record.last_login
    assert len(record.superseded) == 1
    for at in (record.last_login, *record.superseded):
        assert 0 <= (pendulum.DateTime.fromisoformat(at) - NOW).total_seconds() < 60


def in_the_lock(rap: RapSimulator, runner: SessionRunner, reached: threading.Event) -> Work:
    async def work() -> None:
        other = replace(source().login, client_keys=())
        async with account_lock(other, "another process", ATTENDED):
            asyncio.get_running_loop().call_soon(reached.set)
            await log_in(runner)

    return work


def in_the_login(rap: RapSimulator, runner: SessionRunner, reached: threading.Event) -> Work:
    rap.faults.add(Fault("stall_at", stage="auth", times=None))

    async def work() -> None:
        task = asyncio.create_task(asyncio.to_thread(rap.events.wait_for, "fault"))
        task.add_done_callback(lambda done: reached.set())
        await log_in(runner)

    return work


def in_the_session(rap: RapSimulator, runner: SessionRunner, reached: threading.Event) -> Work:
    async def work() -> None:
        async with runner.session():
            reached.set()
            await asyncio.Event().wait()

    return work


def in_the_backoff(rap: RapSimulator, runner: SessionRunner, reached: threading.Event) -> Work:
    async def work() -> None:
        asyncio.get_running_loop().call_soon(reached.set)
        raise RapSessionSuperseded("Superseded.")

    return work


PLACES = [in_the_lock, in_the_login, in_the_session, in_the_backoff]


@pytest.mark.parametrize("place", PLACES)
def test_a_kill_ends_the_work_wherever_it_waits_and_frees_the_account(rap: RapSimulator, place: Any) -> None:
    runner = SessionRunner(source(), unattended(600, superseded_retries=1))
    reached = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(runner.run, place(rap, runner, reached))
        assert reached.wait(30)
        runner.kill()
        with pytest.raises(RapUnavailable, match="was stopped"):
            running.result(timeout=10)
    rap.faults.clear()
    assert account_is_free(rap)
    assert rap.events.peak_sessions("DCXYZ001") == 1


@pytest.mark.parametrize("place", [in_the_login, in_the_session])
def test_an_execution_timeout_ends_the_work_and_frees_the_account(rap: RapSimulator, place: Any) -> None:
    runner = SessionRunner(source(), ATTENDED)
    reached = threading.Event()
    work = place(rap, runner, reached)

    def time_out() -> None:
        reached.wait(30)
        os.kill(os.getpid(), signal.SIGALRM)

    clock = threading.Thread(target=time_out)
    clock.start()
    with pytest.raises(AirflowTaskTimeout), timeout(60):
        runner.run(work)
    clock.join()
    rap.faults.clear()
    assert account_is_free(rap)


def test_a_runner_that_was_killed_before_it_ran_does_not_log_in(rap: RapSimulator) -> None:
    runner = SessionRunner(source(), ATTENDED)
    runner.kill()
    with pytest.raises(RapUnavailable, match="not logged in"):
        runner.run(lambda: log_in(runner))
    assert not rap.events


def test_lock_files_do_not_pile_up(
    rap: RapSimulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__HKEX_RAP__LOCK_DIR", str(tmp_path / "locks"))
    assert account_is_free(rap)
    (lock,) = (tmp_path / "locks").iterdir()
    assert lock.suffix == ".lock"
    yesterday = time.time() - 25 * 3600
    for port in range(1, 4):
        unused = lock.with_name(f"DCXYZ001-{port}.lock")
        unused.touch()
        os.utime(unused, (yesterday, yesterday))
    assert account_is_free(rap)
    assert list((tmp_path / "locks").iterdir()) == [lock]


def test_a_second_kill_does_not_interrupt_the_clean_up_of_the_first(rap: RapSimulator) -> None:
    runner = SessionRunner(source(), ATTENDED)
    cleaned = threading.Event()
    in_session, cleaning = threading.Event(), threading.Event()

    async def work() -> None:
        async with runner.session():
            try:
                in_session.set()
                await asyncio.Event().wait()
            finally:
                cleaning.set()
                await asyncio.to_thread(killed_again.wait, 30)
                await asyncio.sleep(0)
                cleaned.set()

    killed_again = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(runner.run, work)
        assert in_session.wait(30)
        runner.kill()
        assert cleaning.wait(30)
        runner.kill()
        killed_again.set()
        with pytest.raises(RapUnavailable, match="was stopped"):
            running.result(timeout=30)
    assert cleaned.is_set()
