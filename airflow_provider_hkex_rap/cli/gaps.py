"""``airflow hkex-rap gaps``: landed and missing reports of the days that RAP still keeps."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass, field
from datetime import date, timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import pendulum

from airflow_provider_hkex_rap.cli.command import (
    FAILED,
    command,
    command_clock,
    command_customer,
    command_lake,
    printable,
    show,
)
from airflow_provider_hkex_rap.lake.manifest import WINDOW_DAYS_BACK, days_between
from airflow_provider_hkex_rap.lake.manifest import window as manifest_window
from airflow_provider_hkex_rap.rap.calendar import Calendar, trading_days
from airflow_provider_hkex_rap.rap.clock import HONG_KONG
from airflow_provider_hkex_rap.rap.folders import Folder, parse_folders
from airflow_provider_hkex_rap.rap.judgement import LEAST_BASELINE_DAYS, Report
from airflow_provider_hkex_rap.rap.monthly import MONTHLY_DAYS_BACK, late_monthly_reports
from airflow_provider_hkex_rap.rap.retention import days_until_removed, first_kept
from airflow_provider_hkex_rap.rap.service_hours import window

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable, Mapping, Sequence

    from airflow_provider_hkex_rap.lake.entry import Entry
    from airflow_provider_hkex_rap.lake.store import Lake
    from airflow_provider_hkex_rap.rap.judgement import MissingReport

_Landed = dict[tuple[pendulum.Date, Folder], dict[str, "Entry"]]
"""The landed files, by business date and folder, then by URI."""


@dataclass(slots=True)
class _Row:
    """One business date of one folder.

    :param files: the files that have landed, by URI; a report that RAP published again counts again.
    :param judged: whether enough days before are known to tell which reports are usual.
    :param missing: the usual reports, and expected globs, without a landed file.
    :param awaited: those that may still come: a report before its usual time, anything else within the day's
        service hours.
    """

    business_date: pendulum.Date
    folder: Folder
    files: Mapping[str, Entry]
    judged: bool = False
    missing: list[str] = field(default_factory=list)
    awaited: list[str] = field(default_factory=list)

    def shown(self, today: pendulum.Date) -> dict[str, object]:
        return {
            "business_date": self.business_date.isoformat(),
            "folder": self.folder.value,
            "files": len(self.files),
            "bytes": sum(file.size or 0 for file in self.files.values()),
            "judged": self.judged,
            "missing": self.missing,
            "awaited": self.awaited,
            "days_left": days_until_removed(self.business_date, today),
        }


@command
def gaps(args: Namespace) -> int:
    """Print a row for each day and folder; fail if a report is missing."""
    folders = parse_folders(args.folders or list(Folder))
    customer = command_customer(args.customer, args.conn_id)
    lake = command_lake(args.lake)
    now = command_clock()()
    landed = asyncio.run(_landed(lake, customer, folders, manifest_window(now.date())))
    rows = _judge(landed, folders, args.expect or (), Calendar(args.calendar), now)
    if not landed:
        print(
            f"{lake.uri} holds nothing of {customer} of these days: check its URI and the customer code.",
            file=sys.stderr,
        )
    show([row.shown(now.date()) for row in rows], args.output)
    _warn_of_monthly_reports(lake, customer, folders, landed, now.date())
    incomplete = [row.business_date for row in rows if row.missing]
    print(_format_verdict(rows, complete=not incomplete), file=sys.stderr)
    if not incomplete:
        return 0
    first = min(incomplete)
    print(
        f"Trading days with missing reports: {len(set(incomplete))}, the first {first.isoformat()}. Days left"
        f" to fetch it, today included: {days_until_removed(first, now.date())} (§4.1). Run the download"
        " task: it lands all that RAP lists and the lake lacks; 'airflow hkex-rap ls' shows what RAP lists.",
        file=sys.stderr,
    )
    return FAILED


def _format_verdict(rows: Sequence[_Row], *, complete: bool) -> str:
    """Return how many days were judged, and how many were not, in words."""
    judged = {row.business_date for row in rows if row.judged}
    others = {row.business_date for row in rows} - judged
    days = f"Days judged by their usual reports: {len(judged)}; not judged: {len(others)}"
    if others:
        days += (
            f" ({', '.join(day.isoformat() for day in sorted(others))}: fewer than {LEAST_BASELINE_DAYS} days"
            " before are known, 'usual' is not expected, or the day is no trading day)"
        )
    awaited = sum(len(row.awaited) for row in rows)
    verdict = "Every judged day is complete. " if complete and judged else ""
    return f"{verdict}{days}. Awaited reports: {awaited}."


def _warn_of_monthly_reports(
    lake: Lake, customer: str, folders: Iterable[Folder], landed: _Landed, today: pendulum.Date
) -> None:
    """Name the monthly reports that are late; they are no gap of a day, and no error."""
    first, last = today.subtract(days=MONTHLY_DAYS_BACK), today.subtract(days=WINDOW_DAYS_BACK + 1)
    earlier = asyncio.run(_landed(lake, customer, folders, days_between(first, last)))
    days: dict[Report, set[date]] = {}
    for (day, folder), files in [*earlier.items(), *landed.items()]:
        for entry in files.values():
            days.setdefault(Report(folder, entry.report), set()).add(day)
    for late in late_monthly_reports(days, today):
        print(
            f"Warning: {printable(str(late))}. If it still comes, 'airflow hkex-rap ls' shows if RAP has it.",
            file=sys.stderr,
        )


async def _landed(lake: Lake, customer: str, folders: Iterable[Folder], days: Sequence[date]) -> _Landed:
    from airflow_provider_hkex_rap.lake.manifest import READERS, read_manifests
    from airflow_provider_hkex_rap.lake.storage_calls import StorageCalls

    landed: _Landed = {}
    async with StorageCalls(READERS) as calls:
        for folder in folders:
            async for manifest in read_manifests(calls, lake, customer, folder, days):
                for number, reason in manifest.bad:
                    print(
                        f"Left out: {lake.uri_of(manifest.path)}, line {number}: {reason}.", file=sys.stderr
                    )
                for entry in manifest.entries:
                    if entry.uri:
                        day = pendulum.Date.fromisoformat(entry.business_date)
                        landed.setdefault((day, folder), {})[entry.uri] = entry
    return landed


def _judge(
    landed: _Landed,
    folders: Sequence[Folder],
    expect: Sequence[str],
    calendar: Calendar,
    now: pendulum.DateTime,
) -> list[_Row]:
    """Return a row for each folder and each day that is kept: the trading days, and others with reports."""
    from airflow_provider_hkex_rap.lake.completeness import Completeness, Scope
    from airflow_provider_hkex_rap.rap.judgement import USUAL

    start, end = first_kept(now.date()), now.date()
    expected_days = list(trading_days(start, end, calendar))
    days = sorted({*expected_days, *(day for day, _ in landed if day >= start)})
    rows = {
        (day, folder): _Row(day, folder, landed.get((day, folder), {})) for day in days for folder in folders
    }
    scope = Scope(account=None, folders=tuple(folders), expect=tuple(expect) or (USUAL,))
    entries = (entry for files in landed.values() for entry in files.values())
    completeness = Completeness(scope, entries, (), None, now)
    for day in expected_days:
        verdict = completeness.judge(day)
        for folder in folders:
            rows[day, folder].judged = verdict.judged
        for missing in verdict.missing:
            homes = _homes(landed, folders, missing)
            due = _due(missing, day, homes)
            for home in homes:
                row = rows[day, home]
                (row.missing if now >= due else row.awaited).append(printable(missing.description))
    return list(rows.values())


def _homes(landed: _Landed, folders: Sequence[Folder], missing: MissingReport) -> Sequence[Folder]:
    """Return the folders, one of which should have a report.

    Those of a glob are the folders in which it has landed on any day, or all if it never has.
    """
    if missing.report:
        return [missing.report.folder]
    if missing.folder:
        return [missing.folder]
    return [home for home in folders if _has(landed, home, missing.description)] or folders


def _has(landed: _Landed, folder: Folder, glob: str) -> bool:
    return any(
        fnmatchcase(file.text, glob)
        for (_, home), files in landed.items()
        if home is folder
        for file in files.values()
    )


def _due(missing: MissingReport, day: pendulum.Date, homes: Iterable[Folder]) -> pendulum.DateTime:
    """Return when a report should be there: at its usual time, or else when its folders close."""
    if missing.usual_time is not None:
        midnight = pendulum.datetime(day.year, day.month, day.day, tz=HONG_KONG)
        return midnight + timedelta(minutes=missing.usual_time)
    return max(hours.closes for home in homes if (hours := window(home.service, day)))
