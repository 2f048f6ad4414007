"""What the sensors need around Airflow's sensor base class."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING

from airflow.sdk.exceptions import AirflowSkipException

if TYPE_CHECKING:
    from airflow.sdk import BaseSensorOperator, Context


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
        if skip.__cause__ is None or sensor.never_fail:
            raise
        raise skip.__cause__ from None
