"""One login to RAP: listing, reading, and the one upload that RAP accepts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from typing import TYPE_CHECKING, TypeVar, cast

import asyncssh

from airflow_provider_hkex_rap.rap.errors import RapPermissionDenied, RapTransferError
from airflow_provider_hkex_rap.rap.folders import KEY_FOLDER
from airflow_provider_hkex_rap.rap.keys import public_key_file_name
from airflow_provider_hkex_rap.transport.connect import Connected, connect, reason_of
from airflow_provider_hkex_rap.transport.directories import DirectoryReader
from airflow_provider_hkex_rap.transport.listing import Listing, key_file, remote_file
from airflow_provider_hkex_rap.transport.reading import FileReader
from airflow_provider_hkex_rap.transport.requests import MOST_AT_ONCE, Requests
from airflow_provider_hkex_rap.transport.undocumented import start_sftp
from airflow_provider_hkex_rap.transport.watch import AnswerWatch

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.rap.files import ReadEnd, RemoteFile
    from airflow_provider_hkex_rap.rap.folders import Folder
    from airflow_provider_hkex_rap.rap.key_folder import KeyFile
    from airflow_provider_hkex_rap.transport.login import Login

_CLOSE_SECONDS = 2.0
"""Seconds in which a server may end its side of SFTP before the connection is closed."""
_KEY_FILE_LIMIT = 64 * 1024
"""Bytes to read of a file in the key folder; result files have one line (§6)."""

T = TypeVar("T")

_ABSENT = (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath, asyncssh.SFTPPermissionDenied)


@asynccontextmanager
async def open_session(login: Login, at_once: int = MOST_AT_ONCE) -> AsyncIterator[RapSession]:
    """Log in, and log out on leaving.

    :param login: the account, its addresses, and the keys to offer.
    :param at_once: requests, and open files, at once, at most; few servers announce how many they take.
    :raises RapUnavailable: if no address of the site answered in time.
    :raises RapAuthenticationError: if the login was refused, or asked for more than a key, or for none.
    :raises RapHostKeyError: if a server showed a host key that is not pinned.
    :raises RapAlgorithmError: if a server shares no algorithm of §2.1 with us.
    """
    session = RapSession(login, await connect(login), at_once)
    try:
        await session.start()
        yield session
    finally:
        await session.close()


class RapSession:
    """One login to RAP, made by :func:`open_session`.

    Its calls may run side by side over the one connection. A call that gets no answer for the login's
    ``idle_timeout`` ends the session with :class:`RapUnavailable`. After RAP has ended the session, every
    call raises :class:`RapSessionSuperseded` (§4.3).
    """

    sftp: asyncssh.SFTPClient
    """The SFTP client underneath. It sends every path and operation, also those that RAP denies (§4.2)."""

    def __init__(self, login: Login, connected: Connected, at_once: int) -> None:
        self._login = login
        self._connected = connected
        self._at_once = at_once
        self._watch = AnswerWatch(login, connected)

    async def start(self) -> None:
        """Start SFTP over the login."""
        with self._watch.waiting_for("the start of SFTP"):
            self.sftp, self._watch.stream = await start_sftp(self._connected.ssh)
        requests = Requests(self.sftp, self._watch, self._at_once)
        # A session gets few after a server has ended the one before, which several READDIRs may have caused.
        in_turn = self._at_once < MOST_AT_ONCE
        self._directories = DirectoryReader(self._watch.stream, requests, self._watch, in_turn=in_turn)
        self._files = FileReader(self.sftp.limits, requests, self._watch)

    @property
    def address(self) -> str:
        """The address that accepted the login, as ``host:port``."""
        return str(self._connected.address)

    @property
    def source_address(self) -> str:
        """The source address that RAP sees (§4.3)."""
        return self._connected.client.source_address

    @property
    def host_key_fingerprint(self) -> str:
        """SHA-256 fingerprint of the server's host key."""
        key = self._connected.client.host_key
        return key.get_fingerprint() if key else ""

    @property
    def client_key_fingerprint(self) -> str:
        """MD5 fingerprint of the key that logged in (§3.2.2)."""
        key = self._connected.client.offered
        return key.fingerprint if key else ""

    async def list_folder(self, folder: Folder) -> Sequence[RemoteFile]:
        """Return every entry of a folder but ``.`` and ``..``, with the attributes of the listing.

        :param folder: the folder, listed once (§4.2).
        :raises RapPermissionDenied: if RAP does not show the folder to this account.
        :raises RapTransferError: if RAP refused the listing otherwise, or after it had shown some entries.
        :raises RapUnavailable: if the listing did not arrive whole.
        :raises RapSessionSuperseded: if RAP ended the session; the listing is not whole.
        """
        return await self._list(
            Listing(folder.path, lambda entry: remote_file(folder, entry)),
            why=f"The account does not subscribe to {folder.service} reports (§4.2).",
            todo="Remove the folder from 'folders', or ask HKEX to subscribe the account.",
        )

    async def list_key_folder(self) -> Sequence[KeyFile]:
        """Return the files in the key folder, freshly listed (§6, #2).

        :raises RapPermissionDenied: if RAP does not show the folder to this account.
        :raises RapTransferError: if RAP refused the listing otherwise, or after it had shown some entries.
        :raises RapUnavailable: if the listing did not arrive whole.
        :raises RapSessionSuperseded: if RAP ended the session; the listing is not whole.
        """
        return await self._list(
            Listing(KEY_FOLDER, key_file),
            why="Every account has this folder (§4.2).",
            todo="Ask HKEX; without it no key of the account can be renewed (§6).",
        )

    async def _list(self, listing: Listing[T], *, why: str, todo: str) -> list[T]:
        with self._watch.waiting_for(listing.path):
            try:
                await self._directories.read(listing)
                return list(listing.entries.values())
            except asyncssh.SFTPError as error:
                if self._watch.has_ended:
                    raise
                if listing.most or not isinstance(error, _ABSENT):
                    raise _cut_listing(listing.path, listing.most, error) from None
                raise RapPermissionDenied(
                    f"RAP does not show {listing.path} to {self._login.account} ({reason_of(error)}).",
                    why=why,
                    todo=todo,
                    path=listing.path,
                    account=self._login.account.name,
                ) from None

    async def read_key_file(self, name: str) -> bytes:
        """Return the first 64 KiB of a file in the key folder, such as a result file (§6).

        :param name: the file's name, from a listing.
        :raises RapTransferError: if RAP refused this file; it may have left RAP.
        :raises RapUnavailable: if RAP gave no answer.
        :raises RapSessionSuperseded: if RAP ended the session.
        """
        path = f"{KEY_FOLDER}/{name}"
        with self._watch.waiting_for(path):
            handle = await self.sftp.open(path.encode(), "rb")
            try:
                content = bytearray()
                # A server may answer a READ in parts.
                while len(content) < _KEY_FILE_LIMIT and (
                    part := cast("bytes", await handle.read(_KEY_FILE_LIMIT - len(content), len(content)))
                ):
                    content.extend(part)
                return bytes(content)
            finally:
                with suppress(asyncssh.Error, ConnectionError):
                    await handle.close()

    async def upload_key(self, content: bytes) -> None:
        """Upload the account's public key file: one open, one write, one close, and nothing else (§6).

        The file is opened as every SFTP client opens one to put it (write, create, truncate). An exclusive
        create would fail for ever if RAP leaves an earlier key file in the folder.

        :param content: the file, in SSH2 form (§3.2.1).
        :raises RapPermissionDenied: if RAP denied the upload, and has nothing of it (§2.1, §4.2).
        :raises RapTransferError: if RAP did not accept the file; it may have a part.
        :raises RapUnavailable: if RAP gave no answer; it may have accepted the file.
        :raises RapSessionSuperseded: if RAP ended the session; it may have accepted the file.
        """
        path = f"{KEY_FOLDER}/{public_key_file_name(self._login.account)}"
        with self._watch.waiting_for(path):
            try:
                handle = await self._open_key_file(path)
                await handle.write(content)
                await handle.close()
            except asyncssh.SFTPError as error:
                if self._watch.has_ended:
                    raise
                raise RapTransferError(
                    f"RAP did not accept {path}: {reason_of(error)}.",
                    why="RAP may have kept none, a part or all of it.",
                    todo="A later try looks for a result file first (§6), then uploads the same key again.",
                    path=path,
                ) from None

    async def _open_key_file(self, path: str) -> asyncssh.SFTPClientFile:
        """Open the account's public key file for its upload.

        :raises RapPermissionDenied: if RAP denied it, so that nothing was uploaded (§2.1, §4.2).
        """
        try:
            return await self.sftp.open(path.encode(), "wb")
        except asyncssh.SFTPPermissionDenied as error:
            raise RapPermissionDenied(
                f"RAP denied the upload of {path} ({reason_of(error)}).",
                why="RAP denies the endurance feature (§2.1), which this client does not use, and changes to"
                " a file that exists (§4.2).",
                todo="If the file is still listed, try again later; else ask HKEX whether the account may"
                " upload.",
                path=path,
                account=self._login.account.name,
            ) from None

    async def read(self, file: RemoteFile, write: Callable[[bytes], object]) -> ReadEnd:
        """Read a file once to its end, even if that is not where the listing says.

        :param file: an entry of a listing.
        :param write: takes the file's bytes, in order.
        :returns: what RAP showed of the file once its last byte had been read.
        :raises RapTransferError: if RAP refused this file, or gave an answer that makes no sense.
        :raises RapUnavailable: if RAP gave no answer.
        :raises RapSessionSuperseded: if RAP ended the session.
        """
        with self._watch.waiting_for(f"{file.folder.path}/{file.text}"):
            return await self._files.read(file, write)

    async def close(self) -> None:
        """Log out; return when the connection is gone."""
        self._watch.closed = True
        # A server whose last answers meet a closed connection may not read our disconnect message.
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    if hasattr(self, "sftp"):
                        self.sftp.exit()
                        await self.sftp.wait_closed()
        finally:
            # Also if the task is killed meanwhile: another task logs in with the account next.
            self._connected.ssh.close()
            await self._connected.ssh.wait_closed()

    def abort(self) -> None:
        """Cut the connection at once; calls in progress fail."""
        self._watch.closed = True
        self._connected.ssh.abort()

    def bounded(self, operation: str) -> AbstractContextManager[None]:
        """Bound the waits of calls to :attr:`sftp`; errors for SFTP statuses pass through.

        :param operation: the operation, for the error.
        :raises RapUnavailable: if RAP gave no answer.
        :raises RapSessionSuperseded: if RAP ended the session.
        """
        return self._watch.waiting_for(operation, statuses_pass=True)


def _cut_listing(path: str, entries: int, error: asyncssh.SFTPError) -> RapTransferError:
    return RapTransferError(
        f"The listing of {path} broke off after {entries} entries: {reason_of(error)}.",
        why="The server, or a proxy before it, failed while it listed the folder.",
        todo="The next run lists it again; if it persists, ask HKEX about this folder.",
        path=path,
    )
