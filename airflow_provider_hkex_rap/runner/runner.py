"""One owner of how a caller gets a session: lock, service hours, keys, back-off, kill and release."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_hkex_rap.aio.finish import finish
from airflow_provider_hkex_rap.aio.thread import in_thread
from airflow_provider_hkex_rap.rap.calendar import is_public_holiday
from airflow_provider_hkex_rap.rap.errors import (
    RapAuthenticationError,
    RapClosed,
    RapError,
    RapKeyVerificationError,
    RapPermissionDenied,
    RapSessionSuperseded,
    RapUnavailable,
)
from airflow_provider_hkex_rap.rap.service_hours import (
    DAY_OPENS,
    KEY_WORK,
    is_near_edge,
    is_near_opening,
    next_opening,
)
from airflow_provider_hkex_rap.runner.account_lock import account_lock
from airflow_provider_hkex_rap.transport.requests import MOST_AT_ONCE
from airflow_provider_hkex_rap.transport.session import open_session
from airflow_provider_hkex_rap.transport.undocumented import quiet_logging

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_hkex_rap.keystore.login_keys import ChosenKeys, LoginKeys
    from airflow_provider_hkex_rap.keystore.record import KeyRecord, PendingKey
    from airflow_provider_hkex_rap.rap.account import Account
    from airflow_provider_hkex_rap.rap.files import RemoteFile
    from airflow_provider_hkex_rap.rap.folders import Folder
    from airflow_provider_hkex_rap.rap.service_hours import Wanted
    from airflow_provider_hkex_rap.runner.policy import Policy
    from airflow_provider_hkex_rap.runner.source import LoginSource
    from airflow_provider_hkex_rap.transport.login import Login
    from airflow_provider_hkex_rap.transport.session import RapSession

_RETRY_AT_EDGE = timedelta(minutes=1)
_AT_ONCE_AGAIN = 16
"""Requests at once after the first session that RAP has ended; a quarter of it after each further one."""

T = TypeVar("T")

log = logging.getLogger(__name__)


class SessionRunner:
    """Gives its caller sessions with RAP, one at a time, and ends them when the caller is killed.

    A synchronous caller passes a coroutine function to `run`; the coroutine opens sessions::

        runner = SessionRunner(source, ATTENDED)

        async def count() -> int:
            async with runner.session() as session:
                return len(await session.list_folder(Folder.DCASS))

        print(runner.run(count, wanted=[Service.DCASS]))

    An asynchronous caller uses `session` directly.

    :param source: the settings of the login; read again after each wait.
    :param policy: how long to wait, and how often to try again.
    """

    def __init__(self, source: LoginSource, policy: Policy) -> None:
        self._source = source
        self.policy = policy
        self.superseded = 0
        """How many sessions another login has ended (§4.3)."""
        self.key_record: KeyRecord | None = None
        """The account's keys after the last login; None before it."""
        self._wanted: tuple[Wanted, ...] = ()
        self._killed = False
        self._session: RapSession | None = None
        self._cut_session = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None

    def run(self, work: Callable[[], Coroutine[Any, Any, T]], wanted: Iterable[Wanted] = ()) -> T:
        """Run a coroutine to its end, or until the caller is killed, in an event loop of its own.

        The loop runs in another thread, so this works under a running event loop too, and an exception that
        a signal handler raises in the calling thread, as Airflow's ``execution_timeout`` does, cannot break
        the loop.

        :param work: makes the coroutine; called again after a superseded session if the policy allows it.
        :param wanted: the services, or key work, that must be open before each login; none does not check.
        :returns: the result of the coroutine.
        :raises RapClosed: if RAP is outside the service hours, or if a login fails at an opening or a closing
            and the policy retries then.
        :raises RapUnavailable: if the caller was killed.
        :raises RapError: as *work* does.
        """
        self._wanted = tuple(wanted)
        self.check_open(self._wanted)
        with ThreadPoolExecutor(1, "hkex-rap") as thread:
            running = thread.submit(contextvars.copy_context().run, self._run_loop, work)
            try:
                return running.result()
            except BaseException:
                if not running.done():
                    self.kill()
                raise

    def check_open(self, wanted: Iterable[Wanted]) -> None:
        """Check the service hours (§4.1).

        :param wanted: services, or key work; none is always open.
        :raises RapClosed: if one of them is closed now.
        """
        now = self._source.clock()
        wanted = tuple(wanted)
        opens_at = next_opening(wanted, now)
        if opens_at > now:
            opening = f"{opens_at.format('ddd YYYY-MM-DD HH:mm')} HKT"
            names = " and ".join(sorted("key work" if one == KEY_WORK else str(one) for one in wanted))
            closed = "RAP is closed" if len(wanted) == 1 else f"{names} are not open together"
            raise RapClosed(
                f"{closed} until {opening}.",
                why=f"These are the service hours of {names} (guide §4.1); nothing was sent.",
                todo="A scheduled task waits for it by itself; try anything else again then.",
                opens_at=opens_at,
            )

    def kill(self) -> None:
        """Close the session and cancel the work; no other login begins.

        Safe in a signal handler: it takes no lock and does no I/O.
        """
        self._killed = True
        if loop := self._loop:
            # The loop may have ended meanwhile.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._cancel)

    @property
    def killed(self) -> bool:
        """Whether the caller was killed."""
        return self._killed

    @asynccontextmanager
    async def session(self, *, only: PendingKey | None = None) -> AsyncIterator[RapSession]:
        """Log in once, and log out on leaving.

        Logins of one account take turns on this host (§4.3). Before the login, the service hours are checked
        (§4.1); after it, the key store keeps what the login showed about the keys.

        :param only: a key of a renewal in progress, to offer instead of the account's other keys.
        :raises RapClosed: if RAP is outside the service hours; or if it refuses the login within five minutes
            of an opening, and the policy retries then.
        :raises RapConfigurationError: if a setting is not valid, or there is no key.
        :raises KeyStoreError: if the key store cannot be read now.
        :raises RapUnavailable: if no address of the site answered in time, if another process of this host
            kept the account, or if the caller was killed.
        :raises RapAuthenticationError: if RAP refused the login, or asks for more than a key, or for none.
        :raises RapKeyVerificationError: instead, if *only* was not refused.
        :raises RapHostKeyError: if a server showed a host key that is not pinned.
        :raises RapAlgorithmError: if a server shares no algorithm of §2.1 with us.
        """
        login, directory = await in_thread(self._read_source)
        async with account_lock(login, self._source.name, self.policy, directory) as waited:
            self._check_may_log_in()
            if waited:
                login = await in_thread(self._read_again, login.account)
            keys = await in_thread(lambda: self._source.keys)
            chosen = await in_thread(keys.choose, only)
            async with AsyncExitStack() as stack:
                stack.enter_context(quiet_logging())
                session = await self._open(stack, login, keys, chosen)
                self._session = session
                try:
                    if only is None:
                        # Even if the task is killed meanwhile: the next login reads this record.
                        noting = in_thread(keys.note_login, chosen, session.client_key_fingerprint)
                        self.key_record = await finish(noting)
                    yield session
                except RapSessionSuperseded:
                    await finish(in_thread(keys.note_superseded))
                    raise
                finally:
                    self._session = None

    async def list_folder(self, session: RapSession, folder: Folder) -> Sequence[RemoteFile]:
        """Return the listing of a folder; nothing if RAP denies it on a public holiday.

        Derivatives Holiday Trading is optional, and CCMS may be closed then: a denial means closed (§4.1).

        :param session: a session of this runner.
        :param folder: the folder, listed once.
        :raises RapClosed: if RAP denies the folder at an opening or a closing, which its clock may see later
            or earlier than ours, and the policy retries then.
        :raises RapPermissionDenied: if RAP denies the folder at another time.
        :raises RapError: as `RapSession.list_folder` does.
        """
        try:
            return await session.list_folder(folder)
        except RapPermissionDenied as error:
            if self._retries_now([folder.service]):
                raise self._closed_at_edge(error) from error
            # The night until the opening belongs to the day before.
            if is_public_holiday((self._source.clock() - DAY_OPENS).date()):
                return ()
            raise

    def _run_loop(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            self._loop = runner.get_loop()
            try:
                return runner.run(self._supervise(work))
            finally:
                self._loop = None

    async def _supervise(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        self._task = asyncio.current_task()
        try:
            self._check_may_log_in()
            return await self._work_with_backoff(work)
        except asyncio.CancelledError:
            raise _killed(logged_in=self._cut_session) from None
        except (RapUnavailable, RapSessionSuperseded) as error:
            # The end of the session may be noticed before the cancellation.
            if self._cut_session:
                raise _killed(logged_in=True) from None
            if isinstance(error, RapUnavailable) and self._retries_now(self._wanted):
                raise self._closed_at_edge(error) from error
            raise
        finally:
            self._task = None

    async def _work_with_backoff(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do the work, and again after a back-off if another login has superseded our session (§4.3)."""
        for _ in range(self.policy.superseded_retries):
            try:
                return await self._count_superseded(work)
            except RapSessionSuperseded as error:
                pause = self.policy.superseded_backoff()
                log.warning("%s Trying again in %.0f s.", error, pause)
                await asyncio.sleep(pause)
                await in_thread(self._source.refresh)
        return await self._count_superseded(work)

    async def _count_superseded(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        try:
            return await work()
        except RapSessionSuperseded:
            self.superseded += 1
            raise

    def _cancel(self) -> None:
        task = self._task
        # A second kill must not interrupt the clean-up after the first.
        if task is None or task.cancelling():
            return
        if self._session:
            self._cut_session = True
            self._session.abort()
        task.cancel()

    def _read_source(self) -> tuple[Login, Path | None]:
        return self._source.login, self._source.lock_directory

    def _read_again(self, account: Account) -> Login:
        """Return the settings as they are after a wait; *account* is the one whose lock is held."""
        self._source.refresh()
        login = self._source.login
        if login.account != account:
            raise RapUnavailable(
                f"The {self._source.name} was changed from {account} to {login.account} during a wait.",
                todo="Try again.",
                attempts=(),
            )
        return login

    async def _open(
        self, stack: AsyncExitStack, login: Login, keys: LoginKeys, chosen: ChosenKeys
    ) -> RapSession:
        with_keys = replace(login, client_keys=chosen.private_keys)
        try:
            return await stack.enter_async_context(open_session(with_keys, self._at_once()))
        except RapAuthenticationError as error:
            if not error.keys_refused:
                raise (_not_verified(error) if chosen.is_test else error) from None
            # A server that is just opening may not know the accounts yet: that proves nothing of the keys.
            if is_near_opening(self._wanted, self._source.clock()):
                if self.policy.retries_at_edges:
                    raise self._closed_at_edge(error) from None
                raise (_not_verified(error) if chosen.is_test else error) from None
            # Even if the task is killed meanwhile: the next login offers the other keys.
            raise await finish(in_thread(keys.note_refusal, chosen, error)) from error

    def _at_once(self) -> int:
        """Return how many requests, and open files, the next session may have at once.

        A server may end a session that has too many, which looks like another login.
        """
        return max(_AT_ONCE_AGAIN // 4 ** (self.superseded - 1), 1) if self.superseded else MOST_AT_ONCE

    def _check_may_log_in(self) -> None:
        if self._killed:
            raise _killed(logged_in=False)
        self.check_open(self._wanted)

    def _retries_now(self, wanted: Iterable[Wanted]) -> bool:
        """Return whether a failure may only mean that RAP is opening or closing."""
        at_edge = self.policy.retries_at_edges and is_near_edge(wanted, self._source.clock())
        return at_edge and not self._killed

    def _closed_at_edge(self, error: RapError) -> RapClosed:
        log.warning("RAP may be opening or closing (§4.1); trying again in a minute. %s", error)
        return RapClosed(
            "RAP may be opening or closing (guide §4.1).",
            why=str(error),
            todo="Try again in a minute.",
            opens_at=self._source.clock() + _RETRY_AT_EDGE,
        )


def _not_verified(error: RapAuthenticationError) -> RapKeyVerificationError:
    """Return the error of the test of a new key that has not shown if RAP knows the key.

    The renewal would take a refused login for "the key has not arrived", and upload the key again.
    """
    return RapKeyVerificationError(
        error.what,
        why=error.why,
        todo=f"{error.todo} The old key still works.",
        account=error.account,
        fingerprints=error.fingerprints,
    )


def _killed(*, logged_in: bool) -> RapUnavailable:
    how = "and its session with RAP was closed from our side" if logged_in else "while it was not logged in"
    return RapUnavailable(
        f"The task was stopped, {how}.",
        todo="Run it again; everything that has landed is kept.",
        attempts=(),
    )
