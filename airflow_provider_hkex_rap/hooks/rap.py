"""The hook: one login to RAP, made from an Airflow connection."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
    nullcontext,
)
from dataclasses import replace
from functools import cached_property
from os import PathLike
from typing import IO, TYPE_CHECKING, Any, NoReturn

from airflow.providers.sftp.hooks.sftp import SFTPHookAsync
from airflow.sdk.configuration import conf
from airflow.sdk.log import mask_secret

from airflow_provider_hkex_rap.keystore.login_keys import LoginKeys
from airflow_provider_hkex_rap.keystore.opening import open_key_store
from airflow_provider_hkex_rap.rap.clock import Clock, system_clock
from airflow_provider_hkex_rap.rap.errors import (
    RapAuthenticationError,
    RapConfigurationError,
    RapError,
    RapPermissionDenied,
)
from airflow_provider_hkex_rap.rap.files import RemoteFile
from airflow_provider_hkex_rap.rap.folders import KEY_FOLDER, Folder
from airflow_provider_hkex_rap.rap.key_lifecycle import parse_key_expires
from airflow_provider_hkex_rap.transport.account_lock import LOCK_WAIT, account_lock
from airflow_provider_hkex_rap.transport.login import Login, read_login
from airflow_provider_hkex_rap.transport.session import RapSession, open_session

if TYPE_CHECKING:
    import os

    import asyncssh
    import pendulum
    from airflow.sdk import Connection

    from airflow_provider_hkex_rap.keystore.record import KeyRecord, PendingKey
    from airflow_provider_hkex_rap.keystore.store import AccountKeys, KeyStore

ATTENDED_LOCK_WAIT = 5.0
"""Seconds that a login waits for its turn where somebody watches: the Test button and the commands."""


class RapHook(SFTPHookAsync):
    """Talk to RAP over one login, with the guide's algorithms and pinned host keys.

    What :class:`~airflow.providers.sftp.hooks.sftp.SFTPHookAsync` reads, this hook reads too; wrap several
    calls in ``async with hook.get_managed_conn():`` to make them over one login. What RAP denies (§4.2) is
    refused before the network.

    :param rap_conn_id: an Airflow connection of the type ``hkex_rap``.
    """

    conn_name_attr = "rap_conn_id"
    default_conn_name = "hkex_rap_default"
    conn_type = "hkex_rap"
    hook_name = "HKEX RAP"

    def __init__(self, rap_conn_id: str = default_conn_name) -> None:
        super().__init__(sftp_conn_id=rap_conn_id)
        self.rap_conn_id = rap_conn_id
        self._open_session: RapSession | None = None
        self.lock_wait = LOCK_WAIT
        """Seconds to wait where another process of this host is logged in with the account."""
        self.superseded_wait = 0.0
        """Seconds for which whoever throws out a login of this host is left in peace; tasks set it (§4.3)."""
        self.before_login: Callable[[], object] = lambda: None
        """Called when it is our turn to log in; what it raises keeps us from it. Tasks set it."""

    @cached_property
    def login(self) -> Login:
        """What the connection says of the account, the site and its own key; the key store may have others.

        :raises RapConfigurationError: a field of the connection is missing or not of the valid form.
        """
        connection = self._connection
        return read_login(
            login=connection.login,
            host=connection.host,
            port=connection.port,
            extra=connection.extra_dejson,
            mask=mask_secret,
        )

    def check(self) -> None:
        """Read the connection, so that what is wrong with it shows before any network.

        :raises RapConfigurationError: a field of the connection is missing or not of the valid form.
        """
        _ = self.login, self._key_expires

    @cached_property
    def clock(self) -> Clock:
        """The time, shifted by ``[hkex_rap] clock_offset`` for trials against a simulator.

        :raises RapConfigurationError: an offset is set and the connection leaves this machine.
        """
        offset = conf.getfloat("hkex_rap", "clock_offset", fallback=0.0)
        if offset and not self.login.is_loopback:
            raise RapConfigurationError(
                f"[hkex_rap] clock_offset is {offset:g} s and the connection leaves this machine.",
                why="A shifted clock would judge RAP's reports and keys by a date that is not today's.",
                todo="Remove the offset; it is for trials against a simulator on this machine.",
                clock_offset=offset,
            )
        return system_clock(offset)

    @cached_property
    def key_store(self) -> KeyStore:
        """Where the account's keys are kept, by the connection's ``key_store``.

        :raises RapConfigurationError: the field names no key store.
        """
        return open_key_store(str(self._connection.extra_dejson.get("key_store") or ""))

    def account_keys(self) -> AccountKeys:
        """Read the account's keys from the key store, once.

        :raises RapConfigurationError: a field of the connection, or what the store holds, is not valid.
        :raises KeyStoreError: the store cannot be read now.
        """
        return self._login_keys().read()

    def _login_keys(self) -> LoginKeys:
        keys = self.login.client_keys
        return LoginKeys(
            self.key_store,
            self.login.account,
            connection_key=keys[0] if keys else None,
            key_expires=self._key_expires,
            passphrase=self.key_passphrase,
            clock=self.clock,
            mask=mask_secret,
        )

    def with_known_expiry(self, record: KeyRecord) -> KeyRecord:
        """Return the record with the connection's ``key_expires``, where that is about the current key.

        :raises RapConfigurationError: it is not a date.
        """
        return self._login_keys().with_known_expiry(record)

    @asynccontextmanager
    async def session(self, *, only: PendingKey | None = None) -> AsyncIterator[RapSession]:
        """Log in once, and log out on leaving.

        Logins of one account take turns on this host (§4.3). The connection's key is offered first where the
        key store does not know it; else the current one is, then one more that may be valid. A key that has
        logged in for the first time becomes current in the store.

        :param only: a key of a renewal in progress, to offer instead of those.
        :raises RapConfigurationError: a field of the connection is missing or not of the valid form, or there
            is no key.
        :raises KeyStoreError: the key store cannot be read now.
        :raises RapUnavailable: no address of the site answered in time.
        :raises RapAuthenticationError: the login was refused.
        :raises RapHostKeyError: a server showed a host key that is not pinned.
        :raises RapAlgorithmError: a server shares no algorithm of §2.1 with us.
        """
        login = await asyncio.to_thread(lambda: self.login)
        async with account_lock(
            login,
            f"the connection {self.rap_conn_id}",
            wait=self.lock_wait,
            superseded_wait=self.superseded_wait,
        ):
            self.before_login()
            login_keys = await asyncio.to_thread(self._login_keys)
            chosen = await asyncio.to_thread(login_keys.choose, only)
            async with AsyncExitStack() as stack:
                try:
                    session = await stack.enter_async_context(
                        open_session(replace(login, client_keys=chosen.private_keys))
                    )
                except RapAuthenticationError as refused:
                    raise chosen.refused(refused) from None
                self._open_session = session
                try:
                    await asyncio.to_thread(login_keys.note_login, chosen, session.client_key_fingerprint)
                    yield session
                finally:
                    self._open_session = None

    def read_again(self) -> None:
        """Read the connection anew: meanwhile it may have been switched to the other site (§2.2).

        :raises RapConfigurationError: a field of the connection is missing or not of the valid form.
        """
        for name in ("_connection", "login", "key_store", "key_passphrase", "_key_expires"):
            self.__dict__.pop(name, None)
        self.check()

    def abort(self) -> bool:
        """End the session at once; return whether one was open."""
        session = self._open_session
        if session:
            session.abort()
        return session is not None

    def test_connection(self) -> tuple[bool, str]:
        """Log in and out again, for the connection form's Test button.

        RAP ends a session of the same account that is open elsewhere (§4.3).
        """
        self.lock_wait = ATTENDED_LOCK_WAIT
        try:
            return True, asyncio.run(self._log_in_and_out())
        except RapError as error:
            return False, str(error)

    async def _log_in_and_out(self) -> str:
        async with self.session() as session:
            return (
                f"Logged in to RAP at {session.address} as {self.login.account}; host key"
                f" {session.host_key_fingerprint}, our key {session.client_key_fingerprint}."
            )

    async def _get_conn(self) -> _ManagedSession:  # type: ignore[override]
        # Within a session of this hook its methods share that login.
        return _ManagedSession(nullcontext(self._open_session) if self._open_session else self.session())

    # The keys.

    @cached_property
    def _connection(self) -> Connection:
        return self.get_connection(self.rap_conn_id)

    @cached_property
    def key_passphrase(self) -> str | None:
        """The connection's ``private_key_passphrase``, where it has one."""
        return str(self._connection.extra_dejson.get("private_key_passphrase") or "") or None

    @cached_property
    def _key_expires(self) -> pendulum.Date | None:
        return parse_key_expires(str(self._connection.extra_dejson.get("key_expires") or ""))

    def _get_open_conn(self) -> _BoundedClient:  # type: ignore[override]
        super()._get_open_conn()
        assert self._open_session is not None  # noqa: S101 - the managed connection is a session
        return _BoundedClient(self._open_session)

    async def retrieve_file(
        self,
        remote_full_path: str,
        local_full_path: str | os.PathLike[str] | IO[bytes],
        chunk_size: int = 0,
        prefetch: bool = True,
    ) -> None:
        """Read one report or result file, every wait bounded.

        :param remote_full_path: the file's path on RAP.
        :param local_full_path: a path to write to, or a binary file object.
        :param chunk_size: not heeded: blocks are as large as RAP takes them.
        :param prefetch: not heeded: blocks are always asked for ahead.
        :raises RapConfigurationError: RAP has no such folder to download from (§4.2).
        :raises RapTransferError: RAP refused this file.
        :raises RapUnavailable: RAP gave no answer.
        :raises RapSessionSuperseded: RAP ended the session.
        """
        folder, _, name = remote_full_path.rpartition("/")
        async with self.get_managed_conn():
            session = self._open_session
            assert session is not None  # noqa: S101 - the managed connection is a session
            with ExitStack() as stack:
                if isinstance(local_full_path, str | PathLike):
                    file = stack.enter_context(open(local_full_path, "wb"))
                else:
                    file = local_full_path  # type: ignore[assignment]
                if folder == KEY_FOLDER:
                    file.write(await session.read_key_file(name))
                else:
                    listed = RemoteFile(Folder.parse(folder), name.encode(), None, None)
                    await session.read(listed, file.write)

    async def store_file(
        self,
        remote_full_path: str,
        local_full_path: str | os.PathLike[str] | IO[bytes],
        confirm: bool = True,
    ) -> NoReturn:
        """Refuse: the one upload that RAP takes is a public key, by the key renewal operator (§6)."""
        self._refuse("store_file", remote_full_path)

    async def store_directory(self, remote_full_path: str, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: RAP takes no uploads but public keys (§4.2)."""
        self._refuse("store_directory", remote_full_path)

    async def mkdir(self, path: str) -> NoReturn:
        """Refuse: RAP's folders are given (§4.2)."""
        self._refuse("mkdir", path)

    async def create_directory(self, path: str) -> NoReturn:
        """Refuse: RAP's folders are given (§4.2)."""
        self._refuse("create_directory", path)

    async def delete_file(self, path: str) -> NoReturn:
        """Refuse: RAP deletes by itself, after ten days (§4.1)."""
        self._refuse("delete_file", path)

    async def delete_directory(self, path: str, include_files: bool = False) -> NoReturn:
        """Refuse: RAP's folders are given (§4.2)."""
        self._refuse("delete_directory", path)

    def _refuse(self, operation: str, path: str) -> NoReturn:
        raise RapPermissionDenied(
            f"{operation} of {path} was not sent to RAP.",
            why="RAP is for download only, but for new public keys in /key_management/publickey (§4.2).",
            todo="Remove the call; to renew a key, use RapKeyRenewalOperator.",
            path=path,
        )


class _BoundedClient:
    """The SFTP client of a session with a bound on every call: the methods of SFTPHookAsync have none."""

    def __init__(self, session: RapSession) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._session.sftp, name)
        if not inspect.iscoroutinefunction(call):
            return call

        async def bounded(*args: Any, **kwargs: Any) -> Any:
            with self._session.bounded(name):
                return await call(*args, **kwargs)

        return bounded


class _ManagedSession:
    """A session in the shape of the connection that SFTPHookAsync keeps open for its methods."""

    def __init__(self, session: AbstractAsyncContextManager[RapSession]) -> None:
        self._session = session

    async def __aenter__(self) -> _ManagedSession:
        self._sftp = (await self._session.__aenter__()).sftp
        return self

    async def __aexit__(self, *error: Any) -> bool | None:
        return await self._session.__aexit__(*error)

    def start_sftp_client(self) -> nullcontext[asyncssh.SFTPClient]:
        return nullcontext(self._sftp)
