"""``airflow dags test`` outside the service hours: it says when RAP opens, and ends."""

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


@pytest.mark.parametrize("dag_id", ["at_night", "waiting_at_night"])
def test_a_closed_rap_fails_the_test_run_at_once(tmp_path: Path, dag_id: str) -> None:
    folder = tmp_path / "dags"
    folder.mkdir()
    (folder / "dags.py").write_text(DAGS.replace("/nowhere-at-all", str(tmp_path)))
    with RapSimulator(now=SUNDAY) as rap:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
        environment |= {
            "AIRFLOW_HOME": str(tmp_path),
            "AIRFLOW__CORE__DAGS_FOLDER": str(folder),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW_CONN_HKEX_RAP_DEFAULT": rap.connection_json("DCXYZ001"),
            "AIRFLOW__HKEX_RAP__CLOCK_OFFSET": str((SUNDAY - pendulum.now()).total_seconds()),
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
        assert not rap.events
    assert "RAP is closed until Mon 2026-11-23 07:00 HKT" in printed
    assert "No tasks to run" not in printed
    assert "Marking run" in printed
    assert "failed" in printed
