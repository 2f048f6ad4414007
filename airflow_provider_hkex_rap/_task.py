"""What every RAP task does alike: its pool, its run, and which failures Airflow may retry."""

from __future__ import annotations

import asyncio
import contextvars
import random
import re
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

import pendulum
from airflow.sdk.configuration import conf
from airflow.sdk.definitions.mappedoperator import MappedOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowRescheduleException

from airflow_provider_hkex_rap.rap.calendar import is_public_holiday
from airflow_provider_hkex_rap.rap.errors import (
    RapConfigurationError,
    RapError,
    RapPermissionDenied,
    RapSessionSuperseded,
    RapUnavailable,
)
from airflow_provider_hkex_rap.rap.service_hours import DAY_OPENS, is_near_edge, next_opening
from airflow_provider_hkex_rap.rap.trading_day import run_trading_day

if TYPE_CHECKING:
    from datetime import datetime

    from airflow.sdk import BaseSensorOperator, Context

    from airflow_provider_hkex_rap.hooks.rap import RapHook
    from airflow_provider_hkex_rap.rap.clock import Clock
    from airflow_provider_hkex_rap.rap.files import RemoteFile
    from airflow_provider_hkex_rap.rap.folders import Folder, Service
    from airflow_provider_hkex_rap.rap.service_hours import Wanted
    from airflow_provider_hkex_rap.transport.session import RapSession

POOL = "hkex_rap"
"""The pool of every RAP task, with one slot: RAP lets an account log in once (§4.3)."""

SUPERSEDED_WAITS = 3
"""How often a task that was thrown out waits and goes on before it fails."""

SHORTEST_POKE_INTERVAL = 60.0
"""Seconds between two pokes of a sensor."""

T = TypeVar("T")


class RapTask:
    """The part that RAP's operators and sensors share.

    It comes first among the bases of a class.
    """

    log: Any
    pool: str
    task_id: str
    _in_run = False
    _stop: Callable[[], object] | None = None

    def check_pool(self, context: Context) -> None:
        """Refuse to run as a mapped task that Airflow has put into the default pool.

        :param context: the task's context; empty outside a run.
        :raises RapConfigurationError: the pool was not given by ``partial``, where alone Airflow heeds it.
        """
        dag = context.get("dag")
        task = dag.task_dict.get(self.task_id) if dag else None
        if isinstance(task, MappedOperator) and task.pool != self.pool:
            raise RapConfigurationError(
                f"The mapped task {self.task_id!r} runs in {task.pool!r}, not in {self.pool!r}.",
                why="Airflow gives a mapped task the pool that partial() names, and no other; without"
                " one slot for all, its logins throw each other out (§4.3).",
                todo=f"Write {type(self).__name__}.partial(..., pool={self.pool!r}).expand(...).",
                pool=task.pool,
            )

    def wait_for_opening(self, hook: RapHook, wanted: Iterable[Wanted]) -> None:
        """Reschedule the task to the next opening unless all that is wanted is open now (§4.1).

        :param hook: whose clock counts.
        :param wanted: services, or key work.
        :raises AirflowRescheduleException: RAP is shut; nothing was sent and no try is spent.
        """
        now = hook.clock()
        opening = next_opening(wanted, now)
        if opening > now:
            self.log.info(
                "RAP is shut until %s HKT (§4.1); waiting without a login.",
                opening.format("ddd YYYY-MM-DD HH:mm"),
            )
            raise _reschedule(opening - now)

    async def list_open_folder(
        self, session: RapSession, folder: Folder, clock: Clock
    ) -> Sequence[RemoteFile]:
        """Return what a folder lists; nothing where it is denied on a public holiday.

        Derivatives Holiday Trading is optional, and CCMS may be shut then: a denial means closed (§4.1). So
        does, in a run, one at an opening or a closing, which RAP may see later or earlier than we do.

        :param session: a login.
        :param folder: the folder, listed once.
        :param clock: gives the time.
        :raises AirflowRescheduleException: it is denied at an opening or a closing; no try is spent.
        :raises RapPermissionDenied: RAP does not show the folder to this account, at another time.
        :raises RapError: as `RapSession.list_folder` does.
        """
        try:
            return await session.list_folder(folder)
        except RapPermissionDenied as error:
            now = clock()
            if self._in_run and is_near_edge([folder.service], now):
                raise self._ask_again(error) from error
            # The night until the opening belongs to the day before.
            if is_public_holiday((now - DAY_OPENS).date()):
                return ()
            raise

    def _ask_again(self, error: RapError) -> AirflowRescheduleException:
        self.log.warning("RAP may be opening or closing (§4.1); asking again in a minute. %s", error)
        return _reschedule(timedelta(minutes=1))

    def run_session(
        self,
        hook: RapHook,
        wanted: Iterable[Wanted],
        work: Callable[[], Coroutine[Any, Any, T]],
        context: Context,
        *,
        waits: int = 0,
    ) -> T:
        """Run *work* to its end in an event loop of its own, or until the task is killed.

        It begins in the service hours (§4.1), and so does each login. In a run, whoever has thrown out a
        login of this host is left in peace first (§4.3).

        :param hook: whose session ends when the task is killed.
        :param wanted: services, or key work.
        :param work: makes the coroutine, which logs in and out; it is made anew after a wait.
        :param context: the task's context; empty outside a run, where somebody watches and nothing waits.
        :param waits: how often to wait and go on where somebody else's login ends ours.
        :raises AirflowRescheduleException: RAP is shut, or does not answer in a run at an opening or a
            closing; no try is spent.
        :raises RapError: as *work* does.
        """
        self.wait_for_opening(hook, wanted)
        self._in_run = "dag_run" in context
        hook.superseded_wait = superseded_wait() if self._in_run else 0.0
        try:
            return self._run_in_loop(hook, wanted, work, waits if self._in_run else 0)
        except RapUnavailable as error:
            if self._in_run and is_near_edge(wanted, hook.clock()):
                raise self._ask_again(error) from error
            raise

    def _run_in_loop(
        self,
        hook: RapHook,
        wanted: Iterable[Wanted],
        work: Callable[[], Coroutine[Any, Any, T]],
        waits: int,
    ) -> T:
        runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        loop = runner.get_loop()
        task: asyncio.Task[Any] | None = None
        stopped = False

        def before_login() -> None:
            if stopped:
                raise _stopped()
            self.wait_for_opening(hook, wanted)

        def end() -> None:
            nonlocal stopped
            stopped = True
            if not hook.abort() and task:
                task.cancel()

        def stop() -> None:
            # After the run there is nothing left to stop.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(end)

        async def stoppable() -> T:
            nonlocal task
            task = asyncio.current_task()
            try:
                return await self._working(hook, work, waits)
            except asyncio.CancelledError:
                raise _stopped() from None

        def run() -> T:
            with runner:
                return runner.run(stoppable())

        hook.before_login = before_login
        self._stop = stop
        try:
            return _in_thread(run, stop)
        finally:
            self._stop = None

    async def _working(self, hook: RapHook, work: Callable[[], Coroutine[Any, Any, T]], waits: int) -> T:
        """Do *work*, and again after a wait where somebody else's login has ended ours."""
        for left in reversed(range(waits + 1)):
            try:
                return await work()
            except RapSessionSuperseded as error:
                if not left:
                    raise
                pause = patience()
                self.log.warning("%s Going on in %.0f s.", error, pause)
                await asyncio.sleep(pause)
                await asyncio.to_thread(hook.read_again)
        raise AssertionError

    def on_kill(self) -> None:
        """End the session at once, so that no other login of the account meets it (§4.3)."""
        if stop := self._stop:
            stop()


def _reschedule(wait: timedelta) -> AirflowRescheduleException:
    return AirflowRescheduleException(pendulum.now("UTC") + wait)  # type: ignore[no-untyped-call]


def _stopped() -> RapUnavailable:
    return RapUnavailable(
        "The task was stopped while it was not logged in.",
        todo="Run it again; nothing is lost.",
        attempts=(),
    )


def _in_thread(work: Callable[[], T], stop: Callable[[], object]) -> T:
    """Do *work*, which has an event loop, in a thread of its own; *stop* it where this one is interrupted.

    Airflow's execution_timeout raises in the main thread, wherever that is: inside an event loop it would
    lose what the loop was about to do, and the task would hang.
    """
    with ThreadPoolExecutor(1, "hkex-rap") as thread:
        try:
            return thread.submit(contextvars.copy_context().run, work).result()
        except BaseException:
            stop()
            raise


def parse_patterns(
    patterns: str | Iterable[str] | None, field: str, *, at_least_one: bool = False
) -> tuple[str, ...]:
    """Return patterns of file names; one alone may stand for itself.

    :param patterns: globs, case-sensitive; blank ones count as left out.
    :param field: the argument that they come from, for the error.
    :param at_least_one: whether none would make no sense.
    :raises RapConfigurationError: none is given, or a text looks like a list.
    """
    if isinstance(patterns, str) and re.search(r",|^\s*\[\s*(['\"]|\])", patterns):
        raise RapConfigurationError(
            f"{patterns!r} in {field!r} is one text, and looks like a list.",
            why="A template renders a list as text; as one pattern it would match no file.",
            todo="Give a list of patterns, or set render_template_as_native_obj=True on the DAG.",
            field=field,
        )
    given = tuple(filter(None, (patterns,) if isinstance(patterns, str) else patterns or ()))
    if at_least_one and not given:
        raise RapConfigurationError(
            f"{field!r} names no pattern.",
            why="Patterns are globs on file names, such as 'TP001_*'.",
            todo='Give one or more; "*" is every file.',
        )
    return given


def parse_number(name: str, value: int | str) -> int:
    """Return a whole number, which a template renders as text.

    :param name: the argument that it comes from, for the error.
    :param value: the number.
    :raises RapConfigurationError: it is none.
    """
    try:
        return int(value)
    except (TypeError, ValueError):
        raise RapConfigurationError(
            f"{value!r} in {name!r} is not a number.", todo="Give a whole number.", argument=name, value=value
        ) from None


def parse_flag(name: str, value: bool | str) -> bool:
    """Return a flag, which a template renders as text.

    :param name: the argument that it comes from, for the error.
    :param value: the flag; None and an empty text are False.
    :raises RapConfigurationError: it is neither true nor false.
    """
    known = {"true": True, "1": True, "false": False, "0": False, "none": False, "": False}
    try:
        return known[str(value).strip().lower()]
    except KeyError:
        raise RapConfigurationError(
            f"{value!r} in {name!r} is neither true nor false.",
            todo="Give True or False.",
            argument=name,
            value=value,
        ) from None


def check_poke_interval(sensor: BaseSensorOperator) -> None:
    """Check that a sensor does not log in oftener than once a minute (§4.1).

    :param sensor: whose ``poke_interval`` it is.
    :raises RapConfigurationError: it may.
    """
    # Airflow's exponential backoff begins with half of it.
    shortest = SHORTEST_POKE_INTERVAL * (2 if sensor.exponential_backoff else 1)
    if sensor.max_wait and sensor.max_wait.total_seconds() < SHORTEST_POKE_INTERVAL:
        raise RapConfigurationError(
            f"A max_wait of {sensor.max_wait.total_seconds():g} s is too short.",
            why="It bounds the time between two pokes, each of which is a login (guide §4.1).",
            todo=f"Set it to {SHORTEST_POKE_INTERVAL:g} s or more, or leave it out.",
            max_wait=sensor.max_wait,
        )
    if sensor.poke_interval < shortest:
        raise RapConfigurationError(
            f"A poke_interval of {sensor.poke_interval:g} s is too short.",
            why="HKEX asks that RAP be not visited needlessly (guide §4.1), and each poke is a login.",
            todo=f"Set it to {shortest:g} s or more, or leave it out.",
            poke_interval=sensor.poke_interval,
        )


def sensing(context: Context) -> Context:
    """Return a context that BaseSensorOperator can work with, outside a run too.

    :param context: the task's context; empty outside a run.
    """
    if "ti" in context:
        return context
    outside_a_run = SimpleNamespace(get_first_reschedule_date=lambda context: None)
    return {**context, "ti": outside_a_run}  # type: ignore[typeddict-item]


def superseded_wait() -> float:
    """Return the seconds for which whoever throws us out is left in peace."""
    seconds: float = conf.getfloat("hkex_rap", "superseded_wait", fallback=300.0)
    return seconds


def patience() -> float:
    """Return the seconds after which a task that was thrown out goes on, no two tasks alike."""
    return superseded_wait() * random.uniform(1.0, 1.2)  # noqa: S311


@contextmanager
def failing_at_once() -> Iterator[None]:
    """Let Airflow retry an error only where a retry can help."""
    try:
        yield
    except RapError as error:
        if not error.retryable:
            error.__class__ = _failing_at_once(type(error))
        raise


def _failing_at_once(kind: type[RapError]) -> type[RapError]:
    """Return *kind* as a kind of AirflowFailException too: rap/ knows nothing of Airflow."""
    if issubclass(kind, AirflowFailException):
        return kind
    return type(kind.__name__, (kind, AirflowFailException), {"__module__": kind.__module__})


def trading_day(context: Context, service: Service, now: datetime) -> pendulum.Date:
    """Return the trading day of the task's run.

    :param context: the task's context; empty outside a run.
    :param service: whose windows count where the run has no date of its own.
    :param now: the clock's time.
    :raises RapConfigurationError: ``dag_run.conf["business_date"]`` is not YYYY-MM-DD.
    """
    run = context.get("dag_run")
    run_conf = (run.conf if run else None) or {}
    # The scheduler lives in real time, and the clock may be shifted against it.
    shift = now - pendulum.now()
    return run_trading_day(
        conf_business_date=run_conf.get("business_date"),
        logical_date=context.get("logical_date"),
        run_after=run.run_after + shift if run else None,
        service=service,
        now=now,
    )
