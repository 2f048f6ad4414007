"""The board of the demo, ``make demo-ui``: Airflow's UI with the demo's lake, until Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pendulum

from airflow_provider_hkex_rap.rap.calendar import next_trading_day
from airflow_provider_hkex_rap.rap.clock import HONG_KONG
from airflow_provider_hkex_rap.rap.folders import Folder, Service
from airflow_provider_hkex_rap.rap.service_hours import next_opening, window
from airflow_provider_hkex_rap.testing import Access, RapSimulator
from airflow_provider_hkex_rap.testing.demo import (
    ACCOUNT,
    DAG_IDS,
    HOME,
    LOG,
    AirflowCommandError,
    airflow_environment,
    choose_day,
    console,
    print_failure,
    print_line,
    run_dags,
    trading_days_until,
)

_KEYS = HOME / "keys-of-the-board"
_KEY_DAYS = 9
"""Days on which the key of the demo can still log in."""
_START_SECONDS = 120
_STOP_SECONDS = 20
_POLL_SECONDS = 0.5


def main() -> int:
    """Land one more trading day, of which RAP lacks a report, and serve Airflow's UI until it is stopped.

    :returns: 0 after Ctrl-C or SIGTERM; 1 if Airflow failed.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    HOME.mkdir(exist_ok=True)
    LOG.unlink(missing_ok=True)
    day = next_trading_day(choose_day(pendulum.now(HONG_KONG))[0])
    hours = window(Service.DCASS, day)
    assert hours is not None  # noqa: S101
    now = next_opening(Service, hours.closes)
    console.print(f"\n[bold]The RAP board after {day:%A, %-d %B %Y}[/]\n")
    try:
        with RapSimulator(accounts=(ACCOUNT,), now=now, access=Access(enforce_hours=True)) as rap:
            environment = _environment(rap, now)
            _land(rap, day, environment)
            with _airflow(environment) as url:
                _print_addresses(url, day)
                while True:
                    signal.pause()
    except AirflowCommandError as error:
        print_failure(error)
        return 1
    except KeyboardInterrupt:
        console.print("\nAirflow and the simulated RAP were stopped.")
        return 0


def _environment(rap: RapSimulator, now: pendulum.DateTime) -> dict[str, str]:
    """Return the demo's environment, with a key that ends soon and a UI without a login on a free port."""
    connection = rap.connection(ACCOUNT)
    connection["extra"]["key_expires"] = now.date().add(days=_KEY_DAYS - 1).isoformat()
    # Each simulated RAP has new keys, and a typed day belongs to the key that it was first applied to.
    shutil.rmtree(_KEYS, ignore_errors=True)
    connection["extra"]["key_store"] = _KEYS.absolute().as_uri()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    return airflow_environment(rap) | {
        "AIRFLOW_CONN_HKEX_RAP_DEFAULT": json.dumps(connection),
        # Everybody is an administrator, so nobody but this machine may connect.
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        # 'airflow standalone' starts the program 'airflow'.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }


def _land(rap: RapSimulator, day: pendulum.Date, environment: dict[str, str]) -> None:
    """Run the daily DAGs for *day* while RAP lacks a report, which RAP has afterwards.

    :raises AirflowCommandError: if a DAG fails for another reason.
    """
    for each in trading_days_until(day):
        rap.publish_day(each)
    report = next(
        file for file in rap.files(Folder.DCASS) if file.text.startswith(f"TP001_CXYZ_{day:%Y%m%d}")
    )
    rap.remove(Folder.DCASS, report.name)
    print_line("RAP", f"does not have {report.text} yet")
    try:
        # The DAG that is to fail comes last.
        run_dags(day, environment, DAG_IDS[::-1])
    except AirflowCommandError:
        # The run of an incomplete day fails; the board shows it.
        if "RapReportMissing" not in LOG.read_text(errors="replace"):
            raise
    rap.put(Folder.DCASS, report.name, report.content, report.mtime)
    print_line(
        "RAP",
        f"has {report.text} now: trigger {DAG_IDS[0]} in the UI, with the business_date {day}, and its cell"
        " becomes complete",
    )


@contextlib.contextmanager
def _airflow(environment: dict[str, str]) -> Iterator[str]:
    """Run ``airflow standalone``, and yield its URL when it answers.

    :raises AirflowCommandError: if it ends, or does not answer in time.
    """
    url = environment["AIRFLOW__API__BASE_URL"]
    with LOG.open("a") as log, console.status("airflow standalone"):
        process = subprocess.Popen(
            [sys.executable, "-m", "airflow", "standalone"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        with console.status("airflow standalone"):
            _wait_until_up(url, process)
        yield url
    finally:
        _stop(process)


def _wait_until_up(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/api/v2/version", timeout=10):  # noqa: S310
            return
        time.sleep(_POLL_SECONDS)
    raise AirflowCommandError("airflow standalone did not answer")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask Airflow to stop all its parts, then end what is left of its process group."""
    # A second Ctrl-C must not leave Airflow running.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _print_addresses(url: str, day: pendulum.Date) -> None:
    cell = f"{url}/hkex-rap/?customer={ACCOUNT[1:5]}&folder=DCASS&day={day}"
    print_line("Airflow", f"{url} (no login; this machine only)")
    print_line("Board", f"{url}/plugin/hkex_rap, or RAP board in the menu Browse")
    print_line("The cell", cell)
    print_line("Stop", "Ctrl-C")


if __name__ == "__main__":
    raise SystemExit(main())
