"""DAGs for trials under a real scheduler; it reads a copy of this file."""

from datetime import timedelta

import pendulum
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset, get_current_context, task

from airflow_provider_hkex_rap.operators.download import RapDownloadOperator
from airflow_provider_hkex_rap.operators.task import trading_day
from airflow_provider_hkex_rap.rap.clock import system_clock
from airflow_provider_hkex_rap.rap.folders import Service
from airflow_provider_hkex_rap.sensors.report import RapReportSensor
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


# Each schedule creates one run; the test creates the others.
EVE_ONLY = {"start_date": CHRISTMAS_EVE, "end_date": CHRISTMAS_EVE, "catchup": True}
with DAG("day_timetable", schedule=TIMETABLES["dcass"], **EVE_ONLY):
    day_of_run()

# The evening of Saturday 26 December 2026, a public holiday.
BOXING_DAY = pendulum.datetime(2026, 12, 26, tz="Asia/Hong_Kong")
BOXING_DAY_ONLY = {"start_date": BOXING_DAY, "end_date": BOXING_DAY.add(days=1), "catchup": True}
with DAG("day_cron", schedule="30 23 * * *", **BOXING_DAY_ONLY):
    day_of_run()

# For `dags test`, which the test calls before the one scheduled run is due.
TUESDAY = pendulum.datetime(2027, 1, 12, tz="UTC")
TUESDAY_ONLY = {"start_date": TUESDAY, "end_date": TUESDAY, "catchup": True}
with DAG("day_tested", schedule=TIMETABLES["dcass"], **TUESDAY_ONLY):
    day_of_run()

with DAG("day_unscheduled", schedule=None):
    day_of_run()

with DAG("day_asset", schedule=Asset("trial")):
    day_of_run()

# The accounts beside the default one, each with its own pool.
ABC1 = {"rap_conn_id": "hkex_rap_abc1", "pool": "hkex_rap_abc1"}
ABC2 = {"rap_conn_id": "hkex_rap_abc2", "pool": "hkex_rap_abc2"}
LAKE = "{{ var.value.hkex_rap_lake }}"
RETRIED = {"retries": 2, "retry_delay": timedelta(minutes=15)}

# The test backfills these days; no day is left for the scheduler.
MONDAY, WEDNESDAY = pendulum.datetime(2027, 1, 11, tz="UTC"), pendulum.datetime(2027, 1, 13, tz="UTC")
with DAG(
    "backfill_expecting",
    schedule=TIMETABLES["dcass"],
    start_date=MONDAY,
    end_date=WEDNESDAY,
    catchup=True,
    default_args=RETRIED,
):
    RapDownloadOperator(task_id="land", folders=["DCASS"], lake=LAKE, expect=["TP001_*"], **ABC2)

with DAG("one_day", schedule=None, params={"day": ""}, default_args=RETRIED):
    DAY = {"business_date": "{{ params.day }}"}
    RapReportSensor(task_id="look", folder="DCASS", **DAY, **ABC1)
    RapDownloadOperator(task_id="land", folders=["DCASS"], lake=LAKE, **DAY, **ABC1)

MINUTES = 60
WAITING = {"folder": "DCASS", "poke_interval": 10 * MINUTES}
for dag_id, account, reports, timeout in [
    ("wait_late", {}, ["LATE_*"], 120),
    ("wait_twice", ABC1, ["FIRST_*", "SECOND_*"], 120),
    ("wait_never", ABC2, ["FIRST_*", "NEVER_*"], 25),
    ("wait_shut", {}, ["EARLY_*"], 1),
]:
    with DAG(dag_id, schedule=None, default_args=RETRIED):
        wait = RapReportSensor(
            task_id="wait", reports=reports, timeout=timeout * MINUTES, **WAITING, **account
        )
        wait >> RapDownloadOperator(
            task_id="land", folders=["DCASS"], include=reports, lake=LAKE, expect=[], **account
        )

with DAG("over_sites", schedule=None, default_args=RETRIED):
    RapDownloadOperator(task_id="land", folders=["DCASS"], lake=LAKE, expect=[], rap_conn_id="hkex_rap_sites")

# One run each, at the same time, in the night after Thursday 4 February 2027.
THURSDAY = pendulum.datetime(2027, 2, 4, tz="UTC")
for customer, account in {"xyz": {}, "abc": ABC1}.items():
    with DAG(
        f"daily_{customer}",
        schedule=TIMETABLES["dcass"],
        start_date=THURSDAY,
        end_date=THURSDAY,
        catchup=True,
        default_args=RETRIED,
    ):
        RapDownloadOperator(
            task_id="land", folders=["DCASS", "DCASS_OTHERS"], lake=LAKE, expect=[], **account
        )
