"""The report sensor under a real scheduler: reports that come late, twice or never, and a shut RAP.

It starts on Thursday 28 January 2027 at 18:00 and goes on through the night and the weekend.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pendulum
import pytest

from airflow_provider_hkex_rap.rap.clock import HONG_KONG
from airflow_provider_hkex_rap.rap.folders import Folder

from .real_airflow import missing_faketime
from .trial import ACCOUNT, SHARING_ACCOUNTS, Trial, name_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing_faketime() is not None, reason=str(missing_faketime())),
    pytest.mark.timeout(300),
]

ACCOUNTS = {"wait_late": ACCOUNT, "wait_twice": SHARING_ACCOUNTS[0], "wait_never": SHARING_ACCOUNTS[1]}
SHUT = "wait_shut"
LATE, EARLY = "LATE_CXYZ_20270128.csv", "EARLY_CXYZ_20270128.csv"
FIRST, SECOND = "FIRST_CABC_20270128.csv", "SECOND_CABC_20270128.csv"
EVENING = pendulum.datetime(2027, 1, 28, 18, tz=HONG_KONG)


@dataclass
class Evening:
    """The runs of the evening.

    :param runs: the run id of each DAG.
    :param states: by DAG, the state of its sensor after each poke.
    """

    trial: Trial
    runs: dict[str, str] = field(default_factory=dict)
    states: dict[str, list[str]] = field(default_factory=dict)

    def wait(self, dag_id: str) -> dict[str, Any]:
        tasks = self.trial.airflow.task_instances(dag_id, self.runs[dag_id])
        return next(ti for ti in tasks if ti["task_id"] == "wait")


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    with Trial(tmp_path_factory.mktemp("report_sensor"), EVENING) as trial:
        yield trial


@pytest.fixture(scope="module")
def evening(trial: Trial) -> Evening:
    airflow, played = trial.airflow, Evening(trial, states={dag_id: [] for dag_id in ACCOUNTS})

    def put(name: str, content: bytes, minutes: float) -> None:
        account = ACCOUNT if "CXYZ" in name else SHARING_ACCOUNTS[0]
        trial.rap.put(Folder.DCASS, name, content, EVENING.add(seconds=round(minutes * 60)), account=account)

    def wait_for_poke(number: int) -> None:
        """Wait until each sensor that still waits has ended its next poke."""
        for dag_id, account in ACCOUNTS.items():
            if played.states[dag_id][-1:] in (["success"], ["failed"]):
                continue
            trial.rap.events.wait_for("list", number, 60, account=account)
        airflow.wait_until_idle()
        for dag_id, states in played.states.items():
            states.append(played.wait(dag_id)["state"])

    airflow.unpause(*ACCOUNTS)
    put(FIRST, b"first", -30)
    played.runs |= {dag_id: airflow.trigger(dag_id) for dag_id in ACCOUNTS}
    wait_for_poke(1)
    put(FIRST, b"first, again", 10)
    put(SECOND, b"second", 5)
    trial.move_to(1, 28, 18, 10)
    wait_for_poke(2)
    put(LATE, b"half", 20)
    trial.move_to(1, 28, 18, 20)
    wait_for_poke(3)
    put(LATE, b"half and half", 20.5)
    trial.move_to(1, 28, 18, 30)
    wait_for_poke(4)
    for dag_id in ("wait_late", "wait_twice"):
        assert trial.end_of(dag_id, played.runs[dag_id]) == "success"
    airflow.wait_until_idle()
    airflow.pause(*ACCOUNTS)
    return played


def test_each_sensor_waits_until_all_its_reports_are_complete(evening: Evening) -> None:
    waiting = ["up_for_reschedule"] * 4
    assert evening.states == {
        # Twice nothing, then half of the file, then all of it.
        "wait_late": [*waiting[:3], "success"],
        # One of the two reports; then both, the first too fresh; then both.
        "wait_twice": [*waiting[:2], "success", "success"],
        "wait_never": [*waiting[:3], "failed"],
    }
    log = evening.trial.log("wait_late", evening.runs["wait_late"], "wait")
    for said in (
        "Still waiting in /download/DCASS for 2027-01-28: LATE_* (0 of 1).",
        "Still waiting in /download/DCASS for 2027-01-28: LATE_* (0 of 1). 1 files of that day are too fresh",
    ):
        assert said in log
    log = evening.trial.log("wait_twice", evening.runs["wait_twice"], "wait")
    for said in ("SECOND_* (0 of 1).", "FIRST_* (0 of 1). 1 files"):
        assert said in log


def test_a_poke_is_one_login_and_one_listing_and_uses_no_try(evening: Evening) -> None:
    events = evening.trial.rap.events
    pokes = {dag_id: len(states) for dag_id, states in evening.states.items()}
    pokes["wait_twice"] -= 1
    for dag_id, account in ACCOUNTS.items():
        landings = dag_id != "wait_never"
        assert len(events.of("login", account=account)) == pokes[dag_id] + landings
        assert len(events.of("list", account=account)) == pokes[dag_id] + landings
        assert events.peak_sessions(account) == 1
        assert evening.wait(dag_id)["try_number"] == 1


def test_the_awaited_reports_land_once_and_complete(evening: Evening) -> None:
    trial = evening.trial
    for customer, dag_id, contents in (
        ("CXYZ", "wait_late", {LATE: b"half and half"}),
        ("CABC", "wait_twice", {FIRST: b"first, again", SECOND: b"second"}),
    ):
        entries = [
            e for e in trial.landed(customer) if e["run"] == evening.runs[dag_id] and e["dag"] == dag_id
        ]
        assert Counter(name_of(e) for e in entries) == Counter(list(contents))
        assert {e["business_date"] for e in entries} == {"2027-01-28"}
        assert trial.fetched(ACCOUNTS[dag_id]) == Counter(list(contents))
        for entry in entries:
            assert Path(entry["uri"].removeprefix("file://")).read_bytes() == contents[name_of(entry)]
        found = trial.airflow.xcom(dag_id, evening.runs[dag_id], "wait")
        assert {file["name"]: file["size"] for file in found} == {n: len(c) for n, c in contents.items()}


def test_a_report_that_never_comes_is_named_when_the_sensor_times_out(evening: Evening) -> None:
    run_id = evening.runs["wait_never"]
    log = evening.trial.log("wait_never", run_id, "wait")
    assert "AirflowSensorTimeout" in log
    assert "Sensor has timed out" in log
    assert (
        "Still waiting in /download/DCASS for 2027-01-28: NEVER_* (0 of 1)" in log.rpartition("timed out")[2]
    )
    tasks = evening.trial.airflow.task_instances("wait_never", run_id)
    assert {ti["task_id"]: ti["state"] for ti in tasks} == {"wait": "failed", "land": "upstream_failed"}


def test_the_sensor_waits_without_a_login_while_rap_is_shut_and_pokes_after_the_opening(
    evening: Evening,
) -> None:
    trial, airflow = evening.trial, evening.trial.airflow

    def try_at(day: int, hour: int, minute: int = 0, **conf: str) -> str:
        trial.move_to(1, day, hour, minute)
        run_id = airflow.trigger(SHUT, conf=conf)
        airflow.wait_for_task(SHUT, run_id, "up_for_reschedule")
        return run_id

    trial.move_to(1, 29, 3, 20)
    trial.rap.put(Folder.DCASS, EARLY, b"early", EVENING, account=ACCOUNT)
    trial.rap.events.clear()
    airflow.unpause(SHUT)
    # Both runs belong to Thursday; one waits for a report of Wednesday, which has none.
    at_once = try_at(29, 3, 40)
    in_vain = try_at(29, 5, business_date="2027-01-27")
    assert not trial.rap.events
    trial.move_to(1, 29, 7, 1)
    assert trial.end_of(SHUT, at_once) == "success"
    assert trial.end_of(SHUT, in_vain) == "failed"
    # Its timeout of one minute passed while RAP was shut; it pokes once and names the missing report.
    log = trial.log(SHUT, in_vain, "wait")
    assert "RAP is closed until Fri 2027-01-29 07:00 HKT." in log
    assert (
        "Still waiting in /download/DCASS for 2027-01-27: EARLY_* (0 of 1)" in log.rpartition("timed out")[2]
    )
    assert len(trial.rap.events.of("login")) == 3

    trial.rap.put(Folder.DCASS, "EARLY_CXYZ_20270129.csv", b"friday", EVENING.add(days=1), account=ACCOUNT)
    trial.rap.events.clear()
    sunday = try_at(31, 12)
    assert not trial.rap.events
    trial.move_to(2, 1, 7, 1)
    assert trial.end_of(SHUT, sunday) == "success"
    airflow.pause(SHUT)
    assert [file["name"] for file in airflow.xcom(SHUT, sunday, "wait")] == ["EARLY_CXYZ_20270129.csv"]
    assert len(trial.rap.events.of("login")) == 2
    assert not trial.rap.events.of("refused", "denied", "missing")
    tries = [ti["try_number"] for ti in airflow.task_instances(SHUT) if ti["task_id"] == "wait"]
    assert tries == [1, 1, 1]
