"""Mark reports as announced once Airflow has recorded the success of the task that announced them."""

from __future__ import annotations

from airflow.listeners import hookimpl


# Before other listeners, which may take seconds: Airflow kills a task that goes on long after its success.
@hookimpl(tryfirst=True)
def on_task_instance_success(task_instance: object) -> None:
    """Write the marks of a download's asset events.

    Airflow calls this in the process of the task, after it has sent the success and the events. It also calls
    it in the API server if a person marks a task as successful; that task has announced nothing.
    """
    announcement = getattr(getattr(task_instance, "task", None), "announcement", None)
    if announcement is None:
        return
    from airflow_provider_hkex_rap.assets.announcing import Announcement

    if isinstance(announcement, Announcement):
        announcement.mark()
