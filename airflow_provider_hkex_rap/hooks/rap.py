"""The hook: one login to RAP, made from an Airflow connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cached_property
from typing import IO, TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import conf
from airflow.providers.sftp.hooks.sftp import SFTPHookAsync
from airflow.sdk.log import mask_secret

from airflow_provider_hkex_rap.rap.clock import Clock, system_clock
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError, RapError, RapPermissionDenied
from airflow_provider_hkex_rap.transport.connect import connect
from airflow_provider_hkex_rap.transport.login import Login, read_login
from airflow_provider_hkex_rap.transport.session import RapSession, open_session

if TYPE_CHECKING:
    import os

    import asyncssh


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

    @cached_property
    def login(self) -> Login:
        """What the connection says of the account, the site and the keys.

        :raises RapConfigurationError: a field of the connection is missing or not of the valid form.
        """
        connection = self.get_connection(self.rap_conn_id)
        return read_login(
            login=connection.login,
            host=connection.host,
            port=connection.port,
            extra=connection.extra_dejson,
            mask=mask_secret,
        )

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

    @asynccontextmanager
    async def session(self) -> AsyncIterator[RapSession]:
        """Log in once, and log out on leaving.

        :raises RapConfigurationError: a field of the connection is missing or not of the valid form.
        :raises RapUnavailable: no address of the site answered in time.
        :raises RapAuthenticationError: the login was refused.
        :raises RapHostKeyError: a server showed a host key that is not pinned.
        :raises RapAlgorithmError: a server shares no algorithm of §2.1 with us.
        """
        async with open_session(await asyncio.to_thread(lambda: self.login)) as session:
            self._open_session = session
            try:
                yield session
            finally:
                self._open_session = None

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

    async def _get_conn(self) -> asyncssh.SSHClientConnection:
        return (await connect(await asyncio.to_thread(lambda: self.login))).ssh

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
