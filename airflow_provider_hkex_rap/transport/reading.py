"""Read files over a session: many at once, each in blocks and to its proven end, with bounded memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

import asyncssh

from airflow_provider_hkex_rap.aio.budget import Budget
from airflow_provider_hkex_rap.aio.together import run_both
from airflow_provider_hkex_rap.rap.files import Attributes, ReadEnd, RemoteFile
from airflow_provider_hkex_rap.transport.connect import reason_of
from airflow_provider_hkex_rap.transport.listing import mtime_of

if TYPE_CHECKING:
    from asyncssh import SFTPClientFile

    from airflow_provider_hkex_rap.transport.requests import Requests
    from airflow_provider_hkex_rap.transport.watch import AnswerWatch

_SURE_BLOCK = 32 * 1024
"""Nearly every server answers a READ of so many bytes whole: a shorter answer is then the end of the file."""
_LARGEST_BLOCK = 256 * 1024
_SMALLEST_BLOCK = 1024
"""The least that a READ asks for, also if a server announces less."""
# Bytes requested and not yet handed on, for one file and for all: these bound a session's memory. Three large
# files are read at a time, while those that were read before are committed.
_FILE_WINDOW = 8 * 1024 * 1024
_SESSION_WINDOW = 24 * 1024 * 1024
_MOST_READS_BEYOND = 2**15
"""READs beyond the size that RAP gives, at most: a server may answer without an end. They get up to 1 GiB."""


class _Block(NamedTuple):
    data: bytes
    is_last: bool
    """Whether it proves the end of the file."""


class FileReader:
    """Reads files over one SFTP client.

    :param limits: what the server announces.
    :param requests: sends the requests.
    :param watch: tells if the session has ended.
    """

    def __init__(self, limits: asyncssh.SFTPLimits, requests: Requests, watch: AnswerWatch) -> None:
        self._requests = requests
        self._watch = watch
        self._window = Budget(_SESSION_WINDOW)
        self._answers_whole = self._answers_in_parts = False
        """Whether the server has answered with the bytes of a sure block; or with fewer, and had more."""
        self._refuses_beyond = False
        """Whether the server refuses a READ of more bytes than the file has."""
        self._end_error: str | None = None
        """The error by which the server answers a READ at the end of a file, if it does."""
        self._block = max(_SMALLEST_BLOCK, min(limits.max_read_len, _LARGEST_BLOCK))
        # A server may refuse a READ of more than it announces.
        self._sure_block = min(_SURE_BLOCK, self._block)

    async def read(self, file: RemoteFile, write: Callable[[bytes], object]) -> ReadEnd:
        """Read a file once to its end, even if that is not where the listing says.

        :param file: an entry of a listing.
        :param write: takes the file's bytes, in order.
        :returns: the file's size and mtime once its last byte had been read.
        :raises asyncssh.Error: if RAP refused this file, or the session ended; if the file does not end; or
            if RAP answered an error, and no size says that the file ends there.
        """
        window = _FILE_WINDOW if file.size is None else min(max(file.size, _SURE_BLOCK), _FILE_WINDOW)
        async with self._window.reserve(window), self._opened(file) as handle:
            before = await self._attributes(handle) if None in (file.size, file.mtime) else None
            size = file.size if file.size is not None else (before and before.size) or 0
            read, is_end = 0, False
            async with aclosing(self._blocks(handle, size)) as blocks:
                async for block in blocks:
                    write(block.data)
                    read += len(block.data)
                    is_end = block.is_last
            if is_end:
                data, error, after = b"", "", await self._attributes(handle)
            else:
                past = self._past(handle, read, is_whole=read == file.size)
                (data, error), after = await run_both(past, self._attributes(handle))
            if error and after.size not in (None, read):
                data, error = await self._past(handle, read)
            first = before or after
            if data or read != size or after.size not in (None, read):
                # RAP misstates the size, or the file grows.
                more, error = await self._rest(handle, read, data, error, write)
                read += more
                after = await self._attributes(handle)
            if error and read not in (file.size, first.size, after.size):
                # The server may only have failed to read on.
                raise asyncssh.SFTPFailure(
                    f"{error}, after {read} bytes, and no size says that it ends there"
                )
            return ReadEnd(after, error, _differ(first, after))

    @asynccontextmanager
    async def _opened(self, file: RemoteFile) -> AsyncIterator[SFTPClientFile]:
        handle = await self._requests.open(file.path)
        try:
            yield handle
        finally:
            self._requests.close(handle)

    async def _attributes(self, handle: SFTPClientFile) -> Attributes:
        """Return the attributes of an open file; none if FSTAT fails."""
        try:
            attrs = await self._requests.stat(handle)
        except asyncssh.SFTPError:
            if self._watch.has_ended:
                raise
            # Servers word it in many ways that they do not support FSTAT, or deny it.
            return Attributes(None, None)
        return Attributes(attrs.size, mtime_of(attrs))

    async def _rest(
        self,
        handle: SFTPClientFile,
        offset: int,
        data: bytes,
        error: str,
        write: Callable[[bytes], object],
    ) -> tuple[int, str]:
        """Write *data* and what follows it; return its size, and the error at the end if there is one."""
        read = 0
        for _ in range(_MOST_READS_BEYOND):
            if not data:
                return read, error
            write(data)
            read += len(data)
            data, error = await self._past(handle, offset + read)
        raise asyncssh.SFTPFailure(f"it does not end after {offset + read} bytes")

    async def _past(self, handle: SFTPClientFile, offset: int, is_whole: bool = False) -> tuple[bytes, str]:
        """Return the bytes after those that were read, none at the end, and the error if that is the answer.

        Some servers answer an error at the end of a file. It is asked once more, with nothing outstanding; if
        the size is as listed (*is_whole*), only until the server has shown that it answers so.
        """

        def is_end(error: asyncssh.SFTPError) -> bool:
            return is_whole and reason_of(error) == self._end_error

        try:
            return await self._read(handle, self._sure_block, offset, is_end), ""
        except asyncssh.SFTPError as error:
            if self._watch.has_ended:
                raise
            reason = reason_of(error)
            if is_whole:
                self._end_error = reason
            return b"", reason

    async def _read(
        self,
        handle: SFTPClientFile,
        size: int,
        offset: int,
        is_final: Callable[[asyncssh.SFTPError], bool] = lambda error: False,
    ) -> bytes:
        data = await self._requests.read(handle, size, offset, is_final)
        self._answers_whole |= len(data) >= self._sure_block
        return data

    async def _blocks(self, handle: SFTPClientFile, size: int) -> AsyncGenerator[_Block]:
        """Yield a file's blocks in order, many requested ahead; stop before *size* if the file ends there."""
        if 0 < size <= self._block:
            # Most files have one block, and need no task for it.
            yield await self._read_block(handle, size, 0, True)
            return
        offsets = iter(range(0, size, self._block))
        ahead: deque[asyncio.Task[_Block]] = deque()
        try:
            while True:
                while len(ahead) * self._block < _FILE_WINDOW and (offset := next(offsets, None)) is not None:
                    wanted = min(self._block, size - offset)
                    is_rest = offset + wanted == size
                    ahead.append(asyncio.create_task(self._read_block(handle, wanted, offset, is_rest)))
                if not ahead:
                    return
                block = await ahead.popleft()
                yield block
                if block.is_last:
                    return
        finally:
            for task in ahead:
                task.cancel()
            # Another block has already failed, or the read was cancelled: that error counts.
            await asyncio.gather(*ahead, return_exceptions=True)

    async def _read_block(self, handle: SFTPClientFile, size: int, offset: int, is_rest: bool) -> _Block:
        """Return the bytes at an offset, which may be more than *size* at the rest of the file.

        A small rest is asked for with more than it should have: that proves the end without another READ.
        """
        if not is_rest or size >= self._sure_block or self._refuses_beyond:
            return await self._fill(handle, b"", size, size, offset)
        try:
            data = await self._read(handle, self._sure_block, offset, lambda error: self._refuses_beyond)
        except asyncssh.SFTPError:
            if self._watch.has_ended:
                raise
            # Some servers answer an error to a READ beyond the end.
            block = await self._fill(handle, b"", size, size, offset)
            self._refuses_beyond = True
            return block
        if len(data) == size:
            return _Block(data, self._answers_whole and not self._answers_in_parts)
        return await self._fill(handle, data, size, self._sure_block, offset)

    async def _fill(self, handle: SFTPClientFile, data: bytes, least: int, most: int, offset: int) -> _Block:
        """Return *data* and what follows it, at least *least* bytes in all unless the file ends before."""
        is_part = bool(data)
        while len(data) < least:
            # A READ may return less than was requested.
            wanted = most - len(data)
            more = await self._read(handle, wanted, offset + len(data))
            if not more:
                return _Block(data, True)
            self._answers_in_parts |= is_part
            is_part = len(more) < min(wanted, self._sure_block)
            data += more
        return _Block(data, False)


def _differ(before: Attributes, after: Attributes) -> bool:
    """Return whether a size or an mtime that is known of both is not the same."""
    return any(None not in pair and pair[0] != pair[1] for pair in zip(before, after, strict=True))
