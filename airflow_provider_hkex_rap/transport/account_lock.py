"""One login of an account at a time, among the processes of one host (§4.3)."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_hkex_rap.rap.errors import RapUnavailable

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.transport.login import Login

LOCK_WAIT = 900.0
"""Seconds that a login waits for another of the same account to end."""

_POLL_SECONDS = 0.5


@asynccontextmanager
async def account_lock(login: Login, holder: str, *, wait: float = LOCK_WAIT) -> AsyncIterator[None]:
    """Hold the account on this host; a process that dies lets go of it.

    Pools keep tasks apart, but only as long as scheduler and workers live: a task whose worker was killed may
    run beside its next try. Two logins would throw each other out (§4.3).

    :param login: the account that is to log in, and where.
    :param holder: who holds it, for those who wait.
    :param wait: seconds to wait for it.
    :raises RapUnavailable: another process of this host has held it for all that time.
    """
    from filelock import AsyncFileLock, Timeout

    # Every user of the host may run tasks of the same account.
    account = login.account
    # Servers on this machine are each a RAP of their own.
    place = f"{account}-{login.addresses[0].port}" if login.is_loopback else account.name
    path = Path(tempfile.gettempdir()) / f"hkex-rap-{place}.lock"
    lock = AsyncFileLock(path, timeout=wait, mode=0o666, poll_interval=_POLL_SECONDS)
    note = path.with_suffix(".holder")
    try:
        await lock.acquire()
    except Timeout:
        raise RapUnavailable(
            f"{account} has been in use on {socket.gethostname()} for {wait:g} s, by {_read(note)}.",
            why="RAP ends a session when its account logs in again (§4.3), so logins take turns.",
            todo="Wait until it is done, or end it; a later try takes its turn.",
            attempts=(),
            account=account.name,
        ) from None
    try:
        with suppress(OSError):
            note.write_text(f"{holder}, process {os.getpid()}")
        yield
    finally:
        with suppress(OSError):
            note.unlink()
        await lock.release()


def _read(note: Path) -> str:
    with suppress(OSError):
        return note.read_text()
    return "a process that does not say what it is"
