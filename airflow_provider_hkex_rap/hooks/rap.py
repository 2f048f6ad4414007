"""The hook: one login to RAP, made from an Airflow connection."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from os import PathLike
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

from airflow.providers.sftp.hooks.sftp import SFTPOperation

from airflow_provider_hkex_rap.hooks.local_file import replacing
from airflow_provider_hkex_rap.hooks.login_source import AirflowLoginSource
from airflow_provider_hkex_rap.hooks.undocumented import SessionSFTPHook
from airflow_provider_hkex_rap.lake.layout import Refused, refuse_name, safe_name
from airflow_provider_hkex_rap.rap.errors import (
    RapConfigurationError,
    RapError,
    RapPermissionDenied,
    RapTransferError,
)
from airflow_provider_hkex_rap.rap.files import Attributes, ReadEnd, RemoteFile, name_text, unsettled
from airflow_provider_hkex_rap.rap.folders import KEY_FOLDER, Folder, parse_path
from airflow_provider_hkex_rap.runner.policy import ATTENDED
from airflow_provider_hkex_rap.runner.runner import SessionRunner

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.transport.session import RapSession


class RapHook(SessionSFTPHook):
    """Read from RAP over one login, with the guide's algorithms and pinned host keys.

    It offers the reading methods of :class:`~airflow.providers.sftp.hooks.sftp.SFTPHookAsync`. Wrap several
    calls in ``async with hook.get_managed_conn():`` to make them over one login. Operations that RAP denies,
    and paths outside of its folders (§4.2), are refused before any network traffic. Only ``session.sftp``
    and what ``get_managed_conn()`` yields, the SFTP client underneath, send what they are given. In a
    notebook or a task of your own::

        hook = RapHook("hkex_rap_default")
        async with hook.session() as session:
            files = await session.list_folder(Folder.DCASS)

    The hook never waits long: if the account is in use on this host, it says by whom. It does not run in the
    triggerer, whose host is usually not a registered workstation (§7).

    :param rap_conn_id: an Airflow connection of the type ``hkex_rap``.
    """

    conn_name_attr = "rap_conn_id"
    default_conn_name = "hkex_rap_default"
    conn_type = "hkex_rap"
    hook_name = "HKEX RAP"

    def __init__(self, rap_conn_id: str = default_conn_name) -> None:
        super().__init__(sftp_conn_id=rap_conn_id)
        self.rap_conn_id = rap_conn_id
        self.source = AirflowLoginSource(rap_conn_id)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[RapSession]:
        """Log in once, and log out on leaving.

        On this host, a login waits until another session of its account has ended (§4.3). At most two keys
        are offered: the connection's key if the key store does not know it, else the current key; then one
        more that may be valid. A key that logs in for the first time becomes current in the store.

        :raises RapConfigurationError: if a field of the connection is missing or not of the valid form, or
            there is no key.
        :raises KeyStoreError: if the key store cannot be read now.
        :raises RapUnavailable: if no address of the site answered in time, or the account is in use on this
            host.
        :raises RapAuthenticationError: if the login was refused, or asked for more than a key, or for none.
        :raises RapHostKeyError: if a server showed a host key that is not pinned.
        :raises RapAlgorithmError: if a server shares no algorithm of §2.1 with us.
        """
        async with SessionRunner(self.source, ATTENDED).session() as session:
            self.open_session = session
            try:
                yield session
            finally:
                self.open_session = None

    def test_connection(self) -> tuple[bool, str]:
        """Log in and out again, for Airflow's *Test* action; works under a running event loop too.

        RAP ends a session of the same account that is open elsewhere (§4.3).
        """
        runner = SessionRunner(self.source, ATTENDED)

        async def log_in_and_out() -> str:
            async with runner.session() as session:
                return (
                    f"Logged in to RAP at {session.address} as {self.source.account}; host key"
                    f" {session.host_key_fingerprint}, our key {session.client_key_fingerprint}."
                )

        try:
            return True, runner.run(log_in_and_out)
        except RapError as error:
            return False, str(error)

    def judge_path(self, path: Any) -> str | bytes:
        """Return a path on RAP in its shortest form, as text if it is UTF-8; called by each method.

        :param path: a folder of RAP, or a file in one, as text, bytes or path object.
        :raises RapConfigurationError: if it is neither (§4.2).
        """
        folder, name = parse_path(path)
        if not name:
            return folder
        try:
            return f"{folder}/{name.decode()}"
        except UnicodeDecodeError:
            return folder.encode() + b"/" + name

    async def retrieve_file(
        self,
        remote_full_path: str,
        local_full_path: str | os.PathLike[str] | IO[bytes],
        chunk_size: int = 0,
        prefetch: bool = True,
    ) -> None:
        """Read one report or result file whole, with a bound on every wait.

        Its end, and its size and mtime after the reading, are proven as for a download. Only then does it
        replace a file at a local path; after an error, that file is unchanged.

        :param remote_full_path: the file's path on RAP.
        :param local_full_path: a path to write to, or a binary file object, which has a part of the file
            after an error.
        :param chunk_size: ignored: blocks are as large as RAP allows.
        :param prefetch: ignored: blocks are always requested ahead.
        :raises RapConfigurationError: if RAP has no such folder to download from (§4.2), or if
            *local_full_path* is neither a path nor a file.
        :raises RapTransferError: if RAP refused this file, or it did not arrive whole.
        :raises RapUnavailable: if RAP gave no answer.
        :raises RapSessionSuperseded: if RAP ended the session.
        """
        folder, name = parse_path(remote_full_path)
        if not name:
            raise RapConfigurationError(
                f"{remote_full_path!r} is a folder of RAP, not a file.",
                todo="Name a file in it; 'retrieve_directory' reads all files of a folder.",
                path=remote_full_path,
            )
        if not isinstance(local_full_path, str | PathLike) and not hasattr(local_full_path, "write"):
            raise RapConfigurationError(
                f"{local_full_path!r} is neither a local path nor a file object.",
                todo="Give a path as text, or a file that is open for writing in binary mode.",
                path=remote_full_path,
            )
        async with self.get_managed_conn():
            if isinstance(local_full_path, str | PathLike):
                with replacing(local_full_path) as file:
                    await self._read(folder, name, file.write)
            else:
                await self._read(folder, name, local_full_path.write)

    async def _read(self, folder: str, name: bytes, write: Callable[[bytes], object]) -> None:
        """Read a file inside a session.

        :raises RapTransferError: if it did not arrive whole.
        """
        session = self._session()
        path = folder.encode() + b"/" + name
        before = await self._attributes(path)
        size = 0

        def count(data: bytes) -> None:
            nonlocal size
            size += len(data)
            write(data)

        if folder == KEY_FOLDER:
            # A result file may leave RAP once it was read (§6).
            count(await session.read_key_file(name.decode(errors="replace")))
            reason = unsettled(before, size, ReadEnd(before))
        else:
            end = await session.read(RemoteFile(Folder.parse(folder), name, *before), count)
            reason = unsettled(before, size, end)
            is_doubtful = before.size not in (None, size) or end.attributes.mtime is None
            # A server that misstates the size, or lacks FSTAT, shows only here that the file was at rest.
            if not reason and is_doubtful and await self._attributes(path) != before:
                reason = "RAP did not confirm its size and time after it was read."
        if reason:
            raise RapTransferError(
                f"{name_text(path)} did not arrive whole: {reason}",
                todo="Read it again later.",
                path=name_text(path),
            )

    async def _attributes(self, path: bytes) -> Attributes:
        """Return size and mtime of a file; None of each if STAT fails, as it does on some servers."""
        import asyncssh

        from airflow_provider_hkex_rap.transport.listing import mtime_of

        try:
            attrs = await self._get_open_conn().stat(path)
        except asyncssh.SFTPError:
            return Attributes(None, None)
        return Attributes(attrs.size, mtime_of(attrs))

    def _session(self) -> RapSession:
        assert self.open_session is not None  # noqa: S101 - the managed connection is a session
        return self.open_session

    async def retrieve_directory(
        self, remote_full_path: str, local_full_path: str, prefetch: bool = True
    ) -> None:
        """Read every file of a folder into a new local directory.

        An entry that may not be written, such as one whose name leads out of the directory, or a file that
        cannot be read whole, holds up no other. The error at the end names them.

        :param remote_full_path: the folder's path on RAP.
        :param local_full_path: the directory to create.
        :param prefetch: ignored: blocks are always requested ahead.
        :raises RapConfigurationError: if RAP has no such folder (§4.2).
        :raises FileExistsError: if the local directory exists.
        :raises RapTransferError: if entries are left out; the other files are in the directory.
        :raises RapPermissionDenied: if RAP does not show the folder to the account.
        :raises RapUnavailable: if RAP gave no answer.
        :raises RapSessionSuperseded: if RAP ended the session.
        """
        folder, name = parse_path(remote_full_path)
        if name:
            raise RapConfigurationError(
                f"{remote_full_path!r} is a file in a folder of RAP, not a folder.",
                todo="Name the folder; 'retrieve_file' reads one file.",
                path=remote_full_path,
            )
        async with self.get_managed_conn():
            await asyncio.to_thread(Path(local_full_path).mkdir, parents=True)
            left_out = []
            for entry, refused in await self._entries(folder):
                try:
                    if refused:
                        raise RapTransferError(f"{folder}/{name_text(entry)} is not read: {refused.reason}")
                    path = folder.encode() + b"/" + entry
                    await self.retrieve_file(path, os.path.join(local_full_path, os.fsdecode(entry)))  # type: ignore[arg-type]
                except (RapTransferError, RapPermissionDenied) as error:
                    left_out.append(str(error))
        if left_out:
            raise RapTransferError(
                f"{len(left_out)} entries of {folder} are not in {local_full_path}: {' '.join(left_out)}",
                todo="The other files are there.",
                path=folder,
                left_out=tuple(left_out),
            )

    async def _entries(self, folder: str) -> Sequence[tuple[bytes, Refused | None]]:
        """Return the name of each entry of a folder, and the reason if it may not be written."""
        session = self._session()
        if folder == KEY_FOLDER:
            names = [file.name for file in await session.list_key_folder()]
            return [(name.encode(), refuse_name(name)) for name in names]
        found = [(file.name, safe_name(file)) for file in await session.list_folder(Folder.parse(folder))]
        return [(name, safe if isinstance(safe, Refused) else None) for name, safe in found]

    async def transfer(
        self,
        operation: str,
        local_filepath: str | list[str] | None,
        remote_filepath: str | list[str],
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Read files or folders, as `retrieve_file` and `retrieve_directory` do.

        :param operation: ``get``; RAP denies the others (§4.2).
        :param local_filepath: the path to write to, or the paths.
        :param remote_filepath: the path on RAP, or the paths.
        :param args: as in `SFTPHookAsync`.
        :param kwargs: as in `SFTPHookAsync`.
        :raises RapConfigurationError: if a path leads to no folder of RAP and to no file in one (§4.2).
        :raises RapPermissionDenied: if it is another operation.
        """
        if str(operation).lower() != SFTPOperation.GET:
            self._refuse(f"transfer ({operation})", str(remote_filepath))
        await super().transfer(operation, local_filepath, remote_filepath, *args, **kwargs)

    async def store_file(
        self,
        remote_full_path: str,
        local_full_path: str | os.PathLike[str] | IO[bytes],
        confirm: bool = True,
    ) -> NoReturn:
        """Refuse: RAP accepts public keys only, and the key renewal operator uploads them (§6)."""
        self._refuse("store_file", remote_full_path)

    async def store_directory(self, remote_full_path: str, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: RAP accepts public keys only (§4.2)."""
        self._refuse("store_directory", remote_full_path)

    async def mkdir(self, path: str) -> NoReturn:
        """Refuse: RAP's folders are fixed (§4.2)."""
        self._refuse("mkdir", path)

    async def create_directory(self, path: str) -> NoReturn:
        """Refuse: RAP's folders are fixed (§4.2)."""
        self._refuse("create_directory", path)

    async def delete_file(self, path: str) -> NoReturn:
        """Refuse: RAP itself deletes reports after ten days (§4.1)."""
        self._refuse("delete_file", path)

    async def delete_directory(self, path: str, include_files: bool = False) -> NoReturn:
        """Refuse: RAP's folders are fixed (§4.2)."""
        self._refuse("delete_directory", path)

    def _refuse(self, operation: str, path: str) -> NoReturn:
        raise RapPermissionDenied(
            f"{operation} of {path} was not sent to RAP.",
            why="RAP is for download only, but for new public keys in /key_management/publickey (§4.2).",
            todo="Remove the call; to renew a key, use RapKeyRenewalOperator.",
            path=path,
        )
