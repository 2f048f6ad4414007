"""Judge if the run's trading day is complete, and remember which days were judged."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import date
from typing import TYPE_CHECKING, Any

from airflow_provider_hkex_rap.aio.thread import in_thread
from airflow_provider_hkex_rap.lake.completeness import Completeness, Scope
from airflow_provider_hkex_rap.lake.entry import Disposition
from airflow_provider_hkex_rap.lake.ledger import FolderDay
from airflow_provider_hkex_rap.lake.refusals import refusing
from airflow_provider_hkex_rap.lake.storage_calls import StorageCalls
from airflow_provider_hkex_rap.operators.judgement_marks import JudgementMarks, not_landed_error
from airflow_provider_hkex_rap.rap.calendar import load_public_holidays
from airflow_provider_hkex_rap.rap.errors import RapError, RapReportMissing
from airflow_provider_hkex_rap.rap.files import Kind
from airflow_provider_hkex_rap.rap.judgement import (
    Report,
    Verdict,
    days_of_baseline,
    format_missing,
    is_ordinary,
)
from airflow_provider_hkex_rap.rap.retention import first_kept

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.lake.entry import Entry
    from airflow_provider_hkex_rap.lake.marks import Mark
    from airflow_provider_hkex_rap.operators.ingest import Ingest
    from airflow_provider_hkex_rap.rap.files import RemoteFile

_THREADS = 8
_NAMED = 20
"""Warnings and reports in the summary, at most."""

log = logging.getLogger(__name__)


def _task_name(run: Mapping[str, Any]) -> str:
    """Return the ids of DAG and task, and the index if it is mapped; empty outside a run."""
    if run.get("run") is None:
        return ""
    index = run["map_index"]
    return f"{run['dag']}.{run['task']}{f'[{index}]' if index >= 0 else ''}"


class Judging:
    """The judgement of a run.

    ::

        judging = Judging(ingest, expect=("usual",))
        runner.run(judging.land_and_judge, wanted=services)
        if judging.error:
            raise judging.error

    :param ingest: the landing whose days are judged.
    :param expect: globs on file names, and the word ``usual``; nothing turns the judgement off.
    """

    def __init__(self, ingest: Ingest, expect: Sequence[str]) -> None:
        request = ingest.request
        self._ingest = ingest
        self._run: str | None = ingest.run.get("run")
        self._scope = Scope(
            account=ingest.source.login.account.name,
            folders=tuple(request.folders),
            include=tuple(request.include),
            exclude=tuple(request.exclude),
            expect=tuple(expect),
            task=_task_name(ingest.run),
        )
        self.error: RapError | None = None
        """The error that the run must end with; None if every judged day is complete."""
        self.expect = self._scope.expect
        """Globs on file names, and the word ``usual``."""
        self.covers = self._scope.covers
        self.verdicts: list[Verdict] = []
        """The verdicts, that of the run's own day last."""
        self._marks = JudgementMarks(ingest, self._scope)
        self._earlier: list[Mark] | None = None
        """The marks of earlier judgements; None before they were read."""

    async def land_and_judge(self) -> None:
        """Land the files in one session, then judge.

        What RAP lists is marked before the first file is read, so that a later try knows it although this one
        was killed or its session was cut.
        """
        # Its import takes as long as the login.
        calendar = asyncio.create_task(in_thread(load_public_holidays))
        try:
            await self._land_and_judge()
        finally:
            await calendar

    async def _land_and_judge(self) -> None:
        try:
            await self._ingest.land(self._judge_and_mark)
        except RapError:
            await self._judge_and_mark()
            raise
        await self._judge_and_mark()
        if self.verdicts:
            self._log()

    async def _judge_and_mark(self) -> None:
        # A run that has not seen every folder has to wait until RAP opens again.
        if not self._ingest.has_listed:
            return
        with self._refusing():
            async with StorageCalls(_THREADS) as calls:
                # A task without a judgement has no marks, and may run every ten minutes.
                if self._earlier is None:
                    self._earlier = await self._marks.read(calls) if self._scope.expect else []
                await self._load_baseline(calls)
                self._judge(self._earlier, self._ingest.plan.known)
                await self._write_mark(calls)

    async def judge_without_rap(self) -> bool:
        """Judge by the ledger what the last try of this run has missed; False if no try has listed RAP.

        Its error is final: no retry can help before RAP opens, which may be days away.
        """
        if self._run is None or not self._scope.expect:
            return False
        request = self._ingest.request
        with self._refusing():
            async with StorageCalls(_THREADS) as calls:
                mark = self._marks.own(await self._marks.read(calls))
                if mark is None:
                    return False
                await self._ingest.load_ledger(calls)
                self._completeness = self._known(())
                self.verdicts = self._completeness.judge_again(request.day, mark)
                left = not_landed_error(mark, self._entries())
                self.error = left or self._completeness.error(request.day, self.verdicts)
                self._log()
        if self.error:
            self.error.retryable = False
            self.error.todo = "RAP is shut: clear the task when it is open, or ask HKEX for the reports."
        return True

    def _refusing(self) -> AbstractContextManager[None]:
        uri = self._ingest.request.lake.uri
        return refusing(f"The ledger of {uri} cannot be read or written", uri)

    def known_days(self) -> dict[Report, set[date]]:
        """Return the business dates of each report that is known; call it once a day was judged."""
        return {report: set(days) for report, days in self._completeness.history.counts.items()}

    def days_missing(self) -> dict[str, int] | None:
        """Return how many ordinary days, of those that RAP surely lists whole, lack an expected report.

        A glob of ``expect`` may belong to any folder, so it counts for each.

        :returns: the number by folder; None if the run's day is an older one, or was not judged.
        """
        day, today = self._ingest.request.day, self._ingest.source.clock().date()
        first = first_kept(today).add(days=1)
        if not self.verdicts or not self.verdicts[-1].judged or day < first:
            return None
        days = Counter[str]()
        for number in range((day - first).days + 1):
            each = first.add(days=number)
            missing = self._completeness.judge(each, late=each != day).missing if is_ordinary(each) else ()
            days.update(
                {
                    (m.report.folder if m.report else m.folder or folder).value
                    for m in missing
                    for folder in self._scope.folders
                }
            )
        return {folder.value: days[folder.value] for folder in self._scope.folders}

    def describe(self) -> dict[str, Any]:
        """Return the judgement for the summary of the run."""
        if not self.verdicts:
            return {"judged": False, "expected": 0, "missing": [], "warnings": []}
        missing = [f"{v.day.isoformat()}: {m.description}" for v in self.verdicts for m in v.missing]
        warnings = [warning for verdict in self.verdicts for warning in verdict.warnings]
        own = self.verdicts[-1]
        return {
            "judged": own.judged,
            "expected": len(own.expected),
            "missing": missing[:_NAMED],
            "warnings": warnings[:_NAMED],
        }

    def _judge(self, marks: Iterable[Mark], listed: Sequence[RemoteFile]) -> None:
        request, completeness = self._ingest.request, self._known(listed)
        days: list[date] = []
        if not request.only_day:
            days = completeness.unjudged_days(request.day, (mark.payload for mark in marks), self._run)
        self.verdicts = [completeness.judge(day, late=True) for day in days]
        self.verdicts.append(completeness.judge(request.day))
        self._completeness = completeness
        self.error = self._nothing_included(listed) or completeness.error(request.day, self.verdicts)
        if isinstance(self.error, RapReportMissing):
            self._name_quarantined(self.error)

    def _name_quarantined(self, error: RapReportMissing) -> None:
        """Say which listed files may not land, since the missing reports may be among them."""
        refused = [each for each in self._ingest.plan.quarantined if each.file.kind is not Kind.DIRECTORY]
        if refused:
            file, reason = refused[0]
            path = f"{file.folder.path}/{file.text}"
            error.why += f" It lists {len(refused)} that may not, such as {path}: {reason}"
            error.todo += " If a file may not land, fetch it by hand, and name it in 'exclude'."

    def _known(self, listed: Sequence[RemoteFile]) -> Completeness:
        now = self._ingest.source.clock()
        return Completeness(self._scope, self._entries(), listed, self._ingest.request.naming, now)

    def _entries(self) -> list[Entry]:
        read = [entry for manifest in self._ingest.ledger.manifests.values() for entry in manifest.entries]
        return read + [entry for result in self._ingest.results for entry in result.entries]

    def landed_in_run(self) -> list[Entry]:
        """Return the entries that this task has written for landed files, in any of its tries."""
        return [
            entry
            for entry in self._entries()
            if entry.disposition == Disposition.LANDED and self._ingest.is_of_this_task(entry)
        ]

    def _nothing_included(self, listed: Sequence[RemoteFile]) -> RapError | None:
        """Return the error of an ``include`` that matches nothing, in the listing or in the ledger."""
        include = self._ingest.request.include
        if listed or "*" in include or any(self._scope.covers(e.folder, e.text) for e in self._entries()):
            return None
        return RapReportMissing(
            f"'include' matches no file: {', '.join(include)}.",
            why="Neither the listing nor the lake has a file by these names. Patterns are case-sensitive.",
            todo="A later try may find one. Else correct the patterns; 'airflow hkex-rap ls' shows names.",
            missing=tuple(include),
            business_date=self._ingest.request.day.isoformat(),
        )

    async def _load_baseline(self, calls: StorageCalls) -> None:
        """Read the days that the run's day is compared with, if it is older than the ledger's window."""
        request, ledger = self._ingest.request, self._ingest.ledger
        wanted = (
            FolderDay(folder, day) for folder in request.folders for day in days_of_baseline(request.day)
        )
        await ledger.read(calls, request.lake, [each for each in wanted if each not in ledger.loaded])

    async def _write_mark(self, calls: StorageCalls) -> None:
        if not self._scope.expect:
            return
        ingest = self._ingest
        left = [(f"{file.folder.path}/{file.text}", file.size, file.mtime) for file in ingest.unfinished]
        await self._marks.write(
            calls,
            self._completeness.mark(self._run, ingest.request.day, self.verdicts, left, ingest.plan.seen),
        )

    def _log(self) -> None:
        for verdict in self.verdicts:
            for warning in verdict.warnings:
                log.warning("%s", warning)
            self._log_verdict(verdict)
        day = self.verdicts[-1].day
        strange = [
            report
            for report in self._completeness.history.codes_of_one_day()
            if day in self._completeness.history.counts[report]
        ]
        if strange:
            log.warning(
                "Reports seen on %s only: %s. If their names contain a part that changes, set 'naming'.",
                day.isoformat(),
                ", ".join(map(str, strange[:_NAMED])),
            )

    def _log_verdict(self, verdict: Verdict) -> None:
        count = len(self._completeness.landed(verdict.day))
        if verdict.judged:
            absent = {missing.report for missing in verdict.missing}
            log.info(
                "Of the %d reports that came on %s, the lake has %d for %s; it has %d files of that day.",
                len(verdict.expected),
                ", ".join(day.isoformat() for day in verdict.baseline),
                sum(report not in absent for report in verdict.expected),
                verdict.day.isoformat(),
                count,
            )
        else:
            log.info("The lake has %d files of %s.", count, verdict.day.isoformat())
        if verdict.missing:
            log.error("%s lacks %s.", verdict.day.isoformat(), format_missing(verdict.missing))
