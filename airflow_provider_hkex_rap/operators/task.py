"""Run RAP work in an Airflow task: its pool, its trading day, its session, and how it ends."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import pendulum
from airflow.sdk.configuration import conf
from airflow.sdk.definitions.mappedoperator import MappedOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowRescheduleException

from airflow_provider_hkex_rap.notifications.urls import board_url
from airflow_provider_hkex_rap.rap.clock import system_clock
from airflow_provider_hkex_rap.rap.errors import RapClosed, RapConfigurationError, RapError
from airflow_provider_hkex_rap.rap.trading_day import parse_business_date, run_trading_day

if TYPE_CHECKING:
    from datetime import date, datetime

    from airflow.sdk import Context

    from airflow_provider_hkex_rap.hooks.login_source import AirflowLoginSource
    from airflow_provider_hkex_rap.rap.clock import Clock
    from airflow_provider_hkex_rap.rap.folders import Folder, Service
    from airflow_provider_hkex_rap.runner.policy import Policy
    from airflow_provider_hkex_rap.runner.runner import SessionRunner

POOL = "hkex_rap"
"""The pool of every RAP task, with one slot: RAP lets an account log in once (§4.3)."""

_is_first_task = True
_FROZEN_AT_START = 10_000
"""Python 3.12 freezes some hundred objects itself; a worker that has frozen Airflow has far more."""


class RapTask:
    """Mixin for RAP's operators and sensors; list it before the Airflow base class.

    ::

        class MyOperator(RapTask, BaseOperator):
            def execute(self, context):
                with self.ending(context):
                    source = AirflowLoginSource(self.rap_conn_id)
                    runner = self.session_runner(source, context)
                    return runner.run(work, wanted=[Service.DCASS])
    """

    log: Any
    pool: str
    task_id: str
    template_fields: Sequence[str]
    _runner: SessionRunner | None = None
    _clock: Clock = staticmethod(system_clock())
    _killed = False

    @contextmanager
    def ending(self, context: Context) -> Iterator[None]:
        """Check the task's pool, and end the task as Airflow expects.

        In a scheduled run, a closed RAP reschedules the task to the opening, and no try is spent; an error
        that no retry can help fails the task without retries, and is the cause of the `AirflowFailException`.
        In a test run, which somebody watches, every error fails the task at once. Outside a run, each error
        is raised as it is.

        :param context: the task's context; empty outside a run.
        """
        try:
            with _frozen_objects():
                self._check_rendered(context)
                self._check_pool(context)
                yield
        except RapClosed as closed:
            if "dag_run" in context and not is_test_run():
                raise self._reschedule(closed) from closed
            self._fail(closed, context)
        except RapError as error:
            self._fail(error, context)
        finally:
            # `dag.test()` runs every try with the same object.
            self._killed, self._runner = False, None

    def session_runner(
        self, source: AirflowLoginSource, context: Context, *, superseded_retries: int = 0
    ) -> SessionRunner:
        """Return a runner that ends with the task.

        :param source: the settings of the login.
        :param context: the task's context; in a run, the runner may wait for minutes.
        :param superseded_retries: how often to start again after a superseded session, in a run.
        """
        from airflow_provider_hkex_rap.runner.policy import ATTENDED
        from airflow_provider_hkex_rap.runner.runner import SessionRunner

        self._clock = source.clock
        policy = unattended_policy(superseded_retries) if "dag_run" in context else ATTENDED
        self._runner = SessionRunner(source, policy)
        if self._killed:
            self._runner.kill()
        return self._runner

    def on_kill(self) -> None:
        """Close the session at once and cancel the work (§4.3)."""
        self._killed = True
        if self._runner:
            self._runner.kill()

    def _check_rendered(self, context: Context) -> None:
        """Refuse arguments that are still templates, as if `execute` is called without a run.

        :raises RapConfigurationError: if an argument was not rendered.
        """
        fields = () if "ti" in context else getattr(self, "template_fields", ())
        for name in fields:
            value = getattr(self, name)
            if isinstance(value, str) and ("{{" in value or "{%" in value):
                raise RapConfigurationError(
                    f"The template {value!r} in {name!r} was not rendered.",
                    why="Airflow renders the arguments of a task in a DAG run, and there is none.",
                    todo=f"Set task.{name} to the value before execute(), or call"
                    " task.render_template_fields(context).",
                    field=name,
                )

    def _check_pool(self, context: Context) -> None:
        """Refuse to run as a mapped task that Airflow has put into the default pool.

        :raises RapConfigurationError: if the pool was not given to ``partial``.
        """
        dag = context.get("dag")
        task = dag.task_dict.get(self.task_id) if dag else None
        if isinstance(task, MappedOperator) and task.pool != self.pool:
            raise RapConfigurationError(
                f"The mapped task {self.task_id!r} runs in {task.pool!r}, not in {self.pool!r}.",
                why="Airflow gives a mapped task the pool that partial() names, and no other; without"
                " one slot for all, its logins end each other's sessions (§4.3).",
                todo=f"Write {type(self).__name__}.partial(..., pool={self.pool!r}).expand(...).",
                pool=task.pool,
            )

    def _fail(self, error: RapError, context: Context) -> NoReturn:
        """Raise an error as Airflow needs it.

        :raises AirflowFailException: in a test run; or in another run, if no retry can help.
        :raises RapError: else, *error*.
        """
        if is_test_run():
            raise AirflowFailException(
                f"{type(error).__name__}: {error} (A test run does not wait and does not retry.)"
            ) from error
        if error.retryable or "ti" not in context:
            raise error
        raise AirflowFailException(f"{type(error).__name__}: {error}") from error

    def _reschedule(self, closed: RapClosed) -> AirflowRescheduleException:
        self.log.info("%s", closed)
        # The clock may be shifted; Airflow's is not.
        wait = closed.opens_at - self._clock()
        return AirflowRescheduleException(pendulum.now("UTC") + wait)  # type: ignore[no-untyped-call]


class RapFolderTask(RapTask):
    """Mixin for tasks that list folders of RAP for a trading day; list it before the Airflow base class."""

    business_date: str | date | None
    lake = ""

    def parse_folders(self) -> tuple[Folder, ...]:
        """Return the folders that the task lists.

        :raises RapConfigurationError: if RAP has no such folder.
        """
        raise NotImplementedError

    def run_day(self, context: Context) -> pendulum.Date:
        """Return the trading day of the task's run, also before the task begins.

        :param context: the context of the task, or of a callback.
        :raises RapConfigurationError: if an argument, or the conf of the run, is not of the valid form.
        """
        # If the task lists folders of both services, the day is that of DCASS.
        service = max(folder.service for folder in self.parse_folders())
        return trading_day(context, service, self._clock(), parse_business_date(self.business_date))

    def board_url(self, customer: str, business_date: str) -> str:
        """Return the URL of a day on the board: of the task's folder, or of all folders if it has several.

        :param customer: the DCASS customer code, such as ``CXYZ``.
        :param business_date: the day, as YYYY-MM-DD.
        """
        # The arguments may be wrong, which is perhaps why the task has failed.
        try:
            folders = self.parse_folders()
        except RapConfigurationError:
            folders = ()
        folder = folders[0].value if len(folders) == 1 else ""
        # In the DAG processor, no argument is rendered.
        lake = str(self.lake or "")
        return board_url(customer, business_date, folder, "" if "{{" in lake else lake)


@contextmanager
def _frozen_objects() -> Iterator[None]:
    """Spare the garbage collector the objects that exist, most of them Airflow's.

    A full collection looks at all of them, and stops every thread for 0.1 s: a download takes up to a fifth
    longer. Garbage among them is not found meanwhile, so this is for the first task of a process only, which
    is the only one in a worker. What a worker has set aside itself stays so.
    """
    global _is_first_task
    is_first, was_frozen = _is_first_task, gc.get_freeze_count() > _FROZEN_AT_START
    _is_first_task = False
    if is_first:
        gc.freeze()
    try:
        yield
    finally:
        if is_first and not was_frozen:
            gc.unfreeze()


def is_test_run() -> bool:
    """Tell a run of ``airflow dags test``, ``airflow tasks test`` or ``dag.test()`` from a scheduled one.

    A test run waits for a rescheduled task, and for a retry, in a loop that logs a line each second and that
    SIGTERM does not end: the signal handler of the task stays in force. Airflow runs its tasks in the process
    of the caller, with a supervisor for tests; a test with an executor counts as a scheduled run.
    """
    modules = (f"airflow.sdk.execution_time.{name}" for name in ("task_runner", "supervisor"))
    runner, supervisor = map(sys.modules.get, modules)
    of_tests = getattr(supervisor, "InProcessSupervisorComms", None)
    return of_tests is not None and isinstance(getattr(runner, "SUPERVISOR_COMMS", None), of_tests)


def unattended_policy(superseded_retries: int = 0) -> Policy:
    """Return the policy of a task in a DAG run, with ``[hkex_rap] superseded_wait``.

    :param superseded_retries: how often to start again after a superseded session.
    """
    from airflow_provider_hkex_rap.runner.policy import unattended

    return unattended(conf.getfloat("hkex_rap", "superseded_wait", fallback=300.0), superseded_retries)


def trading_day(
    context: Context, service: Service, now: datetime, chosen: pendulum.Date | None = None
) -> pendulum.Date:
    """Return the trading day of the task's run.

    :param context: the task's context; empty outside a run.
    :param service: the service whose hours decide, if the run has no date of its own.
    :param now: the clock's time.
    :param chosen: the date that the task's argument gives.
    :raises RapConfigurationError: if ``dag_run.conf["business_date"]`` is not YYYY-MM-DD, or differs from
        *chosen*; or if the conf has a key that is neither ``business_date`` nor a param of the DAG.
    """
    run = context.get("dag_run")
    run_conf = (run.conf if run else None) or {}
    _check_conf(run_conf, context)
    asked = parse_business_date(run_conf.get("business_date"))
    if chosen and asked and asked != chosen:
        raise RapConfigurationError(
            f"The run's conf asks for {asked.isoformat()}, and 'business_date' is {chosen.isoformat()}.",
            why="The task lands the day of its argument only, so the conf would be ignored.",
            todo="Leave one of them out, or write the argument as a template of the conf.",
            business_date=asked.isoformat(),
        )
    if chosen:
        return chosen
    # The scheduler lives in real time, and the clock may be shifted against it.
    shift = now - pendulum.now()
    return run_trading_day(
        conf_business_date=run_conf.get("business_date"),
        logical_date=context.get("logical_date"),
        run_after=run.run_after + shift if run else None,
        service=service,
        now=now,
    )


def _check_conf(run_conf: Mapping[str, object], context: Context) -> None:
    """Check that a run's conf has no misspelt key, which would be ignored.

    :raises RapConfigurationError: if a key is neither ``business_date`` nor a param of the DAG.
    """
    dag = context.get("dag")
    known = {"business_date", *(dag.params if dag else ())}
    if unknown := sorted(map(repr, set(run_conf) - known)):
        raise RapConfigurationError(
            f"The run's conf has an unknown key: {', '.join(unknown)}.",
            why=f"RAP tasks read {', '.join(sorted(map(repr, known)))}; another key would be ignored.",
            todo='Correct it, such as {"business_date": "2026-11-20"}, or declare a param of the DAG.',
            unknown=tuple(unknown),
        )
