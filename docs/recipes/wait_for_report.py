"""Wait until a report has arrived, and land it at once."""

from datetime import timedelta

import pendulum
from airflow.sdk import DAG

from airflow_provider_hkex_rap.notifications.alerts import alert
from airflow_provider_hkex_rap.operators.download import RapDownloadOperator
from airflow_provider_hkex_rap.sensors.report import RapReportSensor
from airflow_provider_hkex_rap.timetables import RapTradingDayTimetable

with DAG(
    "margin_of_the_day",
    schedule=RapTradingDayTimetable(at="19:00", service="DCASS"),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    default_args={"retries": 8, "retry_delay": timedelta(minutes=15), "on_failure_callback": alert},
    on_failure_callback=alert,
):
    arrived = RapReportSensor(task_id="arrived", folder="DCASS", reports=["TP001_*"], timeout=5 * 60 * 60)
    land = RapDownloadOperator(
        task_id="land", folders="DCASS", include=["TP001_*"], lake="{{ var.value.hkex_rap_lake }}"
    )
    arrived >> land
