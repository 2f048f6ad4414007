"""Land the folders of one customer with two accounts at the same time.

Each account has a connection, and a pool of the same name with one slot.
"""

from datetime import timedelta

import pendulum
from airflow.sdk import DAG

from airflow_provider_hkex_rap.notifications.alerts import alert
from airflow_provider_hkex_rap.operators.download import RapDownloadOperator
from airflow_provider_hkex_rap.timetables import RapTradingDayTimetable

ACCOUNTS = {"DCASS": "hkex_rap_1", "DCASS_OTHERS": "hkex_rap_2"}

with DAG(
    "rap_by_two_accounts",
    schedule=RapTradingDayTimetable(at="01:30", service="DCASS"),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 8, "retry_delay": timedelta(minutes=15), "on_failure_callback": alert},
    on_failure_callback=alert,
):
    for folder, account in ACCOUNTS.items():
        RapDownloadOperator(
            task_id=f"land_{folder.lower()}",
            folders=[folder],
            lake="{{ var.value.hkex_rap_lake }}",
            rap_conn_id=account,
            pool=account,
        )
