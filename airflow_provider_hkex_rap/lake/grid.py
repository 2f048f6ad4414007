"""Judge each day and folder of the days that RAP still keeps, as ``gaps`` and the board show them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

import pendulum

from airflow_provider_hkex_rap.lake.completeness import Completeness, Scope
from airflow_provider_hkex_rap.lake.manifest import READERS, read_manifests
from airflow_provider_hkex_rap.lake.storage_calls import StorageCalls
from airflow_provider_hkex_rap.rap.calendar import Calendar, trading_days
from airflow_provider_hkex_rap.rap.clock import HONG_KONG
from airflow_provider_hkex_rap.rap.judgement import LEAST_BASELINE_DAYS, USUAL
from airflow_provider_hkex_rap.rap.printable import printable
from airflow_provider_hkex_rap.rap.retention import first_kept
from airflow_provider_hkex_rap.rap.service_hours import window

if TYPE_CHECKING:
    from datetime import date

    from airflow_provider_hkex_rap.lake.entry import Entry
    from airflow_provider_hkex_rap.lake.store import Lake
    from airflow_provider_hkex_rap.rap.folders import Folder
    from airflow_provider_hkex_rap.rap.judgement import MissingReport, Verdict

Landed = dict[tuple[pendulum.Date, "Folder"], dict[str, "Entry"]]
"""The landed files, by business date and folder, then by URI."""

_UNKNOWN = f"fewer than {LEAST_BASELINE_DAYS} ordinary days before are known"


class Lacking(NamedTuple):
    """A report that a day should have and has not."""

    missing: MissingReport
    due: pendulum.DateTime
    """When it should be there: at its usual time, or else when its folders close."""


def name_of(missing: MissingReport) -> str:
    """Return what a cell lacks in a word: a report code, any file of its folder, or a glob.

    :param missing: a report that is missing, awaited or excused.
    """
    if missing.report:
        return printable(missing.report.code)
    return "any file" if missing.folder else printable(missing.description)


@dataclass(slots=True)
class Cell:
    """One business date of one folder.

    :param files: the files that have landed, by URI; a report that RAP published again counts again.
    :param judged: whether the day was judged.
    :param unjudged: why it was not, if so.
    :param missing: the usual reports, and expected globs, without a landed file.
    :param awaited: those that may still come: a report before its usual time, anything else within the day's
        service hours.
    :param excused: usual reports without a landed file, on a day on which that is no error: a Saturday or a
        public holiday.
    """

    business_date: pendulum.Date
    folder: Folder
    files: Mapping[str, Entry]
    judged: bool = False
    unjudged: str = "no trading day"
    missing: list[Lacking] = field(default_factory=list)
    awaited: list[Lacking] = field(default_factory=list)
    excused: list[MissingReport] = field(default_factory=list)


async def read_landed(
    lake: Lake, customer: str, folders: Iterable[Folder], days: Sequence[date], problems: list[str]
) -> Landed:
    """Return what has landed of some business dates.

    :param lake: the lake.
    :param customer: the DCASS customer code, such as ``CXYZ``.
    :param folders: the folders on RAP.
    :param days: the business dates.
    :param problems: gets a text for each line of the manifest that is not valid.
    :raises OSError: if the lake cannot be read.
    """
    landed: Landed = {}
    async with StorageCalls(READERS) as calls:
        for folder in folders:
            async for manifest in read_manifests(calls, lake, customer, folder, days):
                problems += [
                    f"{lake.uri_of(manifest.path)}, line {number}: {reason}"
                    for number, reason in manifest.bad
                ]
                for entry in manifest.entries:
                    if entry.uri:
                        day = pendulum.Date.fromisoformat(entry.business_date)
                        landed.setdefault((day, folder), {})[entry.uri] = entry
    return landed


def judge_cells(
    landed: Landed,
    folders: Sequence[Folder],
    now: pendulum.DateTime,
    *,
    expect: Sequence[str] = (USUAL,),
    calendar: Calendar = Calendar.DERIVATIVES,
) -> list[Cell]:
    """Return a cell for each folder and each day that is kept: the trading days, and others with reports.

    :param landed: what has landed in the `window` of the manifest around today.
    :param folders: the folders to judge.
    :param now: the time in Hong Kong.
    :param expect: globs on file names, and the word ``usual``.
    :param calendar: the market whose trading days count.
    """
    start, end = first_kept(now.date()), now.date()
    expected_days = list(trading_days(start, end, calendar))
    days = sorted({*expected_days, *(day for day, _ in landed if day >= start)})
    cells = {
        (day, folder): Cell(day, folder, landed.get((day, folder), {})) for day in days for folder in folders
    }
    scope = Scope(account=None, folders=tuple(folders), expect=tuple(expect))
    by_globs_alone = USUAL not in scope.expect
    entries = (entry for files in landed.values() for entry in files.values())
    completeness = Completeness(scope, entries, (), None, now)
    for day in expected_days:
        verdict = completeness.judge(day)
        for folder in folders:
            cells[day, folder].judged = verdict.judged or by_globs_alone
            cells[day, folder].unjudged = _UNKNOWN
        _add_lacking(cells, verdict, landed, folders, now)
    return list(cells.values())


def _add_lacking(
    cells: Mapping[tuple[pendulum.Date, Folder], Cell],
    verdict: Verdict,
    landed: Landed,
    folders: Sequence[Folder],
    now: pendulum.DateTime,
) -> None:
    day = pendulum.Date(verdict.day.year, verdict.day.month, verdict.day.day)
    named = {missing.report.folder for missing in verdict.absent if missing.report}
    for missing in verdict.absent:
        # Its reports are named one by one.
        if missing.folder in named:
            continue
        homes = _homes(landed, folders, missing)
        due = _due(missing, day, homes)
        for home in homes:
            cell = cells[day, home]
            if missing not in verdict.missing:
                cell.excused.append(missing)
            else:
                (cell.missing if now >= due else cell.awaited).append(Lacking(missing, due))


def _homes(landed: Landed, folders: Sequence[Folder], missing: MissingReport) -> Sequence[Folder]:
    """Return the folders, one of which should have a report.

    Those of a glob are the folders in which it has landed on any day, or all if it never has.
    """
    if missing.report:
        return [missing.report.folder]
    if missing.folder:
        return [missing.folder]
    return [home for home in folders if _has(landed, home, missing.description)] or folders


def _has(landed: Landed, folder: Folder, glob: str) -> bool:
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
