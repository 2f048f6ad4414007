"""The demo, ``make demo``: Airflow lands trading days of the simulated RAP in a lake, and misses a report."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pendulum
import psutil
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
LATE_LAKE = HOME / "lake-of-the-late-report"
"""The lake of the second act; each demo begins it anew."""
LOG = HOME / "airflow.log"

_DAYS_BEFORE = 5
"""Trading days before the day of the demo; they tell which reports are usual."""
_SECONDS_AT_MOST = 120
_REPORTS_SHOWN = 2
_LOG_LINES_SHOWN = 30
# Run several commands in one process, since Airflow takes longer to start than to run a command.
_RUN_COMMANDS = """
import json, sys
from airflow.__main__ import main
for arguments in json.loads(sys.argv[1]):
    sys.argv[1:] = arguments
    main()
"""

console = Console(highlight=False)


class AirflowCommandError(Exception):
    """An Airflow command failed or timed out; its output is in the log."""


def main() -> int:
    """Run the demo in the current directory, which must be a clone of the repository.

    :returns: 0 if the lake has every report of the day with equal bytes; 1 if not, or if Airflow failed;
        130 if interrupted.
    """
    begin()
    day, now = choose_day(pendulum.now(HONG_KONG))
    console.print(f"\n[bold]The HKEX reports of {day:%A, %-d %B %Y}: from RAP into a data lake[/]\n")
    earlier = len(list(read_manifest()))
    with RapSimulator(accounts=(ACCOUNT,), now=now, access=Access(enforce_hours=True)) as rap:
        for each in trading_days_until(day):
            rap.publish_day(each)
        print_line("RAP", f"simulated on {rap.host}:{rap.port}; its clock shows {now:%A %H:%M} in Hong Kong")
        environment = airflow_environment(rap)
        try:
            create_database(environment)
            run_dags(day, environment)
            console.print("", lake_tree(), "", sep="\n")
            code = print_comparison(rap, list(read_manifest()), earlier)
            hold_back_a_report(rap, day, environment)
        except AirflowCommandError as error:
            print_failure(error)
            return 1
        except KeyboardInterrupt:
            console.print("\nInterrupted; Airflow and the simulated RAP were stopped.")
            return 130
        print_next_steps(first_run=not earlier)
        return code


def begin() -> None:
    """Make the directory of the demo with an empty log; let other signals end Airflow too, as Ctrl-C does."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    HOME.mkdir(exist_ok=True)
    LOG.unlink(missing_ok=True)


def choose_day(at: pendulum.DateTime) -> tuple[pendulum.Date, pendulum.DateTime]:
    """Return the trading day before *at*, and the time for the simulator's clock.

    The time is the first one after the day's service hours at which both services are open (§4.1). RAP then
    has every report of the day, also those from after midnight.

    :param at: the present time, in Hong Kong.
    """
    day = previous_trading_day(at.date())
    hours = window(Service.DCASS, day)
    assert hours is not None  # noqa: S101
    return day, next_opening(Service, hours.closes)


def trading_days_until(day: pendulum.Date) -> list[pendulum.Date]:
    """Return a trading day and those before it that RAP lists in the demo, the earliest first.

    :param day: the trading day of the demo.
    """
    days = [day]
    while len(days) <= _DAYS_BEFORE:
        days.append(previous_trading_day(days[-1]))
    return days[::-1]


def hold_back_a_report(rap: RapSimulator, day: pendulum.Date, environment: dict[str, str]) -> None:
    """Run the task of a day with one report held back, which fails, and again once the report is there.

    :param rap: the simulated RAP, which has every report of the day.
    :param day: the trading day.
    :param environment: the environment variables of Airflow.
    :raises AirflowCommandError: if the first try does not name the report, or the second one fails.
    """
    shutil.rmtree(LATE_LAKE, ignore_errors=True)
    environment = environment | {"AIRFLOW_VAR_HKEX_RAP_LAKE": LATE_LAKE.absolute().as_uri()}
    task = ["tasks", "test", DAG_IDS[0], "land", f"{day}"]
    report = next(
        file for file in rap.files(Folder.DCASS) if file.text.startswith(f"TP001_CXYZ_{day:%Y%m%d}")
    )
    console.print("\n[bold]The same day, into an empty lake, with one report held back[/]\n")
    rap.remove(Folder.DCASS, report.name)
    print_line("RAP", f"does not have {report.text} yet")
    error, _ = run_task(task, environment)
    if error is None or report.text.partition("_")[0] not in error:
        raise AirflowCommandError(f"The task did not miss {report.text}")
    print_line("The task", f"[bold red]failed[/] (a scheduled run tries again): {escape(error)}")
    rap.put(Folder.DCASS, report.name, report.content, report.mtime)
    print_line("RAP", f"has {report.text} now")
    error, seconds = run_task(task, environment)
    if error is not None:
        raise AirflowCommandError(f"The task failed although RAP has {report.text}")
    print_line("The task", f"[bold green]succeeded[/] in {seconds:.0f} s: the day is complete")


def run_task(task: list[str], environment: dict[str, str]) -> tuple[str | None, float]:
    """Run one task, and return the report that it misses, if any, and its seconds.

    :param task: the arguments of ``airflow``.
    :param environment: the environment variables of Airflow.
    :raises AirflowCommandError: if the task failed for another reason.
    """
    logged = LOG.stat().st_size
    seconds = run_airflow(task, environment=environment)
    log = LOG.read_bytes()[logged:].decode(errors="replace")
    # The command succeeds although its task does not.
    if missing := re.search(r"RapReportMissing: (Not in the lake .*?\))", log):
        return missing[1], seconds
    if "new_state=success" not in log:
        raise AirflowCommandError(f"airflow {' '.join(task)} failed")
    return None, seconds


def airflow_environment(rap: RapSimulator) -> dict[str, str]:
    """Return the environment variables of the demo's Airflow, without the user's own Airflow settings."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    return others | {
        "AIRFLOW_HOME": str(AIRFLOW_HOME),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__HKEX_RAP__CLOCK_OFFSET": str((rap.clock() - pendulum.now()).total_seconds()),
        "AIRFLOW_CONN_HKEX_RAP_DEFAULT": rap.connection_json(ACCOUNT),
        "AIRFLOW_VAR_HKEX_RAP_LAKE": LAKE.absolute().as_uri(),
    }


def run_dags(day: pendulum.Date, environment: dict[str, str], dag_ids: Sequence[str] = DAG_IDS) -> None:
    """Run the daily DAGs for *day*.

    :param day: the trading day.
    :param environment: the environment variables of Airflow.
    :param dag_ids: the DAGs, in order; none runs after one that fails.
    :raises AirflowCommandError: if a command fails or times out.
    """
    runs = [["dags", "test", dag_id, f"{day}"] for dag_id in dag_ids]
    seconds = run_airflow(*runs, environment=environment)
    print_line("DAGs", f"{' and '.join(dag_ids)} ran in {seconds:.0f} s")


def create_database(environment: dict[str, str]) -> None:
    """Create Airflow's database if this version of Airflow has not created it yet.

    :param environment: the environment variables of Airflow.
    :raises AirflowCommandError: if the command fails or times out.
    """
    release = version("apache-airflow")
    marker = AIRFLOW_HOME / f"database-made-by-{release}"
    if not marker.exists():
        seconds = run_airflow(["db", "migrate"], environment=environment)
        marker.touch()
        print_line("Airflow", f"{release}, in {HOME}/airflow; created its database in {seconds:.0f} s")
    else:
        print_line("Airflow", f"{release}, in {HOME}/airflow; uses the database of an earlier run")


def run_airflow(*commands: list[str], environment: dict[str, str]) -> float:
    """Run Airflow commands in one process and append their output to the log.

    :param commands: the arguments of each command.
    :param environment: the environment variables of Airflow.
    :returns: the seconds that the commands took.
    :raises AirflowCommandError: if a command fails or the commands time out.
    """
    shown = " and ".join(f"airflow {' '.join(arguments)}" for arguments in commands)
    started = time.monotonic()
    with console.status(shown), airflow_process(*commands, environment=environment) as process:
        try:
            code = process.wait(_SECONDS_AT_MOST)
        except subprocess.TimeoutExpired:
            raise AirflowCommandError(f"{shown} took more than {_SECONDS_AT_MOST} s") from None
    if code:
        raise AirflowCommandError(f"{shown} failed with exit status {code}")
    return time.monotonic() - started


@contextlib.contextmanager
def airflow_process(*commands: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run Airflow commands in one process; kill it at the end, with every process that Airflow has started.

    :param commands: the arguments of each command.
    :param environment: the environment variables of Airflow.
    """
    with LOG.open("a") as log:
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", _RUN_COMMANDS, json.dumps(commands)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _kill_session(process)


def _kill_session(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that leads a session, and all others of the session."""
    process.kill()
    process.wait()
    # A task has a process group of its own, but stays in the session.
    while left := [each for each in psutil.process_iter() if _is_alive_in(process.pid, each)]:
        for each in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()


def _is_alive_in(session: int, process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error, OSError):
        return os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE
    return False


def read_manifest() -> Iterator[dict[str, Any]]:
    """Yield the entries of the lake's manifest, read as plain JSON."""
    for path in sorted(LAKE.glob("manifest/**/*.jsonl")):
        yield from map(json.loads, path.read_text().splitlines())


def lake_tree() -> Tree:
    """Return the lake as a tree, with a few of its reports and the newest day of each."""
    root = Tree(f"[bold]{LAKE}[/]", guide_style="dim")
    for folder in sorted(LAKE.glob("reports/customer=*/folder=*")):
        reports = sorted(folder.iterdir())
        branch = root.add(_label(str(folder.relative_to(LAKE)), folder))
        for report in reports[:_REPORTS_SHOWN]:
            day = max(report.iterdir())
            leaf = branch.add(_label(report.name, report))
            for path in sorted(day.iterdir()):
                leaf.add(escape(f"{day.name}/{path.name}"))
        if len(reports) > _REPORTS_SHOWN:
            branch.add(f"[dim]and {len(reports) - _REPORTS_SHOWN} more reports[/]")
    root.add(_label("manifest", LAKE / "manifest"))
    return root


def _label(name: str, directory: Path) -> str:
    files = [path for path in directory.rglob("*") if path.is_file()]
    size = decimal(sum(path.stat().st_size for path in files))
    return f"[bold]{escape(name)}[/]  {len(files)} {'file' if len(files) == 1 else 'files'}, {size}"


def print_comparison(rap: RapSimulator, entries: list[dict[str, Any]], earlier: int) -> int:
    """Compare every report on RAP with the bytes in the lake; print the result and what this run did.

    :param rap: the simulated RAP.
    :param entries: the entries of the manifest.
    :param earlier: number of entries from earlier runs.
    :returns: 0 if the lake has every report with equal bytes, else 1.
    """
    reports = [report for folder in Folder for report in rap.files(folder)]
    landed = {
        entry["sha256"] for entry in entries if entry["sha256"] and _sha256(entry["uri"]) == entry["sha256"]
    }
    differing = [report.text for report in reports if report.sha256 not in landed]
    seen = {kind: len(rap.events.of(kind)) for kind in ("login", "list", "open", "denied")}
    print_line(
        "This run",
        _format_dispositions(entries[earlier:]) or "downloaded nothing: every report had landed before",
    )
    print_line(
        "RAP saw",
        "{login} logins one after another, {list} listings, {open} files opened, {denied} denied".format(
            **seen
        ),
    )
    rules = Counter(entry["business_date_rule"] for entry in entries).most_common()
    dated = ", ".join(f"{count} by {rule}" for rule, count in rules)
    print_line(
        "Manifest", f"{len(entries)} entries: {_format_dispositions(entries)}; business dates: {dated}"
    )
    print_line(
        "SHA-256",
        f"{len(reports) - len(differing)} of {len(reports)} reports on RAP are in the lake with equal bytes",
    )
    for name in differing:
        print_line("", f"[bold red]missing or different: {escape(name)}[/]")
    return 1 if differing or not reports else 0


def print_next_steps(*, first_run: bool) -> None:
    """Print what to try next.

    :param first_run: whether the lake was empty before this run.
    """
    console.print("\n[bold]Next[/]")
    again = (
        "run it again: RAP still has every report, and none is downloaded twice"
        if first_run
        else "run it after the next trading day, which lands beside this one"
    )
    print_line("make demo", again)
    print_line("make demo-ui", "look at the RAP board in Airflow's UI, with a day that lacks a report")
    print_line("make clean", "remove the lake and everything else that make has created here")
    print_line("the DAGs", f"copy {DAG_FILE}; README.md explains the connection")
    print_line("the log", f"{LOG} has the output of Airflow")
    print_line("the ledger", f"origin and SHA-256 of every file, as JSON, in {LAKE}/manifest")
    console.print()


def print_failure(error: AirflowCommandError) -> None:
    """Print the end of Airflow's log and the error."""
    lines = LOG.read_text(errors="replace").splitlines()
    # Airflow logs this line every second until a failed task is retried; it would hide the cause.
    useful = [line for line in lines if "No tasks to run" not in line]
    console.print(*useful[-_LOG_LINES_SHOWN:], sep="\n", markup=False, soft_wrap=True)
    console.print(
        f"\n[bold red]{escape(str(error))}.[/] The lines above are the end of {LOG}.", soft_wrap=True
    )


def print_line(label: str, text: str) -> None:
    """Print one line of the summary: the label, then the text in a column of its own."""
    line = Table.grid(padding=(0, 2))
    line.add_column(width=12, style="bold")
    line.add_row(label, text)
    console.print(line)


def _format_dispositions(entries: list[dict[str, Any]]) -> str:
    counts = Counter(entry["disposition"] for entry in entries)
    return ", ".join(f"{count} {disposition}" for disposition, count in counts.most_common())


def _sha256(uri: str) -> str:
    """Return the SHA-256 of the file at *uri*; an empty text if there is none."""
    path = Path(unquote(urlsplit(uri).path))
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


if __name__ == "__main__":
    raise SystemExit(main())
