"""Alert a person if a task has failed for good, and if a run has something to warn of.

Name `alert` as ``on_failure_callback`` of the DAG and of its tasks, and a notifier in the Airflow Variable
``hkex_rap_notifier``::

    with DAG(
        "daily", on_failure_callback=alert, default_args={"on_failure_callback": alert, "retries": 8}
    ):
        RapDownloadOperator(task_id="land", folders=["DCASS"], lake="{{ var.value.hkex_rap_lake }}")

The task calls it with its error. If the process of the task was killed, Airflow cannot do that, and calls it
in the DAG processor: for the task if its worker is lost, and for the DAG if the run fails. So the DAG needs
it too; it then alerts of the tasks that have not alerted themselves. If a run can succeed although a task was
killed, name `alert` as ``on_success_callback`` of the DAG too.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_hkex_rap.notifications.record import RapAlert, RapWarning, Severity
from airflow_provider_hkex_rap.notifications.urls import board_url, run_url
from airflow_provider_hkex_rap.rap.errors import RapError, describe_error
from airflow_provider_hkex_rap.rap.printable import printable

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["RapAlert", "RapWarning", "alert", "send_warnings"]

ALERTED = "hkex_rap_alert"
"""The key of the XCom of a task that has alerted: the alert, and the number of the try."""
_CHARACTERS = 1500
"""The most characters of each text; chat services refuse long ones."""
_CAUSES = 100
"""The most causes of an error that are looked at."""

log = logging.getLogger(__name__)

_alerted: set[tuple[str, str, str]] = set()
"""DAG, run and key of the tasks that have alerted in this process, such as that of ``airflow dags test``."""


def alert(context: Context) -> None:
    """Send an alert of a failure; nothing happens if no notifier is named.

    Use it as ``on_failure_callback``, of the DAG and of its tasks. If a run can succeed although a task has
    failed, use it as ``on_success_callback`` of the DAG too: it then alerts of killed tasks.

    :param context: the context that Airflow gives to a callback.
    """
    from airflow_provider_hkex_rap.notifications.notifiers import send_alerts

    # Airflow gives the reason to the callback of a DAG only.
    if "reason" in context:
        send_alerts(lambda: _of_run(context), context)
        return
    # Airflow gives no exception to the callback of a killed task, which it calls in the DAG processor.
    in_task = "exception" in context
    if not in_task and _is_called_on_dag(context):
        return
    made: list[RapAlert] = []

    def make() -> list[RapAlert]:
        made.append(_of_task(context))
        return made

    # The DAG processor may not write XComs, and a request to do so has no answer.
    if send_alerts(make, context) and in_task:
        _remember(context, made[0])


def send_warnings(context: Context, warnings: Iterable[RapWarning], account: str, business_date: str) -> None:
    """Send an alert for each warning of a task, in bounded time; nothing happens if no notifier is named.

    :param context: the task's context.
    :param warnings: the warnings; evaluated only if a notifier is named.
    :param account: the RAP user account.
    :param business_date: the trading day of the run; empty if it has none.
    """
    from airflow_provider_hkex_rap.notifications.notifiers import send_alerts

    def make() -> Iterator[RapAlert]:
        for warning in warnings:
            log.info("Alerting: %s", warning.what)
            yield _make(
                context,
                "warning",
                warning,
                account=account,
                business_date=business_date,
                task=getattr(context.get("ti"), "task", None),
            )

    send_alerts(make, context)


def _of_task(context: Context) -> RapAlert:
    """Return the alert of a failed task: by its error, if Airflow knows it."""
    error: Any = context.get("exception")
    task = context["ti"].task
    name = f"{context['ti'].dag_id}.{context['ti'].task_id}"
    if found := _rap_error(error):
        facts = RapWarning(type(found).__name__, found.what, found.why, found.todo)
    elif error is not None:
        said = describe_error(error) if isinstance(error, BaseException) else str(error)
        facts = RapWarning(
            type(error).__name__, f"{name} has failed: {said}", "", "Read the log of the task."
        )
    else:
        facts = _killed(name)
    day = _business_date(context, task)
    return _make(context, "error", facts, account=_account(task), business_date=day, task=task)


def _of_run(context: Context) -> list[RapAlert]:
    """Return the alert of a run about those of its failed tasks that have not alerted; none if all have."""
    dag: Any = context["dag"]
    silent = list(_silent_tasks(context))
    if silent:
        facts = _killed(", ".join(f"{dag.dag_id}.{key}" for key, *_ in silent))
    elif context["reason"] not in ("task_failure", "success"):
        facts = RapWarning(
            "RunFailed",
            f"A run of {dag.dag_id} has failed: {context['reason']}.",
            "No task of it says why.",
            "Look at the run in Airflow's UI.",
        )
    else:
        return []
    task = dag.task_dict.get(silent[0][1]) if silent else None
    only = silent[0] if len(silent) == 1 else None
    day = _business_date(context, task)
    return [_make(context, "error", facts, account=_account(task), business_date=day, task=task, key=only)]


def _killed(names: str) -> RapWarning:
    return RapWarning(
        "TaskKilled",
        f"{names} has failed, and could not alert itself.",
        "Its process was killed, as when a worker runs out of memory, loses contact with Airflow or is shut"
        " down; or the notifier did not take its alert.",
        "Read the log of the task, then clear it. What has landed is kept.",
    )


def _rap_error(error: object) -> RapError | None:
    """Return the error of ours that Airflow's error has as its cause, as `AirflowFailException` does."""
    # Bounded, since an error can be its own cause.
    for _ in range(_CAUSES):
        if isinstance(error, RapError):
            return error
        error = getattr(error, "__cause__", None)
    return None


def _make(
    context: Context,
    severity: Severity,
    facts: RapWarning,
    *,
    account: str,
    business_date: str,
    task: Any,
    key: tuple[str, str, int] | None = None,
) -> RapAlert:
    # The masker of Airflow's logs knows the secrets that this task has read.
    from airflow.sdk.log import redact  # type: ignore[attr-defined]

    ti: Any = context.get("ti")
    dag_id, run_id = (ti.dag_id, ti.run_id) if ti else (context["dag"].dag_id, context["run_id"])
    task_id, map_index = ("", -1)
    if key:
        _, task_id, map_index = key
    elif "reason" not in context:
        task_id, map_index = ti.task_id, ti.map_index
    texts = {
        name: printable(str(redact(text)), limit=_CHARACTERS)
        for name, text in {"what": facts.what, "why": facts.why, "todo": facts.todo}.items()
    }
    return RapAlert(
        severity=severity,
        kind=facts.kind,
        **texts,
        account=account,
        business_date=business_date,
        dag_id=dag_id,
        run_id=run_id,
        task_id=task_id,
        link=run_url(dag_id, run_id, task_id, map_index),
        board=_board(task, account, business_date),
    )


# The tasks of a run.


def _silent_tasks(context: Context) -> Iterator[tuple[str, str, int]]:
    """Yield key, task and map index of the failed tasks of a run that have not alerted.

    The key is the id of the task, with the index if it is mapped.
    """
    dag, run_id = context["dag"], context["run_id"]
    for key in _failed_tasks(context):
        if (dag.dag_id, run_id, key) in _alerted:
            continue
        task_id, map_index = _split(key, dag)
        # In `airflow dags test` there is nobody to ask.
        if not _has_supervisor() or not _has_alerted(context, key, task_id, map_index):
            yield key, task_id, map_index


def _split(key: str, dag: Any) -> tuple[str, int]:
    """Return the id and the map index of a task by its key; the DAG may no longer have the task."""
    task_id, _, number = key.rpartition("_")
    if key not in dag.task_dict and task_id in dag.task_dict and number.isdecimal():
        return task_id, int(number)
    return key, -1


def _has_alerted(context: Context, key: str, task_id: str, map_index: int) -> bool:
    """Return whether a task has alerted in its last try.

    A task that was cleared keeps the XComs of its earlier try until it starts. Airflow gives the number of a
    try only for the task in the context, which was the last to fail.
    """
    from airflow.sdk import BaseXCom

    ti: Any = context.get("ti")
    index = map_index if map_index >= 0 else None
    found = BaseXCom.get_one(
        key=ALERTED, dag_id=context["dag"].dag_id, task_id=task_id, run_id=context["run_id"], map_index=index
    )
    if found is None or not ti or key != _key(ti):
        return found is not None
    return bool(found.get("try_number") == ti.try_number)


def _failed_tasks(context: Context) -> Sequence[str]:
    ti: Any = context.get("ti")
    if _has_supervisor():
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        run_id = context["run_id"]
        states = RuntimeTaskInstance.get_task_states(dag_id=context["dag"].dag_id, run_ids=[run_id])
        return sorted(key for key, state in states.get(run_id, {}).items() if state == "failed")
    # Airflow then gives the last task to end, which may have succeeded if the run has.
    return [_key(ti)] if ti and context["reason"] != "success" else []


def _has_supervisor() -> bool:
    """Return whether this process can ask Airflow for the state of a run."""
    from airflow.sdk.execution_time import task_runner

    return getattr(task_runner, "SUPERVISOR_COMMS", None) is not None


def _remember(context: Context, sent: RapAlert) -> None:
    """Record that the task has alerted, so that the callback of its DAG does not alert again."""
    ti: Any = context["ti"]
    _alerted.add((ti.dag_id, ti.run_id, _key(ti)))
    try:
        ti.xcom_push(key=ALERTED, value={**sent.to_dict(), "try_number": ti.try_number})
    # A second alert is better than none.
    except Exception as error:
        log.warning("The DAG may alert again, since the alert was not recorded: %s", error)


def _key(ti: Any) -> str:
    return f"{ti.task_id}_{ti.map_index}" if ti.map_index >= 0 else str(ti.task_id)


def _is_on_dag(context: Context, event: str) -> bool:
    callbacks: Any = getattr(context.get("dag"), event, None)
    return alert in (callbacks if isinstance(callbacks, list | tuple) else [callbacks])


def _is_called_on_dag(context: Context) -> bool:
    """Return whether Airflow surely calls `alert` for the DAG, after the failure of one of its tasks."""
    return _is_on_dag(context, "on_failure_callback") and (
        _is_on_dag(context, "on_success_callback") or _fails_run(context["ti"].task)
    )


def _fails_run(task: Any) -> bool:
    """Return whether the run surely fails if this task fails; Airflow looks only at the last tasks of a run.

    A task that needs others too may be skipped for them, and Airflow skips it if the DAG fails fast.
    """
    if task.is_teardown:
        return False
    if not task.downstream_list:
        return True
    return not task.dag.fail_fast and any(
        each.trigger_rule == "all_success" and each.upstream_task_ids == {task.task_id} and _fails_run(each)
        for each in task.downstream_list
    )


# The facts of a task; each is empty if it is not known.


def _account(task: Any) -> str:
    """Return the account of a task, by its connection; the task may not have begun."""
    from airflow.sdk import BaseHook

    from airflow_provider_hkex_rap.rap.account import Account

    conn_id = getattr(task, "rap_conn_id", None)
    if not isinstance(conn_id, str) or "{{" in conn_id:
        return ""
    # An alert without an account is better than none.
    try:
        return Account(BaseHook.get_connection(conn_id).login or "").name
    except Exception as error:
        log.warning("The alert names no account: %s", error)
        return ""


def _business_date(context: Context, task: Any) -> str:
    """Return the trading day of the run of a RAP task, as the task has or would have computed it."""
    run_day = getattr(task, "run_day", None)
    # The arguments may be wrong, which is perhaps why the task has failed.
    try:
        return run_day(context).isoformat() if run_day else ""
    except Exception as error:
        log.info("The alert names no trading day: %s", error)
        return ""


def _board(task: Any, account: str, business_date: str) -> str:
    """Return the URL of the day on the board, as the task links to it."""
    from airflow_provider_hkex_rap.rap.account import Account

    if not (account and business_date):
        return ""
    url: str = getattr(task, "board_url", board_url)(Account(account).customer, business_date)
    return url
