"""Land the reports of several customers in one lake, with one DAG for each customer.

Each customer has a connection, and a pool of the same name with one slot.
"""

from datetime import timedelta

import pendulum
from airflow.sdk import DAG

from airflow_provider_hkex_rap.notifications.alerts import alert
from airflow_provider_hkex_rap.operators.download import RapDownloadOperator
from airflow_provider_hkex_rap.timetables import RapTradingDayTimetable

CUSTOMERS = {"cxyz": "hkex_rap_cxyz", "cabc": "hkex_rap_cabc"}

for customer, account in CUSTOMERS.items():
    with DAG(
        f"rap_daily_{customer}",
        schedule=RapTradingDayTimetable(at="01:30", service="DCASS"),
        start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
        catchup=False,
        max_active_runs=1,
        default_args={"retries": 8, "retry_delay": timedelta(minutes=15), "on_failure_callback": alert},
        on_failure_callback=alert,
    ):
        RapDownloadOperator(
            task_id="land",
            folders=["DCASS", "DCASS_OTHERS"],
            lake="{{ var.value.hkex_rap_lake }}",
            rap_conn_id=account,
            pool=account,
        )
