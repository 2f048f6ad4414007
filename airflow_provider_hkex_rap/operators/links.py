"""The links of a download task in Airflow's UI: its day on the board, and its manifest files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink

from airflow_provider_hkex_rap.notifications.urls import run_url

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class BoardLink(BaseOperatorLink):
    """The day of a download on the board; there is none before the task has read its arguments."""

    name = "Board"
    xcom_key = "hkex_rap_board"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the URL, of the operator's folder, or of all folders if it has several.

        :param operator: the operator that has run.
        :param ti_key: the task instance.
        """
        return str(getattr(operator, "board_link", ""))


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
