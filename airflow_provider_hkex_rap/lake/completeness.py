"""Judge by the ledger, and by what RAP lists, if the days of a lake are complete."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pendulum

from airflow_provider_hkex_rap.lake.entry import utc
from airflow_provider_hkex_rap.lake.planning import is_wanted
from airflow_provider_hkex_rap.rap.clock import HONG_KONG, is_time
from airflow_provider_hkex_rap.rap.errors import RapError, RapReportMissing
from airflow_provider_hkex_rap.rap.folders import Folder
from airflow_provider_hkex_rap.rap.judgement import (
    USUAL,
    History,
    MissingReport,
    Report,
    Sighting,
    Verdict,
    format_missing,
    is_ordinary,
)
from airflow_provider_hkex_rap.rap.retention import left_on, retention_expired
from airflow_provider_hkex_rap.rap.service_hours import window

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.lake.entry import Entry
    from airflow_provider_hkex_rap.rap.files import RemoteFile
    from airflow_provider_hkex_rap.rap.report_name import Naming

MARK = "judged"
"""The kind of the marks that record judged days."""
_DATED = ("name", "pattern")
"""The rules by which a business date is read from a name."""
_LATE_HOURS = 3
"""Hours before the service closes from which a report that is not there counts as late for good."""
_NAMED = 1_000
"""Unfinished files that a mark names, at most; a trading day has fewer."""
_LISTED_WHOLE_DAYS = 9
"""Days before today that RAP surely lists whole; the guide leaves open whether the tenth is kept (§4.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The reports that a task judges.

    :param account: the RAP user account; its own listing and landings tell which reports are usual.
    :param folders: the folders.
    :param include: globs on file names; one of them must match.
    :param exclude: globs on file names; none of them may match.
    :param expect: globs on file names, and the word ``usual``.
    :param task: the ids of DAG and task, and the index of a mapped task; empty outside a run.
    """

    account: str
    folders: tuple[Folder, ...]
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    expect: tuple[str, ...] = ("usual",)
    task: str = ""

    @property
    def key(self) -> str:
        """A text that tells the marks of this task from those of another; its arguments may be edited."""
        return json.dumps([self.account, self.task], ensure_ascii=False)

    def covers(self, folder: str, name: str) -> bool:
        """Tell if a file is judged.

        :param folder: the name of its folder.
        :param name: the file's name on RAP, as text.
        """
        return folder in self.folders and is_wanted(name, self.include, self.exclude)


class Completeness:
    """The files of a scope that are known, and the days that they make complete.

    ::

        completeness = Completeness(scope, entries, listed, naming, now)
        verdict = completeness.judge(day)

    :param scope: the reports to judge.
    :param entries: the ledger's entries of the window, of all accounts of the customer.
    :param listed: the files that RAP lists now.
    :param naming: the rules by which file names are read, for files and entries alike.
    :param now: the time in Hong Kong.
    """

    def __init__(
        self,
        scope: Scope,
        entries: Iterable[Entry],
        listed: Iterable[RemoteFile],
        naming: Naming,
        now: pendulum.DateTime,
    ) -> None:
        self.scope = scope
        self._now = now
        self._naming = naming
        # The entries, and not their sightings, which would take as much memory again.
        self._landed: dict[date, list[Entry]] = {}
        known: list[Sighting] = []
        for entry in entries:
            if entry.uri is None or not scope.covers(entry.folder, entry.text):
                continue
            sighting = self._sighting(entry)
            self._landed.setdefault(sighting.business_date, []).append(entry)
            if entry.account == scope.account and was_whole(entry, sighting.business_date):
                known.append(sighting)
        self.history = History.of(itertools.chain(self._listed(listed), known))

    def _listed(self, listed: Iterable[RemoteFile]) -> Iterator[Sighting]:
        for file in listed:
            if self.scope.covers(file.folder.value, file.text):
                sighting = _sighting(file.folder, file.text, file.mtime, self._naming, self._now)
                # The first listing may show a part of a day only, which would make its other reports unusual.
                if self.is_listed_whole(sighting.business_date):
                    yield sighting

    def _sighting(self, entry: Entry) -> Sighting:
        seen = _first_seen(entry)
        return _sighting(Folder(entry.folder), entry.text, entry.mtime, self._naming, seen)

    def landed(self, day: date) -> list[Sighting]:
        """Return the files of a day that are in the lake.

        :param day: the business date.
        """
        return [self._sighting(entry) for entry in self._landed.get(day, ())]

    def judge(self, day: date, *, late: bool = False) -> Verdict:
        """Judge a day.

        :param day: the business date.
        :param late: whether it is judged after a later day, as after an outage.
        """
        return self.history.judge(day, self.scope.folders, self.landed(day), self.scope.expect, late=late)

    def judge_again(self, day: date, mark: Mapping[str, Any]) -> list[Verdict]:
        """Return which of the reports that a mark says are missing have not landed since.

        :param day: the business date of the run.
        :param mark: a mark of the run, as `mark` returned it.
        """
        lacks: dict[str, list[dict[str, Any]]] = {day.isoformat(): [], **mark.get("lacks", {})}
        verdicts = []
        for text, items in sorted(lacks.items()):
            each = date.fromisoformat(text)
            left = tuple(missing for missing in map(_missing, items) if not self._has(each, missing))
            verdicts.append(Verdict(each, bool(mark.get("judged")), (), (), left, (), left))
        return verdicts

    def _has(self, day: date, missing: MissingReport) -> bool:
        def is_it(file: Sighting) -> bool:
            if missing.report:
                return file.report == missing.report
            if missing.folder:
                return file.report.folder is missing.folder
            return fnmatchcase(file.name, missing.description)

        return any(map(is_it, self.landed(day)))

    def unjudged_days(self, day: date, marks: Iterable[dict[str, Any]], run: str | None) -> list[date]:
        """Return the ordinary days before a day that RAP lists whole and no run has judged, oldest first.

        An outage leaves such days. Days before the first judged one are none of ours.

        :param day: the business date of the run.
        :param marks: the marks of judged days, of any scope.
        :param run: the id of the run, whose earlier tries do not count; None outside a run.
        """
        judged = {
            date.fromisoformat(text)
            for mark in marks
            if mark.get("scope") == self.scope.key and (run is None or mark.get("run") != run)
            for text in mark.get("days", ())
        }
        if not judged:
            return []
        first = max(min(judged), self._now.date() - timedelta(days=_LISTED_WHOLE_DAYS))
        days = (first + timedelta(days=number) for number in range((day - first).days))
        return [each for each in days if is_ordinary(each) and each not in judged]

    def is_listed_whole(self, day: date) -> bool:
        """Tell if RAP should still list every report of a day (§4.1).

        :param day: the business date.
        """
        return self._now.date() < left_on(day)

    def error(self, day: date, verdicts: Sequence[Verdict]) -> RapError | None:
        """Return the error that a run must end with; None if every day is complete.

        :param day: the business date of the run.
        :param verdicts: the verdict of that day, and of days that were not judged before.
        """
        (own,) = (verdict for verdict in verdicts if verdict.day == day)
        unknown = USUAL in self.scope.expect and not own.judged
        if not self.is_listed_whole(day) and (own.absent or unknown):
            names = ", ".join(missing.description for missing in own.absent if not missing.folder)
            reports = f"None of {names}" if names else "No file" if own.absent else "Not every report"
            return retention_expired(
                pendulum.Date(day.year, day.month, day.day),
                ", ".join(folder.path for folder in self.scope.folders),
                reports,
            )
        incomplete = [verdict for verdict in verdicts if verdict.missing]
        if not incomplete:
            return None
        lacking = "; ".join(_describe(verdict, own=verdict is own) for verdict in incomplete)
        return RapReportMissing(
            f"Not in the lake {lacking}.",
            why="They came on the days before, or are named in 'expect', and RAP lists none that may land.",
            todo="A later try may find them. Else ask HKEX; name a discontinued report in 'exclude', and"
            " correct an 'expect' that matches no report.",
            missing=tuple(missing.description for verdict in incomplete for missing in verdict.missing),
            business_date=day.isoformat(),
            days=tuple(verdict.day.isoformat() for verdict in incomplete),
        )

    def mark(
        self,
        run: str | None,
        day: date,
        verdicts: Sequence[Verdict],
        unfinished: Sequence[tuple[str, int | None, int | None]],
        seen: pendulum.DateTime,
    ) -> dict[str, Any]:
        """Return the mark of a try: which days are judged for good, and what they lack.

        :param run: the id of the run, as `judge_again` needs it; None outside a run.
        :param day: the business date of the run.
        :param verdicts: the verdicts of the run.
        :param unfinished: path, size and mtime of the files that were listed and have not landed.
        :param seen: when they were listed.
        """
        (own,) = (verdict for verdict in verdicts if verdict.day == day)
        return {
            "scope": self.scope.key,
            "run": run,
            "day": day.isoformat(),
            "judged": own.judged,
            "days": [v.day.isoformat() for v in verdicts if not unfinished and self._is_final(v)],
            "lacks": {
                verdict.day.isoformat(): [_facts(missing) for missing in verdict.missing]
                for verdict in verdicts
                if verdict.missing
            },
            "unfinished": list(unfinished[:_NAMED]),
            "unnamed": len(unfinished[_NAMED:]),
            "listed": utc(seen),
        }

    def _is_final(self, verdict: Verdict) -> bool:
        """Tell if a day need not be judged again by a later run: it is complete, or its reports are late."""
        if not verdict.missing:
            return True
        hours = [found for f in self.scope.folders if (found := window(f.service, verdict.day))]
        return not hours or self._now >= max(each.closes for each in hours).subtract(hours=_LATE_HOURS)


def _sighting(
    folder: Folder, name: str, mtime: int | None, naming: Naming, seen: pendulum.DateTime
) -> Sighting:
    """Return the sighting of a file, which was first listed at *seen*."""
    read = naming.read(name, mtime, seen)
    dated = read.rule in _DATED
    return Sighting(_report(folder, read.report), read.business_date, name, _valid(mtime, seen), dated)


def _valid(mtime: int | None, seen: pendulum.DateTime) -> int | None:
    """Return an mtime that may be the file's time, else None: another would make a wrong usual time."""
    return mtime if is_time(mtime, seen) else None


def recorded(entry: Entry) -> Sighting:
    """Return the sighting of an entry, by the rules of the run that wrote it.

    :param entry: the entry.
    """
    report = _report(entry.folder, entry.report)
    dated = entry.business_date_rule in _DATED
    day, mtime = _day(entry.business_date), _valid(entry.mtime, _first_seen(entry))
    return Sighting(report, day, entry.text, mtime, dated)


# The files of a report share it, and those of a day its date: many sightings are kept in memory.
@lru_cache(1024)
def _report(folder: str, code: str) -> Report:
    return Report(Folder(folder), code)


@lru_cache(1024)
def _day(text: str) -> pendulum.Date:
    return pendulum.Date.fromisoformat(text)


def was_whole(entry: Entry, day: date) -> bool:
    """Tell if RAP still listed a day whole when it listed one of its files (§4.1).

    :param entry: the entry of the file.
    :param day: the business date.
    """
    return _first_seen(entry).date() < left_on(day)


def _first_seen(entry: Entry) -> pendulum.DateTime:
    return _in_hong_kong(entry.first_seen)


# The files of one listing share it.
@lru_cache(1024)
def _in_hong_kong(time: str) -> pendulum.DateTime:
    return pendulum.instance(datetime.fromisoformat(time)).in_timezone(HONG_KONG)


def _facts(missing: MissingReport) -> dict[str, Any]:
    return {
        "report": [missing.report.folder.value, missing.report.code] if missing.report else None,
        "description": missing.description,
        "seen_on": [day.isoformat() for day in missing.seen_on],
        "usual_time": missing.usual_time,
        "folder": missing.folder.value if missing.folder else None,
    }


def _missing(facts: Mapping[str, Any]) -> MissingReport:
    report = facts["report"]
    return MissingReport(
        Report(Folder(report[0]), report[1]) if report else None,
        facts["description"],
        tuple(map(date.fromisoformat, facts["seen_on"])),
        facts["usual_time"],
        Folder(facts["folder"]) if facts["folder"] else None,
    )


def _describe(verdict: Verdict, *, own: bool) -> str:
    text = f"for {verdict.day.isoformat()}"
    if not own:
        text += " (which no run had judged)"
    return f"{text}: {format_missing(verdict.missing)}"
