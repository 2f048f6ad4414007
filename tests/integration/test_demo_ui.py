"""``make demo-ui``: a filled board, and no process left after its end."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def demo(home: Path) -> Iterator[tuple[str, list[psutil.Process]]]:
    """Run the demo in a directory, and end it as a terminal does that is closed.

    :returns: what it has printed when it serves, and its processes.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "airflow_provider_hkex_rap.testing.demo_ui"],
        cwd=home,
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
        assert "Stop" in printed, printed
        yield printed, [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    finally:
        parts = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGHUP)
        process.wait(60)
        left = [each for each in parts if each.is_running()]
        for each in left:
            each.kill()
    assert process.returncode == 0
    assert parts
    assert not left


def test_each_start_shows_the_same_board_to_this_machine_alone(tmp_path: Path) -> None:
    (tmp_path / "dags").symlink_to(ROOT / "dags")
    for _ in range(2):
        with demo(tmp_path) as (printed, processes):
            check_the_board(printed)
            listening = [
                each.laddr.ip
                for process in processes
                for each in process.net_connections()
                if each.status == psutil.CONN_LISTEN
            ]
            assert set(listening) == {"127.0.0.1"}


def check_the_board(printed: str) -> None:
    """Check the board of a demo that serves; *printed* is what it has printed."""
    cell = re.search(r"(http://127\.0\.0\.1:\d+)/hkex-rap/\?customer=CXYZ&folder=DCASS&day=(\S+)\n", printed)
    assert cell, printed
    url, yesterday = cell.groups()
    board = httpx.get(f"{url}/hkex-rap/api/board", timeout=60).raise_for_status().json()
    (customer,) = board["lakes"][0]["customers"]
    states = {(cell["day"], cell["folder"]): cell for cell in customer["cells"]}
    today, *_, oldest = customer["days"]
    assert oldest["days_left"] <= 2
    for day, folder, report in (
        (yesterday, "DCASS", "TP001"),
        (oldest["day"], "DCASS_OTHERS", "RPI03"),
    ):
        found = states.pop((day, folder))
        assert (found["state"], [each["report"] for each in found["missing"]]) == ("incomplete", [report])
    assert {each["state"] for (day, _), each in states.items() if day == today["day"]} == {"awaited"}
    assert {each["state"] for (day, _), each in states.items() if day != today["day"]} == {"complete"}
    accounts = httpx.get(f"{url}/hkex-rap/api/accounts", timeout=60).raise_for_status().json()
    (key,) = (key for key in accounts["accounts"][0]["keys"] if key["role"] == "current")
    assert key["days_left"] == 9
