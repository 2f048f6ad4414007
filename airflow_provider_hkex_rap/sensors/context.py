"""What the sensors need around Airflow's sensor base class."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING

from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowRescheduleException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
)

from airflow_provider_hkex_rap.operators.task import is_test_run

if TYPE_CHECKING:
    from airflow.sdk import BaseSensorOperator, Context

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
def skipping_on_absence_only(sensor: BaseSensorOperator) -> Iterator[None]:
    """Let ``soft_fail`` skip the task only if a look has found nothing.

    Airflow also skips it after an ``execution_timeout``, although nothing is known then.

    :param sensor: the sensor; with ``never_fail``, its user asks for a skip after any error.
    """
    try:
        yield
    except AirflowSkipException as skip:
        # Another cause is that of a skip which the poke itself asked for.
        if sensor.never_fail or not isinstance(skip.__cause__, _NOT_ABSENCE):
            raise
        raise skip.__cause__ from None


@contextmanager
def never_waiting_in_a_test_run(sensor: BaseSensorOperator) -> Iterator[None]:
    """Fail, or skip with ``soft_fail``, instead of waiting for the next look in a test run.

    :param sensor: the sensor.
    """
    if not is_test_run():
        yield
        return
    # In the mode "poke" it would sleep until the next look.
    sensor.mode = "reschedule"
    try:
        yield
    except AirflowRescheduleException:
        kind = AirflowSkipException if sensor.soft_fail else AirflowSensorTimeout
        raise kind("Not there yet; a test run does not wait.") from None
