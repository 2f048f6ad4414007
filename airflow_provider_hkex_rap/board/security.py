"""Who may see what on the board. Airflow does not protect the pages of a plugin by itself.

Users who may read assets see the grid and the files: the landed reports are the content of the assets
``hkex-rap://<customer>/<folder>``. The run that landed a file is shown to users who may read its DAG.
Accounts, keys, sites and servers come from connections, so they are shown to users who may read connections.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import ConnectionDetails
from airflow.api_fastapi.core_api.security import (
    GetUserDep,
    requires_access_asset,
    requires_access_connection,
)
from airflow.models.connection import Connection
from fastapi import Depends

if TYPE_CHECKING:
    from airflow.api_fastapi.auth.managers.models.base_user import BaseUser

READS_REPORTS = Depends(requires_access_asset(method="GET"))
"""Answers 401 without a valid login, and 403 if the user may not read assets."""
READS_CONNECTIONS = Depends(requires_access_connection(method="GET"))
"""Answers 403 if the user may not read connections."""


class Viewer:
    """What the user of a request may see.

    :param user: the user, as Airflow's own dependency gives it.
    """

    def __init__(self, user: BaseUser) -> None:
        self._user = user

    @property
    def dags(self) -> set[str]:
        """The ids of the DAGs that the user may read."""
        return get_auth_manager().get_authorized_dag_ids(user=self._user, method="GET")

    @property
    def reads_connections(self) -> bool:
        """Whether the user may read connections."""
        return get_auth_manager().is_authorized_connection(
            method="GET", details=ConnectionDetails(), user=self._user
        )

    def readable_connections(self, conn_ids: list[str]) -> set[str]:
        """Return the connections that the user may read.

        :param conn_ids: connections, also of the environment, which belong to no team.
        """
        teams = Connection.get_conn_id_to_team_name_mapping(conn_ids)
        return {conn_id for conn_id in conn_ids if self._reads(conn_id, teams.get(conn_id))}

    def _reads(self, conn_id: str, team: str | None) -> bool:
        return get_auth_manager().is_authorized_connection(
            method="GET", details=ConnectionDetails(conn_id=conn_id, team_name=team), user=self._user
        )


def _viewer(user: GetUserDep) -> Viewer:
    return Viewer(user)


ViewerDep = Annotated[Viewer, Depends(_viewer)]
