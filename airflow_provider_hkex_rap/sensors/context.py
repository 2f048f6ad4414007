"""The context that Airflow's sensor base class needs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.sdk import Context


def sensor_context(context: Context) -> Context:
    """Return a context that `BaseSensorOperator` accepts, outside a run too.

    :param context: the task's context; empty outside a run.
    """
    if "ti" in context:
        return context
    outside_a_run = SimpleNamespace(get_first_reschedule_date=lambda context: None)
    return {**context, "ti": outside_a_run}  # type: ignore[typeddict-item]
