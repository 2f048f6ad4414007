"""Read files over a session: many at once, each in blocks, with bounded memory."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from typing import TYPE_CHECKING

import asyncssh

from airflow_provider_hkex_rap.aio.budget import Budget
from airflow_provider_hkex_rap.rap.files import Attributes, RemoteFile
from airflow_provider_hkex_rap.transport.listing import mtime_of
from airflow_provider_hkex_rap.transport.undocumented import NO_ATTRIBUTES
from airflow_provider_hkex_rap.transport.watch import SESSION_ENDED, AnswerWatch

if TYPE_CHECKING:
    from asyncssh import SFTPClient, SFTPClientFile

_SMALLEST_BLOCK = 32 * 1024
_LARGEST_BLOCK = 256 * 1024
# Bytes requested and not yet handed on, for one file and for all: these bound a session's memory.
_FILE_WINDOW = 4 * 1024 * 1024
_SESSION_WINDOW = 16 * 1024 * 1024
_OPEN_FILES = 512


class FileReader:
    """Reads files over one SFTP client.

    :param sftp: the client.
    :param watch: bounds each wait.
    """

    def __init__(self, sftp: SFTPClient, watch: AnswerWatch) -> None:
        self._sftp = sftp
        self._watch = watch
        self._window = Budget(_SESSION_WINDOW)
        self._handles = Budget(min(sftp.limits.max_open_handles or _OPEN_FILES, _OPEN_FILES))
        self._block = max(_SMALLEST_BLOCK, min(sftp.limits.max_read_len, _LARGEST_BLOCK))
        self._open_files = 0

    async def read(self, file: RemoteFile, write: Callable[[bytes], object]) -> Attributes:
        """Read a file once, up to its listed size, and return its attributes after the last byte.

        :param file: an entry of a listing.
        :param write: takes the file's bytes, in order.
        :returns: the file's size and mtime once its last byte had been read.
        :raises asyncssh.Error: if RAP refused this file, or the session ended.
        """
        window = _FILE_WINDOW if file.size is None else min(file.size, _FILE_WINDOW)
        async with self._window.reserve(window), self._opened(file) as handle:
            size = (await self._attributes(handle)).size if file.size is None else file.size
            async with aclosing(self._blocks(handle, size)) as blocks:
                async for block in blocks:
                    write(block)
            return await self._attributes(handle, size)

    @asynccontextmanager
    async def _opened(self, file: RemoteFile) -> AsyncIterator[SFTPClientFile]:
        """Open a file; limit open handles, since most servers do not announce a limit."""
        handle = await self._open(file)
        self._watch.answered()
        self._open_files += 1
        try:
            yield handle
        finally:
            with suppress(asyncssh.Error, ConnectionError):
                await handle.close()
            self._watch.answered()
            self._open_files -= 1
            self._handles.give(1)

    async def _open(self, file: RemoteFile) -> SFTPClientFile:
        while True:
            await self._handles.take(1)
            try:
                # With a block size of its own asyncssh would read in tasks that outlive a cancelled read.
                return await self._sftp.open(file.path, "rb", NO_ATTRIBUTES, block_size=0)
            except asyncssh.SFTPFailure:
                if not self._open_files:
                    self._handles.give(1)
                    raise
                # The handle is not given back to the budget: the server allows fewer open files.
            except asyncssh.SFTPBadMessage as error:
                self._handles.give(1)
                # Servers answer so to a name that they do not accept; the session goes on.
                raise asyncssh.SFTPFailure(error.reason) from None
            except BaseException:
                self._handles.give(1)
                raise

    async def _attributes(self, handle: SFTPClientFile, size: int | None = None) -> Attributes:
        """Return the attributes of an open file; if FSTAT fails, probe for data past *size*."""
        try:
            attrs = await handle.stat()
        except SESSION_ENDED:
            raise
        except asyncssh.SFTPError:
            # Servers word it in many ways that they do not support FSTAT, or deny it.
            more = b"" if size is None else await handle.read(1, size)
            return Attributes(None if size is None else size + len(more), None)
        finally:
            self._watch.answered()
        return Attributes(attrs.size, mtime_of(attrs))

    async def _blocks(self, handle: SFTPClientFile, size: int | None) -> AsyncGenerator[bytes]:
        """Yield a file's blocks in order, many requested ahead; to the end of the file if *size* is None."""
        block = self._block
        offsets = iter(itertools.count(0, block) if size is None else range(0, size, block))
        ahead: deque[asyncio.Task[bytes]] = deque()
        try:
            while True:
                while len(ahead) * block < _FILE_WINDOW and (offset := next(offsets, None)) is not None:
                    wanted = block if size is None else min(block, size - offset)
                    ahead.append(asyncio.create_task(_read_block(handle, wanted, offset)))
                if not ahead:
                    return
                data = await ahead.popleft()
                self._watch.answered()
                yield data
                if size is None and len(data) < block:
                    return
        finally:
            for task in ahead:
                task.cancel()
            # Another block has already failed, or the read was cancelled: that error counts.
            await asyncio.gather(*ahead, return_exceptions=True)


async def _read_block(handle: SFTPClientFile, size: int, offset: int) -> bytes:
    """Return the bytes at an offset: fewer than *size* only at the end of the file."""
    data: bytes = await handle.read(size, offset)
    while data and len(data) < size:
        # A READ may return less than was requested.
        more: bytes = await handle.read(size - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data
