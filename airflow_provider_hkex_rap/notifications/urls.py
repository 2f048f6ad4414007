"""The URLs that alerts and tasks link to: a run in Airflow's UI, and a day on the board."""

from __future__ import annotations

from urllib.parse import quote, urlencode

BOARD = "hkex-rap/"
"""The path of the board below Airflow's base URL."""


def board_url(customer: str, business_date: str, folder: str = "", lake: str = "") -> str:
    """Return the URL of a day on the board.

    :param customer: the DCASS customer code, such as ``CXYZ``.
    :param business_date: the day, as YYYY-MM-DD.
    :param folder: the folder, by name; empty for the row of the day, which has all folders.
    :param lake: the lake's root, as the DAG has it; empty for the first lake that has the customer.
    """
    query = {"customer": customer, "folder": folder, "day": business_date, "lake": lake.strip()}
    return f"{_base_url()}/{BOARD}?{urlencode({name: value for name, value in query.items() if value})}"


def run_url(dag_id: str, run_id: str, task_id: str = "", map_index: int | None = -1) -> str:
    """Return the URL of a run in Airflow's UI, or of one of its tasks.

    :param dag_id: the DAG.
    :param run_id: the run.
    :param task_id: the task; empty for the run.
    :param map_index: the index of a mapped task; None or below 0 for another task.
    """
    task = f"/tasks/{task_id}" if task_id else ""
    mapped = f"/mapped/{map_index}" if map_index is not None and map_index >= 0 else ""
    return f"{_base_url()}/dags/{dag_id}/runs/{quote(run_id)}{task}{mapped}"


def _base_url() -> str:
    from airflow.sdk.configuration import conf

    return str(conf.get("api", "base_url", fallback="")).rstrip("/") or "http://localhost:8080"
