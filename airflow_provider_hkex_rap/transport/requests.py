"""Send requests to a server that limits how many may be outstanding, usually without announcing it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import asyncssh

from airflow_provider_hkex_rap.aio.budget import Budget
from airflow_provider_hkex_rap.transport.undocumented import NO_ATTRIBUTES
from airflow_provider_hkex_rap.transport.watch import SESSION_ENDED, AnswerWatch

if TYPE_CHECKING:
    from asyncssh import SFTPClient, SFTPClientFile

_UNANNOUNCED = 64
"""Requests, and open files, at once, if the server announces no limits; OpenSSH's client sends no more."""
_MOST = 512

T = TypeVar("T")


class Requests:
    """OPEN and READ over one SFTP client, as many at once as the server takes.

    A server that has enough of them answers FAILURE or PERMISSION_DENIED, as it does for a file that it
    refuses. So a refused request is sent once more with no other one outstanding, and its answer then counts.

    :param sftp: the client.
    :param watch: is told of each answer.
    """

    def __init__(self, sftp: SFTPClient, watch: AnswerWatch) -> None:
        limits = sftp.limits
        announced = bool(limits.max_open_handles or limits.max_packet_len)
        self._sftp = sftp
        self._watch = watch
        self._reads = Budget(_MOST if announced else _UNANNOUNCED)
        self._handles = Budget(min(limits.max_open_handles or self._reads.total, _MOST))
        self._open_files = self._most_open_files = 0

    async def open(self, path: bytes) -> SFTPClientFile:
        """Open a file for reading; give it back to `close`.

        :param path: the path on RAP.
        :raises asyncssh.Error: if RAP refused the file, or the session ended.
        """
        before = 0
        for attempt in ("at once", "again", "alone"):
            taken = await self._handles.take_all() if attempt == "alone" else await self._handles.take(1)
            is_alone = taken == self._handles.taken
            try:
                handle = await self._open(path)
            except (asyncssh.SFTPFailure, asyncssh.SFTPPermissionDenied):
                self._handles.give(taken)
                if is_alone:
                    # It is the file, and says nothing of how many the server takes.
                    self._handles.resize(max(self._handles.total, before))
                    raise
                before = max(before, self._handles.total)
                # The server has taken so many at once.
                self._handles.resize(max(self._most_open_files, 1))
            except BaseException:
                self._handles.give(taken)
                raise
            else:
                self._handles.give(taken - 1)
                return self._opened(handle)
        raise AssertionError("An attempt alone returns or raises.")

    @asynccontextmanager
    async def directory(self) -> AsyncIterator[None]:
        """Count a directory that is listed inside the block: it has a handle too."""
        async with self._handles.reserve(1):
            yield

    async def _open(self, path: bytes) -> SFTPClientFile:
        try:
            # With a block size of its own asyncssh would read in tasks that outlive a cancelled read.
            return await self._sftp.open(path, "rb", NO_ATTRIBUTES, block_size=0)
        except asyncssh.SFTPBadMessage as error:
            # Servers answer so to a name that they do not accept; the session goes on.
            raise asyncssh.SFTPInvalidFilename(error.reason) from None
        finally:
            self._watch.answered()

    def _opened(self, handle: SFTPClientFile) -> SFTPClientFile:
        self._open_files += 1
        self._most_open_files = max(self._most_open_files, self._open_files)
        if self._open_files > self._handles.total:
            # It was sent before the budget shrank, and proves that the server takes more.
            self._handles.resize(self._open_files)
        return handle

    async def close(self, handle: SFTPClientFile) -> None:
        """Close a file.

        :param handle: the file.
        :raises asyncssh.Error: if RAP refused that, or the session ended.
        """
        try:
            await handle.close()
        finally:
            self._watch.answered()
            self._open_files -= 1
            self._handles.give(1)

    async def read(self, handle: SFTPClientFile, size: int, offset: int) -> bytes:
        """Return bytes of an open file: fewer than asked at its end, and from servers that answer in parts.

        :param handle: the file.
        :param size: the number of bytes to ask for.
        :param offset: where they begin.
        :raises asyncssh.Error: if RAP refused that, or the session ended.
        """
        before = self._reads.total

        async def read() -> bytes:
            data: bytes = await handle.read(size, offset)
            if len(data) > size:
                raise asyncssh.SFTPFailure(f"{len(data)} bytes came, and {size} were asked for")
            return data

        try:
            return await self._counted(read, await self._reads.take(1))
        except SESSION_ENDED:
            raise
        except asyncssh.SFTPError:
            data = await self._counted(read, await self._reads.take_all())
            # It was one of too many. Others of the same time may be refused too, and count once.
            if self._reads.total == before:
                self._reads.resize(max(before // 2, 1))
            return data

    async def _counted(self, request: Callable[[], Awaitable[T]], taken: int) -> T:
        try:
            return await request()
        finally:
            self._watch.answered()
            self._reads.give(taken)
