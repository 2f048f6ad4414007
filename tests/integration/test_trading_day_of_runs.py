"""The trading day that a task computes, for every way in which Airflow creates a run: one row each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pendulum
import pytest

from airflow_provider_hkex_rap.rap.clock import HONG_KONG

from .real_airflow import RealAirflow, missing_faketime
from .trial import Trial

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing_faketime() is not None, reason=str(missing_faketime())),
    pytest.mark.timeout(300),
]

# Every run is created on this Sunday at noon. By the hours of DCASS it belongs to Friday the 8th.
START = pendulum.datetime(2027, 1, 10, 12, tz=HONG_KONG)
FRIDAY = "2027-01-08"


@dataclass(frozen=True)
class Row:
    """A way to create a run.

    :param dag_id: the DAG of the run.
    :param make: creates the run.
    :param run_type: the type that Airflow gives the run.
    :param day: the trading day that the task must compute.
    """

    dag_id: str
    make: Callable[[RealAirflow], object]
    run_type: str
    day: str


def backfill(airflow: RealAirflow) -> object:
    bounds = {"from_date": "2026-12-28T00:00:00Z", "to_date": "2026-12-28T00:00:00Z"}
    return airflow.request("POST", "backfills", json={"dag_id": "day_timetable", **bounds})


def asset_event(airflow: RealAirflow) -> object:
    (asset,) = airflow.request("GET", "assets", name_pattern="trial")["assets"]
    return airflow.request("POST", "assets/events", json={"asset_id": asset["id"]})


def trigger(dag_id: str, logical_date: str | None = None, **conf: str) -> Callable[[RealAirflow], object]:
    return lambda airflow: airflow.trigger(dag_id, logical_date=logical_date, conf=conf)


def command(*arguments: str) -> Callable[[RealAirflow], object]:
    return lambda airflow: airflow.run("dags", "trigger", *arguments, "day_unscheduled")


def dags_test(airflow: RealAirflow) -> object:
    return airflow.run("dags", "test", "day_tested", "2027-01-12")


ROWS = {
    "scheduled by our timetable": Row("day_timetable", lambda airflow: None, "scheduled", "2026-12-24"),
    "backfill of our timetable": Row("day_timetable", backfill, "backfill", "2026-12-28"),
    "scheduled by the user's cron": Row("day_cron", lambda airflow: None, "scheduled", "2026-12-25"),
    "manual, at midnight UTC": Row(
        "day_unscheduled", trigger("day_unscheduled", "2026-12-20T00:00:00Z"), "manual", "2026-12-20"
    ),
    "manual, by day": Row(
        "day_unscheduled", trigger("day_unscheduled", "2026-12-23T12:00:00+08:00"), "manual", "2026-12-23"
    ),
    "manual, by night": Row(
        "day_unscheduled", trigger("day_unscheduled", "2026-12-24T02:00:00+08:00"), "manual", "2026-12-23"
    ),
    "manual, without logical date": Row("day_unscheduled", trigger("day_unscheduled"), "manual", FRIDAY),
    "manual, without logical date, under our timetable": Row(
        "day_timetable", trigger("day_timetable"), "manual", FRIDAY
    ),
    "manual, by its conf": Row(
        "day_unscheduled", trigger("day_unscheduled", business_date="2026-12-31"), "manual", "2026-12-31"
    ),
    "command line, with logical date": Row(
        "day_unscheduled", command("--logical-date", "2026-12-22T06:59:00+08:00"), "manual", "2026-12-21"
    ),
    "tested, for a date": Row("day_tested", dags_test, "manual", "2027-01-12"),
    "asset": Row("day_asset", asset_event, "asset_triggered", FRIDAY),
}


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    with Trial(tmp_path_factory.mktemp("trading_day"), START) as trial:
        yield trial


@pytest.fixture(scope="module")
def found(trial: Trial) -> dict[str, tuple[str, str]]:
    """Create every run; return by row the type of the run and the trading day that its task computed."""
    airflow = trial.airflow
    airflow.unpause(*{row.dag_id for row in ROWS.values()})
    for dag_id in ("day_timetable", "day_cron"):
        airflow.wait_until(lambda dag_id=dag_id: airflow.runs(dag_id), f"the scheduled run of {dag_id}")
    made = {name: _run_made_by(row, airflow) for name, row in ROWS.items()}
    for name, row in ROWS.items():
        task = airflow.wait_for_task(row.dag_id, made[name]["dag_run_id"], "success", "failed")
        assert task["state"] == "success", airflow.describe()
    return {
        name: (run["run_type"], airflow.xcom(ROWS[name].dag_id, run["dag_run_id"], "day_of_run"))
        for name, run in made.items()
    }


def _run_made_by(row: Row, airflow: RealAirflow) -> dict[str, str]:
    if row.run_type == "scheduled":
        (run,) = [run for run in airflow.runs(row.dag_id) if run["run_type"] == "scheduled"]
        return dict(run)
    before = {run["dag_run_id"] for run in airflow.runs(row.dag_id)}
    row.make(airflow)

    def new() -> list[dict[str, str]]:
        return [run for run in airflow.runs(row.dag_id) if run["dag_run_id"] not in before]

    (run,) = airflow.wait_until(new, f"a run of {row.dag_id}")
    return dict(run)


@pytest.mark.parametrize("name", ROWS)
def test_a_task_computes_the_trading_day_of_its_run(found: dict[str, tuple[str, str]], name: str) -> None:
    assert found[name] == (ROWS[name].run_type, ROWS[name].day)
