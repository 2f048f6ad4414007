"""The permissions of the board. Airflow does not protect the pages of a plugin by itself.

Users who may read assets see the grid and the files: the landed reports are the content of the assets
``hkex-rap://<customer>/<folder>``. The run that landed a file is shown to users who may read its DAG.
Accounts, keys, sites and servers come from connections, so they are shown to users who may read connections,
except for those of a connection that the user may not read, such as one of another team (``[core]
multi_team``).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import ConnectionDetails
from airflow.api_fastapi.core_api.security import (
    GetUserDep,
    requires_access_asset,
)
from airflow.models.connection import Connection
from fastapi import Depends

from airflow_provider_hkex_rap.hooks.connections import list_conn_ids
from airflow_provider_hkex_rap.hooks.login_source import AirflowLoginSource

if TYPE_CHECKING:
    from airflow.api_fastapi.auth.managers.models.base_user import BaseUser

READS_REPORTS = Depends(requires_access_asset(method="GET"))
"""Answers 401 without a valid login, and 403 if the user may not read assets."""


@dataclass(frozen=True, slots=True)
class VisibleAccounts:
    """The accounts that a user may see; ``account in visible`` is true for one of them.

    :param connections: the connections that the user may read.
    :param readable: the accounts of these connections; None for each that is not known.
    :param hidden: the accounts of all other connections.
    """

    connections: Collection[AirflowLoginSource]
    readable: Collection[str | None]
    hidden: Collection[str | None]

    def __contains__(self, account: object) -> bool:
        if account in self.readable:
            return True
        # If the account of a hidden connection is not known, any account may be it.
        return None not in self.hidden and account not in self.hidden


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

    def visible_accounts(self) -> VisibleAccounts | None:
        """Return the accounts that the user may see; None if the user may not read connections."""
        auth_manager = get_auth_manager()
        if not auth_manager.is_authorized_connection(
            method="GET", details=ConnectionDetails(), user=self._user
        ):
            return None
        conn_ids = list_conn_ids()
        # A connection of the environment belongs to no team.
        teams = Connection.get_conn_id_to_team_name_mapping(conn_ids)
        readable: list[AirflowLoginSource] = []
        hidden: list[AirflowLoginSource] = []
        for conn_id in conn_ids:
            team = teams.get(conn_id)
            (readable if self._reads(conn_id, team) else hidden).append(AirflowLoginSource(conn_id, team))
        return VisibleAccounts(readable, set(map(_account, readable)), set(map(_account, hidden)))

    def _reads(self, conn_id: str, team: str | None) -> bool:
        details = ConnectionDetails(conn_id=conn_id, team_name=team)
        return get_auth_manager().is_authorized_connection(method="GET", details=details, user=self._user)


def _account(connection: AirflowLoginSource) -> str | None:
    try:
        return connection.account.name
    except Exception:  # each secrets backend has its own errors
        return None


def _viewer(user: GetUserDep) -> Viewer:
    return Viewer(user)


ViewerDep = Annotated[Viewer, Depends(_viewer)]
