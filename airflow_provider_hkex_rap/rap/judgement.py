"""Judge if the reports of a day are complete, by the reports of the days before it.

RAP publishes no list of the reports to expect. A report is *usual* if it came on nearly every ordinary day
before; a usual report that does not come is missing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from fnmatch import fnmatchcase
from functools import lru_cache
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import pendulum

from airflow_provider_hkex_rap.rap.calendar import is_public_holiday, is_saturday
from airflow_provider_hkex_rap.rap.clock import HONG_KONG
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.printable import printable
from airflow_provider_hkex_rap.rap.service_hours import window

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.rap.folders import Folder

BASELINE_DAYS = 5
"""Ordinary days before a day that decide which reports are usual for it."""
LEAST_BASELINE_DAYS = 3
"""With fewer known days, a day is not judged."""
USUAL = "usual"
"""The word that stands in ``expect`` for every usual report."""

_DAY = timedelta(days=1)


class Report(NamedTuple):
    """A report: all files of one report code in one folder."""

    folder: Folder
    code: str

    def __str__(self) -> str:
        return f"{printable(self.code)} in {self.folder}"


class Sighting(NamedTuple):
    """A file of a business date that RAP has listed or that has landed."""

    report: Report
    business_date: date
    name: str
    mtime: int | None
    """RAP's modification time, in seconds since the epoch; None if RAP gives none."""
    dated: bool = True
    """Whether its name has the date; RAP has only the last content of an undated name."""


@dataclass(frozen=True, slots=True)
class MissingReport:
    """A report that a day should have and has not.

    :param report: the usual report; None if a whole folder or a glob of ``expect`` has no file.
    :param description: the report in words, the folder's path, or the glob.
    :param seen_on: the days before on which it was there, newest first.
    :param usual_time: the time at which it usually comes, in minutes after midnight of its business date in
        Hong Kong; 1,440 and more are in the night after it. None if it is not known.
    :param folder: the folder, if it has no file at all.
    :param latest_time: the latest time at which it came, in the same form; None if it is not known.
    """

    report: Report | None
    description: str
    seen_on: tuple[date, ...] = ()
    usual_time: int | None = None
    folder: Folder | None = None
    latest_time: int | None = None

    def __str__(self) -> str:
        if self.usual_time is None:
            return self.description
        return f"{self.description} (usually at {format_minutes(self.usual_time)} HKT)"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement of one day.

    :param day: the day.
    :param judged: whether enough days before it are known to tell which reports are usual.
    :param baseline: the days that it was compared with, newest first.
    :param expected: the usual reports.
    :param missing: what an ordinary day lacks; an error.
    :param warnings: sentences about things that are unusual and no error.
    :param absent: what any day lacks, also one on which that is no error.
    """

    day: date
    judged: bool
    baseline: tuple[date, ...]
    expected: tuple[Report, ...]
    missing: tuple[MissingReport, ...]
    warnings: tuple[str, ...]
    absent: tuple[MissingReport, ...] = ()


@dataclass(frozen=True, slots=True)
class History:
    """The files that are known, by report and business date.

    ::

        history = History.of(sightings)
        verdict = history.judge(day, [Folder.DCASS], landed, expect=("usual",))

    :param counts: how many files of a report are known of each day.
    :param times: the publication times of a report, in minutes after midnight of the business date.
    :param dated: the reports whose names have a date.
    """

    counts: Mapping[Report, Mapping[date, int]]
    times: Mapping[Report, Sequence[float]] = field(repr=False)
    dated: Collection[Report] = field(repr=False)

    @classmethod
    def of(cls, sightings: Iterable[Sighting]) -> History:
        """Return the history of files; a file that was seen twice counts once.

        :param sightings: the files that RAP lists, and those that this account has landed.
        """
        files: dict[Report, dict[date, dict[str, int | None]]] = {}
        dated: set[Report] = set()
        for report, day, name, mtime, is_dated in sightings:
            files.setdefault(report, {}).setdefault(day, {})[name] = mtime
            if is_dated:
                dated.add(report)
        counts = {report: {day: len(names) for day, names in days.items()} for report, days in files.items()}
        times = {
            report: [
                _minutes_after(day, mtime)
                for day, names in days.items()
                for mtime in names.values()
                if mtime is not None
            ]
            for report, days in files.items()
        }
        return cls(counts, times, frozenset(dated))

    def baseline(self, day: date) -> tuple[date, ...]:
        """Return the ordinary days that a day is compared with, newest first; at most five.

        These are the nearest before it of which something is known: an outage of ours, or one of RAP, leaves
        days of which nothing is known.

        :param day: the day to judge.
        """
        known = {seen for days in self.counts.values() for seen in days}
        before = sorted((seen for seen in known if seen < day and is_ordinary(seen)), reverse=True)
        return tuple(before[:BASELINE_DAYS])

    def usual(self, day: date) -> tuple[Report, ...]:
        """Return the reports that are usual for a day: there on four of five days before, or on all of fewer.

        :param day: the day to judge.
        :returns: nothing if fewer than three days before it are known.
        """
        baseline = self.baseline(day)
        return tuple(sorted(report for report, days in self.counts.items() if _is_usual(days, baseline)))

    def can_judge(self, day: date, folder: Folder) -> bool:
        """Tell if a folder has files on enough of the days before, so that one of its reports can be usual.

        :param day: the day to judge.
        :param folder: the folder.
        """
        days = {seen for report, days in self.counts.items() if report.folder is folder for seen in days}
        return _is_usual(days, self.baseline(day))

    def usual_time(self, report: Report) -> int | None:
        """Return when a report usually comes, in minutes after midnight of its business date.

        :param report: the report.
        """
        times = self.times.get(report)
        return round(median(times)) if times else None

    def latest_time(self, report: Report) -> int | None:
        """Return the latest time at which a report came, in minutes after midnight of its business date.

        :param report: the report.
        """
        times = self.times.get(report)
        return math.ceil(max(times)) if times else None

    def judge(
        self,
        day: date,
        folders: Collection[Folder],
        landed: Collection[Sighting],
        expect: Collection[str] = (USUAL,),
        *,
        late: bool = False,
    ) -> Verdict:
        """Judge if the lake has all reports of a day.

        :param day: the business date.
        :param folders: the folders to judge; each must have a file of the day.
        :param landed: the files of the day that are in the lake.
        :param expect: globs on file names, each of which must match a landed file; and ``usual`` for every
            usual report. Nothing turns the judgement off.
        :param late: whether later days have been published since; a report without a date in its name may
            then have been replaced, and is not expected.
        """
        if not expect:
            return Verdict(day, False, (), (), (), ())
        globs = [glob for glob in expect if glob != USUAL]
        missing = [
            MissingReport(None, glob)
            for glob in globs
            if not any(fnmatchcase(file.name, glob) for file in landed)
        ]
        warnings: list[str] = []
        baseline = self.baseline(day)
        judged = USUAL in expect and len(baseline) >= LEAST_BASELINE_DAYS
        expected = self.usual(day) if USUAL in expect else ()
        if late:
            expected = tuple(report for report in expected if report in self.dated)
        if USUAL in expect:
            missing += self._missing(folders, landed, expected, baseline)
            warnings += self._warnings(day, folders, landed, baseline, expected)
        absent = tuple(missing)
        if not is_ordinary(day):
            kind = "a Saturday" if is_saturday(day) else "a public holiday"
            warnings += [f"Not in the lake, on {kind}: {format_missing([report])}." for report in missing]
            missing = []
        return Verdict(day, judged, baseline, expected, tuple(missing), tuple(warnings), absent)

    def codes_of_one_day(self) -> tuple[Report, ...]:
        """Return the reports that were seen on one day only, if enough days are known to wonder about it.

        Many of these mean that the report code contains something that changes, such as a running number.
        """
        known = {day for days in self.counts.values() for day in days if is_ordinary(day)}
        if len(known) < LEAST_BASELINE_DAYS:
            return ()
        return tuple(sorted(report for report, days in self.counts.items() if len(days) == 1))

    def _missing(
        self,
        folders: Collection[Folder],
        landed: Collection[Sighting],
        expected: Collection[Report],
        baseline: Sequence[date],
    ) -> list[MissingReport]:
        reports = {file.report for file in landed}
        present = {report.folder for report in reports}
        missing = [
            MissingReport(None, folder.path, folder=folder) for folder in folders if folder not in present
        ]
        for report in expected:
            if report not in reports:
                seen_on = tuple(seen for seen in baseline if seen in self.counts[report])
                usual, latest = self.usual_time(report), self.latest_time(report)
                missing.append(MissingReport(report, str(report), seen_on, usual, latest_time=latest))
        # What should have come first is named first: the others may still come.
        return sorted(missing, key=lambda each: -1 if each.usual_time is None else each.usual_time)

    def _warnings(
        self,
        day: date,
        folders: Collection[Folder],
        landed: Collection[Sighting],
        baseline: Sequence[date],
        expected: Collection[Report],
    ) -> list[str]:
        if len(baseline) < LEAST_BASELINE_DAYS:
            return [
                f"{day} is not judged: {len(baseline)} ordinary days before it are known, and"
                f" {LEAST_BASELINE_DAYS} are needed to tell which reports are usual."
            ]
        warnings = [
            f"{day} is not judged in {folder.path}: the folder had files on too few of the {len(baseline)}"
            " ordinary days before to tell which of its reports are usual."
            for folder in folders
            if not self.can_judge(day, folder)
        ]
        count = len({file.name for file in landed})
        totals = {seen: sum(days.get(seen, 0) for days in self.counts.values()) for seen in baseline}
        if count < min(totals.values()):
            fewest = min(totals.values())
            warnings.append(f"{day} has {count} files; the {len(baseline)} days before had {fewest} or more.")
        reports = {file.report for file in landed}
        for report in self.usual(_previous_ordinary_day(day)):
            if report not in expected and report not in reports:
                last = max(seen for seen in self.counts[report] if seen < day)
                warnings.append(f"{report} is no longer usual: its last day was {last}.")
        return warnings


def _is_usual(days: Collection[date], baseline: Collection[date]) -> bool:
    """Tell if *days* have four of the five days before, or all of fewer, but three at least."""
    needed = min(len(baseline), BASELINE_DAYS - 1)
    return len(baseline) >= LEAST_BASELINE_DAYS and sum(seen in days for seen in baseline) >= needed


def days_of_baseline(day: date) -> tuple[date, ...]:
    """Return the five ordinary days before a day, newest first, whether or not anything is known of them.

    :param day: the day to judge.
    """
    days: list[date] = []
    while len(days) < BASELINE_DAYS:
        day = _previous_ordinary_day(day)
        days.append(day)
    return tuple(days)


def is_ordinary(day: date) -> bool:
    """Tell if a day is ordinary: a weekday that is no public holiday.

    :param day: a date in Hong Kong.
    """
    return day.isoweekday() <= 5 and not is_public_holiday(day)


def check_service_day(day: date, folders: Iterable[Folder], today: date, clock_offset: float = 0.0) -> None:
    """Check that RAP publishes reports of a day that a user gave (§4.1).

    :param day: the business date.
    :param folders: the folders.
    :param today: the date in Hong Kong.
    :param clock_offset: seconds by which the clock is shifted, for the error.
    :raises RapConfigurationError: if none of the folders' services opens on that day, or it is in the future.
    """
    folders = tuple(folders)
    if day > today:
        shifted = f"The clock is shifted by {clock_offset:g} s ([hkex_rap] clock_offset)."
        raise RapConfigurationError(
            f"{day.isoformat()} is in the future: it is {today.isoformat()} in Hong Kong.",
            why=shifted if clock_offset else "",
            todo="Give a trading day that has begun"
            + (", in 'business_date', or remove the offset." if clock_offset else "."),
            business_date=day.isoformat(),
        )
    if any(window(folder.service, day) for folder in folders):
        return
    services = " and ".join(sorted({str(folder.service) for folder in folders}))
    raise RapConfigurationError(
        f"{day.isoformat()}, a {day:%A}, is no service day of {services}.",
        why="RAP publishes DCASS reports on trading days, and CCMS reports on Saturdays too, public holidays"
        " excepted (guide §4.1).",
        todo="Give a trading day.",
        business_date=day.isoformat(),
    )


def format_missing(missing: Iterable[MissingReport]) -> str:
    """Return what a day lacks in words; reports that were there on the same days are named together.

    :param missing: what the day lacks.
    """
    groups: dict[tuple[date, ...], list[str]] = {}
    for each in missing:
        groups.setdefault(each.seen_on, []).append(str(each))
    return "; ".join(
        ", ".join(named) + (f", there on {', '.join(map(date.isoformat, days))}" if days else "")
        for days, named in groups.items()
    )


def format_minutes(minutes: int) -> str:
    """Return a time of day; the night after a business date is marked.

    :param minutes: minutes after midnight of the business date.
    """
    text = f"{minutes // 60 % 24:02}:{minutes % 60:02}"
    return f"{text} of the next day" if minutes >= 24 * 60 else text


def _minutes_after(day: date, mtime: int) -> float:
    return (mtime - _midnight(day)) / 60


@lru_cache(64)
def _midnight(day: date) -> float:
    return pendulum.datetime(day.year, day.month, day.day, tz=HONG_KONG).timestamp()


def _previous_ordinary_day(day: date) -> date:
    day -= _DAY
    while not is_ordinary(day):
        day -= _DAY
    return day
