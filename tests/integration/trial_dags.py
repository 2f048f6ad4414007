"""DAGs for trials under a real scheduler; it reads a copy of this file."""

import pendulum
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset, get_current_context, task

from airflow_provider_hkex_rap._task import trading_day
from airflow_provider_hkex_rap.rap.clock import system_clock
from airflow_provider_hkex_rap.rap.folders import Service
from airflow_provider_hkex_rap.timetables import RapTradingDayTimetable

CHRISTMAS_EVE = pendulum.datetime(2026, 12, 24, tz="UTC")

TIMETABLES = {
    "dcass": RapTradingDayTimetable(at="01:30", service="DCASS"),
    "ccms": RapTradingDayTimetable(at="23:30", service="CCMS"),
    "securities": RapTradingDayTimetable(at="20:00", calendar="securities"),
}
for name, timetable in TIMETABLES.items():
    with DAG(f"catch_up_{name}", schedule=timetable, start_date=CHRISTMAS_EVE, catchup=True):
        EmptyOperator(task_id="nothing")
    with DAG(f"backfill_{name}", schedule=timetable):
        EmptyOperator(task_id="nothing")


@task
def day_of_run() -> str:
    """Return the trading day of the run."""
    return trading_day(get_current_context(), Service.DCASS, system_clock()()).isoformat()


# Each schedule has one run; others can be made.
EVE_ONLY = {"start_date": CHRISTMAS_EVE, "end_date": CHRISTMAS_EVE, "catchup": True}
with DAG("day_timetable", schedule=TIMETABLES["dcass"], **EVE_ONLY):
    day_of_run()

# The evening of Saturday 26 December 2026, a public holiday.
BOXING_DAY = pendulum.datetime(2026, 12, 26, tz="Asia/Hong_Kong")
BOXING_DAY_ONLY = {"start_date": BOXING_DAY, "end_date": BOXING_DAY.add(days=1), "catchup": True}
with DAG("day_cron", schedule="30 23 * * *", **BOXING_DAY_ONLY):
    day_of_run()

with DAG("day_unscheduled", schedule=None):
    day_of_run()

with DAG("day_asset", schedule=Asset("trial")):
    day_of_run()
