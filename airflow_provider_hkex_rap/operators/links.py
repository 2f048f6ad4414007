"""The links of a download task in Airflow's UI: its day on the board, and its manifest files."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from airflow.sdk import BaseOperatorLink
from airflow.sdk.configuration import conf

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

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


class BoardLink(BaseOperatorLink):
    """The day of a download on the board; there is none before the task has read its arguments."""

    name = "Board"
    xcom_key = "hkex_rap_board"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the URL, of the first of the operator's folders.

        :param operator: the operator that has run.
        :param ti_key: the task instance.
        """
        return str(getattr(operator, "board_url", ""))


class ManifestLink(BaseOperatorLink):
    """The manifest files that a download has written.

    A browser cannot open a manifest file in the lake. So the link shows the XComs of the task, which have the
    URIs of all of them. There is none if the task has written no manifest file.
    """

    name = "Manifest files"
    xcom_key = "hkex_rap_manifests"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the URL of the task's XComs.

        :param operator: the operator that has run.
        :param ti_key: the task instance.
        """
        if not getattr(operator, "manifests", ()):
            return ""
        return f"{run_url(ti_key.dag_id, ti_key.run_id, ti_key.task_id, ti_key.map_index)}/xcom"


def _base_url() -> str:
    return str(conf.get("api", "base_url", fallback="")).rstrip("/") or "http://localhost:8080"
