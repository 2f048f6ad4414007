"""One login per account under a real scheduler, despite killed processes and logins by hand (§4.3).

The story is played once. Eight tasks of one account in two DAGs are serialized by the lock alone, while
the scheduler is killed and restarted; then they are serialized by their pool. On other accounts, a task is
killed, then the supervisor of a download, then that of a renewal; and a user logs in by hand while a sensor
lists a folder, and while a download reads a file.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncssh
import pendulum
import psutil
import pytest

from airflow_provider_hkex_rap.rap.clock import HONG_KONG
from airflow_provider_hkex_rap.rap.folders import Folder
from airflow_provider_hkex_rap.rap.keys import PublicKey
from airflow_provider_hkex_rap.runner.account_lock import default_lock_directory
from airflow_provider_hkex_rap.testing import Fault, RapSimulator
from airflow_provider_hkex_rap.transport.connect import OFFERED

from .real_airflow import RealAirflow

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.testing.events import Event

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(400)]

DAGS = Path(__file__).with_name("one_login_dags.py")

# Friday evening: every service is open.
NOW = pendulum.datetime(2026, 11, 20, 21, tz=HONG_KONG)

EIGHT_TASKS, KILLED, DOWNLOADS, SENSOR, RENEWED = "DCXYZ001", "DCABC001", "DCDEF001", "DCGHI001", "DCJKL001"
"""Accounts of five customers."""

POOLED = ("pooled_by_folder", "pooled_by_report")
ROOMY = ("roomy_by_folder", "roomy_by_report")
OTHERS = ("worker_killed", "human_and_downloads", "human_and_sensor", "renewal")

SUPERSEDED_WAIT = 5.0
"""Seconds before a task logs in again after a superseded session; the default is five minutes."""
POKE_INTERVAL = 60.0
RESULT_DELAY = 240.0

SETTINGS = {
    "AIRFLOW__CORE__PARALLELISM": "16",
    "AIRFLOW__HKEX_RAP__SUPERSEDED_WAIT": str(SUPERSEDED_WAIT),
    # A scheduler looks, at its start and then at intervals, for tasks of schedulers whose last heartbeat is
    # older than the threshold. LocalExecutor cannot adopt them, so each task starts again beside its orphan.
    # Heartbeats must come well within the threshold, or a scheduler takes itself for dead.
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "3",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
    # A supervisor sends the heartbeats of its task. If an answer says that another try has replaced the task,
    # the supervisor ends it. The scheduler misses a killed supervisor after the timeout; its task runs on.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "12",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
}


class Story:
    """RAP, Airflow, the runs and the published reports.

    :param home: an empty directory.
    """

    def __init__(self, home: Path) -> None:
        self.lake = home / "lake"
        self.rap = RapSimulator((EIGHT_TASKS, KILLED, DOWNLOADS, SENSOR, RENEWED), NOW)
        self.rap.start()
        self.airflow = RealAirflow(
            home,
            dags={DAGS.name: DAGS.read_text()},
            # No task is deferred, so no triggerer is needed.
            parts=("api-server", "scheduler", "dag-processor"),
            environment=SETTINGS
            | {f"AIRFLOW_CONN_{account}": self._connection(account) for account in self.rap.accounts}
            | {
                "AIRFLOW_VAR_HKEX_RAP_LAKE": self.lake.as_uri(),
                "AIRFLOW__HKEX_RAP__CLOCK_OFFSET": str((self.rap.clock() - pendulum.now()).total_seconds()),
            },
        )
        self._runs: dict[str, str] = {}
        self._published: dict[str, list[str]] = {}

    def _connection(self, account: str) -> str:
        connection = self.rap.connection(account)
        # A stalled transfer must not time out before the test releases it.
        connection["extra"]["idle_timeout"] = 300
        return json.dumps(connection)

    # Playing.

    def publish(self, account: str, batch: str) -> None:
        """Put two new files into each folder of an account."""
        for folder, kind in product(Folder, "AB"):
            name = f"{kind}_{batch}_{folder.name}_20261120.csv"
            file = self.rap.put(folder, name, 50_000, NOW.subtract(hours=1), account=account)
            self._published.setdefault(account, []).append(file.path.decode())

    def trigger(self, *dag_ids: str) -> None:
        for dag_id in dag_ids:
            self._runs[dag_id] = self.airflow.trigger(dag_id)

    def stop_in_a_transfer(self, account: str, *dag_ids: str, kind: str = "stall") -> tuple[Fault, int]:
        """Trigger DAGs, and wait until one of their tasks is stalled in a transfer.

        :returns: the fault, which the caller can release, and the process id of the task.
        """
        fault = self.rap.faults.add(Fault(kind, account=account))
        before = len(self.rap.events.of("fault", account=account))
        self.trigger(*dag_ids)
        self.rap.events.wait_for("fault", before + 1, 60, account=account)
        return fault, self.process_of(account)

    def process_of(self, account: str) -> int:
        """Return the id of the process that is logged in with the account."""
        note = default_lock_directory() / f"{account}-{self.rap.port}.holder"
        pid = int(note.read_text().rpartition(" ")[2])
        remote = [connection.raddr for connection in psutil.Process(pid).net_connections()]
        assert (self.rap.host, self.rap.port) in remote
        return pid

    def log_in_by_hand(self, account: str) -> None:
        """Log in as a user of WinSCP does, list a folder, and log out."""
        key = asyncssh.import_private_key(self.rap.private_key(account))

        async def look() -> None:
            login = {**OFFERED, "username": account, "client_keys": [key], "known_hosts": None}
            async with (
                asyncssh.connect(self.rap.host, self.rap.port, **login) as connection,
                connection.start_sftp_client() as client,
            ):
                assert await client.listdir(Folder.DCASS.path)

        asyncio.run(look())

    def wait_for_success(self, *dag_ids: str) -> None:
        """Wait until every run of these DAGs has succeeded."""

        def done() -> bool:
            states = {run["state"] for dag_id in dag_ids for run in self.airflow.runs(dag_id)}
            assert "failed" not in states, self.airflow.describe()
            return states == {"success"}

        self.airflow.wait_until(done, f"success of {', '.join(dag_ids)}", 120)

    def wait_for_a_waiting_task(self, dag_id: str, try_number: int) -> None:
        """Wait until a task of the last run of a DAG logs that it waits for the account."""
        run = self.airflow.home / f"logs/dag_id={dag_id}/run_id={self._runs[dag_id]}"

        def found() -> bool:
            logs = run.glob(f"task_id=*/attempt={try_number}.log")
            return any("is in use on this host" in log.read_text() for log in logs)

        self.airflow.wait_until(found, f"a task of {dag_id} to wait for the account")

    # Results.

    def tries(self, *dag_ids: str) -> list[int]:
        """Return the number of tries of each task."""
        return [ti["try_number"] for dag_id in dag_ids for ti in self.airflow.task_instances(dag_id)]

    def logins(self, account: str) -> list[Event]:
        """Return the events that start or end a session of the account."""
        return self.rap.events.of("login", "logout", "lost", "superseded", account=account)

    def landed(self, account: str) -> Counter[str]:
        """Return by path on RAP how often the manifest records that it landed."""
        entries: list[dict[str, Any]] = []
        for manifest in self.lake.glob(f"manifest/{account[1:5]}/**/*.jsonl"):
            entries += map(json.loads, manifest.read_text().splitlines())
        return Counter(entry["rap_path"] for entry in entries if entry["disposition"] == "landed")

    def published(self, account: str) -> Counter[str]:
        """Return the paths of the published reports, each counted once."""
        return Counter(self._published[account])


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    story = Story(tmp_path_factory.mktemp("one_login"))
    try:
        with story.airflow as airflow:
            airflow.request("POST", "pools", json={"name": "roomy", "slots": 16})
            airflow.unpause(*POOLED, *ROOMY, *OTHERS)
            play(story)
            yield story
    finally:
        story.rap.stop()


def play(story: Story) -> None:
    airflow, rap = story.airflow, story.rap
    for account in rap.accounts:
        story.publish(account, "1")

    # The sensor's next poke is a minute later, long after the restart of the scheduler.
    story.stop_in_a_transfer(SENSOR, "human_and_sensor", kind="listing_stall")
    story.log_in_by_hand(SENSOR)

    story.stop_in_a_transfer(EIGHT_TASKS, *ROOMY)
    airflow.kill("scheduler")
    airflow.start("scheduler")
    rap.events.wait_for("lost", 1, 120, account=EIGHT_TASKS)
    story.wait_for_success(*ROOMY)

    story.publish(EIGHT_TASKS, "2")
    story.trigger(*POOLED)

    _, task = story.stop_in_a_transfer(KILLED, "worker_killed")
    os.kill(task, signal.SIGKILL)
    story.wait_for_success("worker_killed")

    story.publish(KILLED, "2")
    orphaned, task = story.stop_in_a_transfer(KILLED, "worker_killed")
    os.kill(psutil.Process(task).ppid(), signal.SIGKILL)

    rap.faults.add(Fault("delay_result", account=RENEWED, seconds=RESULT_DELAY))
    story.trigger("renewal")
    rap.events.wait_for("upload", 1, 60, account=RENEWED)
    os.kill(psutil.Process(story.process_of(RENEWED)).ppid(), signal.SIGKILL)

    story.stop_in_a_transfer(DOWNLOADS, "human_and_downloads")
    story.wait_for_a_waiting_task("human_and_downloads", 1)
    story.log_in_by_hand(DOWNLOADS)

    story.wait_for_a_waiting_task("worker_killed", 2)
    rap.faults.release(orphaned)
    rap.clock.advance(seconds=RESULT_DELAY)
    story.wait_for_success(*POOLED, *OTHERS)


def kinds(events: list[Event]) -> list[str]:
    return [event.kind.value for event in events]


@pytest.mark.guide("4.3 one login")
def test_eight_tasks_in_a_large_pool_do_not_overlap_although_the_scheduler_is_killed(story: Story) -> None:
    assert story.rap.events.peak_sessions(EIGHT_TASKS) == 1
    logins = Counter(kinds(story.logins(EIGHT_TASKS)[:-16]))
    # The orphan that was logged in was ended and lost its session; other orphans may have finished before.
    assert logins["lost"] >= 1
    assert logins["logout"] >= 8
    assert "superseded" not in logins
    # Tasks that had not started when the scheduler was killed are still on their first try.
    assert set(story.tries(*ROOMY)) <= {1, 2}
    assert 2 in story.tries(*ROOMY)
    assert story.landed(EIGHT_TASKS) == story.published(EIGHT_TASKS)


@pytest.mark.guide("4.3 one login")
def test_eight_tasks_in_a_pool_of_one_slot_log_in_one_after_another(story: Story) -> None:
    assert story.tries(*POOLED) == [1] * 8
    assert kinds(story.logins(EIGHT_TASKS)[-16:]) == ["login", "logout"] * 8
    opened = [event.path for event in story.rap.events.of("open", account=EIGHT_TASKS)]
    assert set(Counter(path for path in opened if "_2_" in path).values()) == {1}


def test_a_killed_task_and_an_orphan_do_not_overlap_their_next_try(story: Story) -> None:
    assert story.tries("worker_killed") == [2, 2]
    killed = ["login", "lost", "login", "logout"]
    orphaned = ["login", "logout"] * 2
    assert kinds(story.logins(KILLED)) == killed + orphaned
    assert story.landed(KILLED) == story.published(KILLED)


def test_an_orphaned_renewal_and_its_next_try_renew_the_key_once(story: Story) -> None:
    assert story.tries("renewal") == [2]
    assert kinds(story.logins(RENEWED))[::2] == ["login"] * 3
    assert story.rap.events.peak_sessions(RENEWED) == 1
    (upload,) = story.rap.uploads
    (run,) = story.airflow.runs("renewal")
    outcome = story.airflow.xcom("renewal", run["dag_run_id"], "renew")
    assert outcome["renewed"]
    assert outcome["fingerprint"] == PublicKey.parse(upload.content.decode()).fingerprint


def test_every_task_of_the_account_backs_off_after_a_download_is_superseded(story: Story) -> None:
    logins = story.logins(DOWNLOADS)
    by_hand = ["login", "superseded", "logout"]
    assert kinds(logins) == ["login", *by_hand, *["login", "logout"] * 2]
    assert logins[4].at - logins[2].at >= pendulum.duration(seconds=SUPERSEDED_WAIT)
    assert story.tries("human_and_downloads") == [1, 1]
    assert story.landed(DOWNLOADS) == story.published(DOWNLOADS)


def test_a_superseded_sensor_backs_off_until_its_next_poke(story: Story) -> None:
    logins = story.logins(SENSOR)
    by_hand = ["login", "superseded", "logout"]
    assert kinds(logins) == ["login", *by_hand, "login", "logout"]
    assert logins[4].at - logins[2].at >= pendulum.duration(seconds=POKE_INTERVAL)
    assert story.tries("human_and_sensor") == [1]


def test_nothing_is_refused_or_denied(story: Story) -> None:
    assert not story.rap.events.of("refused", "denied", "missing")
