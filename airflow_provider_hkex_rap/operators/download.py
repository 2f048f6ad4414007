"""The operator that lands RAP's reports in a data lake."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import date
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowRescheduleException

from airflow_provider_hkex_rap import __version__
from airflow_provider_hkex_rap._task import (
    POOL,
    SUPERSEDED_WAITS,
    RapTask,
    failing_at_once,
    parse_patterns,
    trading_day,
)
from airflow_provider_hkex_rap.lake.opening import open_lake
from airflow_provider_hkex_rap.rap.errors import (
    RapError,
    RapPermissionDenied,
    RapReportMissing,
    RapSessionSuperseded,
    RapTransferError,
)
from airflow_provider_hkex_rap.rap.folders import Folder, parse_folders
from airflow_provider_hkex_rap.rap.report_name import Naming
from airflow_provider_hkex_rap.rap.retention import left_on, retention_expired
from airflow_provider_hkex_rap.rap.trading_day import parse_business_date

if TYPE_CHECKING:
    import pendulum
    from airflow.sdk import Context

    from airflow_provider_hkex_rap.hooks.rap import RapHook
    from airflow_provider_hkex_rap.lake.landing import LandingProgress, LandingResult
    from airflow_provider_hkex_rap.lake.manifest import Ledger
    from airflow_provider_hkex_rap.lake.planning import Plan
    from airflow_provider_hkex_rap.lake.store import Lake
    from airflow_provider_hkex_rap.rap.clock import Clock
    from airflow_provider_hkex_rap.rap.files import RemoteFile
    from airflow_provider_hkex_rap.transport.session import RapSession

_PROGRESS_SECONDS = 10.0


class RapDownloadOperator(RapTask, BaseOperator):
    """Land whatever is on RAP and not yet in the lake, in one login, oldest first.

    Files that were landed before, by this account or another of the customer, are not read again. A file
    that changes while it is read is deferred to the next run; one whose name would leave the lake is
    quarantined in the manifest. Outside the service hours the task reschedules itself to the opening (§4.1).

    :param folders: folders of RAP, by name: ``DCASS``, ``DCASS_OTHERS``, ``HKCC_SEOCH_CCMS_GLOB`` (§4.2).
    :param lake: the lake's root, as any URI of ``ObjectStoragePath``, such as ``s3://aws_default@bucket/rap``.
    :param business_date: land only the reports of this day (YYYY-MM-DD); for an explicit backfill.
    :param expect: patterns of file names, each of which must have landed for the run's trading day.
    :param include: land only files whose name matches one of these patterns.
    :param exclude: do not land files whose name matches one of these patterns.
    :param naming: a regular expression with the named groups ``report`` and ``date``, searched in file names
        before the built-in rule for business dates.
    :param rap_conn_id: an Airflow connection of the type ``hkex_rap``.
    :returns: a summary: counts of files landed, already there, deferred, quarantined and failed; bytes;
        seconds; and the URI of the manifest.
    :raises RapReportMissing: an expected report has not landed; a later try may find it.
    :raises RapTransferError: files were deferred or failed; the rest has landed.
    :raises RapRetentionExpired: nothing of the day is listed, it is past the ten days (§4.1), and an expected
        report has not landed, or nothing of *business_date* has.
    :raises RapPermissionDenied: the account does not see a folder; the others have landed.
    :raises RapConfigurationError: an argument or a field of the connection is not of the valid form.
    """

    template_fields: Sequence[str] = (
        "folders",
        "lake",
        "business_date",
        "expect",
        "include",
        "exclude",
        "naming",
        "rap_conn_id",
    )
    ui_color = "#e4f0e8"

    def __init__(
        self,
        *,
        folders: str | Sequence[str],
        lake: str,
        business_date: str | date | None = None,
        expect: Sequence[str] = (),
        include: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
        naming: str | None = None,
        rap_conn_id: str = "hkex_rap_default",
        pool: str = POOL,
        **kwargs: Any,
    ) -> None:
        super().__init__(pool=pool, **kwargs)
        self.folders = folders
        self.lake = lake
        self.business_date = business_date
        self.expect = expect
        self.include = include
        self.exclude = exclude
        self.naming = naming
        self.rap_conn_id = rap_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Land what is new and judge the run's trading day."""
        from airflow_provider_hkex_rap.hooks.rap import RapHook
        from airflow_provider_hkex_rap.lake.layout import MANIFESTS

        with failing_at_once():
            self.check_pool(context)
            folders = parse_folders(self.folders)
            only_date = parse_business_date(self.business_date)
            self._naming = naming = Naming(self.naming or None)
            lake = open_lake(self.lake)
            self._include = parse_patterns(self.include, "include", at_least_one=True)
            self._exclude = parse_patterns(self.exclude, "exclude")
            expect = parse_patterns(self.expect, "expect")
            hook = RapHook(self.rap_conn_id)
            hook.check()
            services = sorted({folder.service for folder in folders}, reverse=True)
            day = only_date or trading_day(context, services[0], hook.clock())
            self.log.info("The trading day of this run is %s.", day.isoformat())
            started = time.monotonic()
            self._cut_short: list[LandingResult] = []
            ledger, plan, landing, unseen = self.run_session(
                hook,
                services,
                lambda: self._land(hook, lake, folders, naming, only_date, day, _run_of(context)),
                context,
                waits=SUPERSEDED_WAITS,
            )
            manifest = lake.uri_of(f"{MANIFESTS}/customer={ledger.customer}")
            summary = self._summary(plan, landing, time.monotonic() - started) | {"manifest": manifest}
            self.log.info("%s", _told(summary))
            self._judge_transfers(landing)
            if unseen:
                raise unseen[0]
            if only_date and not ledger.of_day(only_date) and not plan.quarantined:
                raise _nothing_of(only_date, folders, hook.clock().date())
            self._judge_expectations(ledger, plan, day, expect, hook.clock().date())
            return summary

    async def _land(
        self,
        hook: RapHook,
        lake: Lake,
        folders: Sequence[Folder],
        naming: Naming,
        only_date: pendulum.Date | None,
        day: pendulum.Date,
        run: dict[str, Any],
    ) -> tuple[Ledger, Plan, LandingResult, list[Exception]]:
        """Land what the folders list; return it with the errors of folders that the account does not see."""
        from airflow_provider_hkex_rap.lake.landing import Landing, Origin
        from airflow_provider_hkex_rap.lake.manifest import Ledger
        from airflow_provider_hkex_rap.lake.planning import plan

        login, clock = hook.login, hook.clock
        landing = Landing(
            lake, login.account.customer, naming=naming, clock=clock, progress=_ProgressLog(self.log)
        )
        try:
            async with landing, hook.session() as session:
                # Not before: while this login waited for its turn, another task may have landed files.
                ledger, listings = await asyncio.gather(
                    Ledger.load(lake, login.account.customer, folders, clock(), day),
                    asyncio.gather(*(self._listing(session, folder, clock) for folder in folders)),
                )
                files = [
                    file for listing in listings if not isinstance(listing, Exception) for file in listing
                ]
                todo = plan(
                    files,
                    ledger,
                    naming,
                    clock(),
                    include=self._include,
                    exclude=self._exclude,
                    business_date=only_date,
                )
                self.log.info(
                    "RAP lists %d entries; %d files are to land, %d are in the lake already.",
                    len(files),
                    len(todo.todo),
                    len(todo.already),
                )
                origin = Origin(
                    account=login.account.name,
                    site=login.site.value,
                    address=session.address,
                    host_key_fingerprint=session.host_key_fingerprint,
                    client_key_fingerprint=session.client_key_fingerprint,
                    package_version=__version__,
                    **run,
                )
                await landing.read(session, ledger, todo, origin)
        except RapSessionSuperseded:
            # The next session finds in the lake what this one has landed; the summary is of both.
            self._cut_short.append(landing.result)
            raise
        unseen = [error for error in listings if isinstance(error, Exception)]
        return ledger, todo, landing.result, unseen

    async def _listing(
        self, session: RapSession, folder: Folder, clock: Clock
    ) -> Sequence[RemoteFile] | Exception:
        """Return what a folder lists, or why it does not while the session goes on."""
        try:
            return await self.list_open_folder(session, folder, clock)
        except (RapPermissionDenied, RapTransferError, AirflowRescheduleException) as error:
            return error

    def _judge_transfers(self, landing: LandingResult) -> None:
        unfinished = [o for o in landing.outcomes if o.disposition in ("deferred", "failed")]
        if unfinished:
            first = unfinished[0]
            raise RapTransferError(
                f"{landing.landed} files landed, {landing.deferred} were deferred, {landing.failed} failed."
                f" First: {first.file.folder.path}/{first.file.text}: {first.reason}",
                todo="A later try lands them; the log names each.",
                path=f"{first.file.folder.path}/{first.file.text}",
                unfinished=tuple((f"{o.file.folder.path}/{o.file.text}", o.reason) for o in unfinished),
            )

    def _summary(self, plan: Plan, landing: LandingResult, seconds: float) -> dict[str, Any]:
        """Return what the task has done, in this session and in those that others' logins have ended."""
        outcomes = [outcome for earlier in self._cut_short for outcome in earlier.outcomes]
        before = {outcome.file for outcome in outcomes if outcome.disposition == "landed"}
        return {
            "landed": landing.landed + len(before),
            "already": landing.already - sum(file in before for file in plan.already),
            "deferred": landing.deferred,
            "quarantined": landing.quarantined,
            "failed": landing.failed,
            "bytes": sum(each.bytes for each in (*self._cut_short, landing)),
            "seconds": round(seconds, 3),
        }

    def _judge_expectations(
        self, ledger: Ledger, plan: Plan, day: pendulum.Date, expect: Sequence[str], today: pendulum.Date
    ) -> None:
        names = [name for _, name in ledger.of_day(day)]
        missing = [glob for glob in expect if not any(fnmatchcase(name, glob) for name in names)]
        if not missing:
            return
        listed = (self._naming.read(f.text, f.mtime, plan.seen) for f in (*plan.todo, *plan.already))
        if today >= left_on(day) and day not in (name.business_date for name in listed):
            raise retention_expired(day, _paths(parse_folders(self.folders)), f"None of {', '.join(missing)}")
        raise RapReportMissing(
            f"Expected for {day.isoformat()} and not landed: {', '.join(missing)}.",
            why=f"RAP lists no file of that day by these names; {len(names)} others of it have landed.",
            todo="A later try may find them; else ask HKEX, or mend the patterns in 'expect'.",
            missing=tuple(missing),
            business_date=day.isoformat(),
        )


def _told(summary: dict[str, Any]) -> str:
    return (
        "Landed {landed} files of {bytes} bytes in {seconds:.1f} s; {already} were there already. Deferred:"
        " {deferred}, quarantined: {quarantined}, failed: {failed}. Manifest: {manifest}".format(**summary)
    )


def _nothing_of(day: pendulum.Date, folders: Sequence[Folder], today: pendulum.Date) -> RapError:
    """Return the error of a day of which nothing is listed and nothing has landed."""
    if today >= left_on(day):
        return retention_expired(day, _paths(folders))
    return RapReportMissing(
        f"Nothing of {day.isoformat()} is in {_paths(folders)}, and nothing of it has landed.",
        why="The reports are not there yet, or that day is no trading day.",
        todo=f"A later try may find them; they leave RAP on {left_on(day).isoformat()}.",
        missing=tuple(folder.path for folder in folders),
        business_date=day.isoformat(),
    )


def _paths(folders: Sequence[Folder]) -> str:
    return ", ".join(folder.path for folder in folders)


def _run_of(context: Context) -> dict[str, Any]:
    """Return what the manifest says of the task that landed a file."""
    ti = context.get("ti")
    return {
        "dag": ti.dag_id if ti else None,
        "run": ti.run_id if ti else None,
        "task": ti.task_id if ti else None,
        "try_number": ti.try_number if ti else None,
    }


class _ProgressLog:
    """Says how far a landing has come, at a pace that a log can bear."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self._started = self._said = time.monotonic()

    def __call__(self, progress: LandingProgress) -> None:
        now = time.monotonic()
        if now - self._said < _PROGRESS_SECONDS:
            return
        self._said = now
        rate = progress.bytes / (now - self._started)
        self._log.info(
            "%d of %d files, %.1f of %.1f MB, %.1f MB/s, about %.0f s left.",
            progress.files,
            progress.total_files,
            progress.bytes / 1e6,
            progress.total_bytes / 1e6,
            rate / 1e6,
            (progress.total_bytes - progress.bytes) / rate if rate else 0,
        )
