"""Send requests to a server that limits how many may be outstanding, usually without announcing it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import asyncssh

from airflow_provider_hkex_rap.aio.budget import Budget
from airflow_provider_hkex_rap.transport.undocumented import NO_ATTRIBUTES, UnreadableAnswerError

if TYPE_CHECKING:
    from asyncssh import SFTPAttrs, SFTPClient, SFTPClientFile

    from airflow_provider_hkex_rap.transport.watch import AnswerWatch

_UNANNOUNCED = 64
"""Requests, and open files, at once, if the server announces no limits; OpenSSH's client sends no more."""
MOST_AT_ONCE = 512
"""Requests, and open files, at once, whatever limits a server announces."""

T = TypeVar("T")


class Requests:
    """Requests over one SFTP client, as many at once as the server takes.

    A server that has enough of them, or enough open files and directories, answers as it does if it refuses
    the file: FAILURE, PERMISSION_DENIED, or even NO_SUCH_FILE. So a refused request is sent once more with no
    other one outstanding, and if it needs a handle, with no other handle open; that answer then counts.

    :param sftp: the client.
    :param watch: is told of each answer.
    :param at_once: requests, and open files, at once, at most.
    """

    def __init__(self, sftp: SFTPClient, watch: AnswerWatch, at_once: int = MOST_AT_ONCE) -> None:
        limits = sftp.limits
        announced = bool(limits.max_open_handles or limits.max_packet_len)
        self._sftp = sftp
        self._watch = watch
        self._outstanding = Budget(min(MOST_AT_ONCE if announced else _UNANNOUNCED, at_once))
        self._handles = Budget(min(limits.max_open_handles or self._outstanding.total, at_once))
        self._open = self._most_open = 0
        self._closing: set[asyncio.Task[None]] = set()
        self._alone = asyncio.Lock()
        self._refuses_stat = self._refuses_close = False
        """Whether the server has refused one with no other request outstanding."""

    async def open(self, path: bytes) -> SFTPClientFile:
        """Open a file for reading; give it to `close` afterwards.

        :param path: the path on RAP.
        :raises asyncssh.Error: if RAP refused the file, or the session ended.
        """

        async def open_file() -> SFTPClientFile:
            # With a block size of its own asyncssh would read in tasks that outlive a cancelled read.
            return await self._sftp.open(path, "rb", NO_ATTRIBUTES, block_size=0)

        return await self._with_handle(lambda: self.send(open_file))

    async def list(
        self, listing: Callable[[], Awaitable[bytes]], close: Callable[[bytes], Awaitable[None]]
    ) -> None:
        """List a directory, which has a handle too; start again if that was refused.

        :param listing: lists it, and returns its handle; it hands each of its requests to `send`.
        :param close: closes that handle; its answer is not awaited.
        :raises asyncssh.Error: if RAP refused the directory, or the session ended.
        """
        handle = await self._with_handle(listing)
        self._close_later(lambda: close(handle))

    async def send(self, request: Callable[[], Awaitable[T]]) -> T:
        """Send a request once there are few enough others.

        :param request: sends it.
        :returns: its answer.
        :raises asyncssh.Error: if RAP refused it, or the session ended.
        """
        return await self._counted(request, await self._outstanding.take(1))

    async def _with_handle(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do work that opens a handle, and return its result; the handle stays open."""
        before = 0
        for attempt in ("at once", "again", "alone"):
            taken = await self._handles.take_all() if attempt == "alone" else await self._handles.take(1)
            is_alone = taken == self._handles.taken
            kept = 0
            try:
                result = await work()
                kept = 1
                self._opened()
                return result
            except asyncssh.SFTPError:
                if self._watch.has_ended:
                    raise
                # Another request may have taken a handle meanwhile.
                if is_alone and taken == self._handles.taken:
                    # It is the file, and says nothing of how many the server takes.
                    self._handles.resize(max(self._handles.total, before))
                    raise
                before = max(before, self._handles.total)
                # The server has taken so many at once.
                self._handles.resize(max(self._most_open, 1))
            finally:
                self._handles.give(taken - kept)
        raise AssertionError("An attempt alone returns or raises.")

    def _opened(self) -> None:
        self._open += 1
        self._most_open = max(self._most_open, self._open)
        if self._open > self._handles.total:
            # It was sent before the budget shrank, and proves that the server takes more.
            self._handles.resize(self._open)

    def close(self, handle: SFTPClientFile) -> None:
        """Close a file; the answer is not awaited, and until it comes the file counts as open.

        :param handle: the file.
        """
        self._close_later(handle.close)

    def _close_later(self, close: Callable[[], Awaitable[None]]) -> None:
        task = asyncio.create_task(self._close(close))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close(self, close: Callable[[], Awaitable[None]]) -> None:
        try:
            await self.close_now(close)
        finally:
            self._open -= 1
            self._handles.give(1)

    async def close_now(self, close: Callable[[], Awaitable[None]]) -> None:
        """Send a CLOSE, and wait for its answer; it does not matter which one comes.

        :param close: sends it.
        """
        try:
            await self._ask(close, lambda error: self._refuses_close)
        except asyncssh.SFTPError:
            self._refuses_close = True
        except (asyncssh.Error, OSError, UnreadableAnswerError):
            # The session has ended, as the next request will show, or the answer is of no use.
            pass

    async def stat(self, handle: SFTPClientFile) -> SFTPAttrs:
        """Return the attributes of an open file.

        :param handle: the file.
        :raises asyncssh.Error: if RAP refused that or does not support it, or the session ended.
        """
        try:
            return await self._ask(handle.stat, lambda error: self._refuses_stat)
        except asyncssh.SFTPError:
            self._refuses_stat = True
            raise

    async def read(
        self,
        handle: SFTPClientFile,
        size: int,
        offset: int,
        is_final: Callable[[asyncssh.SFTPError], bool] = lambda error: False,
    ) -> bytes:
        """Return bytes of an open file: fewer than asked at its end, and from servers that answer in parts.

        :param handle: the file.
        :param size: the number of bytes to ask for.
        :param offset: where they begin.
        :param is_final: tells if a refusal counts without asking once more.
        :raises asyncssh.Error: if RAP refused that, or the session ended.
        """

        async def read() -> bytes:
            data: bytes = await handle.read(size, offset)
            if len(data) > size:
                raise asyncssh.SFTPFailure(f"{len(data)} bytes came, and {size} were asked for")
            return data

        return await self._ask(read, is_final)

    async def _ask(
        self, request: Callable[[], Awaitable[T]], is_final: Callable[[asyncssh.SFTPError], bool]
    ) -> T:
        """Send a request on an open file; if it is refused, once more with no other one outstanding."""
        before = self._outstanding.total
        try:
            return await self.send(request)
        except asyncssh.SFTPError as error:
            if self._watch.has_ended or is_final(error):
                raise
            # What one request proves alone may spare the others that.
            async with self._alone:
                if is_final(error):
                    raise
                result = await self._counted(request, await self._outstanding.take_all())
        # It was one of too many. Others of the same time may be refused too, and count once.
        if self._outstanding.total == before:
            self._outstanding.resize(max(before // 2, 1))
        return result

    async def _counted(self, request: Callable[[], Awaitable[T]], taken: int) -> T:
        try:
            return await request()
        finally:
            self._watch.answered()
            self._outstanding.give(taken)
