"""``airflow dags test`` does not wait: not for the service hours, and not for a report."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pendulum
import pytest

from airflow_provider_hkex_rap.testing import RapSimulator

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

DAGS = """
from airflow.sdk import DAG
from airflow_provider_hkex_rap.operators.download import RapDownloadOperator
from airflow_provider_hkex_rap.sensors.report import RapReportSensor

WAITING = {"retries": 8}
with DAG("at_night", default_args=WAITING):
    RapDownloadOperator(task_id="land", folders=["DCASS"], lake="file:///nowhere-at-all/lake")
with DAG("waiting_at_night", default_args=WAITING):
    RapReportSensor(task_id="arrived", folder="DCASS")
"""
SUNDAY = pendulum.datetime(2026, 11, 22, 12, tz="Asia/Hong_Kong")


FRIDAY = pendulum.datetime(2026, 11, 20, 21, tz="Asia/Hong_Kong")


def print_of_test_run(home: Path, rap: RapSimulator, dag_id: str) -> str:
    """Run ``airflow dags test`` of a DAG for 20 November; return what it prints."""
    folder = home / "dags"
    folder.mkdir()
    (folder / "dags.py").write_text(DAGS.replace("/nowhere-at-all", str(home)))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    environment |= {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(folder),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW_CONN_HKEX_RAP_DEFAULT": rap.connection_json("DCXYZ001"),
        "AIRFLOW__HKEX_RAP__CLOCK_OFFSET": str((rap.clock() - pendulum.now()).total_seconds()),
    }

    def airflow(*arguments: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "airflow", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
        ).stdout

    airflow("db", "migrate")
    printed = airflow("dags", "test", dag_id, "2026-11-20")
    assert "No tasks to run" not in printed
    assert "Marking run" in printed
    assert "failed" in printed
    return printed


@pytest.mark.parametrize("dag_id", ["at_night", "waiting_at_night"])
def test_a_closed_rap_fails_the_test_run_at_once(tmp_path: Path, dag_id: str) -> None:
    with RapSimulator(now=SUNDAY) as rap:
        printed = print_of_test_run(tmp_path, rap, dag_id)
        assert not rap.events
    assert "RAP is closed until Mon 2026-11-23 07:00 HKT" in printed


def test_a_report_that_is_not_there_fails_the_test_run_at_once(tmp_path: Path) -> None:
    with RapSimulator(now=FRIDAY) as rap:
        printed = print_of_test_run(tmp_path, rap, "waiting_at_night")
        assert len(rap.events.of("login")) == 1
    assert "a test run does not wait" in printed
