"""The parts of the SFTP provider that are used beyond its documentation.

``tests/unit/test_sftp_provider.py`` fails when one of them changes, and ``pyproject.toml`` bounds the
version of the provider.
"""

from __future__ import annotations

import inspect
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from airflow.providers.sftp.hooks.sftp import SFTPHookAsync

if TYPE_CHECKING:
    import asyncssh

    from airflow_provider_hkex_rap.transport.session import RapSession


class SessionSFTPHook(SFTPHookAsync):
    """`SFTPHookAsync` with its connection replaced by our session.

    :param sftp_conn_id: the Airflow connection.
    """

    def __init__(self, sftp_conn_id: str) -> None:
        super().__init__(sftp_conn_id=sftp_conn_id)
        self.open_session: RapSession | None = None
        """The session that the hook's methods share; None outside of `session`."""

    def session(self) -> AbstractAsyncContextManager[RapSession]:
        """Log in once; sets `open_session` meanwhile."""
        raise NotImplementedError

    async def _get_conn(self) -> _SessionConnection:  # type: ignore[override]
        # Inside a session of this hook, its methods share that login.
        return _SessionConnection(nullcontext(self.open_session) if self.open_session else self.session())

    def _get_open_conn(self) -> _BoundedClient:  # type: ignore[override]
        super()._get_open_conn()
        assert self.open_session is not None  # noqa: S101 - the managed connection is a session
        return _BoundedClient(self.open_session)


class _BoundedClient:
    """The SFTP client of a session, with a bound on every call, which `SFTPHookAsync` does not set."""

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


class _SessionConnection:
    """A session in the shape of the SSH connection that `SFTPHookAsync` keeps open."""

    def __init__(self, session: AbstractAsyncContextManager[RapSession]) -> None:
        self._session = session

    async def __aenter__(self) -> _SessionConnection:
        self._sftp = (await self._session.__aenter__()).sftp
        return self

    async def __aexit__(self, *error: Any) -> bool | None:
        return await self._session.__aexit__(*error)

    def start_sftp_client(self) -> nullcontext[asyncssh.SFTPClient]:
        return nullcontext(self._sftp)
