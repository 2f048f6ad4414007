"""Land the reports of RAP in the data lake, once a trading day: those of DCASS by night, of CCMS before.

Set the Airflow Variable ``hkex_rap_lake`` to the lake's root, such as ``s3://aws_default@bucket/rap``, and
make the connection ``hkex_rap_default``. A run lands whatever is new, so a day missed heals by itself. Where
a report that you expect of the day has not landed, the run tries again, and fails in the end.
"""

from datetime import timedelta

import pendulum
from airflow.sdk import DAG

from airflow_provider_hkex_rap.operators.download import RapDownloadOperator
from airflow_provider_hkex_rap.timetables import RapTradingDayTimetable

# The reports that must be there each day, as patterns of file names, such as "TP001_*".
EXPECT_OF_DCASS: list[str] = []
EXPECT_OF_CCMS: list[str] = []

COMMON = {
    "start_date": pendulum.datetime(2026, 1, 1, tz="UTC"),
    "catchup": False,
    "max_active_runs": 1,
    "default_args": {"retries": 8, "retry_delay": timedelta(minutes=15)},
    "tags": ["hkex", "rap"],
    "doc_md": __doc__,
}
LAKE = "{{ var.value.hkex_rap_lake }}"

with DAG("hkex_rap_daily_dcass", schedule=RapTradingDayTimetable(at="01:30", service="DCASS"), **COMMON):
    RapDownloadOperator(task_id="land", folders=["DCASS", "DCASS_OTHERS"], lake=LAKE, expect=EXPECT_OF_DCASS)

# CCMS closes at 24:00; on Saturdays, at 13:00, and the run is at 12:30.
with DAG("hkex_rap_daily_ccms", schedule=RapTradingDayTimetable(at="23:30", service="CCMS"), **COMMON):
    RapDownloadOperator(task_id="land", folders=["HKCC_SEOCH_CCMS_GLOB"], lake=LAKE, expect=EXPECT_OF_CCMS)
