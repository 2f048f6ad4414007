"""One login to RAP: listing, reading and the one upload that it takes, every wait bounded."""

from __future__ import annotations

import asyncio
import itertools
import re
import stat
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

import asyncssh

from airflow_provider_hkex_rap.rap.errors import (
    RapError,
    RapPermissionDenied,
    RapSessionSuperseded,
    RapTransferError,
    RapUnavailable,
)
from airflow_provider_hkex_rap.rap.files import Attributes, Kind, RemoteFile
from airflow_provider_hkex_rap.rap.folders import KEY_FOLDER
from airflow_provider_hkex_rap.rap.key_folder import KeyFile
from airflow_provider_hkex_rap.rap.keys import public_key_file_name
from airflow_provider_hkex_rap.transport.connect import Connected, connect, reason_of

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.rap.folders import Folder
    from airflow_provider_hkex_rap.transport.login import Login

_SMALLEST_BLOCK = 32 * 1024
_LARGEST_BLOCK = 256 * 1024
# Bytes asked for and not yet handed on, of one file and of all: what bounds a session's memory.
_FILE_WINDOW = 4 * 1024 * 1024
_SESSION_WINDOW = 16 * 1024 * 1024
_OPEN_FILES = 512
_GOODBYE = 2.0
"""Seconds in which a server may end its side of SFTP before we hang up."""
_KEY_FILE_LIMIT = 64 * 1024
"""Bytes of a file in the key folder that are looked at; result files have one line (§6)."""

T = TypeVar("T")

_KINDS = {stat.S_IFREG: Kind.FILE, stat.S_IFDIR: Kind.DIRECTORY, stat.S_IFLNK: Kind.SYMLINK}
_LONG_NAME_KINDS = {b"d": Kind.DIRECTORY, b"l": Kind.SYMLINK}
_LONG_NAME = re.compile(rb"([dl])[-rwxsStT]{9}[.+@ ]")
"""As ``ls -l`` writes it; servers may send the bare name."""

_BROKEN_STREAM = (
    asyncssh.DISC_PROTOCOL_ERROR,
    asyncssh.DISC_MAC_ERROR,
    asyncssh.DISC_COMPRESSION_ERROR,
    asyncssh.DISC_KEY_EXCHANGE_FAILED,
)
_ABSENT = (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath, asyncssh.SFTPPermissionDenied)
_SESSION_OVER = (
    asyncssh.DisconnectError,
    asyncssh.ChannelOpenError,
    asyncssh.SFTPConnectionLost,
    asyncssh.SFTPNoConnection,
    asyncssh.SFTPBadMessage,
    ConnectionError,
)


class _NoAttributes(asyncssh.SFTPAttrs):
    """What an OPEN for reading says of the file: nothing, at once.

    asyncssh puts the attributes into words for its log, whether or not it writes one; of many small files
    that is a tenth of the work.
    """

    def __str__(self) -> str:
        return ""


_NO_ATTRIBUTES = _NoAttributes()


@asynccontextmanager
async def open_session(login: Login) -> AsyncIterator[RapSession]:
    """Log in, and log out on leaving.

    :param login: who logs in, where, and with which keys.
    :raises RapUnavailable: no address of the site answered in time.
    :raises RapAuthenticationError: the login was refused.
    :raises RapHostKeyError: a server showed a host key that is not pinned.
    :raises RapAlgorithmError: a server shares no algorithm of §2.1 with us.
    """
    session = RapSession(login, await connect(login))
    try:
        await session.start()
        yield session
    finally:
        await session.close()


class RapSession:
    """One login to RAP, made by :func:`open_session`.

    Its calls may run side by side: all go over the one connection. A call that gets no answer for the
    login's ``idle_timeout`` ends the session with :class:`RapUnavailable`; a session that RAP ends
    raises :class:`RapSessionSuperseded` (§4.3) from every call.
    """

    sftp: asyncssh.SFTPClient
    """The SFTP client underneath."""

    def __init__(self, login: Login, connected: Connected) -> None:
        self._login = login
        self._connected = connected
        self._loop = asyncio.get_running_loop()
        self._since = self._last_answer = self._loop.time()
        self._waiting = 0
        self._watch: asyncio.TimerHandle | None = None
        self._stalled = False
        self._closed = False
        self._window = _Window(_SESSION_WINDOW)
        self._handles = _Window(_OPEN_FILES)
        self._open_files = 0

    async def start(self) -> None:
        """Start SFTP over the login."""
        with self._waiting_for("the start of SFTP"):
            self.sftp = await self._connected.ssh.start_sftp_client()
        if self.sftp.limits.max_open_handles:
            self._handles = _Window(min(self.sftp.limits.max_open_handles, _OPEN_FILES))

    @property
    def address(self) -> str:
        """The address that let us in, as ``host:port``."""
        return str(self._connected.address)

    @property
    def host_key_fingerprint(self) -> str:
        """SHA-256 fingerprint of the server's host key."""
        key = self._connected.client.host_key
        return key.get_fingerprint() if key else ""

    @property
    def client_key_fingerprint(self) -> str:
        """MD5 fingerprint of the key that logged in (§3.2.2)."""
        offered = self._connected.client.offered
        return next(
            (
                key.fingerprint
                for key in self._login.client_keys
                if offered and key.public_key.blob == offered.public_data
            ),
            "",
        )

    async def list_folder(self, folder: Folder) -> Sequence[RemoteFile]:
        """Return every entry of a folder but ``.`` and ``..``, with the attributes that RAP sent along.

        :param folder: the folder, listed once (§4.2).
        :raises RapPermissionDenied: RAP does not show the folder to this account.
        :raises RapUnavailable: the listing did not arrive whole.
        :raises RapSessionSuperseded: RAP ended the session; the listing is not whole.
        """
        return await self._list(
            folder.path,
            lambda entry: _remote_file(folder, entry),
            why=f"The account does not subscribe to {folder.service} reports (§4.2).",
            todo="Remove the folder from 'folders', or ask HKEX to subscribe the account.",
        )

    async def list_key_folder(self) -> Sequence[KeyFile]:
        """Return the files in the key folder, freshly listed (§6, #2).

        :raises RapPermissionDenied: RAP does not show the folder to this account.
        :raises RapUnavailable: the listing did not arrive whole.
        :raises RapSessionSuperseded: RAP ended the session; the listing is not whole.
        """
        return await self._list(
            KEY_FOLDER,
            _key_file,
            why="Every account has this folder (§4.2).",
            todo="Ask HKEX; without it no key of the account can be renewed (§6).",
        )

    async def _list(
        self, path: str, entry_of: Callable[[asyncssh.SFTPName], T], *, why: str, todo: str
    ) -> list[T]:
        entries = []
        with self._waiting_for(path):
            try:
                async for entry in self.sftp.scandir(path.encode()):
                    self._answered()
                    if entry.filename not in (b".", b".."):
                        entries.append(entry_of(entry))
            except _ABSENT as error:
                raise RapPermissionDenied(
                    f"RAP does not show {path} to {self._login.account} ({error.reason}).",
                    why=why,
                    todo=todo,
                    path=path,
                    account=self._login.account.name,
                ) from None
        return entries

    async def read_key_file(self, name: str) -> bytes:
        """Return the first 64 KiB of a file in the key folder, such as a result file (§6).

        :param name: the file's name, from a listing.
        :raises RapTransferError: RAP refused this file; it may have left RAP.
        :raises RapUnavailable: RAP gave no answer.
        :raises RapSessionSuperseded: RAP ended the session.
        """
        path = f"{KEY_FOLDER}/{name}"
        with self._waiting_for(path):
            handle = await self.sftp.open(path.encode(), "rb")
            try:
                content: bytes = await handle.read(_KEY_FILE_LIMIT, 0)
                return content
            finally:
                with suppress(asyncssh.Error, ConnectionError):
                    await handle.close()

    async def upload_key(self, content: bytes) -> None:
        """Upload the account's public key file: one open, one write, one close, and nothing else (§6).

        It is opened as every SFTP client opens a file to put (write, create, truncate). An exclusive create
        would fail for ever where RAP leaves an earlier key file in the folder.

        :param content: the file, in SSH2 form (§3.2.1).
        :raises RapPermissionDenied: RAP denied the upload (§2.1, §4.2).
        :raises RapTransferError: RAP did not take the file.
        :raises RapUnavailable: RAP gave no answer; it may have taken the file all the same.
        :raises RapSessionSuperseded: RAP ended the session; it may have taken the file all the same.
        """
        path = f"{KEY_FOLDER}/{public_key_file_name(self._login.account)}"
        with self._waiting_for(path):
            try:
                handle = await self.sftp.open(path.encode(), "wb")
                await handle.write(content)
                await handle.close()
            except _SESSION_OVER:
                raise
            except asyncssh.SFTPPermissionDenied as error:
                raise RapPermissionDenied(
                    f"RAP denied the upload of {path} ({error.reason}).",
                    why="RAP denies clients with the endurance feature (§2.1), which this one has not, and"
                    " changes to a file that is there (§4.2).",
                    todo="See whether the file is still listed, then try again later; else ask HKEX whether"
                    " the account may upload.",
                    path=path,
                    account=self._login.account.name,
                ) from None
            except asyncssh.SFTPError as error:
                raise RapTransferError(
                    f"RAP did not take {path}: {reason_of(error)}.",
                    why="RAP may have kept none, a part or all of it.",
                    todo="A later try looks for a result file first (§6), then uploads the same key again.",
                    path=path,
                ) from None

    async def read(self, file: RemoteFile, write: Callable[[bytes], object]) -> Attributes:
        """Read a file once, as far as its listed size, and return its attributes after the last byte.

        :param file: an entry of a listing.
        :param write: takes the file's bytes, in order.
        :returns: size and time of the file once its last byte had been read.
        :raises RapTransferError: RAP refused this file, or an answer made no sense.
        :raises RapUnavailable: RAP gave no answer.
        :raises RapSessionSuperseded: RAP ended the session.
        """
        async with self._window.of(_FILE_WINDOW if file.size is None else min(file.size, _FILE_WINDOW)):
            with self._waiting_for(file.folder.path + "/" + file.text):
                async with self._opened(file) as handle:
                    size = (await self._attributes(handle)).size if file.size is None else file.size
                    async with aclosing(self._blocks(handle, size)) as blocks:
                        async for block in blocks:
                            write(block)
                    return await self._attributes(handle, size)

    @asynccontextmanager
    async def _opened(self, file: RemoteFile) -> AsyncIterator[asyncssh.SFTPClientFile]:
        """Have a file open; as many at a time as the server takes, of which few servers tell."""
        while True:
            await self._handles.take(1)
            try:
                # With blocks of its own asyncssh would read in tasks that outlive a cancelled read.
                handle = await self.sftp.open(file.path, "rb", _NO_ATTRIBUTES, block_size=0)
            except asyncssh.SFTPFailure:
                if self._open_files:
                    # The place is not given back: the server takes fewer open files than that.
                    continue
                self._handles.give(1)
                raise
            except asyncssh.SFTPBadMessage as error:
                self._handles.give(1)
                # Servers answer so to a name that they do not like; the session goes on.
                raise asyncssh.SFTPFailure(error.reason) from None
            except BaseException:
                self._handles.give(1)
                raise
            break
        self._answered()
        self._open_files += 1
        try:
            yield handle
        finally:
            with suppress(asyncssh.Error, ConnectionError):
                await handle.close()
            self._answered()
            self._open_files -= 1
            self._handles.give(1)

    async def _attributes(self, handle: asyncssh.SFTPClientFile, size: int | None = None) -> Attributes:
        """Return what RAP says of an open file; else whether bytes follow the *size* that was read."""
        try:
            attrs = await handle.stat()
        except _SESSION_OVER:
            raise
        except asyncssh.SFTPError:
            # Unsupported, denied, or however a server words that it does not tell.
            more = b"" if size is None else await handle.read(1, size)
            return Attributes(None if size is None else size + len(more), None)
        finally:
            self._answered()
        return Attributes(attrs.size, _mtime(attrs))

    @property
    def _block(self) -> int:
        """Bytes to ask for in one READ: what the server says it takes, within reason."""
        return max(_SMALLEST_BLOCK, min(self.sftp.limits.max_read_len, _LARGEST_BLOCK))

    async def _blocks(self, handle: asyncssh.SFTPClientFile, size: int | None) -> AsyncGenerator[bytes]:
        """Yield a file's blocks in order, many asked for ahead; all there are where *size* is None."""
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
                self._answered()
                yield data
                if size is None and len(data) < block:
                    return
        finally:
            for task in ahead:
                task.cancel()
            await asyncio.gather(*ahead, return_exceptions=True)

    async def close(self) -> None:
        """Log out; return when the connection is gone."""
        self._closed = True
        # A server whose last answers meet a closed connection may not read our goodbye.
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(_GOODBYE):
                    if hasattr(self, "sftp"):
                        self.sftp.exit()
                        await self.sftp.wait_closed()
        finally:
            # Also where the task is killed meanwhile: its account is another's turn next.
            self._connected.ssh.close()
            await self._connected.ssh.wait_closed()

    def abort(self) -> None:
        """Cut the connection at once; calls in progress fail."""
        self._closed = True
        self._connected.ssh.abort()

    def _answered(self) -> None:
        self._last_answer = self._loop.time()

    @contextmanager
    def bounded(self, what: str) -> Iterator[None]:
        """Bound the wait for an answer of :attr:`sftp`; what SFTP itself answers passes through.

        :param what: what is waited for, for the error.
        :raises RapUnavailable: RAP gave no answer.
        :raises RapSessionSuperseded: RAP ended the session.
        """
        with self._waiting_for(what, answers_pass=True):
            yield

    @contextmanager
    def _waiting_for(self, what: str, *, answers_pass: bool = False) -> Iterator[None]:
        """Bound the wait for RAP's answers, and name what went wrong with *what*."""
        if not self._waiting:
            self._answered()
            self._watch = self._loop.call_later(self._login.idle_timeout, self._check_answers)
        self._waiting += 1
        try:
            yield
        except (asyncssh.Error, ConnectionError) as error:
            if answers_pass and not self._is_over(error):
                raise
            raise self._error(error, what) from None
        finally:
            self._waiting -= 1
            if not self._waiting and self._watch:
                self._watch.cancel()

    def _check_answers(self) -> None:
        left = self._last_answer + self._login.idle_timeout - self._loop.time()
        if left > 0:
            self._watch = self._loop.call_later(left, self._check_answers)
        else:
            self._stalled = True
            self._connected.ssh.abort()

    def _is_over(self, error: Exception) -> bool:
        return isinstance(error, _SESSION_OVER) or self._connected.client.ended.is_set()

    def _error(self, error: Exception, what: str) -> RapError:
        if not self._is_over(error):
            return RapTransferError(
                f"RAP did not hand over {what}: {reason_of(error)}.",
                why="The file may have left RAP or be in the making.",
                todo="The next run tries it again; if it stays, ask HKEX about this file.",
                path=what,
            )
        if self._stalled or self._closed or self._stream_broke(error):
            return self._unavailable(error, what)
        return self._superseded(error, what)

    def _stream_broke(self, error: Exception) -> bool:
        ends = (error, self._connected.client.end)
        return isinstance(error, asyncssh.SFTPBadMessage | asyncssh.ChannelOpenError) or any(
            isinstance(end, asyncssh.DisconnectError) and end.code in _BROKEN_STREAM for end in ends
        )

    def _unavailable(self, error: Exception, what: str) -> RapUnavailable:
        if self._stalled:
            reason = f"no answer for {self._login.idle_timeout:g} s"
        elif self._closed:
            reason = "the session was closed from our side"
        else:
            reason = reason_of(error)
        return RapUnavailable(
            f"RAP at {self.address} stopped answering during {what}: {reason}.",
            why="The network or the server failed after the login.",
            todo="A later try goes on from what has landed; if it keeps happening, check the line to HKEX.",
            attempts=(f"{self.address}: {reason}",),
            account=self._login.account.name,
        )

    def _superseded(self, error: Exception, what: str) -> RapSessionSuperseded:
        end = self._connected.client.end or error
        announced = not isinstance(end, asyncssh.ConnectionLost | OSError)
        lasted = self._loop.time() - self._since
        how = "cut the connection without a word"
        if announced:
            # asyncssh keeps the words of a disconnect "by application" to itself.
            said = f": {end.reason}" if isinstance(end, asyncssh.DisconnectError) else ""
            how = f"sent a disconnect message{said}"
        return RapSessionSuperseded(
            f"RAP at {self.address} ended the session of {self._login.account} after {lasted:.0f} s,"
            f" during {what}: it {how}.",
            why="Most likely somebody logged in with the same account, and the newest login wins (§4.3);"
            " a lost line looks the same.",
            todo="Find the other login (another host, a human's SFTP client); what has landed is kept, and a"
            " later try goes on from there.",
            account=self._login.account.name,
            address=self.address,
            announced=announced,
        )


async def _read_block(handle: asyncssh.SFTPClientFile, size: int, offset: int) -> bytes:
    """Return the bytes at an offset: fewer than *size* only at the end of the file."""
    data: bytes = await handle.read(size, offset)
    while data and len(data) < size:
        # A READ may return less than was asked for.
        more: bytes = await handle.read(size - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


class _Window:
    """A number of bytes, or of open files, that reads share: first come, first served."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def of(self, size: int) -> AsyncIterator[None]:
        """Hold that much of the window."""
        await self.take(size)
        try:
            yield
        finally:
            self.give(size)

    async def take(self, size: int) -> None:
        """Wait for that much of the window and take it."""
        async with self._turn:
            while self._free < size:
                self._freed.clear()
                await self._freed.wait()
            self._free -= size

    def give(self, size: int) -> None:
        """Give that much back."""
        self._free += size
        self._freed.set()


def _remote_file(folder: Folder, entry: asyncssh.SFTPName) -> RemoteFile:
    name = entry.filename if isinstance(entry.filename, bytes) else entry.filename.encode()
    attrs = entry.attrs
    kind = _KINDS.get(stat.S_IFMT(attrs.permissions or 0))
    if kind is None and attrs.permissions and stat.S_IFMT(attrs.permissions):
        kind = Kind.OTHER
    if kind is None:
        long_name = entry.longname.encode() if isinstance(entry.longname, str) else entry.longname or b""
        match = _LONG_NAME.match(long_name)
        kind = _LONG_NAME_KINDS[match[1]] if match else Kind.FILE
    return RemoteFile(folder, name, attrs.size, _mtime(attrs), kind)


def _key_file(entry: asyncssh.SFTPName) -> KeyFile:
    name = entry.filename
    return KeyFile(
        name.decode(errors="replace") if isinstance(name, bytes) else name,
        _mtime(entry.attrs),
    )


def _mtime(attrs: asyncssh.SFTPAttrs) -> int | None:
    """Return a modification time; None where the server has none, and may say 0."""
    return int(attrs.mtime) if attrs.mtime else None
