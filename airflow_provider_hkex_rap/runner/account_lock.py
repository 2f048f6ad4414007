"""One login of an account at a time, among the processes of one host (§4.3).

A pool keeps tasks apart only while scheduler and workers live: a task whose worker was killed may run beside
its next try. The lock covers one host and, by default, one user. It cannot cover another host or a pod.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_hkex_rap.rap.errors import (
    RapConfigurationError,
    RapSessionSuperseded,
    RapUnavailable,
)

if TYPE_CHECKING:
    from filelock import AsyncFileLock

    from airflow_provider_hkex_rap.rap.account import Account
    from airflow_provider_hkex_rap.runner.policy import Policy
    from airflow_provider_hkex_rap.transport.login import Login

_POLL_SECONDS = 0.5
_STALE_SECONDS = 24 * 3600
_BACKOFFS = 3
"""How often a login backs off because of other logins before it gives up."""

log = logging.getLogger(__name__)


def default_lock_directory() -> Path:
    """Return this user's directory of lock files.

    It does not depend on TMPDIR: two workers of one host with different TMPDIRs must share it.
    """
    return Path(f"/tmp/hkex-rap-{os.getuid()}")  # noqa: S108 - checked by `make_lock_directory`


def make_lock_directory(configured: Path | None = None) -> Path:
    """Make the directory of the lock files if it does not exist, and return it.

    :param configured: the setting ``[hkex_rap] lock_dir``; None for `default_lock_directory`.
    :raises RapConfigurationError: if it cannot be made or written, or if the default one belongs to another
        user, who could remove the locks.
    """
    directory = configured or default_lock_directory()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.stat(follow_symlinks=configured is not None)
    except OSError as error:
        raise _unusable(directory, f"{error.strerror}.") from None
    if not stat.S_ISDIR(status.st_mode):
        raise _unusable(directory, "It is not a directory.")
    if configured is None and status.st_uid != os.getuid():
        raise _unusable(directory, "It belongs to another user, who could remove the locks.")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise _unusable(directory, "This user may not write to it.")
    return directory


@asynccontextmanager
async def account_lock(
    login: Login, holder: str, policy: Policy, directory: Path | None = None
) -> AsyncIterator[bool]:
    """Hold the account on this host; yield whether that took a wait.

    The kernel releases the lock of a process that dies.

    :param login: the account that is about to log in, and its addresses.
    :param holder: who holds the lock, in words; shown to those who wait.
    :param policy: how long to wait for the lock, and how long to back off after a superseded session. The
        back-off holds for every process of this host and does not count as waiting.
    :param directory: the directory of the lock files; None for the default.
    :raises RapUnavailable: if another process of this host has held the account for all that time, or if
        others have logged in again and again.
    :raises RapConfigurationError: if the directory cannot be used.
    """
    from filelock import AsyncFileLock

    directory = make_lock_directory(directory)
    _sweep(directory)
    path = directory / f"{_lock_name(login)}.lock"
    lock = AsyncFileLock(path, timeout=policy.lock_wait, mode=0o666, poll_interval=_POLL_SECONDS)
    note, superseded = path.with_suffix(".holder"), path.with_suffix(".superseded")
    waited = await _acquire_after_backoff(lock, login.account, note, superseded, policy.superseded_wait)
    try:
        _write(note, f"{holder}, process {os.getpid()}")
        with suppress(OSError):
            os.utime(path)
        yield waited
    except RapSessionSuperseded:
        # Written while the lock is held: the next process to take it must see this.
        _write(superseded, str(time.time()))
        raise
    finally:
        with suppress(OSError):
            note.unlink()
        # The lock file stays and is used again: a waiting process could lock a removed file.
        await lock.release()


def _lock_name(login: Login) -> str:
    # Each simulator on this machine is a RAP of its own.
    return f"{login.account}-{login.addresses[0].port}" if login.is_loopback else login.account.name


def _sweep(directory: Path) -> None:
    """Remove the files of simulators that were not used for a day; each port has its own."""
    limit = time.time() - _STALE_SECONDS
    for path in directory.glob("DC*-*.*"):
        with suppress(OSError):
            if path.lstat().st_mtime < limit:
                path.unlink()


async def _acquire_after_backoff(
    lock: AsyncFileLock, account: Account, note: Path, superseded: Path, superseded_wait: float
) -> bool:
    """Take the lock once *superseded_wait* seconds have passed since a session was superseded.

    :returns: whether that took a wait.
    """
    waited = await _acquire(lock, account, note)
    for _ in range(_BACKOFFS):
        pause = _remaining_backoff(superseded, superseded_wait)
        if not pause:
            break
        waited = True
        await lock.release()
        log.info(
            "Another login has ended a session of %s (§4.3); waiting %.0f s before logging in again.",
            account,
            pause,
        )
        await asyncio.sleep(pause)
        await _acquire(lock, account, note)
    if _remaining_backoff(superseded, superseded_wait):
        await lock.release()
        raise RapUnavailable(
            f"Other logins of {account} end our sessions again and again; backed off {_BACKOFFS} times.",
            why="RAP ends a session when its account logs in again (§4.3).",
            todo="Find the other login: another host, or a person with an SFTP client. A later try goes on.",
            attempts=(),
            account=account.name,
        )
    if superseded_wait:
        with suppress(OSError):
            superseded.unlink()
    return waited


async def _acquire(lock: AsyncFileLock, account: Account, note: Path) -> bool:
    """Take the lock; return whether that took a wait."""
    from filelock import Timeout

    with suppress(Timeout):
        await lock.acquire(timeout=0)
        return False
    log.info(
        "%s is in use on this host by %s; waiting up to %g s.", account, _read_holder(note), lock.timeout
    )
    try:
        await lock.acquire()
        return True
    except Timeout:
        raise RapUnavailable(
            f"{account} has been in use on {socket.gethostname()} for {lock.timeout:g} s,"
            f" by {_read_holder(note)}.",
            why="RAP ends a session when its account logs in again (§4.3), so one login waits for the other.",
            todo="Wait until it ends, or stop it, then try again.",
            attempts=(),
            account=account.name,
        ) from None


def _read_holder(note: Path) -> str:
    return _read(note) or "a process that left no note"


def _remaining_backoff(superseded: Path, wait: float) -> float:
    """Return the seconds that are left of *wait* since a session was superseded."""
    with suppress(ValueError):
        age = time.time() - float(_read(superseded))
        # A clock that was set back must not prolong the back-off.
        return wait - age if 0 <= age < wait else 0.0
    return 0.0


def _read(path: Path) -> str:
    with suppress(OSError), open(path, errors="replace", opener=_open_existing) as file:
        return file.read()
    return ""


def _write(path: Path, text: str) -> None:
    """Write a file of a few bytes that every user of a shared directory may rewrite."""
    with suppress(OSError):
        try:
            file = open(path, "w", opener=_open_existing)  # noqa: SIM115
        except FileNotFoundError:
            file = open(path, "x")  # noqa: SIM115
            os.fchmod(file.fileno(), 0o666)
        with file:
            file.write(text)


def _open_existing(path: str, flags: int) -> int:
    # A shared directory may hold another user's link or pipe; Linux denies O_CREAT on other users' files.
    return os.open(path, flags & ~os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK)


def _unusable(directory: Path, why: str) -> RapConfigurationError:
    return RapConfigurationError(
        f"The lock directory {directory} cannot be used.",
        why=why,
        todo="Set [hkex_rap] lock_dir to a directory that every worker of this host can write to.",
        lock_dir=str(directory),
    )
