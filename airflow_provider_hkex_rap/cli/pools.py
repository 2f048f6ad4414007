"""Check the pools of RAP tasks: those of the configuration, and those that the tasks of DAGs name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from airflow_provider_hkex_rap.cli.command import database_unreadable
from airflow_provider_hkex_rap.cli.finding import FAIL, OK, WARN, Finding

_DAGS_AT_A_TIME = 50
_TASKS_NAMED = 5
_CONNECTION_FIELD = "rap_conn_id"
"""A template field of every operator and sensor of the provider, and of the classes made from them."""


def check_pools() -> Iterator[Finding]:
    """Check that each pool of RAP tasks exists and has one slot."""
    from sqlalchemy.exc import SQLAlchemyError

    from airflow_provider_hkex_rap.cli.init import pool_slots

    try:
        configured = pool_slots()
        tasks = _tasks_by_pool()
        named = pool_slots([pool for pool in tasks if pool not in configured])
    except SQLAlchemyError as error:
        yield Finding(FAIL, "pools", database_unreadable(error))
        return
    for name, slots in configured.items():
        yield _finding(name, slots, tasks.get(name, ()), "Run airflow hkex-rap init.")
    for name, slots in named.items():
        todo = "Add it to [hkex_rap] pools and run airflow hkex-rap init, or correct the tasks' 'pool'."
        yield _finding(name, slots, tasks[name], todo)


def _finding(name: str, slots: int | None, tasks: Sequence[str], todo: str) -> Finding:
    users = _describe(tasks)
    if slots is None:
        return Finding(FAIL, "pool", f"{name} does not exist: its tasks{users} never start. {todo}")
    if slots != 1:
        return Finding(
            WARN,
            "pool",
            f"{name} has {slots} slots: its tasks{users} end each other's sessions (§4.3). Give it one slot,"
            " or give the tasks a pool that has one.",
        )
    return Finding(OK, "pool", f"{name} has one slot.")


def _describe(tasks: Sequence[str]) -> str:
    if not tasks:
        return ""
    more = len(tasks) - _TASKS_NAMED
    return f" ({', '.join(tasks[:_TASKS_NAMED])}{f' and {more} more' if more > 0 else ''})"


def _tasks_by_pool() -> dict[str, list[str]]:
    """Return the RAP tasks of the DAGs in Airflow's database, as ``dag.task``, by the pool that they name.

    The latest version of each DAG counts, and no DAG whose file is gone. The DAGs are read as JSON: to load
    them needs the classes of their timetables, and takes longer.

    :raises sqlalchemy.exc.SQLAlchemyError: if Airflow's database cannot be read.
    """
    from airflow.models.dag import DagModel
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    found: dict[str, list[str]] = {}
    with create_session() as session:
        dag_ids = sorted(session.scalars(select(DagModel.dag_id).where(~DagModel.is_stale)))
        for start in range(0, len(dag_ids), _DAGS_AT_A_TIME):
            some = dag_ids[start : start + _DAGS_AT_A_TIME]
            for row in SerializedDagModel.get_latest_serialized_dags(dag_ids=some, session=session):
                for task, pool in _rap_tasks(row.data or {}):
                    found.setdefault(pool, []).append(f"{row.dag_id}.{task}")
            session.expunge_all()
    return found


def _rap_tasks(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the id and the pool of each RAP task in a serialized DAG."""
    from airflow.models.pool import Pool

    for item in data.get("dag", {}).get("tasks", ()):
        task = item.get("__var", item)
        if _CONNECTION_FIELD in task.get("template_fields", ()):
            # A mapped task has its arguments apart. Airflow leaves the default pool out.
            arguments = {**task, **task.get("partial_kwargs", {})}
            yield task["task_id"], arguments.get("pool", Pool.DEFAULT_POOL_NAME)
