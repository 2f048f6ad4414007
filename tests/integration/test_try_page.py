"""The tour of docs/try.md shows what the page says."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "try.md").read_text()
PLACE = "/tmp/try-rap"
SIMULATE, *TOUR = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
RUN = "airflow dags test hkex_rap_daily_dcass 2026-11-20\n"


def start(script: str, home: Path) -> subprocess.Popen[str]:
    """Start a shell as a reader has it in a terminal, with its *home* where the page has its own."""
    users_own = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.Popen(
        ["bash", "-e", "-c", script.replace(PLACE, str(home))],
        cwd=ROOT,
        env=users_own | {"PATH": path, "AIRFLOW_HOME": str(home), "COLUMNS": "200"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("try")


@pytest.fixture(scope="module")
def seen(home: Path) -> list[str]:
    """Take the tour, and run the DAG again as it says; return what each of its parts has printed."""
    parts = [*TOUR, RUN]
    with start(f"exec {SIMULATE}", home) as rap:
        assert rap.stdout
        try:
            said = [*takewhile(lambda line: line != "Press Ctrl-C to stop.\n", rap.stdout)]
            exports = [line for line in said if line.startswith("export ")]
            assert len(exports) == 2, said
            tour = start("".join(exports) + "echo -----\n".join(parts), home)
            printed, _ = tour.communicate()
        finally:
            rap.send_signal(signal.SIGINT)
    assert tour.returncode == 0, printed
    return printed.split("-----\n")


def test_the_page_names_the_run_that_is_repeated() -> None:
    assert RUN in TOUR


def test_doctor_warns_as_the_page_says(seen: list[str]) -> None:
    assert re.findall(r"^warn +(\w+)", seen[0], re.MULTILINE) == ["clock", "other"]
    assert "FAIL" not in seen[0]


def test_all_that_rap_had_lands_and_nothing_is_read_again(seen: list[str], home: Path) -> None:
    first, again = (re.findall(r"Landed (\d+) files .*; (\d+) were there", seen[n]) for n in (1, -1))
    files = [path for path in home.glob("lake/reports/customer=CXYZ/**/*") if path.is_file()]
    assert first == [(str(len(files)), "0")]
    assert again == [("0", str(len(files)))]


def test_no_day_has_a_gap_and_a_key_is_renewed(seen: list[str]) -> None:
    assert "_20261120" in seen[2]
    assert "current" in seen[3]
    assert "previous" in seen[3]
