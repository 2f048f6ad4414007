"""The hook: one login to RAP, made from an Airflow connection."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from os import PathLike
from typing import IO, TYPE_CHECKING, Any, NoReturn

from airflow.providers.sftp.hooks.sftp import SFTPOperation

from airflow_provider_hkex_rap.hooks.login_source import AirflowLoginSource
from airflow_provider_hkex_rap.hooks.undocumented import SessionSFTPHook
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError, RapError, RapPermissionDenied
from airflow_provider_hkex_rap.rap.files import RemoteFile
from airflow_provider_hkex_rap.rap.folders import KEY_FOLDER, Folder, parse_path
from airflow_provider_hkex_rap.runner.policy import ATTENDED
from airflow_provider_hkex_rap.runner.runner import SessionRunner

if TYPE_CHECKING:
    import os

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

        Logins of one account take turns on this host (§4.3). At most two keys are offered: the connection's
        key if the key store does not know it, else the current key; then one more that may be valid. A key
        that logs in for the first time becomes current in the store.

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
        """Read one report or result file, with a bound on every wait.

        :param remote_full_path: the file's path on RAP.
        :param local_full_path: a path to write to, or a binary file object.
        :param chunk_size: ignored: blocks are as large as RAP allows.
        :param prefetch: ignored: blocks are always requested ahead.
        :raises RapConfigurationError: if RAP has no such folder to download from (§4.2).
        :raises RapTransferError: if RAP refused this file.
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
        async with self.get_managed_conn():
            session = self.open_session
            assert session is not None  # noqa: S101 - the managed connection is a session
            with ExitStack() as stack:
                if isinstance(local_full_path, str | PathLike):
                    file = stack.enter_context(open(local_full_path, "wb"))
                else:
                    file = local_full_path  # type: ignore[assignment]
                if folder == KEY_FOLDER:
                    file.write(await session.read_key_file(name.decode(errors="replace")))
                else:
                    listed = RemoteFile(Folder.parse(folder), name, None, None)
                    await session.read(listed, file.write)

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
        if operation.lower() != SFTPOperation.GET:
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
