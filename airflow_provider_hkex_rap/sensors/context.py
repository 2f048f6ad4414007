"""What the sensors need around Airflow's sensor base class."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowRescheduleException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
)

from airflow_provider_hkex_rap.operators.metrics import send_metrics
from airflow_provider_hkex_rap.operators.task import is_test_run, unattended_policy
from airflow_provider_hkex_rap.rap.errors import RapClosed, RapError, RapSessionSuperseded, RapUnavailable

if TYPE_CHECKING:
    from logging import Logger

    from airflow.sdk import BaseSensorOperator, Context

    from airflow_provider_hkex_rap.hooks.login_source import AirflowLoginSource
    from airflow_provider_hkex_rap.rap.service_hours import Wanted
    from airflow_provider_hkex_rap.runner.runner import SessionRunner

T = TypeVar("T")

_NOT_ABSENCE = (AirflowFailException, AirflowSensorTimeout, AirflowTaskTimeout)
"""Errors that Airflow turns into a skip, although they are not a look that has found nothing."""


def sensor_context(context: Context) -> Context:
    """Return a context that `BaseSensorOperator` accepts, outside a run too.

    :param context: the task's context; empty outside a run.
    """
    if "ti" in context:
        return context
    outside_a_run = SimpleNamespace(get_first_reschedule_date=lambda context: None)
    return {**context, "ti": outside_a_run}  # type: ignore[typeddict-item]


@contextmanager
def skipping_on_absence_only(sensor: LookingSensor) -> Iterator[None]:
    """Let the sensor time out, or ``soft_fail`` skip it, only if the last look has found nothing.

    If it failed, nothing is known: its error fails the task, and a retry looks again. Airflow also skips the
    task after an ``execution_timeout``, although nothing is known then.

    :param sensor: the sensor; with ``never_fail``, its user asks for a skip after any error.
    :raises RapError: if the last look failed.
    """
    try:
        yield
    except (AirflowSensorTimeout, AirflowSkipException) as error:
        if sensor.never_fail:
            raise
        if sensor.failed_look:
            raise sensor.failed_look from None
        # Another cause is that of a skip which the poke itself asked for.
        if isinstance(error, AirflowSkipException) and isinstance(error.__cause__, _NOT_ABSENCE):
            raise error.__cause__ from None
        raise


@contextmanager
def never_waiting_in_a_test_run(sensor: BaseSensorOperator) -> Iterator[None]:
    """Fail, or skip with ``soft_fail``, instead of waiting for the next look in a test run.

    :param sensor: the sensor.
    """
    if not is_test_run():
        yield
        return
    try:
        yield
    except AirflowRescheduleException:
        kind = AirflowSkipException if sensor.soft_fail else AirflowSensorTimeout
        raise kind("Not there yet; a test run does not wait.") from None


class LookingSensor(Protocol):
    """A sensor whose looks may fail."""

    failed_look: RapError | None
    """The error of the last look; None if it did not fail."""
    poke_interval: float
    never_fail: bool

    @property
    def log(self) -> Logger:
        """The log of the task."""


def look_once(
    sensor: LookingSensor,
    context: Context,
    source: AirflowLoginSource,
    runner: SessionRunner,
    look: Callable[[], Coroutine[Any, Any, T]],
    wanted: Wanted,
) -> T | None:
    """Return what a look finds, and send its metrics; None if it fails for a cause that may pass.

    A look that finds RAP shut, or that is killed, sends none.

    :param sensor: the sensor; after a superseded session, it waits `superseded_wait` seconds before the next
        poke, or its `poke_interval` if that is longer.
    :param context: the task's context.
    :param source: the settings of the login.
    :param runner: runs the look.
    :param look: looks at RAP.
    :param wanted: the service, or key work, that must be open.
    :raises RapError: if the look fails for another cause, or if the task was killed.
    """
    sensor.failed_look = None
    try:
        found = runner.run(look, wanted=[wanted])
    except RapError as error:
        if runner.killed or isinstance(error, RapClosed):
            raise
        _send_metrics(context, source, runner)
        if not isinstance(error, RapSessionSuperseded | RapUnavailable):
            raise
        sensor.failed_look = error
        sensor.log.warning("The last look failed: %s", error)
        if isinstance(error, RapSessionSuperseded):
            sensor.poke_interval = max(sensor.poke_interval, unattended_policy().superseded_backoff())
        return None
    _send_metrics(context, source, runner)
    return found


def _send_metrics(context: Context, source: AirflowLoginSource, runner: SessionRunner) -> None:
    send_metrics(context, source.login.account, source.clock().date(), runner, runner.key_record)
