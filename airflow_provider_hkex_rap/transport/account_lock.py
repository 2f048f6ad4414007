"""One login of an account at a time, among the processes of one host (§4.3)."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_hkex_rap.rap.errors import RapSessionSuperseded, RapUnavailable

if TYPE_CHECKING:
    from filelock import AsyncFileLock

    from airflow_provider_hkex_rap.rap.account import Account
    from airflow_provider_hkex_rap.transport.login import Login

LOCK_WAIT = 900.0
"""Seconds that a login waits for another of the same account to end."""

_POLL_SECONDS = 0.5
_RESTS = 3
"""How often a login leaves others in peace before it gives up."""

log = logging.getLogger(__name__)


@asynccontextmanager
async def account_lock(
    login: Login, holder: str, *, wait: float = LOCK_WAIT, superseded_wait: float = 0.0
) -> AsyncIterator[None]:
    """Hold the account on this host; a process that dies lets go of it.

    Pools keep tasks apart, but only as long as scheduler and workers live: a task whose worker was killed may
    run beside its next try. Two logins would throw each other out (§4.3).

    :param login: the account that is to log in, and where.
    :param holder: who holds it, for those who wait.
    :param wait: seconds to wait for it.
    :param superseded_wait: seconds for which whoever has thrown out a login of this host is left in peace,
        whichever process had that login; they do not count as *wait*.
    :raises RapUnavailable: another process of this host has held it for all that time, or others have logged
        in again and again.
    """
    from filelock import AsyncFileLock

    # Every user of the host may run tasks of the same account.
    account = login.account
    # Servers on this machine are each a RAP of their own.
    place = f"{account}-{login.addresses[0].port}" if login.is_loopback else account.name
    path = Path(tempfile.gettempdir()) / f"hkex-rap-{place}.lock"
    lock = AsyncFileLock(path, timeout=wait, mode=0o666, poll_interval=_POLL_SECONDS)
    note, superseded = path.with_suffix(".holder"), path.with_suffix(".superseded")
    await _acquire(lock, account, note)
    rests = 0
    while pause := _rest_of(superseded, superseded_wait):
        await lock.release()
        if rests == _RESTS:
            raise RapUnavailable(
                f"Somebody else logs in as {account} again and again; waited {rests} times.",
                why="RAP ends a session when its account logs in again (§4.3), so they are left in peace.",
                todo="Find who it is: another host, or somebody at an SFTP client. A later try goes on.",
                attempts=(),
                account=account.name,
            )
        rests += 1
        log.info(
            "Somebody else has logged in as %s (§4.3): leaving it alone for %.0f s more.", account, pause
        )
        await asyncio.sleep(pause)
        await _acquire(lock, account, note)
    try:
        _write(note, f"{holder}, process {os.getpid()}")
        yield
    except RapSessionSuperseded:
        # While the lock is held: whoever takes it next must see this.
        _write(superseded, str(time.time()))
        raise
    finally:
        with suppress(OSError):
            note.unlink()
        await lock.release()


async def _acquire(lock: AsyncFileLock, account: Account, note: Path) -> None:
    from filelock import Timeout

    with suppress(Timeout):
        await lock.acquire(timeout=0)
        return
    log.info(
        "%s is in use on this host, by %s: waiting for up to %g s.", account, _holder(note), lock.timeout
    )
    try:
        await lock.acquire()
    except Timeout:
        raise RapUnavailable(
            f"{account} has been in use on {socket.gethostname()} for {lock.timeout:g} s,"
            f" by {_holder(note)}.",
            why="RAP ends a session when its account logs in again (§4.3), so logins take turns.",
            todo="Wait until it is done, or end it; a later try takes its turn.",
            attempts=(),
            account=account.name,
        ) from None


def _holder(note: Path) -> str:
    return _read(note) or "a process that does not say what it is"


def _rest_of(superseded: Path, wait: float) -> float:
    """Return the seconds that are left of *wait* since a login was thrown out."""
    with suppress(ValueError):
        age = time.time() - float(_read(superseded))
        # A clock that was set back must not make this last.
        return wait - age if 0 <= age < wait else 0.0
    return 0.0


def _read(path: Path) -> str:
    with suppress(OSError), open(path, errors="replace", opener=_as_it_is) as file:
        return file.read()
    return ""


def _write(path: Path, text: str) -> None:
    """Write a file of a few bytes that every user of the host may rewrite."""
    with suppress(OSError):
        try:
            file = open(path, "w", opener=_as_it_is)  # noqa: SIM115
        except FileNotFoundError:
            file = open(path, "x")  # noqa: SIM115
            os.fchmod(file.fileno(), 0o666)
        with file:
            file.write(text)


def _as_it_is(path: str, flags: int) -> int:
    # In a directory for all: a link or a pipe may be anybody's; Linux denies O_CREAT on others' files.
    return os.open(path, flags & ~os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK)
