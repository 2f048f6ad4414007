"""The DAGs of dags/ under a real scheduler, around a week with a holiday and a Saturday.

The simulator enforces its service hours and records every request. The week is played once, from Wednesday
30 December 2026, 03:00, to Monday 4 January; Friday 1 January is not a trading day.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pendulum
import pytest

from airflow_provider_hkex_rap.rap.clock import HONG_KONG
from airflow_provider_hkex_rap.rap.folders import Folder, Service
from airflow_provider_hkex_rap.rap.service_hours import is_open
from airflow_provider_hkex_rap.testing.reports import generate_day

from .real_airflow import missing_faketime
from .trial import ACCOUNT, SHARING_ACCOUNTS, Trial, documented, name_of

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.testing._tree import ServedFile

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing_faketime() is not None, reason=str(missing_faketime())),
    pytest.mark.timeout(400),
]

START = pendulum.datetime(2026, 12, 30, 3, tz=HONG_KONG)

_REPORTS = 12
"""Reports a day for each customer: one of each kind."""

DCASS, CCMS = "hkex_rap_daily_dcass", "hkex_rap_daily_ccms"


class Week:
    """The reports published, by business date, and the runs that started while RAP was shut."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.published: dict[str, list[ServedFile]] = {}
        self.waited: list[str] = []

    def publish(self, day: pendulum.Date) -> None:
        self.trial.rap.publish_day(day, reports=_REPORTS)
        self.published[day.isoformat()] = list(generate_day(day, "CXYZ", reports=_REPORTS))

    def publish_on_saturday(self, name: str) -> None:
        file = self.trial.rap.put(Folder.HKCC_SEOCH_CCMS_GLOB, name, 5_000, account=ACCOUNT)
        self.published["2027-01-02"] = [file]

    def wait_for_opening(self, dag_id: str, run_id: str) -> None:
        """Wait until a run's task has been rescheduled because RAP is shut."""
        task = self.trial.airflow.wait_for_task(dag_id, run_id, "up_for_reschedule")
        assert task["try_number"] == 1
        self.waited.append(f"{dag_id} {run_id}")


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    with Trial(tmp_path_factory.mktemp("week"), START) as trial:
        yield trial


@pytest.fixture(scope="module")
def week(trial: Trial) -> Week:
    airflow, rap, week = trial.airflow, trial.rap, Week(trial)

    def run_id(dag_id: str, day: str) -> str:
        return str(airflow.wait_for_run(dag_id, day, "running")["dag_run_id"])

    # Wednesday 03:00: CCMS has been shut since midnight, DCASS stays open until 03:30.
    week.publish(pendulum.Date(2026, 12, 29))
    airflow.unpause(CCMS, DCASS)
    week.wait_for_opening(CCMS, run_id(CCMS, "2026-12-29"))
    airflow.wait_for_run(DCASS, "2026-12-29")
    trial.move_to(12, 30, 7, 20)
    airflow.wait_for_run(CCMS, "2026-12-29")

    week.publish(pendulum.Date(2026, 12, 30))
    trial.move_to(12, 30, 23, 30)
    airflow.wait_for_run(CCMS, "2026-12-30")

    # Thursday 05:00: the run of 01:30 starts late, while RAP is shut.
    trial.move_to(12, 31, 5)
    week.wait_for_opening(DCASS, run_id(DCASS, "2026-12-30"))
    trial.move_to(12, 31, 7, 5)
    airflow.wait_for_run(DCASS, "2026-12-30")

    # Thursday night: RAP cannot be reached until 02:00.
    week.publish(pendulum.Date(2026, 12, 31))
    rap.stop()
    trial.move_to(12, 31, 23, 30)
    airflow.wait_for_task(CCMS, run_id(CCMS, "2026-12-31"), "up_for_retry")
    trial.move_to(1, 1, 1, 30)
    airflow.wait_for_task(DCASS, run_id(DCASS, "2026-12-31"), "up_for_retry")
    airflow.wait_for_task(CCMS, run_id(CCMS, "2026-12-31"), "up_for_reschedule")
    rap.start()
    trial.move_to(1, 1, 2)
    airflow.wait_for_run(DCASS, "2026-12-31")

    # Saturday: CCMS opens and the run of Thursday succeeds; Saturday's own run is at 12:30.
    trial.move_to(1, 2, 7, 20)
    airflow.wait_for_run(CCMS, "2026-12-31")
    week.publish_on_saturday("CCMS_SATURDAY_CXYZ_20270102.csv")
    trial.move_to(1, 2, 12, 30)
    airflow.wait_for_run(CCMS, "2027-01-02")

    # Sunday: a user triggers a run by hand.
    trial.move_to(1, 3, 12)
    by_hand = airflow.trigger(DCASS)
    week.wait_for_opening(DCASS, by_hand)
    trial.move_to(1, 4, 7, 5)
    airflow.wait_for_task(DCASS, by_hand, "success")

    airflow.wait_until_idle()
    airflow.pause(CCMS, DCASS)
    return week


def days(trial: Trial, dag_id: str) -> list[str]:
    """Return the logical dates of a DAG's runs, all of which are midnight UTC."""
    dates = [run["logical_date"] for run in trial.airflow.runs(dag_id) if run["logical_date"]]
    assert all(date.endswith("T00:00:00Z") for date in dates)
    return [date[:10] for date in dates]


def test_each_trading_day_has_one_run_and_needs_no_manual_step(week: Week) -> None:
    airflow = week.trial.airflow
    assert days(week.trial, DCASS) == ["2026-12-29", "2026-12-30", "2026-12-31"]
    assert days(week.trial, CCMS) == ["2026-12-29", "2026-12-30", "2026-12-31", "2027-01-02"]
    assert {run["state"] for dag_id in (DCASS, CCMS) for run in airflow.runs(dag_id)} == {"success"}
    for run in airflow.runs(DCASS)[:3]:
        assert run["data_interval_start"] == run["logical_date"]
        end = pendulum.parse(run["data_interval_end"])
        assert end == pendulum.parse(run["logical_date"]).add(days=1)


def test_every_report_lands_once_on_its_business_date(week: Week) -> None:
    published = Counter(
        (day, file.text, file.sha256) for day, files in week.published.items() for file in files
    )
    landed = Counter(
        (entry["business_date"], name_of(entry), entry["sha256"]) for entry in week.trial.landed("CXYZ")
    )
    assert landed == published
    assert set(published.values()) == {1}


@pytest.mark.guide("4.1 once", "4.3 one login")
def test_every_report_is_opened_once_and_logins_never_overlap(week: Week) -> None:
    events = week.trial.rap.events
    published = [file for files in week.published.values() for file in files]
    assert Counter(event.path for event in events.of("open", account=ACCOUNT)) == Counter(
        file.path.decode() for file in published
    )
    assert events.peak_sessions(ACCOUNT) == 1
    # Three days of DCASS, three and a Saturday of CCMS, and one run by hand.
    assert len(events.of("login", account=ACCOUNT)) == 8


@pytest.mark.guide("4.1 hours")
def test_no_task_connects_while_rap_is_shut(week: Week) -> None:
    events = week.trial.rap.events
    assert not events.of("refused", "denied", "missing")
    assert all(any(is_open([service], event.at) for service in Service) for event in events.of("connect"))
    assert len(week.waited) == 3


def test_waiting_for_the_opening_uses_no_try_and_an_outage_uses_one(week: Week) -> None:
    airflow = week.trial.airflow
    tries = {
        (dag_id, run["logical_date"]): airflow.task_instances(dag_id, run["dag_run_id"])[0]["try_number"]
        for dag_id in (DCASS, CCMS)
        for run in airflow.runs(dag_id)
    }
    outage = {(DCASS, "2026-12-31T00:00:00Z"): 2, (CCMS, "2026-12-31T00:00:00Z"): 2}
    assert tries == dict.fromkeys(tries, 1) | outage


def test_catch_up_and_backfill_make_the_same_days(week: Week) -> None:
    trial = week.trial
    trial.move_to(1, 5, 9)
    expected = {
        # Christmas and Boxing Day are public holidays; derivatives trade on them if they are weekdays.
        "dcass": "12-24 12-25 12-28 12-29 12-30 12-31 01-04",
        "ccms": "12-24 12-25 12-28 12-29 12-30 12-31 01-02 01-04",
        "securities": "12-24 12-28 12-29 12-30 12-31 01-04",
    }
    wanted = {
        name: [f"{2026 if date.startswith('12') else 2027}-{date}" for date in dates.split()]
        for name, dates in expected.items()
    }
    trial.airflow.unpause(*(f"catch_up_{name}" for name in wanted))
    for name, dates in wanted.items():
        trial.airflow.wait_for_run(f"catch_up_{name}", dates[-1])
        # The next day has begun, but its run is not due yet.
        assert days(trial, f"catch_up_{name}") == dates
    bounds = ["--from-date", "2026-12-24", "--to-date", "2027-01-04"]
    for name in ("dcass", "ccms"):
        trial.airflow.wait_until_idle()
        trial.airflow.run("backfill", "create", "--dag-id", f"backfill_{name}", *bounds)
        assert days(trial, f"backfill_{name}") == wanted[name]
        assert {run["run_type"] for run in trial.airflow.runs(f"backfill_{name}")} == {"backfill"}


def test_two_accounts_share_a_backfill(week: Week) -> None:
    trial = week.trial
    trial.airflow.unpause("hkex_rap_backfill")
    trial.airflow.run(*documented("dags trigger"))
    (run,) = trial.airflow.runs("hkex_rap_backfill")
    trial.end_of("hkex_rap_backfill", run["dag_run_id"])
    # Two accounts share three days.
    assert len(trial.airflow.task_instances("hkex_rap_backfill", run["dag_run_id"])) == 2 + 3
    account = SHARING_ACCOUNTS[0]
    reports = [file for folder in Folder for file in trial.rap.files(folder, account=account)]
    landed = Counter((name_of(entry), entry["sha256"]) for entry in trial.landed("CABC"))
    assert landed == Counter((file.text, file.sha256) for file in reports)
    events = trial.rap.events
    opened = [event.path for account in SHARING_ACCOUNTS for event in events.of("open", account=account)]
    assert Counter(opened) == Counter(file.path.decode() for file in reports)
    assert [len(events.of("login", account=account)) for account in SHARING_ACCOUNTS] == [2, 1]
    assert [events.peak_sessions(account) for account in SHARING_ACCOUNTS] == [1, 1]
