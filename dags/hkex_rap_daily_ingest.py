"""Land the reports of RAP in the data lake once per trading day: CCMS in the evening, DCASS at night.

Set the Airflow Variable ``hkex_rap_lake`` to the root of the lake, such as ``s3://aws_default@bucket/rap``,
and create the connection ``hkex_rap_default``. Each run lands all new files, so the next run makes up for a
missed day. A green task means that the lake has every usual report of the trading day: those that came on
nearly every day before. If one is missing, the task retries; it fails when no retry is left. It then alerts
the notifier that the Variable ``hkex_rap_notifier`` names.

To judge another day, trigger the DAG with its ``business_date``.
"""

from datetime import timedelta

import pendulum
from airflow.sdk import DAG, Param

from airflow_provider_hkex_rap.notifications.alerts import alert
from airflow_provider_hkex_rap.operators.download import RapDownloadOperator
from airflow_provider_hkex_rap.timetables import RapTradingDayTimetable

# What must land on each trading day: the usual reports. Add patterns of file names, such as "TP001_*", for
# reports that must come although they are new or rare.
EXPECT_OF_DCASS = ["usual"]
EXPECT_OF_CCMS = ["usual"]

COMMON = {
    "params": {
        "business_date": Param(
            None,
            type=["null", "string"],
            format="date",
            description="The trading day to judge, as YYYY-MM-DD; blank for the day of the run. All new files"
            " land anyway.",
        )
    },
    "start_date": pendulum.datetime(2026, 1, 1, tz="UTC"),
    "catchup": False,
    "max_active_runs": 1,
    "default_args": {"retries": 8, "retry_delay": timedelta(minutes=15), "on_failure_callback": alert},
    # The DAG alerts if a task could not, since its process was killed.
    "on_failure_callback": alert,
    "tags": ["hkex", "rap"],
    "doc_md": __doc__,
}
LAKE = "{{ var.value.hkex_rap_lake }}"

with DAG("hkex_rap_daily_dcass", schedule=RapTradingDayTimetable(at="01:30", service="DCASS"), **COMMON):
    RapDownloadOperator(task_id="land", folders=["DCASS", "DCASS_OTHERS"], lake=LAKE, expect=EXPECT_OF_DCASS)

# CCMS closes at 24:00. On Saturdays it closes at 13:00, and the timetable moves the run to 12:30.
with DAG("hkex_rap_daily_ccms", schedule=RapTradingDayTimetable(at="23:30", service="CCMS"), **COMMON):
    RapDownloadOperator(task_id="land", folders=["HKCC_SEOCH_CCMS_GLOB"], lake=LAKE, expect=EXPECT_OF_CCMS)
