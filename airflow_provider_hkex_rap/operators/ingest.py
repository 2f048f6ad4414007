"""Land what RAP lists and the lake lacks, in as many sessions as it takes."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pendulum

from airflow_provider_hkex_rap import __version__
from airflow_provider_hkex_rap.aio.together import run_all, run_both
from airflow_provider_hkex_rap.assets.announcing import Announcement, read_announced
from airflow_provider_hkex_rap.lake.entries import Origin
from airflow_provider_hkex_rap.lake.entry import Disposition
from airflow_provider_hkex_rap.lake.landing import Landing
from airflow_provider_hkex_rap.lake.layout import new_run
from airflow_provider_hkex_rap.lake.ledger import Ledger
from airflow_provider_hkex_rap.lake.outcomes import NOTHING_LANDED
from airflow_provider_hkex_rap.lake.planning import Plan, plan
from airflow_provider_hkex_rap.lake.refusals import refusing
from airflow_provider_hkex_rap.lake.storage_calls import StorageCalls
from airflow_provider_hkex_rap.rap.clock import HONG_KONG, is_time, time_of
from airflow_provider_hkex_rap.rap.errors import RapClosed, RapError, RapPermissionDenied, RapTransferError
from airflow_provider_hkex_rap.rap.printable import printable

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.lake.entry import Entry
    from airflow_provider_hkex_rap.lake.outcomes import LandingProgress, LandingResult
    from airflow_provider_hkex_rap.lake.store import Lake
    from airflow_provider_hkex_rap.rap.files import RemoteFile
    from airflow_provider_hkex_rap.rap.folders import Folder
    from airflow_provider_hkex_rap.rap.report_name import Naming
    from airflow_provider_hkex_rap.runner.runner import SessionRunner
    from airflow_provider_hkex_rap.runner.source import LoginSource
    from airflow_provider_hkex_rap.transport.session import RapSession

_PROGRESS_SECONDS = 10.0
# A folder has about forty reports; names of an unknown form may have a code each.
_REPORTS_NAMED = 200
_OTHERS = {"*": "others"}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestRequest:
    """The files to land.

    :param folders: the folders to list.
    :param lake: the lake to land them in.
    :param naming: the rules by which file names are read.
    :param include: globs on file names; one of them must match.
    :param exclude: globs on file names; none of them may match.
    :param day: the trading day of the run.
    :param only_day: leave out the files of other days.
    """

    folders: Sequence[Folder]
    lake: Lake
    naming: Naming
    include: Sequence[str]
    exclude: Sequence[str]
    day: pendulum.Date
    only_day: bool


@dataclass(slots=True, kw_only=True)
class Ingest:
    """Land the files of a request.

    ::

        ingest = Ingest(request=request, runner=runner, source=source, run={})
        runner.run(ingest.land, wanted=services)
        print(ingest.summary())

    :param request: the files to land.
    :param runner: opens the sessions.
    :param source: the settings of the logins.
    :param run: the ids of the Airflow task, for the manifest.
    :param first_try: the number of the task's first try; a task that was cleared begins with another than 1.
    """

    request: IngestRequest
    runner: SessionRunner
    source: LoginSource
    run: Mapping[str, Any]
    first_try: int = 0
    ledger: Ledger = field(init=False)
    """The files that the lake has; known after `land`."""
    plan: Plan = field(init=False)
    """The listed files, by their state in the lake; known after `land`."""
    unseen: list[RapError] = field(default_factory=list, init=False)
    """The errors of folders that the last session could not list."""
    landings: list[Landing] = field(default_factory=list, init=False)
    """One for each session; another login may have ended all but the last."""
    _started: float = field(default_factory=time.monotonic, init=False)

    async def land(self, after_listing: Callable[[], Awaitable[None]] | None = None) -> None:
        """Land the files in one session; call it again after a superseded session.

        :param after_listing: called once the plan is known and before its files are read, if there are any.
        :raises RapError: if the session ended early; what has landed is kept and has its entries.
        """
        request = self.request
        async with Landing(
            request.lake,
            self.source.login.account.customer,
            naming=request.naming,
            clock=self.source.clock,
            progress=_ProgressLog(),
        ) as landing:
            self.landings.append(landing)
            async with self.runner.session() as session:
                # Not before the login: while it waited for the account, another task may have landed files.
                self._log_session(session)
                listings, self.ledger = await run_both(
                    run_all(*(self._listing(session, folder) for folder in request.folders)),
                    landing.load_ledger(request.folders, request.day),
                )
                self.unseen = [listing for listing in listings if isinstance(listing, RapError)]
                files = [file for files in listings if not isinstance(files, RapError) for file in files]
                await landing.extend_ledger(self.ledger, files)
                self.plan = plan(
                    files,
                    self.ledger,
                    request.naming,
                    self.source.clock(),
                    include=request.include,
                    exclude=request.exclude,
                    business_date=request.day if request.only_day else None,
                )
                self._log_plan(listings)
                if after_listing and self.plan.todo:
                    await after_listing()
                await landing.read(session, self.ledger, self.plan, self._origin(session))

    async def load_ledger(self, calls: StorageCalls) -> None:
        """Read the ledger without a login, instead of `land`.

        :param calls: runs the storage calls.
        :raises LakeError: if the lake cannot be read.
        """
        request, now = self.request, self.source.clock()
        self.ledger = await Ledger.load(
            calls, request.lake, self.source.login.account.customer, request.folders, now, request.day
        )
        self.plan = Plan((), (), (), (), (), 0, now)

    async def _listing(self, session: RapSession, folder: Folder) -> Sequence[RemoteFile] | RapError:
        """Return the listing of a folder, or the error if the session goes on without it."""
        try:
            return await self.runner.list_folder(session, folder)
        except (RapPermissionDenied, RapTransferError, RapClosed) as error:
            return error

    def _origin(self, session: RapSession) -> Origin:
        login = self.source.login
        return Origin(
            account=login.account.name,
            site=login.site.value,
            address=session.address,
            host_key_fingerprint=session.host_key_fingerprint,
            client_key_fingerprint=session.client_key_fingerprint,
            package_version=__version__,
            **self.run,
        )

    @property
    def results(self) -> list[LandingResult]:
        """The result of each session so far, the last session's last."""
        return [landing.result for landing in self.landings]

    @property
    def has_listed(self) -> bool:
        """Whether a session has listed every folder."""
        return hasattr(self, "plan") and not self.unseen

    @property
    def seconds(self) -> float:
        """Seconds since the landing was prepared."""
        return time.monotonic() - self._started

    @property
    def unfinished(self) -> list[RemoteFile]:
        """The files that the last session has planned and that are not in the lake."""
        # The session may have ended before its listing.
        plan: Plan | None = getattr(self, "plan", None)
        if not self.landings or not plan:
            return []
        done = {
            outcome.file
            for outcome in self.results[-1].outcomes
            if outcome.disposition in (Disposition.LANDED, Disposition.ALREADY)
        }
        return [file for file in plan.todo if file not in done]

    @property
    def landed(self) -> list[Entry]:
        """The entries of the files that landed in any session, and that the manifest has."""
        return [
            entry
            for result in self.results
            for entry in result.entries
            if entry.disposition == Disposition.LANDED
        ]

    def summary(self) -> dict[str, Any]:
        """Return what the run hands on, of all sessions together; its size does not grow with the files.

        :returns: ``business_date``; the counts ``landed``, ``already``, ``deferred``, ``quarantined``,
            ``failed`` and ``excluded``; ``bytes`` and ``seconds``; ``by_report``, how many files landed by
            folder and report; and ``manifests``, as `manifests` returns them.
        """
        *earlier, last = self.results or [NOTHING_LANDED]
        before = {o.file for result in earlier for o in result.outcomes if o.disposition == "landed"}
        # A file without a listed size or time was read again, and then its bytes proved to be in the lake.
        again = [o.file for o in last.outcomes if o.disposition == "already"]
        landed = self.landed
        return {
            "business_date": self.request.day.isoformat(),
            "landed": len(landed),
            "already": last.already - sum(file in before for file in (*self.plan.already, *again)),
            "deferred": last.deferred,
            "quarantined": last.quarantined,
            "failed": last.failed,
            "excluded": self.plan.excluded,
            "bytes": sum(entry.size or 0 for entry in landed),
            "seconds": round(self.seconds, 3),
            "by_report": _count_by_report(landed),
            "manifests": self.manifests(),
        }

    def manifests(self) -> list[str]:
        """Return the URIs of the manifest files that all tries of this task have written in this run.

        Those before the task was cleared are left out. There are none if this try has not read the ledger.
        """
        if not hasattr(self, "ledger"):
            return []
        paths = {manifest.path for result in self.results for manifest in result.manifest_files}
        for manifest in self.ledger.manifests.values():
            if any(map(self.is_of_this_task, manifest.entries)):
                paths.add(manifest.path)
        return sorted(map(self.request.lake.uri_of, paths))

    def is_of_this_task(self, entry: Entry) -> bool:
        """Return whether a try of this task has written an entry in this run; False outside a run.

        The tries before the task was cleared do not count, nor those of its other mapped tasks.
        """
        own = self.run.get
        return (
            entry.run is not None
            and entry.run == own("run")
            and (entry.dag, entry.task, entry.map_index) == (own("dag"), own("task"), own("map_index"))
            and (entry.try_number or 0) >= self.first_try
        )

    async def announcement(self) -> Announcement:
        """Return the reports of the folders that were not announced yet, whichever run landed them.

        It waits while another task announces the first reports of a folder.

        :raises LakeError: if the lake cannot be read.
        """
        lake, customer, now = self.request.lake, self.ledger.customer, self.source.clock()
        announcement = Announcement(lake=lake, customer=customer, run=new_run(now))
        with refusing(f"The marks of {lake.uri} cannot be read", lake.uri):
            async with StorageCalls(len(self.request.folders)) as calls:
                announced = await run_all(
                    *(
                        read_announced(calls, lake, customer, folder, now, self.request.day)
                        for folder in self.request.folders
                    )
                )
        for folder, paths in zip(self.request.folders, announced, strict=True):
            announcement.add(folder, self._manifests(folder), paths)
        await announcement.wait_for_leases(self.source.clock)
        return announcement

    def _manifests(self, folder: Folder) -> dict[str, Sequence[Entry]]:
        """Return the entries of the manifest files that the ledger has read, and of those of this run."""
        read = {m.path: m.entries for m in self.ledger.manifests.values() if m.folder is folder}
        own = {
            m.path: m.entries for result in self.results for m in result.manifest_files if m.folder is folder
        }
        return {**read, **own}

    def _log_session(self, session: RapSession) -> None:
        now = self.source.clock()
        shift = (now - pendulum.now(HONG_KONG)).total_seconds()
        log.info(
            "Logged in to RAP at %s (%s site) as %s with key %s from %s; our clock says %s HKT%s.",
            session.address,
            self.source.login.site,
            self.source.login.account,
            session.client_key_fingerprint,
            session.source_address,
            now.format("YYYY-MM-DD HH:mm:ss"),
            # Two readings of one clock differ by less than a second.
            f", shifted by {shift:.0f} s" if abs(shift) > 1 else "",
        )

    def _log_plan(self, listings: Sequence[Sequence[RemoteFile] | RapError]) -> None:
        now = self.source.clock()
        for folder, listed in zip(self.request.folders, listings, strict=True):
            if isinstance(listed, RapError):
                log.warning("%s was not listed: %s", folder.path, listed)
                continue
            newest = time_of(max((f.mtime or 0 for f in listed if is_time(f.mtime, now)), default=None), now)
            codes = Counter(self.request.naming.read(f.text, f.mtime, now).report for f in listed)
            counts = _bounded(codes)
            reports = ", ".join(f"{_OTHERS.get(code, code)} {count}" for code, count in counts.items())
            log.info(
                "%s lists %d entries, the newest of %s. Files per report: %s.",
                folder.path,
                len(listed),
                f"{newest:YYYY-MM-DD HH:mm:ss} HKT" if newest else "no time",
                reports or "none",
            )
        log.info(
            "%d files are to land; %d are in the lake already; %d are excluded by name.",
            len(self.plan.todo),
            len(self.plan.already),
            self.plan.excluded,
        )


def _count_by_report(landed: Sequence[Entry]) -> dict[str, dict[str, int]]:
    """Return how many files landed, by folder and printable report code."""
    counts: dict[str, Counter[str]] = {}
    for entry in landed:
        counts.setdefault(entry.folder, Counter())[entry.report] += 1
    return {folder: _bounded(reports) for folder, reports in sorted(counts.items())}


def _bounded(codes: Counter[str]) -> dict[str, int]:
    """Return the counts of the most frequent reports by code, and the sum of the others as ``*``."""
    reports = Counter[str]()
    for code, count in codes.items():
        reports[printable(code)] += count
    named = reports.most_common(_REPORTS_NAMED)
    others = reports.total() - sum(count for _, count in named)
    return dict(sorted(named)) | ({"*": others} if others else {})


class _ProgressLog:
    """Logs how far a landing has come, at most every ten seconds."""

    def __init__(self) -> None:
        self._started = self._logged = time.monotonic()

    def __call__(self, progress: LandingProgress) -> None:
        now = time.monotonic()
        if now - self._logged < _PROGRESS_SECONDS:
            return
        self._logged = now
        rate = progress.bytes / (now - self._started)
        log.info(
            "%d of %d files, %.1f of %.1f MB, %.1f MB/s, about %.0f s left.",
            progress.files,
            progress.total_files,
            progress.bytes / 1e6,
            progress.total_bytes / 1e6,
            rate / 1e6,
            (progress.total_bytes - progress.bytes) / rate if rate else 0,
        )
