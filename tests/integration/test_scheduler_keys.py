"""Ten years of the keys of four accounts under a real scheduler, and a search for leaked key material (§6).

The ten years are played once. The clock of RAP goes through every day, and the test records which keys log
in. The clock of Airflow leaps to the days that matter: the trading day before a renewal is due, the day of
the renewal, a day on which both keys log in, and the first day without the old key. The only events from
outside are one login by hand and one killed task.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import asyncssh
import pendulum
import pytest
from cryptography.fernet import Fernet

from airflow_provider_hkex_rap.keystore.record import KeyRecord
from airflow_provider_hkex_rap.keystore.variable import PREFIX
from airflow_provider_hkex_rap.operators.task import POOL
from airflow_provider_hkex_rap.rap.account import Account
from airflow_provider_hkex_rap.rap.calendar import is_trading_day
from airflow_provider_hkex_rap.rap.clock import HONG_KONG
from airflow_provider_hkex_rap.rap.folders import Folder
from airflow_provider_hkex_rap.rap.keys import PublicKey
from airflow_provider_hkex_rap.testing import Access, Fault, RapSimulator

from ..ports import free_port
from .key_material import Secrets, contents, leaks
from .real_airflow import RealAirflow, missing_faketime
from .trial import DAGS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing_faketime() is not None, reason=str(missing_faketime())),
    pytest.mark.timeout(1200),
]

START = pendulum.datetime(2026, 11, 20, 9, 0, 30, tz=HONG_KONG)
"""The four accounts are registered; their keys end on 19 November 2028."""
END = START.add(years=10)

CONNECTIONS = {
    "hkex_rap_default": "DCXYZ001",
    "hkex_rap_second": "DCXYZ002",
    "hkex_rap_third": "DCXYZ003",
    "hkex_rap_fourth": "DCXYZ004",
}
FIRST, SUPERSEDED, KILLED, ENCRYPTED = CONNECTIONS.values()
NEW_CUSTOMER = "DCABC001"
"""Its key is made by ``airflow hkex-rap register``."""

RENEWAL, INGEST = "hkex_rap_key_renewal", "hkex_rap_daily_dcass"
RENEW_BEFORE, OVERLAP = 30, 14
RETRY = pendulum.duration(minutes=16)
PASSPHRASE = "Tr0ub4dor & 3 correct horses"

_THE_RENEWALS_CONNECTIONS = 'CONNECTIONS = ["hkex_rap_default"]'
_LOG_IN = f"""
import asyncio

from airflow.sdk import DAG, task


async def used_key(connection):
    from airflow_provider_hkex_rap.hooks.rap import RapHook

    async with RapHook(connection).session() as session:
        return session.client_key_fingerprint


@task
def log_in(connection):
    return asyncio.run(used_key(connection))


with DAG("log_in", schedule=None):
    for name, account in {CONNECTIONS!r}.items():
        log_in.override(task_id=account)(name)
"""
# Otherwise each task spends two seconds on imports.
_LOCAL_SETTINGS = "import airflow_provider_hkex_rap.hooks.rap\n"


@dataclass
class Visit:
    """The state of the keys on one day, after the daily run.

    :param phase: the phase of the renewal: ``first``, ``before``, ``due``, ``overlap`` or ``after``.
    :param connections: the number of connections of the daily run to RAP.
    :param valid: by account, the fingerprints of the keys that log in, the old key first.
    :param held: by account, the fingerprints of the keys in the store, the previous key first.
    :param logged_in: by account, the fingerprint with which a task logged in; only on ``due`` and ``after``.
    """

    day: pendulum.Date
    phase: str
    connections: int
    valid: dict[str, list[str]]
    held: dict[str, list[str]]
    logged_in: dict[str, str]


class Decade:
    """RAP and Airflow with the keys in Airflow Variables, from :data:`START` on; use it in a ``with`` block.

    :param home: an empty directory.
    :param environment: more settings of Airflow.
    """

    def __init__(self, home: Path, environment: Mapping[str, str] | None = None) -> None:
        self.home = home
        self.lake = home / "lake"
        self.kit = home / "kit.zip"
        self.rap = RapSimulator(
            tuple(CONNECTIONS.values()), START, port=free_port(), access=Access(enforce_hours=True)
        )
        self.first_keys = {account: fingerprints[0] for account, fingerprints in self.valid_keys().items()}
        self.valid: dict[pendulum.Date, dict[str, list[str]]] = {}
        """By day and account, the keys that log in at the end of the day."""
        self.private_keys: dict[str, set[str]] = {}
        """By fingerprint, every form in which the store or a connection held the private key."""
        self.visits: list[Visit] = []
        self.interrupted: dict[str, KeyRecord] = {}
        """By account, the record in the store after its renewal was interrupted."""
        self.shown: dict[str, str] = {}
        """The output of commands and the answers of the REST API."""
        fernet_key = Fernet.generate_key()
        self._fernet = Fernet(fernet_key)
        (home / "config").mkdir()
        (home / "config" / "airflow_local_settings.py").write_text(_LOCAL_SETTINGS)
        self.airflow = RealAirflow(
            home,
            dags=_dags(),
            now=START,
            parts=("api-server", "scheduler", "dag-processor"),
            environment={
                "AIRFLOW__CORE__FERNET_KEY": fernet_key.decode(),
                "AIRFLOW__API_AUTH__JWT_EXPIRATION_TIME": str(10**9),
                # Two hundred short tasks run one after another, so each wait adds up.
                "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.1",
                "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
                "AIRFLOW__HKEX_RAP__SUPERSEDED_WAIT": "1",
                "AIRFLOW_VAR_HKEX_RAP_LAKE": self.lake.as_uri(),
                **(environment or {}),
            },
        )

    def __enter__(self) -> Self:
        self.rap.start()
        try:
            self.airflow.__enter__()
        except BaseException:
            self.rap.stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.airflow.__exit__()
        self.rap.stop()

    def connect(self, name: str, *, method: str = "POST", **extra: str) -> None:
        """Create or change a connection in Airflow's database."""
        connection = self.rap.connection(CONNECTIONS[name])
        connection["extra"] = json.dumps(connection["extra"] | extra)
        path = "connections" if method == "POST" else f"connections/{name}"
        self.airflow.request(method, path, json=connection | {"connection_id": name})

    # The keys.

    def valid_keys(self) -> dict[str, list[str]]:
        """Return by account the keys that RAP accepts now, the old key first."""
        keys = self.rap.keys
        return {account: [key.fingerprint for key in keys.valid(account)] for account in self.rap.accounts}

    def records(self) -> dict[str, KeyRecord]:
        """Return by account the record in the store, and remember its private keys for the search."""
        found = {}
        with closing(sqlite3.connect(f"file:{self.home / 'airflow.db'}?mode=ro", uri=True)) as database:
            rows = database.execute(
                "SELECT key, val, is_encrypted FROM variable WHERE key LIKE ?", (f"{PREFIX}%",)
            ).fetchall()
        for name, value, is_encrypted in rows:
            assert is_encrypted
            account = Account(name.removeprefix(PREFIX))
            record = KeyRecord.from_json(self._fernet.decrypt(value.encode()).decode(), account)
            for key in record.keys:
                self.private_keys.setdefault(key.fingerprint, set()).add(key.private_key)
            found[account.name] = record
        return found

    def private_key(self, account: str) -> str:
        """Return the current private key of an account; the key must have no passphrase."""
        current = self.records()[account].current
        assert current
        return current.private_key

    # The clocks.

    def move_to(self, to: pendulum.DateTime) -> None:
        """Move the clock of RAP through every day until *to*, then set that of Airflow to *to*."""
        self.airflow.wait_until_idle()
        while (day := self.rap.clock().date()) < to.date():
            self.valid[day] = self.valid_keys()
            noon = pendulum.datetime(day.year, day.month, day.day, 12, tz=HONG_KONG)
            self.rap.clock.set(noon.add(days=1))
        self.rap.clock.set(to)
        self.airflow.move_to(to)

    def visit(
        self, phase: str, day: pendulum.Date, interruption: Callable[[Decade], None] | None = None
    ) -> None:
        """Go to 09:00 of *day*, wait for the daily run, and record the keys.

        :param interruption: is called during the run and disturbs it.
        """
        since = len(self.rap.events)
        if day > self.rap.clock().date():
            self.move_to(START.set(year=day.year, month=day.month, day=day.day))
        if interruption:
            interruption(self)
        self.wait_for_daily_run(day)
        connections = sum(event.kind == "connect" for event in self.rap.events[since:])
        held = {
            account: [key.fingerprint for key in (record.previous, record.current) if key]
            for account, record in self.records().items()
        }
        logged_in = self.log_in() if phase in ("due", "after") else {}
        self.visits.append(Visit(day, phase, connections, self.valid_keys(), held, logged_in))

    def wait_for_daily_run(self, day: pendulum.Date) -> None:
        """Block until the run of 09:00 of *day* and the run before it have succeeded."""

        def succeeded() -> bool:
            runs = self.airflow.request("GET", f"dags/{RENEWAL}/dagRuns", order_by="-run_after", limit=2)[
                "dag_runs"
            ]
            assert all(run["state"] != "failed" for run in runs), self.airflow.describe()
            done = all(run["state"] == "success" for run in runs)
            return bool(runs) and done and runs[0]["run_after"].startswith(day.isoformat())

        self.airflow.wait_until(succeeded, f"the daily run of {day}", 300)

    def log_in(self, state: str = "success") -> dict[str, str]:
        """Run a task that logs in to each account; return by account the fingerprint that it used.

        :param state: the state in which the run must end.
        """
        run_id = self.airflow.trigger("log_in")
        ended = self.airflow.wait_until(lambda: self._end_of(run_id), f"the end of {run_id}", 300)
        assert ended == state, self.airflow.describe()
        tasks = self.airflow.task_instances("log_in", run_id)
        succeeded = sorted(task["task_id"] for task in tasks if task["state"] == "success")
        return {account: self.airflow.xcom("log_in", run_id, account) for account in succeeded}

    def _end_of(self, run_id: str) -> str | None:
        state = self.airflow.request("GET", f"dags/log_in/dagRuns/{run_id}")["state"]
        return state if state in ("success", "failed") else None

    # Interruptions of a renewal.

    def wait_for_upload(self, account: str) -> dict[str, Any]:
        """Block until the account has uploaded its new key; return the task that awaits the result file."""
        renewals = sum(visit.phase == "due" for visit in self.visits) + 1
        self.rap.events.wait_for("upload", renewals, 300, account=account)
        return self.task_of(account)

    def task_of(self, account: str) -> dict[str, Any]:
        """Return the task of the last daily run that renews the account's key."""
        runs = self.airflow.request("GET", f"dags/{RENEWAL}/dagRuns", order_by="-run_after", limit=1)
        instances = self.airflow.task_instances(RENEWAL, runs["dag_runs"][0]["dag_run_id"])
        name = next(name for name, of in CONNECTIONS.items() if of == account)
        return next(it for it in instances if it["task_id"] == f"renew_{name}")

    def retry(self, account: str) -> None:
        """Wait until the account's task is up for retry, keep its record, and go to the time of the retry."""
        self.airflow.wait_until(
            lambda: self.task_of(account)["state"] == "up_for_retry", f"the retry for {account}"
        )
        self.interrupted[account] = self.records()[account]
        self.move_to(self.rap.clock() + RETRY)

    def run_command(self, arguments: Iterable[str]) -> None:
        """Run a command of ``airflow hkex-rap`` and keep its output."""
        done = self.airflow.command("hkex-rap", *arguments)
        self.shown[" ".join(arguments)] = done.stdout + done.stderr


def _dags() -> dict[str, str]:
    texts = {
        name: (DAGS / name).read_text() for name in ("hkex_rap_key_renewal.py", "hkex_rap_daily_ingest.py")
    }
    assert _THE_RENEWALS_CONNECTIONS in texts["hkex_rap_key_renewal.py"]
    texts["hkex_rap_key_renewal.py"] = texts["hkex_rap_key_renewal.py"].replace(
        _THE_RENEWALS_CONNECTIONS, f"CONNECTIONS = {list(CONNECTIONS)}"
    )
    return texts | {"log_in.py": _LOG_IN}


def trading_day(day: pendulum.Date, step: int) -> pendulum.Date:
    """Return *day*, or the nearest trading day after it (*step* 1) or before it (-1)."""
    while not is_trading_day(day):
        day = day.add(days=step)
    return day


# Ten years.


def kill_the_task(decade: Decade) -> None:
    """Kill the process of a task that has uploaded a key and awaits the result file."""
    decade.rap.faults.add(Fault("delay_result", account=KILLED, seconds=RETRY.total_seconds()))
    os.kill(decade.wait_for_upload(KILLED)["pid"], signal.SIGKILL)
    decade.retry(KILLED)


def supersede_the_task(decade: Decade) -> None:
    """Log in by hand with the account of a task that awaits its result file: its session ends (§4.3)."""
    rap = decade.rap

    async def log_in() -> None:
        key = asyncssh.import_private_key(decade.private_key(SUPERSEDED))
        async with asyncssh.connect(
            rap.host, rap.port, username=SUPERSEDED, client_keys=[key], known_hosts=None, config=None
        ):
            pass

    rap.faults.add(Fault("delay_result", account=SUPERSEDED, seconds=RETRY.total_seconds()))
    decade.wait_for_upload(SUPERSEDED)
    asyncio.run(log_in())


def ingest_beside_it(decade: Decade) -> None:
    """Run the daily ingest of an account while its renewal awaits a result file; the pool has free slots."""
    rap, airflow = decade.rap, decade.airflow
    rap.publish_day(trading_day(rap.clock().date().subtract(days=1), -1), reports=12)
    rap.faults.add(Fault("delay_result", account=FIRST, seconds=300))
    decade.wait_for_upload(FIRST)
    airflow.unpause(INGEST)
    run_id = airflow.wait_until(lambda: airflow.runs(INGEST), "the ingest")[0]["dag_run_id"]
    airflow.wait_for_task(INGEST, run_id, "running")
    # The renewal is logged in, so the ingest waits for the account.
    assert not rap.events.of("list", path=Folder.DCASS.path)
    rap.clock.advance(seconds=300)
    airflow.wait_until(lambda: airflow.runs(INGEST)[-1]["state"] == "success", "the ingest to end")
    airflow.pause(INGEST)


INTERRUPTIONS = (None, kill_the_task, supersede_the_task, ingest_beside_it, None)


@pytest.fixture(scope="module")
def decade(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Decade]:
    with Decade(tmp_path_factory.mktemp("decade")) as decade:
        last_days = {account: decade.rap.keys.valid(account)[0].last_day for account in decade.rap.accounts}
        for name, account in CONNECTIONS.items():
            secret = {"private_key_passphrase": PASSPHRASE} if account == ENCRYPTED else {}
            decade.connect(name, key_expires=str(last_days[account]), **secret)
        # Tasks of several accounts may run side by side; the lock serializes the tasks of one account.
        pool = {"pool": POOL, "slots": 5, "include_deferred": False}
        decade.airflow.request("PATCH", f"pools/{POOL}", json=pool)
        decade.airflow.unpause(RENEWAL, "log_in")
        decade.visit("first", START.date())
        for interruption in INTERRUPTIONS:
            play_a_renewal(decade, interruption)
        decade.airflow.pause(RENEWAL)
        decade.move_to(END)
        show_all(decade)
        decade.airflow.wait_until_idle()
        yield decade


def play_a_renewal(decade: Decade, interruption: Callable[[Decade], None] | None) -> None:
    """Visit the days of the next renewal, which follow from the last day of the only key (§6.1)."""
    (key,) = decade.rap.keys.valid(FIRST)
    assert key.last_day
    due = key.last_day.subtract(days=RENEW_BEFORE - 1)
    uploaded = trading_day(due, 1)
    if not interruption:
        decade.visit("before", trading_day(due.subtract(days=1), -1))
    decade.visit("due", uploaded, interruption)
    if not interruption:
        decade.visit("overlap", trading_day(uploaded.add(days=OVERLAP - 1), -1))
    decade.visit("after", trading_day(uploaded.add(days=OVERLAP), 1))


def show_all(decade: Decade) -> None:
    """Collect everything that may show a key: output of commands, an error, answers of the REST API."""
    kit = ("--ip=10.1.1.1", "--key-size=2048", f"--output={decade.kit}")
    commands = (("register", f"--account={NEW_CUSTOMER}", *kit), ("status",), ("doctor", "--login"))
    with ThreadPoolExecutor() as threads:
        list(threads.map(decade.run_command, commands))
    decade.connect("hkex_rap_fourth", method="PATCH", private_key_passphrase="another one")
    assert decade.log_in("failed").keys() == {*CONNECTIONS.values()} - {ENCRYPTED}
    decade.records()
    for account in decade.rap.accounts:
        decade.private_keys[decade.first_keys[account]].add(decade.rap.private_key(account))
    for path in ("connections", "variables", "assets/events", "eventLogs", "dags/~/dagRuns/~/taskInstances"):
        decade.shown[path] = json.dumps(decade.airflow.request("GET", path, limit=100))


def visits(decade: Decade, *phases: str) -> list[Visit]:
    return [visit for visit in decade.visits if visit.phase in phases]


def uploaded(decade: Decade, account: str) -> list[tuple[pendulum.Date, str]]:
    """Return the day and the fingerprint of each upload of an account."""
    return [
        (upload.at.date(), PublicKey.parse(upload.content.decode()).fingerprint)
        for upload in decade.rap.uploads
        if upload.account == account
    ]


@pytest.mark.guide("6 renewal")
def test_each_account_renews_its_key_five_times_with_one_upload_each(decade: Decade) -> None:
    due = [visit.day for visit in visits(decade, "due")]
    assert len(due) == 5
    for account in decade.rap.accounts:
        days, fingerprints = zip(*uploaded(decade, account), strict=True)
        assert list(days) == due
        assert len({decade.first_keys[account], *fingerprints}) == 6
    assert len(decade.rap.uploads) == 4 * 5
    assert all(result.accepted for result in decade.rap.keys.results)


@pytest.mark.guide("6 renewal")
def test_no_day_without_a_valid_key(decade: Decade) -> None:
    days = [START.date().add(days=number) for number in range((END - START).days)]
    assert list(decade.valid) == days
    assert {
        (day, account) for day in days for account in decade.rap.accounts if not decade.valid[day][account]
    } == set()
    assert decade.valid[days[-1]] == decade.visits[-1].valid
    assert len(days) > 3650


@pytest.mark.guide("6.1 validity", "6.3 two keys")
def test_every_old_key_ends_after_fourteen_days_and_there_is_never_a_third_key(decade: Decade) -> None:
    for account in decade.rap.accounts:
        uploads = uploaded(decade, account)
        old = decade.first_keys[account]
        both = {}
        for day, new in uploads:
            both |= {day.add(days=number): [old, new] for number in range(OVERLAP)}
            old = new
        newest = dict.fromkeys(decade.valid, decade.first_keys[account])
        for day, new in uploads:
            newest |= {it: new for it in decade.valid if it >= day}
        assert {day: keys[account] for day, keys in decade.valid.items()} == {
            day: both.get(day, [key]) for day, key in newest.items()
        }


def test_the_store_holds_exactly_the_valid_keys(decade: Decade) -> None:
    assert [visit.held for visit in decade.visits] == [visit.valid for visit in decade.visits]
    assert {len(keys) for visit in visits(decade, "due", "overlap") for keys in visit.held.values()} == {2}
    assert {len(keys) for visit in visits(decade, "before", "after") for keys in visit.held.values()} == {1}


def test_each_run_logs_in_once_per_account_and_a_renewal_twice(decade: Decade) -> None:
    quiet = visits(decade, "before", "overlap", "after")
    # Airflow may run the last day before the visit too.
    assert {visit.connections for visit in quiet} <= {4, 8}
    # A renewal starts again after an interruption. The login by hand adds one, and the ingest one or two.
    *most, ingest, last = [visit.connections for visit in visits(decade, "first", "due")]
    for found, expected in zip([*most, last], [4, 8, 9, 10, 8], strict=True):
        assert found in (expected, expected + 4)
    assert ingest in (9, 10, 13, 14)


def test_every_task_logs_in_with_the_newest_key(decade: Decade) -> None:
    for visit in visits(decade, "due", "after"):
        assert visit.logged_in == {account: keys[-1] for account, keys in visit.valid.items()}
    assert not decade.rap.events.of("denied", "missing")
    # At the end, with another passphrase, the only key that opens is the connection's first one.
    assert {event.account for event in decade.rap.events.of("refused")} == {ENCRYPTED}


def test_every_run_is_scheduled_and_succeeds(decade: Decade) -> None:
    runs = decade.airflow.runs(RENEWAL)
    assert {run["run_type"] for run in runs} == {"scheduled"}
    assert {run["state"] for run in runs} == {"success"}
    assert {visit.day.isoformat() for visit in decade.visits} <= {run["run_after"][:10] for run in runs}


def test_a_killed_renewal_continues_with_the_same_key(decade: Decade) -> None:
    number = INTERRUPTIONS.index(kill_the_task)
    record, visit = decade.interrupted[KILLED], visits(decade, "due")[number]
    assert record.current
    assert record.pending
    assert record.pending.submitted == visit.day
    assert [record.current.fingerprint, record.pending.fingerprint] == visit.valid[KILLED]
    assert uploaded(decade, KILLED)[number] == (visit.day, record.pending.fingerprint)


def test_only_the_killed_task_is_tried_again(decade: Decade) -> None:
    again = Counter(
        instance["task_id"]
        for run in decade.airflow.runs(RENEWAL)
        for instance in decade.airflow.task_instances(RENEWAL, run["dag_run_id"])
        if instance["try_number"] > 1
    )
    assert again == {"renew_hkex_rap_third": 1}


def test_only_the_login_by_hand_overlaps_another_login(decade: Decade) -> None:
    events = decade.rap.events
    peaks = {account: events.peak_sessions(account) for account in decade.rap.accounts}
    assert peaks == dict.fromkeys(peaks, 1) | {SUPERSEDED: 2}
    assert [event.account for event in events.of("superseded")] == [SUPERSEDED]


def test_the_ingest_beside_a_renewal_lands_every_report(decade: Decade) -> None:
    due = visits(decade, "due")[INTERRUPTIONS.index(ingest_beside_it)].day
    business_date = trading_day(due.subtract(days=1), -1)
    landed = decade.lake.glob(f"reports/customer=CXYZ/folder=DCASS*/*/business_date={business_date}/*")
    opened = [event.path for event in decade.rap.events.of("open") if event.path.startswith("/download/")]
    assert sorted(path.name for path in landed) == sorted(path.rpartition("/")[2] for path in opened)
    assert opened
    runs = decade.airflow.runs(INGEST)
    tasks = [it for run in runs for it in decade.airflow.task_instances(INGEST, run["dag_run_id"])]
    assert {task["try_number"] for task in tasks if task["state"] == "success"} == {1}


# Leaks.


@pytest.fixture(scope="module")
def secrets(decade: Decade) -> Secrets:
    private_keys = [text for texts in decade.private_keys.values() for text in texts]
    return Secrets(private_keys, PASSPHRASE, "another one")


def test_the_search_covers_every_private_key(decade: Decade, secrets: Secrets) -> None:
    registered = decade.records()[NEW_CUSTOMER].unregistered
    assert registered
    fingerprints = {
        fingerprint for account in decade.rap.accounts for _, fingerprint in uploaded(decade, account)
    }
    assert set(decade.private_keys) == fingerprints | {*decade.first_keys.values(), registered.fingerprint}
    assert len(decade.private_keys) == 4 * 6 + 1
    for texts in decade.private_keys.values():
        for text in texts:
            assert all(
                secrets.is_in(text[at : at + 64].encode()) for at in (len(text) // 2 + 1, len(text) - 105)
            )


@pytest.mark.guide("3.2.2 private keys")
def test_key_material_is_only_in_the_store(decade: Decade, secrets: Secrets) -> None:
    found = dict(contents(decade.home))
    # The logs of all parts and tasks, the database, the lake and the kit.
    assert {"scheduler.log", "api-server.log", "dag-processor.log", "airflow.db", "kit.zip"} <= set(found)
    assert sum(name.startswith(f"logs/dag_id={RENEWAL}/") for name in found) > 4 * 5
    assert any(name.startswith("lake/manifest/") for name in found)
    for table in ("xcom", "rendered_task_instance_fields", "log", "variable", "connection", "asset_event"):
        assert found[f"airflow.db:{table}"]
    assert f"kit.zip:{NEW_CUSTOMER}.pub" in found
    assert leaks(secrets, found.items()) == []


def test_no_key_material_is_shown(decade: Decade, secrets: Secrets) -> None:
    shown = decade.shown | {
        "events": repr(decade.rap.events),
        "uploads": repr([upload.content for upload in decade.rap.uploads]),
        "results": repr(decade.rap.keys.results),
    }
    assert all(shown.values())
    fingerprint = decade.visits[-1].valid[FIRST][0]
    assert fingerprint in shown["status"]
    assert fingerprint in shown["doctor --login"]
    assert leaks(secrets, ((name, text.encode()) for name, text in shown.items())) == []


def test_the_search_finds_planted_key_material(decade: Decade, secrets: Secrets) -> None:
    kept = decade.records()[ENCRYPTED].current
    assert kept
    line = kept.private_key.splitlines()[1][-90:-20]
    planted = {
        "scheduler.log": (decade.home / "scheduler.log").read_bytes() + f"set {line[:45]}".encode(),
        "xcom": json.dumps({"key": [line]}).encode(),
        "passphrase": f"a password of {PASSPHRASE!r}".encode(),
        "clean": kept.fingerprint.encode() + PublicKey.parse(decade.rap.uploads[-1].content.decode()).blob,
    }
    assert leaks(secrets, planted.items()) == ["scheduler.log", "xcom", "passphrase"]
