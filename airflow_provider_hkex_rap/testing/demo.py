"""A trading day from the simulated RAP into a lake, landed by Airflow itself: ``make demo``."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pendulum
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from airflow_provider_hkex_rap.rap.calendar import previous_trading_day
from airflow_provider_hkex_rap.rap.clock import HONG_KONG
from airflow_provider_hkex_rap.rap.folders import Folder, Service
from airflow_provider_hkex_rap.rap.service_hours import next_opening, window
from airflow_provider_hkex_rap.testing import Access, RapSimulator

ACCOUNT = "DCXYZ001"
DAG_FILE = "dags/hkex_rap_daily_ingest.py"
DAG_IDS = ("hkex_rap_daily_dcass", "hkex_rap_daily_ccms")
DAGS = Path("dags").absolute()
HOME = Path(".demo")
AIRFLOW_HOME = HOME.absolute() / "airflow"
LAKE = HOME / "lake"
LOG = HOME / "airflow.log"

_SECONDS_AT_MOST = 120
_NAMES_SHOWN = 2
_LOG_LINES_SHOWN = 30
# Airflow takes longer to start than these commands take to run.
_RUN_COMMANDS = """
import json, sys
from airflow.__main__ import main
for arguments in json.loads(sys.argv[1]):
    sys.argv[1:] = arguments
    main()
"""

console = Console(highlight=False)


class AirflowCommandError(Exception):
    """An Airflow command ended with an error, or not in time; its output is in the log."""


def main() -> int:
    """Run the demo; the current directory is a clone of the repository.

    :returns: 0 where every report of the day is in the lake with the bytes of its source, else 1.
    """
    # So that a demo that is told to end takes its Airflow along.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    HOME.mkdir(exist_ok=True)
    LOG.unlink(missing_ok=True)
    day, now = scene(pendulum.now(HONG_KONG))
    console.print(f"\n[bold]The HKEX reports of {day:%A, %-d %B %Y}: from RAP into a data lake[/]\n")
    before = len(list(manifest()))
    with RapSimulator(accounts=(ACCOUNT,), now=now, access=Access(enforce_hours=True)) as rap:
        rap.publish_day(day)
        say("RAP", f"simulated on {rap.host}:{rap.port}; there it is {now:%A %H:%M} in Hong Kong")
        try:
            land(day, settings(rap))
        except AirflowCommandError as error:
            show_failure(error)
            return 1
        except KeyboardInterrupt:
            console.print("\nInterrupted; Airflow and the simulated RAP have ended.")
            return 130
        console.print("", tree(), "", sep="\n")
        return show_proof(rap, list(manifest()), before)


def scene(at: pendulum.DateTime) -> tuple[pendulum.Date, pendulum.DateTime]:
    """Return the last trading day that is over, and the next time at which both services are open (§4.1).

    By then every report of that day is on RAP, those from after midnight too.

    :param at: the time, in Hong Kong time.
    """
    day = previous_trading_day(at.date())
    hours = window(Service.DCASS, day)
    assert hours is not None  # noqa: S101
    return day, next_opening(Service, hours.closes)


def settings(rap: RapSimulator) -> dict[str, str]:
    """Return the environment of an Airflow of the demo's own: no setting of the user's reaches it."""
    users_own = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    return users_own | {
        "AIRFLOW_HOME": str(AIRFLOW_HOME),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__HKEX_RAP__CLOCK_OFFSET": str((rap.clock() - pendulum.now()).total_seconds()),
        "AIRFLOW_CONN_HKEX_RAP_DEFAULT": rap.connection_json(ACCOUNT),
        "AIRFLOW_VAR_HKEX_RAP_LAKE": LAKE.absolute().as_uri(),
    }


def land(day: pendulum.Date, environment: dict[str, str]) -> None:
    """Run the daily DAGs for *day*, after making Airflow's database if this version has not made it before.

    :raises AirflowCommandError: a command ended with an error, or not in time.
    """
    release = version("apache-airflow")
    database_made = AIRFLOW_HOME / f"database-made-by-{release}"
    if not database_made.exists():
        seconds = run_airflow(["db", "migrate"], environment=environment)
        database_made.touch()
        say("Airflow", f"{release}, in {HOME}/airflow; made its database in {seconds:.0f} s")
    else:
        say("Airflow", f"{release}, in {HOME}/airflow; its database is there from an earlier run")
    runs = [["dags", "test", dag_id, f"{day}"] for dag_id in DAG_IDS]
    seconds = run_airflow(*runs, environment=environment)
    say("DAGs", f"{' and '.join(DAG_IDS)} ran in {seconds:.0f} s")


def run_airflow(*commands: list[str], environment: dict[str, str]) -> float:
    """Run Airflow commands in one process, their output added to the log; return the seconds that they took.

    :raises AirflowCommandError: it ended with an error, or not in time.
    """
    said = " and ".join(f"airflow {' '.join(arguments)}" for arguments in commands)
    started = time.monotonic()
    with LOG.open("a") as log, console.status(said):
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", _RUN_COMMANDS, json.dumps(commands)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            code = process.wait(_SECONDS_AT_MOST)
        except subprocess.TimeoutExpired:
            raise AirflowCommandError(f"{said} took over {_SECONDS_AT_MOST} s") from None
        finally:
            # The whole group: nothing that Airflow started outlives the demo.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if code:
        raise AirflowCommandError(f"{said} ended with {code}")
    return time.monotonic() - started


def manifest() -> Iterator[dict[str, Any]]:
    """Yield the entries of the lake's manifest, read as anybody can: it is JSON."""
    for path in sorted(LAKE.glob("_manifests/**/*.json")):
        yield from json.loads(path.read_bytes())["entries"]


def tree() -> Tree:
    """Return the lake as a tree: counts, bytes and a few names."""
    root = Tree(f"[bold]{LAKE}[/]", guide_style="dim")
    for customer in sorted(LAKE.glob("customer=*")):
        reports = root.add(_label(customer.name, customer))
        for day in sorted(customer.glob("*/*/")):
            leaf = reports.add(_label(f"{day.relative_to(customer)}", day))
            names = sorted(path.name for path in day.iterdir())
            for name in names[:_NAMES_SHOWN]:
                leaf.add(escape(name))
            if len(names) > _NAMES_SHOWN:
                leaf.add(f"[dim]and {len(names) - _NAMES_SHOWN} more[/]")
    root.add(_label("_manifests", LAKE / "_manifests"))
    return root


def _label(name: str, directory: Path) -> str:
    files = [path for path in directory.rglob("*") if path.is_file()]
    size = decimal(sum(path.stat().st_size for path in files))
    return f"[bold]{escape(name)}[/]  {len(files)} {'file' if len(files) == 1 else 'files'}, {size}"


def show_proof(rap: RapSimulator, entries: list[dict[str, Any]], before: int) -> int:
    """Say what this run did, and compare every report on RAP with the bytes in the lake.

    :param entries: the whole manifest.
    :param before: how many of them earlier runs had written.
    :returns: 0 where all are equal, else 1.
    """
    reports = [report for folder in Folder for report in rap.files(folder)]
    landed = {
        entry["sha256"] for entry in entries if entry["sha256"] and _sha256(entry["uri"]) == entry["sha256"]
    }
    differing = [report.text for report in reports if report.sha256 not in landed]
    seen = {kind: len(rap.events.of(kind)) for kind in ("login", "list", "open", "denied")}
    say("This run", _dispositions(entries[before:]) or "downloaded nothing: every report had landed before")
    say(
        "RAP saw",
        "{login} logins in turn, {list} listings, {open} files opened, {denied} denied".format(**seen),
    )
    rules = Counter(entry["business_date_rule"] for entry in entries).most_common()
    dated = ", ".join(f"{count} by {rule}" for rule, count in rules)
    say("Manifest", f"{len(entries)} entries: {_dispositions(entries)}; business dates: {dated}")
    say(
        "SHA-256",
        f"{len(reports) - len(differing)} of {len(reports)} reports on RAP have equal bytes in the lake",
    )
    for name in differing:
        say("", f"[bold red]not so: {escape(name)}[/]")
    show_next_steps(fresh=not before)
    return 1 if differing or not reports else 0


def show_next_steps(*, fresh: bool) -> None:
    """Say what to try next.

    :param fresh: whether the lake was empty before this run.
    """
    console.print("\n[bold]Next[/]")
    again = (
        "again: RAP has every report still, and none is downloaded twice"
        if fresh
        else "after the next trading day: it lands beside this one"
    )
    say("make demo", again)
    say("make clean", "remove the lake, and all else that was made here")
    say("the DAGs", f"copy {DAG_FILE}; README.md says how to connect it")
    say("the log", f"{LOG} has all that Airflow said")
    say("the ledger", f"every file's origin and SHA-256, as JSON, in {LAKE}/_manifests")
    console.print()


def show_failure(error: AirflowCommandError) -> None:
    """Say what failed, with the end of Airflow's log."""
    lines = LOG.read_text(errors="replace").splitlines()
    # Airflow says so every second while a failed task waits for its retry, which hides why it failed.
    telling = [line for line in lines if "No tasks to run" not in line]
    console.print(*telling[-_LOG_LINES_SHOWN:], sep="\n", markup=False, soft_wrap=True)
    console.print(f"\n[bold red]{escape(str(error))}.[/] Above is the end of {LOG}.", soft_wrap=True)


def say(label: str, text: str) -> None:
    """Print one line of the report, its text aligned with the others'."""
    line = Table.grid(padding=(0, 2))
    line.add_column(width=10, style="bold")
    line.add_row(label, text)
    console.print(line)


def _dispositions(entries: list[dict[str, Any]]) -> str:
    counts = Counter(entry["disposition"] for entry in entries)
    return ", ".join(f"{count} {disposition}" for disposition, count in counts.most_common())


def _sha256(uri: str) -> str:
    path = Path(unquote(urlsplit(uri).path))
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


if __name__ == "__main__":
    raise SystemExit(main())
