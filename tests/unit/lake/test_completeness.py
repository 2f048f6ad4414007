"""What a run judges: its own day, and the days that an outage left unjudged."""

from __future__ import annotations

import random
from datetime import date, timedelta
from types import SimpleNamespace
from typing import Any

import pendulum
import pytest

from airflow_provider_hkex_rap.lake.completeness import Completeness, Scope
from airflow_provider_hkex_rap.rap.errors import RapReportMissing, RapRetentionExpired
from airflow_provider_hkex_rap.rap.files import RemoteFile
from airflow_provider_hkex_rap.rap.folders import Folder
from airflow_provider_hkex_rap.rap.judgement import is_ordinary
from airflow_provider_hkex_rap.rap.report_name import Naming, ReportName

ACCOUNT, OTHER = "DCXYZ001", "DCXYZ002"
SCOPE = Scope(account=ACCOUNT, folders=(Folder.DCASS,))
DAYS = [date(2026, 11, day) for day in (9, 10, 11, 12, 13, 16, 17, 18, 19, 20)]
FRIDAY = DAYS[-1]


def mtime(day: date, hour: float = 19.5) -> int:
    return int(pendulum.datetime(day.year, day.month, day.day, tz="Asia/Hong_Kong").timestamp() + hour * 3600)


def night_after(day: date) -> pendulum.DateTime:
    """Return 01:30 of the night after a business date, when the daily DAG runs."""
    return pendulum.from_timestamp(mtime(day, 25.5), "Asia/Hong_Kong")


def file(code: str, day: date) -> RemoteFile:
    return RemoteFile(Folder.DCASS, f"{code}_{day:%Y%m%d}.csv".encode(), 10, mtime(day))


def entry(code: str, day: date, account: str = ACCOUNT) -> Any:
    text = f"{code}_{day:%Y%m%d}.csv"
    first_seen = pendulum.from_timestamp(mtime(day)).isoformat()
    return SimpleNamespace(
        uri=f"lake/{text}",
        folder="DCASS",
        text=text,
        mtime=mtime(day),
        account=account,
        first_seen=first_seen,
        business_date_rule="name",
    )


class RememberedNaming(Naming):
    """Read each name once, since a year lists each file on many days.

    Each file has an mtime, so the time at which it was first seen makes no difference.
    """

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[tuple[str, int], ReportName] = {}

    def read(self, name: str, mtime: int | None, first_seen: pendulum.DateTime) -> ReportName:
        assert mtime is not None
        if (name, mtime) not in self._known:
            self._known[name, mtime] = super().read(name, mtime, first_seen)
        return self._known[name, mtime]


def completeness(
    entries: list[Any],
    listed: list[RemoteFile],
    *,
    scope: Scope = SCOPE,
    now: pendulum.DateTime | None = None,
    naming: Naming | None = None,
) -> Completeness:
    return Completeness(scope, entries, listed, naming or Naming(), now or night_after(FRIDAY))


def test_the_first_run_judges_by_the_listing_alone() -> None:
    listed = [
        file(code, day) for code in ("TP001", "RPI03") for day in DAYS if (code, day) != ("RPI03", FRIDAY)
    ]
    landed = [entry("TP001", FRIDAY)]
    judged = completeness(landed, listed)
    verdict = judged.judge(FRIDAY)
    error = judged.error(FRIDAY, [verdict])
    assert isinstance(error, RapReportMissing)
    assert error.missing == ("RPI03 in DCASS",)
    assert "2026-11-19" in str(error)
    assert "19:30" in str(error)


def test_after_an_outage_the_ledger_tells_which_reports_are_usual() -> None:
    entries = [entry(code, day) for code in ("TP001", "RPI03") for day in DAYS[:5]]
    verdict = completeness([*entries, entry("TP001", FRIDAY)], [file("TP001", FRIDAY)]).judge(FRIDAY)
    assert [missing.description for missing in verdict.missing] == ["RPI03 in DCASS"]


def test_what_another_account_landed_is_in_the_lake_and_not_in_the_baseline() -> None:
    entries = [entry("TP001", day) for day in DAYS] + [entry("RPI03", day, OTHER) for day in DAYS[:-1]]
    assert not completeness(entries, []).judge(FRIDAY).missing
    own = [entry("RPI03", day) for day in DAYS[:-1]]
    both = [*entries, *own, entry("RPI03", FRIDAY, OTHER)]
    assert not completeness(both, []).judge(FRIDAY).missing


@pytest.mark.parametrize("mtime_of_rap", [None, 2**32 - 1])
def test_an_entry_without_a_valid_mtime_belongs_to_the_day_on_which_it_was_seen(
    mtime_of_rap: int | None,
) -> None:
    entries = [entry("TP001", day) for day in DAYS]
    for each in entries:
        each.text, each.mtime = "TP001.csv", mtime_of_rap
    judged = completeness(entries[:-1], [])
    assert not judged.landed(FRIDAY)
    (missing,) = [missing for missing in judged.judge(FRIDAY).missing if missing.report]
    assert missing.usual_time is None


def test_names_outside_the_scope_do_not_count() -> None:
    scope = Scope(account=ACCOUNT, folders=(Folder.DCASS,), include=("TP*",), exclude=("TP9*",))
    entries = [entry(code, day) for code in ("TP001", "TP900", "RPI03") for day in DAYS[:-1]]
    verdict = completeness([*entries, entry("TP001", FRIDAY)], [], scope=scope).judge(FRIDAY)
    assert [report.code for report in verdict.expected] == ["TP001"]
    assert not verdict.missing


def mark(*days: date, run: str = "earlier", scope: Scope = SCOPE) -> dict[str, Any]:
    return {"scope": scope.key, "run": run, "days": [day.isoformat() for day in days]}


def test_the_days_of_an_outage_are_judged_once() -> None:
    judged = completeness([], [])
    marks = [mark(DAYS[3]), mark(DAYS[8], scope=Scope(account=OTHER, folders=(Folder.DCASS,)))]
    unjudged = judged.unjudged_days(FRIDAY, marks, "now")
    assert unjudged == [DAYS[4], DAYS[5], DAYS[6], DAYS[7], DAYS[8]]
    # A later try of the same run judges them again; the next run does not.
    marks.append(mark(*unjudged, FRIDAY, run="now"))
    assert judged.unjudged_days(FRIDAY, marks, "now") == unjudged
    assert judged.unjudged_days(FRIDAY, marks, "next") == []


def test_days_before_the_first_judged_one_are_none_of_ours() -> None:
    assert completeness([], []).unjudged_days(FRIDAY, [], "first") == []


def test_days_that_rap_may_no_longer_list_whole_are_not_judged_late() -> None:
    long_ago = [mark(FRIDAY - timedelta(days=40))]
    unjudged = completeness([], []).unjudged_days(FRIDAY, long_ago, "now")
    assert unjudged[0] == date(2026, 11, 12)


def test_an_unjudged_day_that_lacks_a_report_is_named_beside_the_runs_own() -> None:
    hole = {("RPI03", DAYS[7])}
    entries = [entry(c, d) for c in ("TP001", "RPI03") for d in DAYS if (c, d) not in hole]
    judged = completeness(entries, [])
    error = judged.error(FRIDAY, [judged.judge(FRIDAY), judged.judge(DAYS[7])])
    assert isinstance(error, RapReportMissing)
    assert error.business_date == "2026-11-20"
    assert error.__dict__["days"] == ("2026-11-18",)
    assert "for 2026-11-18 (which no run had judged): RPI03 in DCASS" in str(error)


@pytest.mark.parametrize(("days_later", "whole"), [(10, True), (11, False)])
def test_a_day_that_rap_no_longer_lists_whole_has_left_it(days_later: int, whole: bool) -> None:
    day = DAYS[4]
    now = night_after(day + timedelta(days=days_later - 1))
    listed = [file("TP001", day)]
    judged = completeness([entry("TP001", day)], listed, now=now)
    error = judged.error(day, [judged.judge(day)])
    assert isinstance(error, RapRetentionExpired) == (not whole)


def test_a_day_that_has_left_rap_is_complete_if_the_ledger_has_its_usual_reports() -> None:
    now = night_after(FRIDAY + timedelta(days=14))
    judged = completeness([entry("TP001", day) for day in DAYS], [], now=now)
    assert judged.error(FRIDAY, [judged.judge(FRIDAY)]) is None


@pytest.mark.parametrize("seed", range(12))
def test_a_year_with_outages_and_missing_reports(seed: int) -> None:
    """Each missing report is an error on its day or after the outage; no day is blamed falsely."""
    chance = random.Random(seed)
    codes = [f"R{number:03}" for number in range(6)]
    year = [date(2026, 1, 1) + timedelta(days=number) for number in range(1, 365)]
    days = [day for day in year if day.isoweekday() <= 5]
    published: dict[date, list[str]] = {}
    failed: dict[date, set[str]] = {}
    for day in days:
        failed[day] = {code for code in codes if is_ordinary(day) and chance.random() < 0.003}
        published[day] = [code for code in codes if code not in failed[day]]
    entries: list[Any] = []
    marks: list[dict[str, Any]] = []
    found: set[tuple[date, str]] = set()
    outage_ends = date.min
    naming = RememberedNaming()
    for day in days:
        if day <= outage_ends:
            continue
        if chance.random() < 0.03:
            outage_ends = day + timedelta(days=chance.randrange(0, 9))
            continue
        now = night_after(day)
        today = day + timedelta(days=1)
        listed = [
            file(code, seen) for seen in days if 0 <= (today - seen).days <= 10 for code in published[seen]
        ]
        have = {(landed.text, landed.mtime) for landed in entries}
        entries += [
            entry(f.text.partition("_")[0], date.fromtimestamp(f.mtime or 0))
            for f in listed
            if (f.text, f.mtime) not in have
        ]
        since = now.timestamp() - 31 * 86400
        window = [each for each in entries if each.mtime > since]
        judged = completeness(window, listed, now=now, naming=naming)
        verdicts = [judged.judge(each) for each in (*judged.unjudged_days(day, marks, str(day)), day)]
        found |= {(v.day, m.description.partition(" ")[0]) for v in verdicts for m in v.missing}
        marks = [*marks[-40:], judged.mark(str(day), day, verdicts, [], now)]
    expected = {
        (day, code) for day in days[8:] for code in failed[day] if day <= outage_ends or day < days[-10]
    }
    assert found <= {(day, code) for day in days for code in failed[day]}
    assert expected <= found
