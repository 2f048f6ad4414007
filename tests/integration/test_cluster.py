"""One login per account, and each report once, on a cluster whose workers are killed.

CeleryExecutor, Redis and PostgreSQL; a lake on S3; two workers that share no lock directory, as if on two
hosts, so that only the pools keep the logins of an account apart. Four accounts of one customer share a
backfill of the ten days that RAP keeps, and the daily DAGs run beside it with one of the accounts. The story
is played once.

First a worker is killed with all its processes while one of its tasks reads a report. Nobody restarts it: the
other worker finishes everything. Then, with a new worker, a worker and the supervisor of its task are killed,
and the task lives on. At last a worker is told to shut down while its task reads a report.
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any

import boto3
import pendulum
import psutil
import pytest

from airflow_provider_hkex_rap.rap.calendar import trading_days
from airflow_provider_hkex_rap.rap.clock import HONG_KONG
from airflow_provider_hkex_rap.rap.folders import Folder
from airflow_provider_hkex_rap.testing import Access, Fault, RapSimulator
from airflow_provider_hkex_rap.testing.events import Event, EventLog

from .cluster_servers import missing_servers, postgres, redis
from .lake_servers import s3_server
from .real_airflow import RealAirflow

pytestmark = [
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.cluster,
    pytest.mark.skipif(missing_servers() is not None, reason=str(missing_servers())),
    pytest.mark.timeout(400),
]

DAGS = Path(__file__).parents[2] / "dags"
BACKFILL, DAILY = "hkex_rap_backfill", ("hkex_rap_daily_dcass", "hkex_rap_daily_ccms")

ACCOUNTS = ("DCXYZ001", "DCXYZ002", "DCXYZ003", "DCXYZ004")
DAILY_ACCOUNT, KILLED = "DCXYZ001", "DCXYZ002"
"""The account of the daily DAGs, and the one whose task is killed with its worker."""
CONNECTIONS = ("hkex_rap_default", "hkex_rap_2", "hkex_rap_3", "hkex_rap_4")
POOLS = ("hkex_rap", "hkex_rap_2", "hkex_rap_3", "hkex_rap_4")

# RAP keeps the reports since Tuesday the 12th.
NOW = pendulum.datetime(2027, 1, 22, 9, tz=HONG_KONG)
FIRST, LAST = pendulum.date(2027, 1, 12), pendulum.date(2027, 1, 21)
REPORTS_PER_DAY = 12
# The backfill gives this day to the account KILLED, as its first one.
DAY_OF_KILLED = pendulum.date(2027, 1, 13)
# It is the newest of its day and stalls at its end, so that other files have been read before.
LARGE, LARGE_BYTES = "LARGE_CXYZ_20270113.csv", 8_000_000

S3 = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "ap-east-1"}
BUCKET, LAKE = "reports", "s3://lake@reports/rap"

SUPERSEDED_WAIT = 12.0
"""Seconds before a task logs in again after a superseded session; the default is five minutes."""

SETTINGS = {
    "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
    "AIRFLOW__CORE__PARALLELISM": "16",
    "AIRFLOW__HKEX_RAP__POOLS": ",".join(POOLS[1:]),
    "AIRFLOW__HKEX_RAP__SUPERSEDED_WAIT": str(SUPERSEDED_WAIT),
    # The scheduler retries a task whose supervisor has sent no heartbeat for that time; the default is 300 s.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "12",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
    # A killed worker may have taken a task from Redis and not begun it; the default is 600 s.
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "45",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "2",
}


# As docs/deploy.md shows it. Two of these workers could run all tasks of the backfill at the same time, so
# only the pools prevent that.
(WORKER,) = [
    shlex.split(line)[1:]
    for line in (DAGS.parent / "docs" / "deploy.md").read_text().splitlines()
    if line.startswith("airflow celery worker")
]

_QUEUED_AND_RETRIED_AT_ONCE = {
    '"retries"': '"queue": "rap", "retries"',
    "timedelta(minutes=15)": "timedelta(seconds=1)",
}
CHANGES = {
    "hkex_rap_backfill.py": _QUEUED_AND_RETRIED_AT_ONCE
    | {'{"hkex_rap_default": "hkex_rap"}': repr(dict(zip(CONNECTIONS, POOLS, strict=True)))},
    # Airflow shows the time of this machine, and RAP another one: no run may be due by itself.
    "hkex_rap_daily_ingest.py": _QUEUED_AND_RETRIED_AT_ONCE | {'"start_date"': '"end_date"'},
}
"""The changes to each DAG file: what is replaced, and by what."""


class Cluster:
    """RAP, the lake and Airflow.

    :param home: an empty directory.
    :param database: the URL of an empty database of PostgreSQL, without its scheme.
    :param broker: the URL of Redis.
    :param s3: the URL of S3.
    """

    def __init__(self, home: Path, database: str, broker: str, s3: str) -> None:
        self.rap = RapSimulator(ACCOUNTS, NOW, access=Access(enforce_hours=True))
        self.rap.start()
        self.bucket = boto3.resource("s3", endpoint_url=s3, **S3).Bucket(BUCKET)
        self.bucket.create(CreateBucketConfiguration={"LocationConstraint": S3["region_name"]})
        lake = {
            "conn_type": "aws",
            "login": S3["aws_access_key_id"],
            "password": S3["aws_secret_access_key"],
            "extra": {"endpoint_url": s3, "region_name": S3["region_name"]},
        }
        connections = {
            f"AIRFLOW_CONN_{name.upper()}": self._connection(account)
            for name, account in zip(CONNECTIONS, ACCOUNTS, strict=True)
        }
        url = f"postgresql+psycopg://{database}"
        self.airflow = RealAirflow(
            home,
            dags={name: shipped(name) for name in CHANGES},
            # No task is deferred, so no triggerer is needed.
            parts=("api-server", "scheduler", "dag-processor"),
            database=url,
            environment=SETTINGS
            | connections
            | {
                "AIRFLOW_CONN_LAKE": json.dumps(lake),
                "AIRFLOW_VAR_HKEX_RAP_LAKE": LAKE,
                "AIRFLOW__HKEX_RAP__CLOCK_OFFSET": str((NOW - pendulum.now()).total_seconds()),
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": url,
                "AIRFLOW__CELERY__BROKER_URL": broker,
                "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{url}",
            },
        )
        self.parts: list[EventLog] = []
        """The events on RAP of each part of the story."""
        self.landed_at_kill: set[str] = set()
        """The keys of the reports in the lake at the time of the first kill."""
        self.runs: list[tuple[str, str]] = []
        """DAG and run id of each run that was triggered."""
        self.shut_down_with: int | None = None
        """The exit code of the worker that was told to shut down."""
        self._home = home

    def _connection(self, account: str) -> str:
        connection = self.rap.connection(account)
        # A stalled transfer must not time out before the worker is killed.
        connection["extra"]["idle_timeout"] = 300
        return json.dumps(connection)

    # Playing.

    def start_worker(self, name: str) -> None:
        """Start a worker with directories of its own."""
        own = self._home / name
        (own / "tmp").mkdir(parents=True)
        environment = {"TMPDIR": str(own / "tmp"), "AIRFLOW__HKEX_RAP__LOCK_DIR": str(own / "locks")}
        self.airflow.start_worker(name, WORKER, environment)

    def wait_until_ready(self, worker: str) -> None:
        """Wait until a worker takes tasks."""
        self.airflow.wait_until(lambda: " ready." in self.log_of(worker), f"the worker {worker}", 90)

    def log_of(self, worker: str) -> str:
        return (self._home / f"{worker}.log").read_text(errors="replace")

    def trigger(self, dag_id: str, **conf: str) -> None:
        self.runs.append((dag_id, self.airflow.trigger(dag_id, conf=conf)))

    def publish(self, batch: str) -> str:
        """Put four new reports into a folder, and return the path of the last one."""
        for number in range(4):
            name = f"{batch}{number}_CXYZ_20270122.csv"
            file = self.rap.put(Folder.DCASS, name, 100_000, NOW.subtract(minutes=30))
        return str(file.path.decode())

    def stop_in_a_transfer(self, account: str, path: str, at_byte: int) -> tuple[Fault, str, int]:
        """Wait until a task of an account is stalled in a transfer.

        :returns: the fault, which the caller can release, the worker, and the process id of the task.
        """
        fault = self.rap.faults.add(Fault("stall", account=account, path=path, at_byte=at_byte))
        self.rap.events.wait_for("fault", 1, 90, account=account)
        holders = {
            int(note.read_text().rpartition(" ")[2]): note.parts[-3]
            for note in self._home.glob(f"worker*/locks/{account}-*.holder")
        }
        # A task that was killed leaves its note.
        ((task, worker),) = ((task, worker) for task, worker in holders.items() if psutil.pid_exists(task))
        return fault, worker, task

    def wait_for_success(self) -> None:
        """Wait until every run has succeeded."""

        def done() -> bool:
            states = set(map(self.state, self.runs))
            assert "failed" not in states, self.airflow.describe()
            return states == {"success"}

        self.airflow.wait_until(done, "the success of all runs", 150)

    def end_part(self) -> None:
        """Keep the events on RAP of this part of the story."""
        log = EventLog()
        for event in self.rap.events:
            log.record(event)
        self.parts.append(log)
        self.rap.events.clear()

    # Results.

    def state(self, run: tuple[str, str]) -> str:
        """Return the state of a run."""
        return str(self.airflow.request("GET", "dags/{}/dagRuns/{}".format(*run))["state"])

    def tasks(self) -> Iterator[dict[str, Any]]:
        """Yield every task instance of the runs that were triggered."""
        for run in self.runs:
            yield from self.airflow.task_instances(*run)

    def published(self) -> Counter[tuple[str, str, str]]:
        """Return folder, name and SHA-256 of every report on RAP, each counted once."""
        return Counter(
            (folder.value, file.text, file.sha256) for folder in Folder for file in self.rap.files(folder)
        )

    def entries(self) -> list[dict[str, Any]]:
        """Return every entry of the manifest."""
        return [
            json.loads(line)
            for item in self.bucket.objects.filter(Prefix="rap/manifest/")
            if item.key.endswith(".jsonl")
            for line in item.get()["Body"].read().splitlines()
        ]

    def landed_of_killed(self) -> set[str]:
        """Return the keys of the reports in the lake that have the day of the account KILLED."""
        day = f"business_date={DAY_OF_KILLED}"
        return {item.key for item in self.bucket.objects.filter(Prefix="rap/reports/") if day in item.key}

    def landed(self) -> dict[str, str]:
        """Return by key the SHA-256 of every report in the lake."""
        return {
            item.key: sha256(item.get()["Body"].read()).hexdigest()
            for item in self.bucket.objects.filter(Prefix="rap/reports/")
        }


def shipped(name: str) -> str:
    """Return a DAG file of ``dags/`` with the changes for this trial."""
    text = (DAGS / name).read_text()
    for before, after in CHANGES[name].items():
        assert before in text
        text = text.replace(before, after)
    return text


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with ExitStack() as stack:
        servers = [stack.enter_context(start()) for start in (postgres, redis, s3_server)]
        cluster = Cluster(tmp_path_factory.mktemp("cluster"), *servers)
        stack.callback(cluster.rap.stop)
        stack.enter_context(cluster.airflow)
        play(cluster)
        yield cluster


def play(cluster: Cluster) -> None:
    airflow, rap = cluster.airflow, cluster.rap
    cluster.start_worker("worker1")
    cluster.start_worker("worker2")
    airflow.unpause(BACKFILL, *DAILY)

    cluster.wait_until_ready("worker1")
    cluster.wait_until_ready("worker2")

    for day in trading_days(FIRST, LAST):
        rap.publish_day(day, reports=REPORTS_PER_DAY)
    large = rap.put(Folder.DCASS, LARGE, LARGE_BYTES, in_the_evening(DAY_OF_KILLED).add(hours=6))
    cluster.trigger(BACKFILL, first_day=str(FIRST), last_day=str(LAST))
    _, worker, _ = cluster.stop_in_a_transfer(KILLED, large.path.decode(), LARGE_BYTES - 1)
    airflow.wait_until(cluster.landed_of_killed, "the first reports of the stalled task")
    for dag_id in DAILY:
        cluster.trigger(dag_id, business_date=str(LAST))
    airflow.kill_with_its_tasks(worker)
    cluster.landed_at_kill = cluster.landed_of_killed()
    cluster.wait_for_success()
    cluster.end_part()

    cluster.start_worker("worker3")
    last = cluster.publish("ORPHAN")
    cluster.trigger(DAILY[0], business_date=str(LAST))
    _, worker, task = cluster.stop_in_a_transfer(DAILY_ACCOUNT, last, 50_000)
    orphan = psutil.Process(task)
    airflow.kill_with_its_tasks(worker, spared=[task])
    assert orphan.is_running()
    cluster.wait_for_success()
    orphan.wait(60)
    cluster.end_part()

    cluster.start_worker("worker4")
    last = cluster.publish("SHUTDOWN")
    cluster.trigger(DAILY[0], business_date=str(LAST))
    fault, worker, _ = cluster.stop_in_a_transfer(DAILY_ACCOUNT, last, 50_000)
    stopping = airflow.shut_down(worker)
    airflow.wait_until(lambda: "Warm shutdown" in cluster.log_of(worker), f"{worker} to begin its shutdown")
    rap.faults.release(fault)
    cluster.shut_down_with = stopping.wait(60)
    cluster.wait_for_success()
    cluster.end_part()


def in_the_evening(day: pendulum.Date) -> pendulum.DateTime:
    return pendulum.datetime(day.year, day.month, day.day, 20, tz=HONG_KONG)


def kinds(events: list[Event]) -> list[str]:
    return [event.kind.value for event in events]


def logins(part: EventLog, account: str) -> list[str]:
    """Return the kinds of the events that start or end a session of an account."""
    return kinds(part.of("login", "logout", "lost", "superseded", account=account))


def test_a_killed_worker_leaves_no_two_logins_of_an_account(cluster: Cluster) -> None:
    part = cluster.parts[0]
    assert {account: part.peak_sessions(account) for account in ACCOUNTS} == dict.fromkeys(ACCOUNTS, 1)
    assert not part.of("superseded", "refused", "denied", "missing")
    # Of its two days, the first one took two tries.
    assert logins(part, KILLED) == ["login", "lost", *["login", "logout"] * 2]


def test_the_worker_was_killed_in_the_middle_of_a_landing(cluster: Cluster) -> None:
    assert set() < cluster.landed_at_kill < cluster.landed_of_killed()
    opened = cluster.parts[0].of("open", path=f"{Folder.DCASS.path}/{LARGE}")
    assert opened[0].account == KILLED
    # The second try reads it again; the daily DAG may do so at the same time.
    assert len(opened) > 1
    (killed,) = [
        ti for ti in cluster.tasks() if ti["task_id"] == "land_by_hkex_rap_2" and ti["map_index"] == 0
    ]
    assert killed["try_number"] == 2


def test_every_run_and_every_task_succeeds(cluster: Cluster) -> None:
    assert {ti["state"] for ti in cluster.tasks()} == {"success"}
    runs = {
        (dag_id, run["dag_run_id"]) for dag_id in (BACKFILL, *DAILY) for run in cluster.airflow.runs(dag_id)
    }
    assert runs == set(cluster.runs)


def test_every_report_lands_once_with_the_bytes_of_rap(cluster: Cluster) -> None:
    published, landed = cluster.published(), cluster.landed()
    entries = [entry for entry in cluster.entries() if entry["disposition"] == "landed"]
    names = [(e["folder"], e["rap_path"].rpartition("/")[2], e["sha256"]) for e in entries]
    assert Counter(names) == published
    assert Counter(landed.values()) == Counter(digest for *_, digest in published.elements())
    assert {entry["uri"].partition(f"{BUCKET}/")[2] for entry in entries} == landed.keys()
    verified = cluster.airflow.command("hkex-rap", "verify", "--lake", LAKE, "--customer", "CXYZ")
    assert not verified.returncode, verified.stderr


def test_rap_ends_the_session_of_a_task_that_outlives_its_worker(cluster: Cluster) -> None:
    part = cluster.parts[1]
    # The scheduler cannot see that the task is alive, and frees its slot in the pool: the next try logs in
    # beside it. The task then backs off, and ends: it cannot read the Variable with its key any more.
    assert logins(part, DAILY_ACCOUNT) == ["login", "login", "superseded", "logout"]
    (superseded,) = part.of("superseded")
    assert superseded.session == part.of("login")[0].session
    assert not part.of("refused", "denied", "missing")
    assert tries_of_run(cluster, -2) == [2]


def test_a_worker_that_is_told_to_shut_down_finishes_its_task(cluster: Cluster) -> None:
    assert cluster.shut_down_with == 0
    assert logins(cluster.parts[2], DAILY_ACCOUNT) == ["login", "logout"]
    assert tries_of_run(cluster, -1) == [1]


def tries_of_run(cluster: Cluster, number: int) -> list[int]:
    return [ti["try_number"] for ti in cluster.airflow.task_instances(*cluster.runs[number])]
