"""The lock that keeps two logins of one account on one host apart."""

from __future__ import annotations

import asyncio
import multiprocessing
import multiprocessing.synchronize
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from airflow_provider_hkex_rap.rap.account import Account
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError, RapSessionSuperseded, RapUnavailable
from airflow_provider_hkex_rap.rap.sites import GUIDE_ADDRESSES, Site
from airflow_provider_hkex_rap.runner import account_lock as lock_module
from airflow_provider_hkex_rap.runner.account_lock import (
    account_lock,
    default_lock_directory,
    make_lock_directory,
)
from airflow_provider_hkex_rap.runner.policy import ATTENDED, Policy
from airflow_provider_hkex_rap.transport.login import Login


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_module, "default_lock_directory", lambda: tmp_path)


def login_of(account: str) -> Login:
    return Login(Account(account), Site.PRIMARY, GUIDE_ADDRESSES[Site.PRIMARY], (), ())


async def hold(account: str, wait: float = 0.0, superseded_wait: float = 0.0) -> None:
    login = login_of(account)
    policy = Policy(lock_wait=wait, superseded_wait=superseded_wait)
    async with account_lock(login, "another task", policy):
        pass


def hold_until_killed(held: multiprocessing.synchronize.Event, directory: str) -> None:
    async def hold() -> None:
        async with account_lock(login_of("DCXYZ001"), "the task land of dag", ATTENDED, Path(directory)):
            held.set()
            await asyncio.Event().wait()

    asyncio.run(hold())


def test_it_says_who_holds_the_account_and_survives_a_kill(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    held = spawn.Event()
    process = spawn.Process(target=hold_until_killed, args=(held, str(tmp_path)))
    process.start()
    assert held.wait(30)
    with pytest.raises(RapUnavailable, match=rf"the task land of dag, process {process.pid}"):
        asyncio.run(hold("DCXYZ001"))
    asyncio.run(hold("DCXYZ002"))
    assert process.pid
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    asyncio.run(hold("DCXYZ001"))


@pytest.mark.guide("4.3 one login")
def test_logins_take_turns_within_one_process_too() -> None:
    async def two() -> list[str]:
        order: list[str] = []
        first_is_in = asyncio.Event()

        async def first() -> None:
            async with account_lock(login_of("DCXYZ001"), "first", ATTENDED):
                first_is_in.set()
                order.append("first in")
                await asyncio.sleep(0)
                order.append("first out")

        async def second() -> None:
            await first_is_in.wait()
            async with account_lock(login_of("DCXYZ001"), "second", ATTENDED):
                order.append("second in")

        await asyncio.gather(first(), second())
        return order

    assert asyncio.run(two()) == ["first in", "first out", "second in"]


def test_those_who_wait_back_off_after_a_superseded_session() -> None:
    async def next_in_line() -> float:
        with suppress(RapSessionSuperseded):
            async with account_lock(login_of("DCXYZ001"), "a task", ATTENDED):
                in_line = asyncio.create_task(hold("DCXYZ001", wait=60, superseded_wait=0.7))
                await asyncio.sleep(0)
                thrown_out = time.monotonic()
                raise RapSessionSuperseded("Thrown out.")
        await in_line
        return time.monotonic() - thrown_out

    assert asyncio.run(next_in_line()) >= 0.69


def test_a_login_gives_up_after_three_back_offs(monkeypatch: pytest.MonkeyPatch) -> None:
    rests: list[float] = []

    async def rest(seconds: float) -> None:
        rests.append(seconds)
        with suppress(RapSessionSuperseded):
            async with account_lock(login_of("DCXYZ001"), "another task", ATTENDED):
                raise RapSessionSuperseded("Thrown out again.")

    async def waiting() -> None:
        await rest(0)
        with monkeypatch.context() as patch:
            patch.setattr("airflow_provider_hkex_rap.runner.account_lock.asyncio.sleep", rest)
            await hold("DCXYZ001", superseded_wait=300)

    with pytest.raises(RapUnavailable, match="again and again"):
        asyncio.run(waiting())
    assert len(rests) == 1 + 3
    # The lock is free.
    asyncio.run(hold("DCXYZ001"))


def test_a_back_off_is_for_one_account_and_ends_and_attended_logins_skip_it(tmp_path: Path) -> None:
    async def holding_others() -> float:
        with suppress(RapSessionSuperseded):
            async with account_lock(login_of("DCXYZ001"), "a task", ATTENDED):
                raise RapSessionSuperseded("Thrown out.")
        started = time.monotonic()
        await hold("DCXYZ002", superseded_wait=60)
        await hold("DCXYZ001")
        (marker,) = tmp_path.glob("*.superseded")
        for moment in (time.time() - 61, time.time() + 1000):
            marker.write_text(str(moment))
            await hold("DCXYZ001", superseded_wait=60)
        return time.monotonic() - started

    assert asyncio.run(holding_others()) < 30


def test_its_files_are_for_every_user_and_follow_no_link(tmp_path: Path) -> None:
    async def thrown_out() -> None:
        async with account_lock(login_of("DCXYZ001"), "a task", ATTENDED):
            raise RapSessionSuperseded("Thrown out.")

    previous = os.umask(0o077)
    try:
        with pytest.raises(RapSessionSuperseded):
            asyncio.run(thrown_out())
    finally:
        os.umask(previous)
    modes = {path.suffix: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {".lock": 0o666, ".superseded": 0o666}

    secret = tmp_path / "secret"
    secret.write_text("a private key")
    (marker,) = tmp_path.glob("*.superseded")
    marker.unlink()
    marker.symlink_to(secret)
    marker.with_suffix(".holder").symlink_to(secret)

    async def two() -> None:
        async with account_lock(login_of("DCXYZ001"), "a task", ATTENDED):
            with pytest.raises(RapUnavailable, match="left no note"):
                await hold("DCXYZ001")
            raise RapSessionSuperseded("Thrown out.")

    with pytest.raises(RapSessionSuperseded):
        asyncio.run(two())
    assert secret.read_text() == "a private key"


def test_other_files_in_place_of_its_own_do_no_harm(tmp_path: Path) -> None:
    lock = tmp_path / "DCXYZ001.lock"
    os.mkfifo(lock.with_suffix(".holder"))
    lock.with_suffix(".superseded").write_bytes(b"\xff\xfe")
    asyncio.run(hold("DCXYZ001", superseded_wait=60))


def test_its_directory_does_not_depend_on_tmpdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert default_lock_directory() == Path(f"/tmp/hkex-rap-{os.getuid()}")


def test_a_default_directory_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tmp_path / "real"
    real.mkdir()
    link = tmp_path / "link"
    link.symlink_to(real)
    monkeypatch.setattr(lock_module, "default_lock_directory", lambda: link)
    with pytest.raises(RapConfigurationError, match="lock_dir"):
        make_lock_directory()
    monkeypatch.setattr(lock_module, "default_lock_directory", lambda: real)
    monkeypatch.setattr("os.getuid", lambda: 12345)
    with pytest.raises(RapConfigurationError, match="another user"):
        make_lock_directory()


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RapConfigurationError, match="lock_dir"):
        make_lock_directory(tmp_path / name)


def test_a_configured_directory_is_made(tmp_path: Path) -> None:
    assert make_lock_directory(tmp_path / "run" / "rap").is_dir()
