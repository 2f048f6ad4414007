"""Renew the SSH keys of RAP accounts thirty days before they expire, and alert if a renewal fails.

Name the connections of all your accounts in ``CONNECTIONS``. Every weekday the DAG logs in with each of them
and looks for RAP's warning. If a person must act, the task fails and says what to do, and until when, also to
the notifier that the Airflow Variable ``hkex_rap_notifier`` names.
"""

from datetime import timedelta

import pendulum
from airflow.sdk import DAG

from airflow_provider_hkex_rap.notifications.alerts import alert
from airflow_provider_hkex_rap.operators.key_renewal import RapKeyRenewalOperator

CONNECTIONS = ["hkex_rap_default"]


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
    on_failure_callback=alert,
    tags=["hkex", "rap"],
    doc_md=__doc__,
):
    for connection in CONNECTIONS:
        RapKeyRenewalOperator(task_id=f"renew_{connection}", rap_conn_id=connection)
