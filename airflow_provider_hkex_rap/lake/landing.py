"""Land the files of a plan: read each once, commit it to the lake, and enter it in the manifest."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from typing import TYPE_CHECKING

from airflow_provider_hkex_rap.aio.budget import Budget
from airflow_provider_hkex_rap.aio.finish import finish
from airflow_provider_hkex_rap.aio.together import run_both
from airflow_provider_hkex_rap.lake.begun import BegunRuns
from airflow_provider_hkex_rap.lake.claims import Claims
from airflow_provider_hkex_rap.lake.committing import BYTES_IN_FLIGHT, Commits
from airflow_provider_hkex_rap.lake.entries import Entries, Origin
from airflow_provider_hkex_rap.lake.entry import Disposition
from airflow_provider_hkex_rap.lake.layout import new_run
from airflow_provider_hkex_rap.lake.ledger import FolderDay, Ledger
from airflow_provider_hkex_rap.lake.lookups import Lookups
from airflow_provider_hkex_rap.lake.manifest_writer import ManifestWriter
from airflow_provider_hkex_rap.lake.outcomes import FileOutcome, LandingProgress, LandingResult, Outcomes
from airflow_provider_hkex_rap.lake.reading import Reading
from airflow_provider_hkex_rap.lake.refreshing import Refresh
from airflow_provider_hkex_rap.lake.refusals import refusing
from airflow_provider_hkex_rap.lake.spool import spool_directory
from airflow_provider_hkex_rap.lake.storage_calls import StorageCalls
from airflow_provider_hkex_rap.rap.errors import LakeConflict, RapTransferError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from types import TracebackType

    import pendulum

    from airflow_provider_hkex_rap.lake.planning import Plan
    from airflow_provider_hkex_rap.lake.store import Lake
    from airflow_provider_hkex_rap.rap.clock import Clock
    from airflow_provider_hkex_rap.rap.files import RemoteFile, ReportSource
    from airflow_provider_hkex_rap.rap.folders import Folder
    from airflow_provider_hkex_rap.rap.report_name import Naming

__all__ = ["FileOutcome", "Landing", "LandingProgress", "LandingResult", "Origin"]

COMMIT_THREADS = 16
LOCAL_COMMIT_THREADS = 4

log = logging.getLogger(__name__)


class Landing:
    """Land the files of a plan: read in one session, commit and record meanwhile; use it as ``async with``.

    Create it before the session, and leave it after the session is closed, so that the login is released as
    soon as the last byte is read::

        async with Landing(lake, "CXYZ", naming=Naming(), clock=clock) as landing:
            async with hook.session() as session:
                ledger, files = await landing.load_ledger(folders), await session.list_folder(folder)
                await landing.extend_ledger(ledger, files)
                todo = plan(files, ledger, Naming(), clock())
                await landing.read(session, ledger, todo, origin)
        return landing.result

    A file that fails holds up no other. If the block ends with an error, such as the end of the session, the
    files that were read whole are still committed and entered in the manifest. If the task is cancelled, no
    read, lookup or commit starts any more: the storage calls that run are awaited, the entries of the
    committed files are written, and the cancellation goes on.

    :param lake: the lake that the files land in.
    :param customer: the DCASS customer code, such as ``CXYZ``.
    :param naming: the rules that read business date and report from a file's name.
    :param clock: gives the time.
    :param progress: called from the event loop each time a file is finished.
    """

    def __init__(
        self,
        lake: Lake,
        customer: str,
        *,
        naming: Naming,
        clock: Clock,
        progress: Callable[[LandingProgress], object] | None = None,
    ) -> None:
        self._lake = lake
        self._customer = customer
        self._naming = naming
        self._clock = clock
        self._outcomes = Outcomes(progress)
        self._calls = StorageCalls(LOCAL_COMMIT_THREADS if lake.is_local else COMMIT_THREADS)
        self._lookups = Lookups(lake, self._calls)
        self._manifest = ManifestWriter(lake, customer, new_run(clock()))
        self._begun = BegunRuns(self._calls, lake, customer, self._manifest.run)
        self._claims: Claims | None = None
        self._refresh: Refresh | None = None
        self._commits: Commits | None = None
        self._plan: Plan | None = None
        self._spools = contextlib.ExitStack()

    async def __aenter__(self) -> Landing:
        await self._calls.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for the commits that run, and write the entries of the committed files.

        If the block ends with an error, that error is raised, and the errors found here are added as notes.

        :raises LakeConflict: if files have landed and their manifest entries could not be written.
        :raises RapTransferError: if a planned file has no outcome.
        :raises asyncio.CancelledError: if the task was cancelled.
        """
        if isinstance(error, asyncio.CancelledError):
            self._calls.stop()
        late: list[BaseException] = []
        try:
            cancelled = await finish(self._close(late))
        except asyncio.CancelledError as cancellation:
            _attach(late, cancellation)
            raise
        if error is None and cancelled:
            error = asyncio.CancelledError("The task was cancelled while files were landing.")
            _attach(late, error)
            raise error
        if error is not None:
            _attach(late, error)
        elif late:
            _attach(late[1:], late[0])
            raise late[0]
        elif missing := self._outcomes.missing():
            raise _without_outcome(missing)

    @property
    def result(self) -> LandingResult:
        """The result so far; readable at any time, also after an error."""
        outcomes = self._outcomes.finished
        counts = Counter(outcome.disposition for outcome in outcomes)
        already, quarantined = (self._plan.already, self._plan.quarantined) if self._plan else ((), ())
        return LandingResult(
            landed=counts[Disposition.LANDED],
            already=counts[Disposition.ALREADY] + len(already),
            deferred=counts[Disposition.DEFERRED],
            quarantined=len(quarantined),
            failed=counts[Disposition.FAILED],
            bytes=self._outcomes.landed_bytes,
            entries=tuple(self._manifest.written),
            outcomes=outcomes,
            manifests=tuple(self._lake.uri_of(file.path) for file in self._manifest.files),
            manifest_files=tuple(self._manifest.files),
            refusals=tuple(self._outcomes.refusals.values()),
        )

    async def load_ledger(self, folders: Iterable[Folder], day: pendulum.Date | None = None) -> Ledger:
        """Return the ledger of the customer.

        Its storage calls belong to this landing: after a kill, the session need not wait for them.

        :param folders: the folders on RAP.
        :param day: a business date to include, however long ago it landed.
        :raises LakeError: if the lake cannot be read.
        """
        folders, now = list(folders), self._clock()
        with refusing(f"The marks of {self._lake.uri} cannot be read", self._lake.uri):
            ledger, _ = await run_both(
                Ledger.load(self._calls, self._lake, self._customer, folders, now, day),
                self._begun.load(folders, now),
            )
        return ledger

    async def extend_ledger(self, ledger: Ledger, files: Iterable[RemoteFile]) -> None:
        """Read the business dates of listed files that the ledger has not read: RAP may list older ones.

        :param ledger: the ledger.
        :param files: the listed files.
        :raises LakeError: if the lake cannot be read.
        """
        now = self._clock()
        days = {
            FolderDay(file.folder, self._naming.read(file.text, file.mtime, now).business_date)
            for file in files
        }
        await ledger.read(self._calls, self._lake, days - ledger.loaded)

    async def read(self, source: ReportSource, ledger: Ledger, plan: Plan, origin: Origin) -> None:
        """Read the files of a plan, and return when the last byte has arrived; commits may still run.

        Call it once, inside the session.

        :param source: a login to RAP; its account belongs to the ledger's customer.
        :param ledger: the files that the lake has; the new entries are added to it.
        :param plan: the files to land.
        :param origin: the login and the task, for the manifest.
        :raises RapError: if the session ends.
        :raises LakeError: if the spool directory cannot be made.
        """
        self._plan = plan
        self._outcomes.expect(plan.todo)
        entries = Entries(self._lake, ledger, self._manifest, origin, self._naming, self._clock, plan.seen)
        for entry in plan.quarantined:
            entries.add_quarantined(entry)
        for file, sha256, uri in plan.returned:
            entries.add_repeated(entries.target(file), sha256, uri, "RAP has published it again.")
        left = self._begun.left()
        if not plan.todo and not left:
            return
        targets = [entries.target(file) for file in plan.todo]
        days = {target.folder_day for target in targets}
        days |= {FolderDay(place.folder, place.name.business_date) for place in left}
        refresh = self._refresh = Refresh(self._calls, self._lake, ledger, days, self._manifest.run)
        claims = self._claims = Claims(
            self._lake,
            self._calls,
            self._lookups,
            entries,
            self._outcomes,
            refresh,
            self._manifest.run,
            targets,
        )
        await self._mark(self._begun.begin(targets))
        # Free their memory before the files land.
        del targets
        if await claims.claim_left(left):
            self._begun.claimed()
        budget = Budget(BYTES_IN_FLIGHT)
        self._commits = Commits(
            self._lake, self._calls, self._lookups, claims, entries, self._outcomes, budget
        )
        reading = Reading(
            source,
            self._lake,
            self._calls,
            claims,
            refresh,
            entries,
            self._outcomes,
            self._commits,
            budget,
            self._clock,
            await self._calls.run(self._make_spools),
        )
        await self._run(reading, plan.todo)

    def _make_spools(self) -> str:
        # Kept in this thread, so that the directory is removed even if nobody waits for its name any more.
        with refusing("The directory for unfinished files cannot be made", self._lake.uri):
            return self._spools.enter_context(spool_directory(self._lake.spool_parent()))

    async def _run(self, reading: Reading, files: Sequence[RemoteFile]) -> None:
        """Run a reading; if this task is cancelled, first stop the storage calls, then the reading."""
        task = asyncio.create_task(reading.run(files))
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            self._calls.stop()
            task.cancel()
            await finish(_ended(task))
            raise
        task.result()

    async def _mark(self, writing: Awaitable[None]) -> None:
        try:
            await writing
        # Without its marks a run lands as well; they only help to find what a killed run left.
        except Exception as error:
            log.warning("%s does not take a mark of this run: %s", self._lake.uri, error)

    async def _close(self, late: list[BaseException]) -> bool:
        """Finish the commits that run, write the entries, and stop the threads.

        :param late: takes the errors.
        :returns: whether the task was cancelled.
        """
        if self._commits:
            late += await self._commits.close()
        try:
            await self._manifest.close(retry=lambda: not self._calls.stopped)
        except LakeConflict as conflict:
            late.append(conflict)
        # A file that the lake refused may be in it all the same: a later run looks for it.
        if not late and not self._outcomes.refusals and not self._calls.stopped:
            await self._mark(self._begun.end())
        cancelled = self._calls.stopped
        await self._calls.close()
        await self._lookups.close()
        if self._claims and self._refresh:
            await self._claims.close()
            await self._refresh.close()
        await asyncio.to_thread(self._spools.close)
        return cancelled


async def _ended(task: asyncio.Task[None]) -> None:
    """Wait for a cancelled task to end; the cancellation matters more than its error."""
    await asyncio.gather(task, return_exceptions=True)


def _attach(late: Sequence[BaseException], first: BaseException) -> None:
    """Log errors that came after the first one, and add them to it as notes."""
    for error in late:
        log.error("While the landing ended after %r: %s", first, error, exc_info=error)
        first.add_note(f"Later: {type(error).__name__}: {error}")


def _without_outcome(files: Sequence[RemoteFile]) -> RapTransferError:
    paths = [f"{file.folder.path}/{file.text}" for file in files]
    return RapTransferError(
        f"{len(files)} planned files have no outcome: {', '.join(paths)}.",
        why="This is an error in the package: each file that is read must land, be deferred or fail.",
        todo="A later try lands them. Report the error, with the log of this task.",
        path=paths[0],
        unfinished=tuple((path, "It has no outcome.") for path in paths),
    )
