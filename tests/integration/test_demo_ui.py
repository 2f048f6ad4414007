"""``make demo-ui``: a filled board, and no process left after its end."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

ROOT = Path(__file__).parents[2]


def left(home: Path) -> list[psutil.Process]:
    """Return the processes whose Airflow home is below a directory."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("AIRFLOW_HOME", "").startswith(str(home)):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_the_demo_fills_the_board_and_leaves_nothing_running(tmp_path: Path) -> None:
    (tmp_path / "dags").symlink_to(ROOT / "dags")
    process = subprocess.Popen(
        [sys.executable, "-m", "airflow_provider_hkex_rap.testing.demo_ui"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout
        printed = ""
        for line in process.stdout:
            printed += line
            if "Stop" in line:
                break
        found = re.search(r"(http://127\.0\.0\.1:\d+) \(no login", printed)
        assert found, printed + "".join(process.stdout)
        board = httpx.get(f"{found[1]}/hkex-rap/api/board", timeout=60).raise_for_status().json()
        (customer,) = board["lakes"][0]["customers"]
        states = {cell["state"] for cell in customer["cells"]}
        assert states >= {"complete", "incomplete"}
        assert "TP001" in {
            each["report"]
            for cell in customer["cells"]
            if cell["state"] == "incomplete"
            for each in cell["missing"]
        }
        accounts = httpx.get(f"{found[1]}/hkex-rap/api/accounts", timeout=60).raise_for_status().json()
        (key,) = (key for key in accounts["accounts"][0]["keys"] if key["role"] == "current")
        assert key["days_left"] == 9
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        running = left(tmp_path)
        for each in running:
            each.kill()
    assert process.returncode == 0
    assert not running
