"""The parts of the SFTP provider that are used beyond its documentation.

``tests/unit/test_sftp_provider.py`` fails when one of them changes, and ``pyproject.toml`` bounds the
version of the provider.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from airflow.providers.sftp.hooks.sftp import SFTPHookAsync

if TYPE_CHECKING:
    import asyncssh

    from airflow_provider_hkex_rap.transport.session import RapSession


REMOTE_PATHS = ("path", "remote_full_path", "remote_filepath")
"""The parameters of the methods of `SFTPHookAsync` that take a path, or paths, on the server."""


def _judge_paths(hook: type[SessionSFTPHook]) -> None:
    """Judge the paths of all inherited methods, those too that a later version of the provider adds."""
    for name, method in inspect.getmembers(SFTPHookAsync, inspect.iscoroutinefunction):
        if not name.startswith("_") and set(REMOTE_PATHS) & set(inspect.signature(method).parameters):
            setattr(hook, name, _judging(method))


def _judging(method: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(method)

    @functools.wraps(method)
    async def judged(self: SessionSFTPHook, *args: Any, **kwargs: Any) -> Any:
        call = signature.bind(self, *args, **kwargs)
        # A default, such as the empty path, is judged like a path that was given.
        call.apply_defaults()
        for name in set(REMOTE_PATHS) & set(call.arguments):
            given = call.arguments[name]
            several = isinstance(given, list | tuple)
            call.arguments[name] = [*map(self.judge_path, given)] if several else self.judge_path(given)
        return await method(*call.args, **call.kwargs)

    return judged


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

    def judge_path(self, path: Any) -> Any:
        """Return the path to use for a path on the server, or raise an error; called before a method runs."""
        raise NotImplementedError

    async def _get_conn(self) -> _SessionConnection:  # type: ignore[override]
        # Inside a session of this hook, its methods share that login.
        return _SessionConnection(nullcontext(self.open_session) if self.open_session else self.session())

    def _get_open_conn(self) -> _BoundedClient:  # type: ignore[override]
        super()._get_open_conn()
        assert self.open_session is not None  # noqa: S101 - the managed connection is a session
        return _BoundedClient(self.open_session)


_judge_paths(SessionSFTPHook)


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
