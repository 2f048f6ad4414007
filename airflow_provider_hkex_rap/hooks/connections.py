"""Find Airflow's connections of the type ``hkex_rap``."""

from __future__ import annotations

import os
from collections.abc import Iterator

from airflow.sdk.exceptions import AirflowException

_ENVIRONMENT = "AIRFLOW_CONN_"


def list_conn_ids() -> list[str]:
    """Return the connections of the type hkex_rap in Airflow's database and in the environment, sorted.

    Other secrets backends do not list what they hold.
    """
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        stored = select(Connection.conn_id).where(Connection.conn_type == "hkex_rap")
        return sorted({*session.scalars(stored), *_in_environment()})


def _in_environment() -> Iterator[str]:
    from airflow_provider_hkex_rap.hooks.rap import RapHook

    for name in list(os.environ):
        conn_id = name.removeprefix(_ENVIRONMENT).lower()
        if name.startswith(_ENVIRONMENT):
            try:
                connection = RapHook.get_connection(conn_id)
            except (AirflowException, ValueError):
                # Not ours, and not valid.
                continue
            if connection.conn_type == RapHook.conn_type:
                yield conn_id
