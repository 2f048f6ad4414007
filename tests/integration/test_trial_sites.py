"""Under a real scheduler, HKEX moves RAP to its other site, and two customers download side by side.

It starts on Wednesday 3 February 2027 at 20:00; the two customers download in the night after Thursday.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pendulum
import pytest

from airflow_provider_hkex_rap.rap.clock import HONG_KONG
from airflow_provider_hkex_rap.rap.folders import Folder
from airflow_provider_hkex_rap.testing import Fault, RapSimulator

from .real_airflow import missing_faketime
from .trial import ACCOUNT, SHARING_ACCOUNTS, Trial, name_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing_faketime() is not None, reason=str(missing_faketime())),
    pytest.mark.timeout(300),
]

CONNECTION, SITES = "hkex_rap_sites", "over_sites"
MOVING_ACCOUNT = "DCDEF001"
EVENING = pendulum.datetime(2027, 2, 3, 20, tz=HONG_KONG)
THURSDAY = pendulum.Date(2027, 2, 4)


def name(number: int) -> str:
    return f"TP{number:03}_CDEF_20270203.csv"


@dataclass
class Move:
    """The move from the primary to the secondary site.

    :param runs: the run ids, oldest first.
    :param shown: the connection's extra as the REST API showed it before the change.
    """

    trial: Trial
    primary: RapSimulator
    secondary: RapSimulator
    runs: list[str] = field(default_factory=list)
    shown: dict[str, Any] = field(default_factory=dict)

    def publish(self, *numbers: int) -> None:
        """Publish reports; the copies on the secondary site are 37 s younger."""
        for site, delay in ((self.primary, 0), (self.secondary, 37)):
            for number in numbers:
                mtime = EVENING.subtract(hours=1).add(seconds=delay)
                site.put(Folder.DCASS, name(number), f"report {number}".encode(), mtime)

    def trigger(self) -> str:
        self.runs.append(self.trial.airflow.trigger(SITES))
        return self.runs[-1]

    def finish(self) -> None:
        assert self.trial.end_of(SITES, self.runs[-1]) == "success"

    def switch(self) -> None:
        """Set the connection's site as the form does: it shows masked secrets and sends them back masked."""
        path = f"connections/{CONNECTION}"
        shown = self.trial.airflow.request("GET", path)
        self.shown = json.loads(shown["extra"])
        extra = json.dumps(self.shown | {"site": "secondary"})
        body = {"connection_id": CONNECTION, "conn_type": "hkex_rap", "extra": extra}
        self.trial.airflow.request("PATCH", path, json=body, update_mask="extra")


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    with Trial(tmp_path_factory.mktemp("sites"), EVENING) as trial:
        yield trial


@pytest.fixture(scope="module")
def move(trial: Trial) -> Iterator[Move]:
    sites = [RapSimulator((MOVING_ACCOUNT,), EVENING, name=site) for site in ("primary", "secondary")]
    with sites[0] as primary, sites[1] as secondary:
        played = Move(trial, primary, secondary)
        connection = primary.connection(MOVING_ACCOUNT)
        connection["extra"] |= {
            "host_key": f"{primary.host_key}\n{secondary.host_key}",
            "secondary_hosts": f"{secondary.host}:{secondary.port}",
        }
        extra = json.dumps(connection.pop("extra"))
        trial.airflow.request(
            "POST", "connections", json=connection | {"connection_id": CONNECTION, "extra": extra}
        )
        trial.airflow.unpause(SITES)
        played.publish(1, 2, 3)
        held = primary.faults.add(Fault("stall", path=f"*/{name(2)}"))
        played.trigger()
        primary.events.wait_for("fault", timeout=60)
        played.switch()
        played.publish(4)
        primary.faults.release(held)
        played.finish()
        for _ in range(2):
            played.trigger()
            played.finish()
        trial.airflow.pause(SITES)
        yield played


@pytest.mark.guide("2.2 sites")
def test_a_running_task_finishes_on_its_site_and_the_next_login_goes_to_the_other(move: Move) -> None:
    kinds = ("login", "open", "logout", "refused", "denied", "missing", "superseded", "lost")
    on = {site: site.events.of(*kinds) for site in (move.primary, move.secondary)}
    assert Counter(event.kind for event in on[move.primary]) == {"login": 1, "open": 3, "logout": 1}
    assert Counter(event.kind for event in on[move.secondary]) == {"login": 2, "open": 4, "logout": 2}
    assert move.primary.events.of("logout")[0].at < move.secondary.events.of("login")[0].at


def test_no_file_lands_twice_although_its_mtime_differs_between_the_sites(move: Move) -> None:
    entries = list(move.trial.landed("CDEF"))
    assert Counter((name_of(e), e["site"], e["run"], e["supersedes"]) for e in entries) == Counter(
        [(name(number), "primary", move.runs[0], None) for number in (1, 2, 3)]
        + [(name(4), "secondary", move.runs[1], None)]
    )
    landed = [path.name for path in move.trial.lake.glob("reports/customer=CDEF/**/*.csv*")]
    assert sorted(landed) == [name(number) for number in (1, 2, 3, 4)]
    summaries = [move.trial.airflow.xcom(SITES, run_id, "land") for run_id in move.runs]
    # The third run reads no file again: the ledger has the mtimes of both sites.
    assert [(s["landed"], s["already"]) for s in summaries] == [(3, 0), (1, 3), (0, 4)]


def test_the_form_that_changes_the_site_shows_no_key_and_keeps_it(move: Move) -> None:
    assert move.shown["private_key"] == "***"
    assert move.secondary.events.of("login", account=MOVING_ACCOUNT)
    key = move.primary.private_key(MOVING_ACCOUNT).splitlines()[1]
    for path in move.trial.airflow.home.glob(f"logs/dag_id={SITES}/**/*.log"):
        assert key not in path.read_text()


def test_two_customers_on_one_airflow_download_side_by_side(trial: Trial) -> None:
    airflow, rap = trial.airflow, trial.rap
    customers = {"xyz": ("CXYZ", ACCOUNT), "abc": ("CABC", SHARING_ACCOUNTS[0])}
    trial.move_to(2, 5, 1, 30)
    published = {id(file) for file in rap.publish_day(THURSDAY, reports=12)}
    rap.events.clear()
    # Each stalls in a transfer until both are logged in: neither pool nor lock may serialize them.
    for _, account in customers.values():
        rap.faults.add(Fault("stall", account=account))
    airflow.unpause(*(f"daily_{dag}" for dag in customers))
    try:
        rap.events.wait_for("fault", 2, timeout=60)
        assert not rap.events.of("logout")
    finally:
        rap.faults.clear()
    for dag, (customer, account) in customers.items():
        run = airflow.wait_for_run(f"daily_{dag}", str(THURSDAY))
        entries = [e for e in trial.landed(customer) if e["dag"] == f"daily_{dag}"]
        assert {(e["run"], e["account"]) for e in entries} == {(run["dag_run_id"], account)}
        assert all(f"/customer={customer}/" in e["uri"] for e in entries)
        thursdays = [
            file
            for folder in (Folder.DCASS, Folder.DCASS_OTHERS)
            for file in rap.files(folder, account=account)
            if id(file) in published
        ]
        assert Counter((name_of(e), e["sha256"]) for e in entries if e["business_date"] == str(THURSDAY)) == (
            Counter((file.text, file.sha256) for file in thursdays)
        )
        assert rap.events.peak_sessions(account) == len(rap.events.of("login", account=account)) == 1
    assert not rap.events.of("refused", "denied", "missing", "superseded", "lost")
    # Both customers have reports of the same name, which must not count as one report.
    both = [
        {name_of(e) for e in trial.landed(customer) if e["dag"] == f"daily_{dag}"}
        for dag, (customer, _) in customers.items()
    ]
    assert both[0] & both[1]
    airflow.pause(*(f"daily_{dag}" for dag in customers))
