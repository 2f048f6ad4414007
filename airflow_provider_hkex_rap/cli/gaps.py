"""``airflow hkex-rap gaps``: landed and missing reports of the days that RAP still keeps."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

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
from airflow_provider_hkex_rap.rap.calendar import Calendar, trading_days
from airflow_provider_hkex_rap.rap.folders import Folder, parse_folders
from airflow_provider_hkex_rap.rap.retention import days_until_removed, first_kept
from airflow_provider_hkex_rap.rap.service_hours import window

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable, Mapping, Sequence

    from airflow_provider_hkex_rap.lake.store import Lake

_Landed = dict[tuple[pendulum.Date, Folder], dict[str, "_File"]]
"""The landed files, by business date and folder, then by URI."""


class _File(NamedTuple):
    name: str
    size: int


@dataclass(slots=True)
class _Row:
    """One business date of one folder.

    :param files: the files that have landed, by URI; a report that RAP published again counts again.
    :param missing: expected globs without a landed file.
    :param awaited: expected globs whose file may still come: the day's service hours have not ended.
    """

    business_date: pendulum.Date
    folder: Folder
    files: Mapping[str, _File]
    missing: list[str] = field(default_factory=list)
    awaited: list[str] = field(default_factory=list)

    def shown(self, today: pendulum.Date) -> dict[str, object]:
        return {
            "business_date": self.business_date.isoformat(),
            "folder": self.folder.value,
            "files": len(self.files),
            "bytes": sum(file.size for file in self.files.values()),
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
    landed = asyncio.run(_landed(lake, customer, folders, now))
    rows = _judge(landed, folders, args.expect or (), Calendar(args.calendar), now)
    show([row.shown(now.date()) for row in rows], args.output)
    incomplete = [row.business_date for row in rows if row.missing]
    if not incomplete:
        return 0
    first = min(incomplete)
    if not landed:
        print(
            f"{lake.uri} holds nothing of {customer} of these days: check its URI and the customer code.",
            file=sys.stderr,
        )
    if not args.expect:
        print("Without --expect, * stands for any file: each folder must have one a day.", file=sys.stderr)
    print(
        f"Trading days with missing reports: {len(set(incomplete))}, the first {first.isoformat()}. Days left"
        f" to fetch it, today included: {days_until_removed(first, now.date())} (§4.1). Run the download"
        " task: it lands all that RAP lists and the lake lacks; 'airflow hkex-rap ls' shows what RAP lists.",
        file=sys.stderr,
    )
    return FAILED


async def _landed(lake: Lake, customer: str, folders: Iterable[Folder], now: pendulum.DateTime) -> _Landed:
    from airflow_provider_hkex_rap.lake.manifest import READERS, read_manifests, window
    from airflow_provider_hkex_rap.lake.storage_calls import StorageCalls

    landed: _Landed = {}
    async with StorageCalls(READERS) as calls:
        for folder in folders:
            async for manifest in read_manifests(calls, lake, customer, folder, window(now.date())):
                for number, reason in manifest.bad:
                    print(
                        f"Left out: {lake.uri_of(manifest.path)}, line {number}: {reason}.", file=sys.stderr
                    )
                for entry in manifest.entries:
                    if entry.uri:
                        day = pendulum.Date.fromisoformat(entry.business_date)
                        files = landed.setdefault((day, folder), {})
                        files[entry.uri] = _File(entry.text, entry.size or 0)
    return landed


def _judge(
    landed: _Landed,
    folders: Sequence[Folder],
    expect: Sequence[str],
    calendar: Calendar,
    now: pendulum.DateTime,
) -> list[_Row]:
    """Return a row for each folder and each day that is kept: the trading days, and others with reports."""
    start, end = first_kept(now.date()), now.date()
    expected_days = list(trading_days(start, end, calendar))
    days = sorted({*expected_days, *(day for day, _ in landed if day >= start)})
    rows = {
        (day, folder): _Row(day, folder, landed.get((day, folder), {})) for day in days for folder in folders
    }
    for glob, homes in _expectations(landed, folders, expect):
        for day in expected_days:
            candidates = [rows[day, home] for home in homes]
            if any(_matches(row.files, glob) for row in candidates):
                continue
            closes = [hours.closes for home in homes if (hours := window(home.service, day))]
            for row in candidates:
                (row.missing if now >= max(closes) else row.awaited).append(printable(glob))
    return list(rows.values())


def _expectations(
    landed: _Landed, folders: Sequence[Folder], expect: Sequence[str]
) -> list[tuple[str, Sequence[Folder]]]:
    """Return each pattern with the folders in one of which it must land.

    A pattern's folders are those in which it has landed on any day, or all if it never has. Without
    patterns, each folder must have some file.
    """
    if not expect:
        return [("*", (folder,)) for folder in folders]
    return [
        (glob, [home for home in folders if _matches(_of(landed, home), glob)] or folders) for glob in expect
    ]


def _of(landed: _Landed, folder: Folder) -> dict[str, _File]:
    return {uri: file for (_, home), files in landed.items() if home is folder for uri, file in files.items()}


def _matches(files: Mapping[str, _File], glob: str) -> bool:
    return any(fnmatchcase(file.name, glob) for file in files.values())
