"""The board of the demo, ``make demo-ui``: Airflow's UI with a board that needs attention, until Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import NamedTuple

import pendulum
from rich.markup import escape

from airflow_provider_hkex_rap.rap.calendar import next_trading_day, previous_trading_day, trading_days
from airflow_provider_hkex_rap.rap.clock import HONG_KONG
from airflow_provider_hkex_rap.rap.folders import Service
from airflow_provider_hkex_rap.rap.judgement import is_ordinary
from airflow_provider_hkex_rap.rap.retention import days_until_removed, first_kept
from airflow_provider_hkex_rap.rap.service_hours import next_opening, window
from airflow_provider_hkex_rap.testing import Access, RapSimulator
from airflow_provider_hkex_rap.testing.demo import (
    ACCOUNT,
    DAG_IDS,
    HOME,
    LOG,
    AirflowCommandError,
    airflow_environment,
    airflow_process,
    begin,
    choose_day,
    console,
    create_database,
    print_failure,
    print_line,
    run_dags,
    trading_days_until,
)

LAKE = HOME / "lake-of-the-board"
"""The lake of the board; each start deletes and fills it again, so that it always lacks the same reports."""

_KEYS = HOME / "keys-of-the-board"
_KEY_DAYS = 9
"""Days on which the key of the demo can still log in."""
_AFTERNOON = timedelta(hours=17, minutes=30)
"""The time of the board after midnight: RAP has the reports of the day, and not yet those of the evening."""
_DAYS_LEFT = 2
"""The older day that lacks a report leaves RAP within this many days."""
# Airflow would serve the logs of tasks to other machines as well.
_NO_LOGS = "--skip-serve-logs"
_PARTS = (["api-server"], ["scheduler", _NO_LOGS], ["dag-processor"], ["triggerer", _NO_LOGS])
_START_SECONDS = 120
_STOP_SECONDS = 20
_POLL_SECONDS = 0.5


class BoardDays(NamedTuple):
    """The days of the board.

    :param today: its newest day; the reports of its evening are awaited.
    :param yesterday: the trading day before, which lacks a report.
    :param leaving: the oldest trading day that RAP keeps, which lacks one too.
    """

    today: pendulum.Date
    yesterday: pendulum.Date
    leaving: pendulum.Date


_MISSING_YESTERDAY, _MISSING_LEAVING = "TP001", "RPI03"


def main() -> int:
    """Land two weeks of reports, with two reports missing on RAP, and serve Airflow's UI until it is stopped.

    :returns: 0 after Ctrl-C, SIGTERM or the end of the terminal; 1 if Airflow failed.
    """
    begin()
    days = choose_board_days(pendulum.now(HONG_KONG))
    console.print(f"\n[bold]The RAP board of {days.today:%A, %-d %B %Y}[/]\n")
    try:
        with RapSimulator(accounts=(ACCOUNT,), access=Access(enforce_hours=True)) as rap:
            environment = _land(rap, days)
            with _airflow(environment) as url:
                _print_addresses(url, days.yesterday)
                while True:
                    signal.pause()
    except AirflowCommandError as error:
        print_failure(error)
        return 1
    except KeyboardInterrupt:
        console.print("\nAirflow and the simulated RAP were stopped.")
        return 0


def choose_board_days(at: pendulum.DateTime) -> BoardDays:
    """Return the latest days that are judged: a missing report of a public holiday is no error.

    :param at: the present time, in Hong Kong.
    """
    today = choose_day(at)[0]
    while True:
        kept = trading_days(first_kept(today), today)
        days = BoardDays(today, previous_trading_day(today), next(kept))
        if all(map(is_ordinary, days)) and days_until_removed(days.leaving, today) <= _DAYS_LEFT:
            return days
        today = previous_trading_day(today)


def _land(rap: RapSimulator, days: BoardDays) -> dict[str, str]:
    """Run the daily DAGs for both days that lack a report, then publish these reports on RAP.

    :returns: the environment variables of Airflow.
    :raises AirflowCommandError: if a DAG fails for another reason.
    """
    for directory in (LAKE, _KEYS):
        shutil.rmtree(directory, ignore_errors=True)
    for day in trading_days_until(days.leaving):
        rap.publish_day(day, missing=[_MISSING_LEAVING] if day == days.leaving else [])
    create_database(airflow_environment(rap))
    _run(rap, days.leaving, _morning_after(days.leaving), days)
    for day in trading_days(next_trading_day(days.leaving), days.today):
        rap.publish_day(day, missing=[_MISSING_YESTERDAY] if day == days.yesterday else [])
    midnight = pendulum.datetime(days.today.year, days.today.month, days.today.day, tz=HONG_KONG)
    environment = _run(rap, days.yesterday, midnight + _AFTERNOON, days)
    for day in (days.leaving, days.yesterday):
        rap.publish_day(day)
    print_line(
        "RAP",
        f"has both reports now: unpause {DAG_IDS[0]} in the UI, trigger it with the business_date"
        f" {days.yesterday}, and their cells become complete",
    )
    return environment


def _morning_after(day: pendulum.Date) -> pendulum.DateTime:
    hours = window(Service.DCASS, day)
    assert hours is not None  # noqa: S101
    return next_opening(Service, hours.closes)


def _run(rap: RapSimulator, day: pendulum.Date, now: pendulum.DateTime, days: BoardDays) -> dict[str, str]:
    """Run the daily DAGs at a given time, for a day that lacks a report; return Airflow's environment.

    :raises AirflowCommandError: if a DAG fails for another reason.
    """
    rap.clock.set(now)
    environment = _environment(rap, days.today)
    logged = LOG.stat().st_size if LOG.exists() else 0
    try:
        # The DAG that is to fail comes last.
        run_dags(day, environment, DAG_IDS[::-1])
    except AirflowCommandError:
        # The run of an incomplete day fails; the board shows it.
        found = re.search(
            r"RapReportMissing: Not in the lake for (.*?) \(", LOG.read_bytes()[logged:].decode()
        )
        if not found:
            raise
        print_line("DAGs", f"ran, and missed a report of {found[1]}")
    return environment


def _environment(rap: RapSimulator, today: pendulum.Date) -> dict[str, str]:
    """Return the demo's environment, with a key that ends soon and a UI without a login on a free port."""
    connection = rap.connection(ACCOUNT)
    connection["extra"]["key_expires"] = today.add(days=_KEY_DAYS - 1).isoformat()
    # Each simulated RAP has new keys, and a typed day belongs to the key that it was first applied to.
    connection["extra"]["key_store"] = _KEYS.absolute().as_uri()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    return airflow_environment(rap) | {
        "AIRFLOW_CONN_HKEX_RAP_DEFAULT": json.dumps(connection),
        "AIRFLOW_VAR_HKEX_RAP_LAKE": LAKE.absolute().as_uri(),
        # Everybody is an administrator, so nobody but this machine may connect.
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__CORE__PARALLELISM": "2",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        # The scheduler follows the real time: its run of another day would delay the run of the user.
        "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False",
    }


@contextlib.contextmanager
def _airflow(environment: dict[str, str]) -> Iterator[str]:
    """Run the parts of Airflow, and yield its URL when it answers.

    :raises AirflowCommandError: if a part ends, or the API server does not answer in time.
    """
    url = environment["AIRFLOW__API__BASE_URL"]
    with contextlib.ExitStack() as stack:
        parts = [stack.enter_context(airflow_process(part, environment=environment)) for part in _PARTS]
        stack.callback(_shut_down, parts)
        with console.status("Airflow starts"):
            _wait_until_up(url, parts)
        yield url


def _wait_until_up(url: str, parts: Sequence[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and all(part.poll() is None for part in parts):
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/api/v2/version", timeout=10):  # noqa: S310
            return
        time.sleep(_POLL_SECONDS)
    raise AirflowCommandError("Airflow did not start")


def _shut_down(parts: Sequence[subprocess.Popen[bytes]]) -> None:
    # A second Ctrl-C must not leave Airflow running.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for part in parts:
        part.terminate()
    deadline = time.monotonic() + _STOP_SECONDS
    for part in parts:
        with contextlib.suppress(subprocess.TimeoutExpired):
            part.wait(max(0, deadline - time.monotonic()))


def _print_addresses(url: str, day: pendulum.Date) -> None:
    print_line("Airflow", "no login; this machine only")
    for label, address in (
        ("", url),
        ("Board", f"{url}/plugin/hkex_rap"),
        ("The cell", f"{url}/hkex-rap/?customer={ACCOUNT[1:5]}&folder=DCASS&day={day}"),
    ):
        # Not wrapped: a terminal opens an address, or copies it, only if it is whole.
        console.print(f"[bold]{label:12}[/]  {escape(address)}", soft_wrap=True)
    print_line("Stop", "Ctrl-C")


if __name__ == "__main__":
    raise SystemExit(main())
