"""Renew the SSH keys of RAP accounts thirty days before they expire, and alert if a renewal fails.

Name the connections of all your accounts in ``CONNECTIONS``. Every weekday the DAG logs in with each of them
and looks for RAP's warning. If a person must act, the task fails and says what to do, and until when. Replace
``alert`` by your own notifier.
"""

import logging
from datetime import timedelta

import pendulum
from airflow.sdk import DAG

from airflow_provider_hkex_rap.operators.key_renewal import RapKeyRenewalOperator

CONNECTIONS = ["hkex_rap_default"]


def alert(context):
    """Log the key that was not renewed, and the reason."""
    task, error = context["task_instance"].task_id, context.get("exception")
    logging.getLogger(__name__).error("A RAP key needs attention (%s): %s", task, error)


with DAG(
    "hkex_rap_key_renewal",
    schedule="0 9 * * 1-5",
    start_date=pendulum.datetime(2026, 1, 1, tz="Asia/Hong_Kong"),
    catchup=False,
    max_active_runs=1,
    default_args={
        "retries": 2,
        "retry_delay": timedelta(minutes=15),
        "on_failure_callback": alert,
    },
    tags=["hkex", "rap"],
    doc_md=__doc__,
):
    for connection in CONNECTIONS:
        RapKeyRenewalOperator(task_id=f"renew_{connection}", rap_conn_id=connection)
