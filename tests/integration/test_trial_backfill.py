"""A backfill lands the ten days that RAP keeps; later runs land reports that RAP publishes out of order.

It is Friday 22 January 2027, 09:00. RAP keeps the reports since Tuesday the 12th; those of Monday the 11th,
eleven days ago, are gone. The lake is empty.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from subprocess import CompletedProcess
from typing import TYPE_CHECKING, Any

import pendulum
import pytest

from airflow_provider_hkex_rap.rap.calendar import trading_days
from airflow_provider_hkex_rap.rap.clock import HONG_KONG
from airflow_provider_hkex_rap.rap.folders import Folder

from .real_airflow import missing_faketime
from .trial import ACCOUNT, SHARING_ACCOUNTS, Trial, documented, name_of

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.testing._tree import ServedFile

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing_faketime() is not None, reason=str(missing_faketime())),
    pytest.mark.timeout(300),
]

DAILY = "hkex_rap_daily_dcass"
DCASS = (Folder.DCASS, Folder.DCASS_OTHERS)
GONE, FIRST, NINE_DAYS_AGO, LAST = (pendulum.Date(2027, 1, day) for day in (11, 12, 13, 21))
DAYS = [day.isoformat() for day in trading_days(FIRST, LAST)]
ONE_DAY_ACCOUNT, EXPECTING_ACCOUNT = SHARING_ACCOUNTS


def at(day: int, hour: int, minute: int = 0) -> pendulum.DateTime:
    return pendulum.datetime(2027, 1, day, hour, minute, tz=HONG_KONG)


@dataclass
class Backfill:
    """The inputs and results of the backfill.

    :param listed: the reports that RAP listed for the customer CXYZ, each with its business date.
    :param gaps: the results of the command ``gaps`` before and after the backfill.
    :param one_day: the run ids of the DAG one_day, by their day.
    """

    trial: Trial
    listed: list[tuple[str, ServedFile]] = field(default_factory=list)
    gaps: list[CompletedProcess[str]] = field(default_factory=list)
    one_day: dict[str, str] = field(default_factory=dict)


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    with Trial(tmp_path_factory.mktemp("backfill"), at(22, 9)) as trial:
        yield trial


@pytest.fixture(scope="module")
def backfill(trial: Trial) -> Backfill:
    airflow, rap, played = trial.airflow, trial.rap, Backfill(trial)
    published = [
        (day.isoformat(), file)
        for day in trading_days(FIRST, LAST)
        for file in rap.publish_day(day, reports=12)
    ]
    for account in rap.accounts:
        name = f"TP001_{account[1:5]}_20270111.csv"
        rap.put(Folder.DCASS, name, b"gone", at(11, 20), account=account)
    listed = {id(file) for folder in DCASS for file in rap.files(folder, account=ACCOUNT)}
    played.listed = [(day, file) for day, file in published if id(file) in listed]
    assert len(played.listed) == len(listed)
    played.gaps.append(gaps(trial))

    # An outage leaves a failed run behind if Airflow was up.
    failed = airflow.trigger(DAILY, logical_date=f"{NINE_DAYS_AGO}T00:00:00Z")
    airflow.request("PATCH", f"dags/{DAILY}/dagRuns/{failed}", json={"state": "failed"})
    backfill = documented("backfill create")
    assert {DAILY, str(FIRST), str(LAST)} <= set(backfill)
    airflow.run(*backfill)
    since_gone = {"from_date": f"{GONE}T00:00:00Z", "to_date": f"{NINE_DAYS_AGO}T00:00:00Z"}
    airflow.request("POST", "backfills", json={"dag_id": "backfill_expecting", **since_gone})

    # Each of the three DAGs uses its own account.
    airflow.unpause(DAILY, "one_day")
    for day in (GONE, NINE_DAYS_AGO):
        played.one_day[str(day)] = airflow.trigger("one_day", conf={"day": str(day)})
    for run_id in played.one_day.values():
        trial.end_of("one_day", run_id)
    airflow.unpause("backfill_expecting")
    for day in DAYS:
        airflow.wait_for_run(DAILY, day)
    for day in (FIRST, NINE_DAYS_AGO):
        airflow.wait_for_run("backfill_expecting", str(day))
    (gone,) = [run for run in airflow.runs("backfill_expecting") if run["logical_date"].startswith(str(GONE))]
    airflow.wait_for_task("backfill_expecting", gone["dag_run_id"], "failed")
    played.gaps.append(gaps(trial))
    airflow.wait_until_idle()
    airflow.pause("backfill_expecting", "one_day")
    return played


def gaps(trial: Trial) -> CompletedProcess[str]:
    lake = ["--lake", trial.lake.as_uri(), "--customer", "CXYZ", "--folders", *(f.value for f in DCASS)]
    return trial.airflow.command("hkex-rap", "gaps", *lake, "--output", "json")


def landed(trial: Trial, customer: str, since: pendulum.Date, until: pendulum.Date) -> list[dict[str, Any]]:
    bounds = str(since), str(until)
    return [entry for entry in trial.landed(customer) if bounds[0] <= entry["business_date"] <= bounds[1]]


def test_the_runs_are_exactly_the_trading_days(backfill: Backfill) -> None:
    runs = [run for run in backfill.trial.airflow.runs(DAILY) if (run["logical_date"] or "") >= str(FIRST)]
    assert [run["logical_date"] for run in runs] == [f"{day}T00:00:00Z" for day in DAYS]
    assert {(run["run_type"], run["state"]) for run in runs} == {("backfill", "success")}


@pytest.mark.guide("4.1 ten days")
def test_every_report_lands_once_on_its_business_date(backfill: Backfill) -> None:
    assert {day for day, _ in backfill.listed} == set(DAYS)
    entries = [
        entry
        for entry in landed(backfill.trial, "CXYZ", FIRST, LAST)
        if entry["run"].startswith(("backfill", "scheduled"))
    ]
    assert Counter((e["business_date"], name_of(e), e["sha256"]) for e in entries) == Counter(
        (day, file.text, file.sha256) for day, file in backfill.listed
    )


@pytest.mark.guide("4.1 once", "4.3 one login")
def test_no_file_is_fetched_twice_and_logins_never_overlap(backfill: Backfill) -> None:
    trial = backfill.trial
    assert trial.fetched(ACCOUNT) == Counter(file.text for _, file in backfill.listed)
    runs = [run for run in trial.airflow.runs(DAILY) if run["start_date"] >= "2027-01-22"]
    assert len(trial.rap.events.of("login", account=ACCOUNT)) == len(runs)
    assert [trial.rap.events.peak_sessions(account) for account in trial.rap.accounts] == [1, 1, 1]
    assert not trial.rap.events.of("refused", "denied", "missing", "superseded", "lost")


def test_a_run_lands_every_listed_report_and_is_judged_by_its_own_day(backfill: Backfill) -> None:
    trial, dag_id = backfill.trial, "backfill_expecting"
    runs = {run["logical_date"][:10]: run for run in trial.airflow.runs(dag_id)}
    assert list(runs) == [str(GONE), str(FIRST), str(NINE_DAYS_AGO)]
    tasks = {day: trial.airflow.task_instances(dag_id, run["dag_run_id"])[0] for day, run in runs.items()}
    assert {day: (task["state"], task["try_number"]) for day, task in tasks.items()} == {
        str(GONE): ("failed", 1),
        str(FIRST): ("success", 1),
        str(NINE_DAYS_AGO): ("success", 1),
    }
    log = trial.log(dag_id, runs[str(GONE)]["dag_run_id"], "land")
    assert "RapRetentionExpired" in log
    assert f"None of TP001_* of {GONE} is in {Folder.DCASS.path}: its reports left RAP on" in log
    folder = Folder.DCASS
    there = Counter((f.text, f.sha256) for f in trial.rap.files(folder, account=EXPECTING_ACCOUNT))
    entries = landed(trial, "CABC", GONE, LAST)
    assert Counter((name_of(e), e["sha256"]) for e in entries if e["folder"] == folder.value) == there
    assert sum(trial.fetched(account).total() for account in SHARING_ACCOUNTS) == there.total()


def test_a_day_past_the_retention_of_rap_fails_at_once(backfill: Backfill) -> None:
    trial, run_id = backfill.trial, backfill.one_day[str(GONE)]
    tasks = trial.airflow.task_instances("one_day", run_id)
    assert {(ti["task_id"], ti["state"], ti["try_number"]) for ti in tasks} == {
        ("look", "failed", 1),
        ("land", "failed", 1),
    }
    for ti in tasks:
        log = trial.log("one_day", run_id, ti["task_id"])
        assert "RapRetentionExpired" in log
        assert f"of {GONE} is in /download/DCASS: its reports left RAP on 2027-01-22." in log
        assert "past ten calendar days (guide §4.1)" in log
        assert "Ask HKEX for these reports; no later try can fetch them." in log


def test_a_day_that_is_nine_days_old_lands(backfill: Backfill) -> None:
    trial, run_id = backfill.trial, backfill.one_day[str(NINE_DAYS_AGO)]
    assert trial.end_of("one_day", run_id) == "success"
    found = {file["name"] for file in trial.airflow.xcom("one_day", run_id, "look")}
    entries = [entry for entry in trial.landed("CABC") if entry["run"] == run_id]
    assert {entry["business_date"] for entry in entries} == {str(NINE_DAYS_AGO)}
    assert {name_of(entry) for entry in entries} == found != set()
    # Two runs of two tasks, one login each.
    assert len(trial.rap.events.of("login", account=ONE_DAY_ACCOUNT)) == 4


def test_gaps_lists_the_days_that_an_outage_left_missing(backfill: Backfill) -> None:
    before, after = backfill.gaps
    assert (before.returncode, after.returncode) == (1, 0)
    assert (
        f"Trading days with missing reports: {len(DAYS)}, the first {FIRST}. Days left to fetch it, today"
        " included: 1 (§4.1). Trigger the DAG that lands the reports (hkex_rap_daily_dcass, if you use those"
        " of the provider's dags/): a run lands all that RAP lists and the lake lacks;"
    ) in before.stderr
    assert "missing" not in after.stderr
    rows = [
        {(row["business_date"], row["folder"]): row for row in json.loads(said.stdout)}
        for said in (before, after)
    ]
    kept = [(day, folder.value) for day in [*DAYS, "2027-01-22"] for folder in DCASS]
    assert [list(row) for row in rows] == [kept, kept]
    for day, folder in kept:
        # Today's reports may still be published.
        open_until_tonight = day == "2027-01-22"
        missing, awaited = ([], ["any file"]) if open_until_tonight else (["any file"], [])
        nothing, all_of_it = rows[0][day, folder], rows[1][day, folder]
        assert (int(nothing["files"]), nothing["missing"], nothing["awaited"]) == (0, missing, awaited)
        there = [file for d, file in backfill.listed if d == day and file.folder.endswith(f"/{folder}")]
        assert (int(all_of_it["files"]), all_of_it["missing"]) == (len(there), [])
        # After the backfill its usual reports are known, and awaited by their names.
        assert bool(all_of_it["awaited"]) == open_until_tonight
        assert "any file" not in all_of_it["awaited"]


def test_reports_published_out_of_order_land_with_the_next_daily_run(backfill: Backfill) -> None:
    trial = backfill.trial
    trial.rap.publish_day(pendulum.date(2027, 1, 22), reports=12)
    trial.move_to(1, 23, 1, 30)
    trial.airflow.wait_for_run(DAILY, "2027-01-22")
    trial.rap.events.clear()
    reissued = "TP001_CXYZ_20270118.csv"
    (first,) = [entry for entry in trial.landed("CXYZ") if name_of(entry) == reissued]
    put = {
        # Two reports of Saturday, one of them monthly; one dated tomorrow; a correction of a week-old one.
        "WEEKLY_CXYZ_20270123.csv": (b"weekly", at(23, 14)),
        "MONTHLY_CXYZ_202701.csv": (b"monthly", at(23, 15)),
        "MARGIN_CXYZ_20270126.csv": (b"tomorrow", at(25, 20)),
        reissued: (b"corrected", at(25, 20)),
    }
    for name, (content, mtime) in put.items():
        trial.rap.put(Folder.DCASS, name, content, mtime, account=ACCOUNT)
    trial.rap.publish_day(pendulum.date(2027, 1, 25), reports=12)
    trial.move_to(1, 26, 1, 30)
    run = trial.airflow.wait_for_run(DAILY, "2027-01-25")
    trial.airflow.pause(DAILY)
    in_run = {name_of(e): e for e in trial.landed("CXYZ") if e["run"] == run["dag_run_id"]}
    entries = {name: e for name, e in in_run.items() if name in put}
    assert {name: (e["business_date"], e["uri"].rpartition("/")[2]) for name, e in entries.items()} == {
        "WEEKLY_CXYZ_20270123.csv": ("2027-01-23", "WEEKLY_CXYZ_20270123.csv"),
        "MONTHLY_CXYZ_202701.csv": ("2027-01-23", "MONTHLY_CXYZ_202701.csv"),
        "MARGIN_CXYZ_20270126.csv": ("2027-01-26", "MARGIN_CXYZ_20270126.csv"),
        reissued: ("2027-01-18", reissued.replace(".csv", ".v2.csv")),
    }
    assert entries[reissued]["supersedes"] == first["uri"]
    assert {e["supersedes"] for name, e in entries.items() if name != reissued} == {None}
    assert {name: trial.fetched(ACCOUNT)[name] for name in put} == dict.fromkeys(put, 1)
    assert len(trial.rap.events.of("login", account=ACCOUNT)) == 1
