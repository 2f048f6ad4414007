"""Read files over a session: many at once, each in blocks and to its proven end, with bounded memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

import asyncssh

from airflow_provider_hkex_rap.aio.budget import Budget
from airflow_provider_hkex_rap.rap.files import Attributes, ReadEnd, RemoteFile
from airflow_provider_hkex_rap.transport.connect import reason_of
from airflow_provider_hkex_rap.transport.listing import mtime_of
from airflow_provider_hkex_rap.transport.requests import Requests
from airflow_provider_hkex_rap.transport.watch import SESSION_ENDED, AnswerWatch

if TYPE_CHECKING:
    from asyncssh import SFTPClient, SFTPClientFile

_SURE_BLOCK = 32 * 1024
"""Every server answers a READ of so many bytes whole, so that a shorter answer is the end of the file."""
_LARGEST_BLOCK = 256 * 1024
# Bytes requested and not yet handed on, for one file and for all: these bound a session's memory.
_FILE_WINDOW = 4 * 1024 * 1024
_SESSION_WINDOW = 16 * 1024 * 1024
_MOST_BEYOND = 2**30
"""Bytes to read beyond the size that RAP gives, at most: a server may answer without an end."""


class _Block(NamedTuple):
    data: bytes
    is_last: bool
    """Whether it proves the end of the file."""


class FileReader:
    """Reads files over one SFTP client.

    :param sftp: the client.
    :param watch: bounds each wait.
    """

    def __init__(self, sftp: SFTPClient, watch: AnswerWatch) -> None:
        self._requests = Requests(sftp, watch)
        self._watch = watch
        self._window = Budget(_SESSION_WINDOW)
        self._answers_in_parts = False
        """Whether the server has answered a READ with less than was asked, and had more."""
        self._block = max(_SURE_BLOCK, min(sftp.limits.max_read_len, _LARGEST_BLOCK))

    def directory(self) -> AbstractAsyncContextManager[None]:
        """Count a directory that is listed inside an ``async with`` block among the open files."""
        return self._requests.directory()

    async def read(self, file: RemoteFile, write: Callable[[bytes], object]) -> ReadEnd:
        """Read a file once to its end, even if that is not where the listing says.

        If FSTAT gives another size than the listing, the file is changing, and is not read further.

        :param file: an entry of a listing.
        :param write: takes the file's bytes, in order.
        :returns: the file's size and mtime once its last byte had been read.
        :raises asyncssh.Error: if RAP refused this file, or the session ended; or if the file does not end.
        """
        window = _FILE_WINDOW if file.size is None else min(max(file.size, _SURE_BLOCK), _FILE_WINDOW)
        async with self._window.reserve(window), self._opened(file) as handle:
            size = (await self._attributes(handle)).size if file.size is None else file.size
            read, is_end = 0, False
            async with aclosing(self._blocks(handle, size or 0)) as blocks:
                async for block in blocks:
                    write(block.data)
                    read += len(block.data)
                    is_end = block.is_last
            data, error = (b"", "") if is_end else await self._past(handle, read)
            attributes = await self._attributes(handle)
            is_changing = None not in (size, attributes.size) and size != attributes.size
            while data:
                read += len(data)
                if read > (size or 0) + _MOST_BEYOND:
                    raise asyncssh.SFTPFailure(f"it does not end after {read} bytes")
                write(data)
                is_end = is_changing or (len(data) < _SURE_BLOCK and not self._answers_in_parts)
                data, error = (b"", "") if is_end else await self._past(handle, read)
            return ReadEnd(attributes, error)

    @asynccontextmanager
    async def _opened(self, file: RemoteFile) -> AsyncIterator[SFTPClientFile]:
        handle = await self._requests.open(file.path)
        try:
            yield handle
        finally:
            with suppress(asyncssh.Error, ConnectionError):
                await self._requests.close(handle)

    async def _attributes(self, handle: SFTPClientFile) -> Attributes:
        """Return the attributes of an open file; none if FSTAT fails."""
        try:
            attrs = await handle.stat()
        except SESSION_ENDED:
            raise
        except asyncssh.SFTPError:
            # Servers word it in many ways that they do not support FSTAT, or deny it.
            return Attributes(None, None)
        finally:
            self._watch.answered()
        return Attributes(attrs.size, mtime_of(attrs))

    async def _past(self, handle: SFTPClientFile, offset: int) -> tuple[bytes, str]:
        """Return the bytes after those that were read, none at the end, and the error if that is the answer.

        Some servers answer an error at the end of a file. It was asked once more, with nothing outstanding.
        """
        try:
            return await self._requests.read(handle, _SURE_BLOCK, offset), ""
        except SESSION_ENDED:
            raise
        except asyncssh.SFTPError as error:
            return b"", reason_of(error)

    async def _blocks(self, handle: SFTPClientFile, size: int) -> AsyncGenerator[_Block]:
        """Yield a file's blocks in order, many requested ahead; stop before *size* if the file ends there."""
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
        if not is_rest or size >= _SURE_BLOCK:
            return await self._fill(handle, b"", size, size, offset)
        try:
            data = await self._requests.read(handle, _SURE_BLOCK, offset)
        except SESSION_ENDED:
            raise
        except asyncssh.SFTPError:
            # Some servers answer an error to a READ beyond the end.
            return await self._fill(handle, b"", size, size, offset)
        if len(data) == size:
            return _Block(data, not self._answers_in_parts)
        return await self._fill(handle, data, size, _SURE_BLOCK, offset)

    async def _fill(self, handle: SFTPClientFile, data: bytes, least: int, most: int, offset: int) -> _Block:
        """Return *data* and what follows it, at least *least* bytes in all unless the file ends before."""
        while len(data) < least:
            # A READ may return less than was requested.
            more = await self._requests.read(handle, most - len(data), offset + len(data))
            if not more:
                return _Block(data, True)
            self._answers_in_parts |= bool(data)
            data += more
        return _Block(data, False)
