"""Judge each day and folder of the days that RAP still keeps, as ``gaps`` and the board show them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

import pendulum

from airflow_provider_hkex_rap.rap.calendar import Calendar, trading_days
from airflow_provider_hkex_rap.rap.clock import HONG_KONG
from airflow_provider_hkex_rap.rap.judgement import USUAL, History
from airflow_provider_hkex_rap.rap.printable import printable
from airflow_provider_hkex_rap.rap.retention import first_kept
from airflow_provider_hkex_rap.rap.service_hours import window

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.lake.extracts import Extract, LandedFile
    from airflow_provider_hkex_rap.rap.folders import Folder
    from airflow_provider_hkex_rap.rap.judgement import MissingReport, Verdict

Landed = dict[tuple[pendulum.Date, "Folder"], dict[str, "LandedFile"]]
"""The landed files, by business date and folder, then by URI."""

NOT_KNOWN = "too few ordinary days before have a file of the folder"
"""Why a day of a folder is not judged, if its reports cannot be usual yet."""


class Lacking(NamedTuple):
    """A report that a day should have and has not."""

    missing: MissingReport
    due: pendulum.DateTime
    """When it should be there: at the latest time at which it came before, or else when its folders close."""


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
    :param judged: whether the day was judged: the folder has files on enough of the days before.
    :param unjudged: why it was not, if so.
    :param missing: the usual reports, and expected globs, without a landed file.
    :param awaited: those that may still come: a report before the latest time of the days before, anything
        else within the day's service hours.
    :param excused: usual reports without a landed file, on a day on which that is no error: a Saturday or a
        public holiday.
    """

    business_date: pendulum.Date
    folder: Folder
    files: Mapping[str, LandedFile]
    judged: bool = False
    unjudged: str = "no trading day"
    missing: list[Lacking] = field(default_factory=list)
    awaited: list[Lacking] = field(default_factory=list)
    excused: list[MissingReport] = field(default_factory=list)


def landed_files(extracts: Iterable[Extract]) -> Landed:
    """Return the landed files of manifest files, each URI of a day and folder once.

    :param extracts: what was read of the manifest files, in the order of their runs.
    """
    landed: Landed = {}
    for extract in extracts:
        for file in extract.files:
            day = file.sighting.business_date
            key = pendulum.Date(day.year, day.month, day.day), file.sighting.report.folder
            landed.setdefault(key, {})[file.uri] = file
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
    by_globs_alone = USUAL not in expect
    judged_files = {key: files for key, files in landed.items() if key[1] in folders}
    history = History.of(
        file.sighting for files in judged_files.values() for file in files.values() if file.was_whole
    )
    for day in expected_days:
        there = [
            file.sighting for key, files in judged_files.items() if key[0] == day for file in files.values()
        ]
        verdict = history.judge(day, folders, there, expect)
        for folder in folders:
            cells[day, folder].judged = by_globs_alone or history.can_judge(day, folder)
            cells[day, folder].unjudged = NOT_KNOWN
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
        # The reports of a folder without a file are named one by one.
        if missing.folder and (missing.folder in named or _came_later(landed, missing.folder, day)):
            continue
        possible = _possible_folders(landed, folders, missing)
        due = _due(missing, day, possible)
        for folder in possible:
            cell = cells[day, folder]
            if missing not in verdict.missing:
                cell.excused.append(missing)
            else:
                (cell.missing if now >= due else cell.awaited).append(Lacking(missing, due))


def _came_later(landed: Landed, folder: Folder, day: pendulum.Date) -> bool:
    """Tell if a folder's first file is of a later day, although files of other folders came on this one.

    A new folder is not missing on the days before it. If no folder has a file of the day, all may be missing.
    """
    days = [known for known, each in landed if each is folder]
    return bool(days) and day < min(days) and any(known == day for known, _ in landed)


def _possible_folders(landed: Landed, folders: Sequence[Folder], missing: MissingReport) -> Sequence[Folder]:
    """Return the folders, one of which should have a report.

    Those of a glob are the folders in which it has landed on any day, or all if it never has.
    """
    if missing.report:
        return [missing.report.folder]
    if missing.folder:
        return [missing.folder]
    return [each for each in folders if _has(landed, each, missing.description)] or folders


def _has(landed: Landed, folder: Folder, glob: str) -> bool:
    return any(
        fnmatchcase(file.sighting.name, glob)
        for (_, each), files in landed.items()
        if each is folder
        for file in files.values()
    )


def _due(missing: MissingReport, day: pendulum.Date, folders: Iterable[Folder]) -> pendulum.DateTime:
    """Return when a report should be there: at its latest time before, or when its folders close."""
    if missing.latest_time is not None:
        midnight = pendulum.datetime(day.year, day.month, day.day, tz=HONG_KONG)
        return midnight + timedelta(minutes=missing.latest_time)
    return max(hours.closes for folder in folders if (hours := window(folder.service, day)))
