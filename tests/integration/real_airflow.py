"""The real parts of Airflow as processes, with a private home and a clock that a test can set."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Self

import httpx
import pendulum
import psutil

from airflow_provider_hkex_rap.rap.clock import HONG_KONG

from ..ports import free_port

PARTS = ("api-server", "scheduler", "dag-processor", "triggerer")

_POLL_SECONDS = 0.5
_START_SECONDS = 90
_TRIES_OF_A_REQUEST = 20
_LOCKED = ("Database error", "Database is locked")
_TASKS_SHOWN = 5
_LOG_LINES_SHOWN = 60
_LOG_COLUMNS_SHOWN = 400
_SCHEDULER_STARTED = "Starting the scheduler"
# How the scheduler's log names a task: DAG, task, run, and the index if the task is mapped.
_STARTED = re.compile(r"<TaskInstance: ([^ .]+)\.(\S+) (\S+) (?:map_index=(\d+) )?\[")
_ENDED = re.compile(
    r"Received executor event with state .*TaskInstanceKey\(dag_id='([^']+)', task_id='([^']+)',"
    r" run_id='([^']+)', try_number=\d+, map_index=(?:-1|(\d+))\)"
)

# libfaketime 0.9 fails a sleep until an absolute time with EINVAL, and Python 3.11 sleeps in that way.
_SITECUSTOMIZE = (
    "import select, time\ntime.sleep = lambda seconds: select.select([], [], [], seconds) and None\n"
)


# The program faketime prints this path, but fails if a killed process of its id has left a semaphore behind.
_LIBFAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


def missing_faketime() -> str | None:
    """Return which package a test that moves Airflow's clock lacks; None if it is installed."""
    return None if _LIBFAKETIME else "Moving Airflow's clock needs Debian's package libfaketime."


class MovedClock:
    """The clock of processes that run under libfaketime.

    :param directory: an existing directory for the files of the clock.
    :param now: the first time that the clock shows.
    """

    def __init__(self, directory: Path, now: pendulum.DateTime) -> None:
        self._file = directory / "faketime"
        self._library = directory / "sitecustomize"
        self._library.mkdir()
        (self._library / "sitecustomize.py").write_text(_SITECUSTOMIZE)
        self.set(now)

    def __call__(self) -> pendulum.DateTime:
        return pendulum.now(HONG_KONG) + pendulum.duration(seconds=float(self._file.read_text()))

    def set(self, to: pendulum.DateTime) -> None:
        """Set the clock of every process to *to*; it runs on from there."""
        offset = (to - pendulum.now()).total_seconds()
        new = self._file.with_suffix(".new")
        new.write_text(f"{offset:+.3f}")
        new.replace(self._file)

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables with which a process follows this clock."""
        return {
            "LD_PRELOAD": str(_LIBFAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            # Timeouts use real time, and files keep their mtimes, so that compiled modules stay valid.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # Otherwise every timed wait for a lock of Python returns at once, and threads spin.
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
            "NO_FAKE_STAT": "1",
            "PYTHONPATH": os.pathsep.join([str(self._library), os.environ.get("PYTHONPATH", "")]),
        }


class RealAirflow:
    """Airflow under test; use it in a ``with`` block, which ends every process that it started.

    :param home: an empty directory for everything that Airflow writes.
    :param dags: the text of each file of DAGs, by the file's name.
    :param environment: connections, variables and settings, as environment variables.
    :param now: the first time that Airflow shows; None for the time of this machine, which cannot be set.
    :param parts: the parts to start, each one of :data:`PARTS`.
    :param database: the URL of an empty database; None for a file of SQLite.
    """

    def __init__(
        self,
        home: Path,
        *,
        dags: Mapping[str, str],
        environment: Mapping[str, str] | None = None,
        now: pendulum.DateTime | None = None,
        parts: Sequence[str] = PARTS,
        database: str | None = None,
    ) -> None:
        self.home = home
        self.dags = home / "dags"
        self.dags.mkdir()
        for name, text in dags.items():
            (self.dags / name).write_text(text)
            # Airflow would parse a file again and again if its mtime lay in the future of the moved clock.
            os.utime(self.dags / name, (0, 0))
        self.clock = MovedClock(home, now) if now else None
        self._parts = parts
        self._database = database
        self._port = free_port()
        self._environment = self._settings() | dict(environment or {})
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._sessions: list[int] = []
        # Longer than SQLite waits for a lock, so that the answer names the lock and not a time-out.
        self._api = httpx.Client(base_url=f"http://127.0.0.1:{self._port}", timeout=120)

    def _settings(self) -> dict[str, str]:
        users_own = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
        return (
            users_own
            | (self.clock.environment if self.clock else {})
            | {
                "AIRFLOW_HOME": str(self.home),
                "AIRFLOW__API_AUTH__JWT_EXPIRATION_TIME": str(10**8),
                "AIRFLOW__API_AUTH__JWT_SECRET": "known to every part of this Airflow",
                "AIRFLOW__API__PORT": str(self._port),
                "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
                "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{self._port}/execution/",
                "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
                "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
                "AIRFLOW__CORE__PARALLELISM": "8",
                "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
                # On a slow machine SQLite stays locked for longer than the default time-out of 5 s.
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self._database
                or f"sqlite:///{self.home}/airflow.db?timeout=60",
                # Unchanged files must not be parsed again only because the clock has moved.
                "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": str(10**8),
                # SQLite rejects a transaction if a heartbeat has written since it began.
                "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "60",
                "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": str(10**8),
                "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": str(_POLL_SECONDS),
                "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": str(10**8),
                "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
                # A supervisor that times out sends its request again, and a task that is started twice fails.
                "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "120",
                "PYTHONDONTWRITEBYTECODE": "1",
            }
        )

    # Running.

    def __enter__(self) -> Self:
        try:
            self._make_database()
            for part in self._parts:
                self.start(part)
            self.wait_until(self._is_up, "Airflow to be up", _START_SECONDS)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def _make_database(self) -> None:
        if self._database is None:
            shutil.copy(migrated_database(), self.home / "airflow.db")
        else:
            done = self.command("db", "migrate")
            assert not done.returncode, done.stderr

    def start(self, part: str) -> int:
        """Start a part of Airflow and return its process id."""
        arguments = {"scheduler": ["--skip-serve-logs"], "triggerer": ["--skip-serve-logs"]}.get(part, [])
        if part == "api-server":
            arguments = ["--host", "127.0.0.1", "--port", str(self._port), "--workers", "1"]
        return self._start(part, [part, *arguments], {})

    def start_worker(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """Start a worker of Celery and return its process id.

        :param name: a name that no running part has.
        :param command: the arguments of ``airflow``, without the worker's name.
        :param environment: the worker's own settings.
        """
        own = ["--celery-hostname", f"{name}@%h", "--skip-serve-logs"]
        return self._start(name, [*command, *own], environment)

    def _start(self, part: str, command: Sequence[str], environment: Mapping[str, str]) -> int:
        with (self.home / f"{part}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "airflow", *command],
                env=self._environment | dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._processes[part] = process
        self._sessions.append(process.pid)
        return process.pid

    def kill(self, part: str) -> None:
        """Kill a part of Airflow with SIGKILL, but not the processes that it started."""
        process = self._processes.pop(part)
        process.kill()
        process.wait()

    def kill_with_its_tasks(self, part: str, spared: Collection[int] = ()) -> None:
        """Kill a part of Airflow and the processes that it started with SIGKILL.

        :param spared: ids of processes that live on.
        """
        process = self._processes.pop(part)
        _kill_sessions([process.pid], spared)
        process.wait()

    def shut_down(self, part: str) -> subprocess.Popen[bytes]:
        """Tell a part of Airflow to shut down, as a container's stop does; return its process."""
        process = self._processes.pop(part)
        process.terminate()
        return process

    def _end(self) -> None:
        """Kill every process that was started, and their child processes."""
        self._api.close()
        _kill_sessions(self._sessions)
        for process in self._processes.values():
            process.wait()
        for pid in self._sessions:
            # A killed process leaves its shared memory and its semaphore behind. If a later process of its id
            # finds the memory without the semaphore, libfaketime ends it: the memory is removed first.
            for left in (f"faketime_shm_{pid}", f"sem.faketime_sem_{pid}"):
                Path("/dev/shm", left).unlink(missing_ok=True)

    def run(self, *arguments: str) -> str:
        """Stop every part of Airflow, run ``airflow`` with these arguments, and return its output.

        :raises AssertionError: if the command fails.
        """
        self.wait_until_idle()
        with self._standing_still():
            done = self.command(*arguments)
        assert not done.returncode, f"airflow {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @contextlib.contextmanager
    def _standing_still(self) -> Iterator[None]:
        """Stop every part while none holds a lock: SQLite rejects a write if another came in between."""
        self._signal(signal.SIGSTOP)
        while self._is_locked():
            self._signal(signal.SIGCONT)
            time.sleep(_POLL_SECONDS)
            self._signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(signal.SIGCONT)

    def _is_locked(self) -> bool:
        with contextlib.closing(sqlite3.connect(self.home / "airflow.db", timeout=0)) as database:
            try:
                database.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return True
        return False

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes.values():
            process.send_signal(number)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``airflow`` with these arguments, even if it fails, and return the result."""
        command = [sys.executable, "-m", "airflow", *arguments]
        return subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False)

    # The REST API.

    def request(self, method: str, path: str, *, json: object = None, **parameters: object) -> Any:
        """Send a request to the REST API and return the JSON of the answer.

        :param path: the path after ``/api/v2/``.
        :raises httpx.HTTPStatusError: if the answer is an error.
        """
        answer = self._api.request(method, f"/api/v2/{path}", json=json, params=parameters)
        for _ in range(_TRIES_OF_A_REQUEST):
            # SQLite allows one write at a time; a rejected request has changed nothing, so retry it.
            if not answer.is_error or not any(said in answer.text for said in _LOCKED):
                break
            time.sleep(_POLL_SECONDS)
            answer = self._api.request(method, f"/api/v2/{path}", json=json, params=parameters)
        if answer.is_error:
            raise httpx.HTTPStatusError(answer.text, request=answer.request, response=answer)
        return answer.json() if answer.content else None

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """Return the runs of a DAG, sorted by logical date; runs without one come last."""
        answer = self.request("GET", f"dags/{dag_id}/dagRuns", limit=100)
        return sorted(answer["dag_runs"], key=lambda run: run["logical_date"] or "~")

    def task_instances(self, dag_id: str = "~", run_id: str = "~") -> list[dict[str, Any]]:
        """Return the task instances of one DAG or all DAGs, and of one run or all runs."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances"
        return list(self.request("GET", path, limit=100)["task_instances"])

    def xcom(self, dag_id: str, run_id: str, task_id: str) -> Any:
        """Return the XCom that a task returned."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/return_value"
        value = self.request("GET", path, deserialize=True)["value"]
        return json.loads(value) if isinstance(value, str) and value[:1] in "[{" else value

    def unpause(self, *dag_ids: str) -> None:
        """Wait until Airflow has parsed these DAGs, then unpause them."""
        for dag_id in dag_ids:
            self.wait_until(lambda dag=dag_id: self._knows(dag), f"the DAG {dag_id}")
            self.request("PATCH", f"dags/{dag_id}", json={"is_paused": False})

    def pause(self, *dag_ids: str) -> None:
        """Pause these DAGs."""
        for dag_id in dag_ids:
            self.request("PATCH", f"dags/{dag_id}", json={"is_paused": True})

    def trigger(
        self, dag_id: str, *, logical_date: str | None = None, conf: Mapping[str, object] | None = None
    ) -> str:
        """Trigger a run of a DAG that is not paused, and return the run id."""
        body = {"logical_date": logical_date, "conf": dict(conf or {})}
        return str(self.request("POST", f"dags/{dag_id}/dagRuns", json=body)["dag_run_id"])

    # Waiting.

    def wait_until(self, probe: Callable[[], Any], what: str, timeout: float = 180) -> Any:
        """Block until *probe* returns a true value, and return that value.

        :param what: a name of the awaited event, for the failure message.
        :param timeout: seconds of real time.
        :raises AssertionError: if *timeout* passes or a part of Airflow ends; it prints the logs.
        """
        deadline = time.monotonic() + timeout
        while True:
            with contextlib.suppress(httpx.TransportError):
                if found := probe():
                    return found
            ended = [part for part, process in self._processes.items() if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                why = f"{', '.join(ended)} ended" if ended else f"timed out after {timeout:g} s"
                raise AssertionError(f"Waited for {what}: {why}. {self.describe()}")
            time.sleep(_POLL_SECONDS)

    def wait_for_run(
        self, dag_id: str, day: str, state: str = "success", timeout: float = 60
    ) -> dict[str, Any]:
        """Block until the run whose logical date is midnight UTC of *day* is in *state*; return it."""

        def found() -> dict[str, Any] | None:
            runs = [run for run in self.runs(dag_id) if _day(run) == day and run["state"] == state]
            return runs[0] if runs else None

        return dict(self.wait_until(found, f"{state} of {dag_id} for {day}", timeout))

    def wait_for_task(self, dag_id: str, run_id: str, *states: str, timeout: float = 60) -> dict[str, Any]:
        """Block until a task of the run is in one of *states*; return it."""

        def found() -> dict[str, Any] | None:
            instances = [ti for ti in self.task_instances(dag_id, run_id) if ti["state"] in states]
            return instances[0] if instances else None

        return dict(self.wait_until(found, f"{' or '.join(states)} of a task of {dag_id} {run_id}", timeout))

    def move_to(self, at: pendulum.DateTime) -> None:
        """Wait until no task is running, then set the clock: after a leap a running task looks dead."""
        assert self.clock, "This Airflow shows the machine's time."
        self.wait_until_idle()
        self.clock.set(at)

    def wait_until_idle(self) -> None:
        """Block until no task is running."""
        self.wait_until(self._is_idle, "all tasks to end")

    def describe(self) -> str:
        """Print the last lines of each log; return in one line the tasks that have not succeeded."""
        tasks = sorted(self.home.glob("logs/dag_id=*/**/*.log"), key=lambda log: log.stat().st_mtime)
        for log in (*self.home.glob("*.log"), *tasks[-_TASKS_SHOWN:]):
            lines = log.read_text(errors="replace").splitlines()[-_LOG_LINES_SHOWN:]
            print(
                "",
                f"--- {log.relative_to(self.home)}",
                *(line[:_LOG_COLUMNS_SHOWN] for line in lines),
                sep="\n",
            )
        try:
            instances = [ti for ti in self.task_instances() if ti["state"] != "success"]
        except httpx.HTTPError as error:
            return f"The REST API failed: {error!r}."
        shown = "{dag_id} {dag_run_id} {task_id} {map_index} try {try_number}: {state}"
        return "; ".join(shown.format(**ti) for ti in instances) or "Every task has succeeded."

    def _knows(self, dag_id: str) -> bool:
        try:
            self.request("GET", f"dags/{dag_id}")
        except httpx.HTTPStatusError as error:
            errors = self.request("GET", "importErrors")["import_errors"]
            assert not errors, errors
            if error.response.status_code != httpx.codes.NOT_FOUND:
                raise
            return False
        return True

    def _is_idle(self) -> bool:
        """Return whether no task is running and the scheduler has noticed the end of each process.

        The scheduler takes a rescheduled task for killed if it starts again before its process has ended.
        """
        log = (self.home / "scheduler.log").read_text(errors="replace").rpartition(_SCHEDULER_STARTED)[2]
        ended = {}
        # If SQLite rejects the write that queues a task, the task starts a second time and ends once.
        for line in log.splitlines():
            if "Trying to enqueue tasks" in line:
                ended |= dict.fromkeys(_STARTED.findall(line), False)
            elif found := _ENDED.search(line):
                ended[found.groups("")] = True
        states = ["queued", "running", "restarting"]
        at_work = self.request("GET", "dags/~/dagRuns/~/taskInstances", state=states, limit=1)
        return not at_work["task_instances"] and all(ended.values())

    def _is_up(self) -> bool:
        if "Authorization" not in self._api.headers:
            token = self._api.get("/auth/token").raise_for_status().json()["access_token"]
            self._api.headers["Authorization"] = f"Bearer {token}"
        health = self.request("GET", "monitor/health")
        named = {"scheduler": "scheduler", "dag-processor": "dag_processor", "triggerer": "triggerer"}
        return all(health[named[part]]["status"] == "healthy" for part in self._parts if part in named)


def _day(run: Mapping[str, Any]) -> str | None:
    """Return the date of a run if its logical date is midnight UTC."""
    day, _, clock = (run["logical_date"] or "").partition("T")
    return day if clock.startswith("00:00:00") else None


@cache
def migrated_database() -> Path:
    """Return the path of an empty Airflow database; it is created once per process."""
    home = Path(os.environ["AIRFLOW_HOME"]) / "migrated"
    environment = os.environ | {"AIRFLOW_HOME": str(home)}
    command = [sys.executable, "-m", "airflow", "db", "migrate"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    return home / "airflow.db"


def _kill_sessions(sessions: Collection[int], spared: Collection[int] = ()) -> None:
    """Kill all processes of these sessions; a killed one remains until its parent has waited for it."""
    # A task has its own process group, but stays in the session of the part that started it.
    while found := [
        pid for pid in psutil.pids() if _session(pid) in sessions and pid not in spared and _lives(pid)
    ]:
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _lives(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None
