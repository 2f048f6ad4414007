"""The operator that lands RAP's reports in a data lake."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, AssetAlias, BaseOperator

from airflow_provider_hkex_rap.hooks.clock import clock_offset
from airflow_provider_hkex_rap.operators.arguments import parse_expect, parse_outlets, parse_patterns
from airflow_provider_hkex_rap.operators.links import BoardLink, ManifestLink
from airflow_provider_hkex_rap.operators.task import POOL, RapFolderTask
from airflow_provider_hkex_rap.rap.errors import RapClosed, RapError, RapTransferError
from airflow_provider_hkex_rap.rap.folders import Folder, parse_folders
from airflow_provider_hkex_rap.rap.judgement import check_service_day
from airflow_provider_hkex_rap.rap.report_name import Naming
from airflow_provider_hkex_rap.rap.trading_day import parse_business_date

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from airflow_provider_hkex_rap.assets.announcing import Announcement
    from airflow_provider_hkex_rap.hooks.login_source import AirflowLoginSource
    from airflow_provider_hkex_rap.operators.ingest import Ingest, IngestRequest
    from airflow_provider_hkex_rap.operators.judging import Judging
    from airflow_provider_hkex_rap.runner.runner import SessionRunner

REPORTS_LANDED = AssetAlias("hkex_rap_reports_landed")
"""Emits an event of ``hkex-rap://<customer>/<folder>`` for each folder with new reports."""

MANIFESTS = "manifests"
"""The key of the XCom of a failed task: the URIs of the manifest files of all its tries."""

_SUPERSEDED_RETRIES = 3


class RapDownloadOperator(RapFolderTask, BaseOperator):
    """Land whatever RAP lists and the lake lacks, in one login, oldest first.

    Files that have landed before, by this account or another of the customer, are not read again. A file
    that changes while it is read is deferred to the next run; one whose name would leave the lake is
    quarantined in the manifest. Outside the service hours the task reschedules itself to the opening
    (§4.1). ::

        RapDownloadOperator(task_id="land", folders=["DCASS"], lake="s3://aws_default@bucket/rap")

    :param folders: folders of RAP, by name: ``DCASS``, ``DCASS_OTHERS``, ``HKCC_SEOCH_CCMS_GLOB`` (§4.2).
    :param lake: the lake's root, as any URI of ``ObjectStoragePath``, such as ``s3://aws_default@bucket/rap``.
    :param business_date: land only the reports of this day (YYYY-MM-DD); for an explicit backfill.
    :param expect: what the lake must have of the run's trading day at the end of the task. ``usual`` stands
        for every report that came on nearly every ordinary day before, and for a file in each folder; a glob
        on file names must match a landed file. An empty list turns the judgement off.
    :param include: land only files whose name matches one of these globs.
    :param exclude: do not land files whose name matches one of these globs.
    :param naming: a regular expression with the named groups ``report`` and ``date``, searched in file names;
        a group that matches takes precedence over the built-in rule for report codes or business dates.
    :param rap_conn_id: an Airflow connection of the type ``hkex_rap``.
    :returns: a summary, small whatever the number of files: ``business_date``; the counts ``landed``,
        ``already``, ``deferred``, ``quarantined``, ``failed`` and ``excluded``; ``bytes``; ``seconds``;
        ``by_report``, how many files landed by folder and report; and ``manifests``, the URIs of the
        manifest files that all tries of this task have written since the task was last cleared. A task that
        fails leaves them as the XCom ``manifests``; there are none if its last try did not read the ledger.
    :raises RapReportMissing: if the lake lacks an expected report; a later try may find it.
    :raises LakeError: if the lake cannot be used; found before the login, unless it refuses single files.
    :raises RapTransferError: if files were deferred or failed; the rest has landed.
    :raises RapRetentionExpired: if RAP no longer lists the day whole (§4.1), and the lake lacks a usual
        report of it.
    :raises RapPermissionDenied: if RAP does not show a folder to the account; the others have landed.
    :raises RapConfigurationError: if an argument or a field of the connection is not of the valid form, or if
        the day is no service day.
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
    operator_extra_links = (BoardLink(), ManifestLink())

    def __init__(
        self,
        *,
        folders: str | Sequence[str],
        lake: str,
        business_date: str | date | None = None,
        expect: str | Sequence[str] = ("usual",),
        include: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
        naming: str | None = None,
        rap_conn_id: str = "hkex_rap_default",
        pool: str = POOL,
        **kwargs: Any,
    ) -> None:
        outlets = [*parse_outlets(kwargs.pop("outlets", None)), REPORTS_LANDED]
        super().__init__(pool=pool, outlets=outlets, **kwargs)
        self.folders = folders
        self.lake = lake
        self.business_date = business_date
        self.expect = expect
        self.include = include
        self.exclude = exclude
        self.naming = naming
        self.rap_conn_id = rap_conn_id
        self.announcement: Announcement | None = None
        """What the task announces if it succeeds; known at the end of `execute`."""
        self.board_link = ""
        """The URL of the run's day on the board; empty before the arguments are read."""
        self.manifests: Sequence[str] = ()
        """The URIs of the manifest files that the task's XComs name."""
        self._ingest: Ingest | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Land the new files and judge the run's trading day."""
        with self.ending(context):
            from airflow_provider_hkex_rap.hooks.login_source import AirflowLoginSource
            from airflow_provider_hkex_rap.lake.preflight import check_lake
            from airflow_provider_hkex_rap.operators.ingest import Ingest
            from airflow_provider_hkex_rap.operators.judging import Judging
            from airflow_provider_hkex_rap.operators.reporting import Reporting

            expect = parse_expect(self.expect)
            source = AirflowLoginSource(self.rap_conn_id)
            runner = self.session_runner(source, context, superseded_retries=_SUPERSEDED_RETRIES)
            request = self._parse(context, source)
            self.log.info("The trading day of this run is %s.", request.day.isoformat())
            customer, day = source.login.account.customer, request.day.isoformat()
            self.board_link = self.board_url(customer, day)
            ingest = Ingest(
                request=request,
                runner=runner,
                source=source,
                run=_run_of(context),
                first_try=_first_try(context, self.retries or 0),
            )
            judging = Judging(ingest, expect)
            self._ingest = ingest
            if leftover := check_lake(request.lake):
                self.log.info("The check of the lake may not remove its probe %s; it is harmless.", leftover)
            reporting = Reporting(context, source, runner, lambda: runner.key_record, ingest, judging)
            try:
                with reporting.of_try():
                    summary = self._land(context, runner, ingest, judging)
            except RapError:
                self._hand_on_manifests(context, ingest)
                raise
            self.manifests = summary["manifests"]
            return summary

    def _land(
        self, context: Context, runner: SessionRunner, ingest: Ingest, judging: Judging
    ) -> dict[str, Any]:
        """Land and judge, and return the summary."""
        try:
            runner.run(judging.land_and_judge, wanted={f.service for f in ingest.request.folders})
        except RapClosed:
            # An alert must not sleep until RAP opens, which may be on Monday.
            if not runner.run(judging.judge_without_rap):
                raise
        summary = ingest.summary() | {"judgement": judging.describe()}
        self.log.info("%s", _format_summary(summary))
        _judge_transfers(ingest)
        if ingest.unseen:
            raise ingest.unseen[0]
        if judging.error:
            raise judging.error
        # Last, since Airflow discards the events of a try that fails.
        self._announce(context, ingest)
        return summary

    def _hand_on_manifests(self, context: Context, ingest: Ingest) -> None:
        """Push the URIs of the manifest files as an XCom: a task that fails returns nothing."""
        # A killed task has five seconds left.
        if "ti" not in context or ingest.runner.killed or not (manifests := ingest.manifests()):
            return
        # Another error must not hide the one that fails the task.
        try:
            context["ti"].xcom_push(key=MANIFESTS, value=manifests)
        except Exception as error:
            self.log.warning("The manifest files of this try are no XCom: %s", error)
            return
        self.manifests = manifests

    def _announce(self, context: Context, ingest: Ingest) -> None:
        """Emit an event for each folder with reports that were not announced; none outside a run."""
        events = context.get("outlet_events")
        if events is None or "ti" not in context:
            return
        self.announcement = ingest.runner.run(ingest.announcement)
        for news in self.announcement.news:
            events[REPORTS_LANDED].add(Asset(news.uri), extra=news.extra)
            self.log.info(
                "The success of this task announces %d files of %d business dates as %s.",
                sum(day["count"] for day in news.extra["days"]),
                len(news.extra["days"]),
                news.uri,
            )

    def get_openlineage_facets_on_complete(self, task_instance: object) -> OperatorLineage[Any, Any] | None:
        """Return the lineage of the files that landed; OpenLineage calls this after each try that ended.

        :param task_instance: the task instance; the lineage does not depend on it.
        :returns: the files on RAP as inputs and the files in the lake as outputs; None if the try did not
            reach the login.
        """
        if self._ingest is None:
            return None
        from airflow_provider_hkex_rap.lineage.openlineage import describe_landing

        manifests = [uri for result in self._ingest.results for uri in result.manifests]
        # The name of the storage account is not in the URI of an Azure lake.
        account = getattr(self._ingest.request.lake.fs, "account_name", None)
        return describe_landing(self._ingest.landed, manifests, account or "")

    def parse_folders(self) -> tuple[Folder, ...]:
        """Return the folders that the operator lists."""
        return parse_folders(self.folders)

    def _parse(self, context: Context, source: AirflowLoginSource) -> IngestRequest:
        """Return the arguments, checked before any network traffic.

        :raises RapConfigurationError: if an argument or a field of the connection is not of the valid form.
        """
        from airflow_provider_hkex_rap.lake.opening import open_lake
        from airflow_provider_hkex_rap.operators.ingest import IngestRequest

        folders = self.parse_folders()
        only_day = parse_business_date(self.business_date)
        lake = open_lake(self.lake)
        include = parse_patterns(self.include, "include", at_least_one=True)
        exclude = parse_patterns(self.exclude, "exclude")
        source.check()
        day = self.run_day(context)
        check_service_day(day, folders, source.clock().date(), clock_offset())
        return IngestRequest(
            folders=folders,
            lake=lake,
            naming=Naming(self.naming or None, customer=source.login.account.customer),
            include=include,
            exclude=exclude,
            day=day,
            only_day=only_day is not None,
        )


def _judge_transfers(ingest: Ingest) -> None:
    """Check that every planned file has landed.

    :raises LakeError: if the lake refused a file for a cause that no retry removes.
    :raises RapTransferError: if a file was deferred or failed.
    """
    if not ingest.landings:
        return
    result = ingest.landings[-1].result
    if lasting := [refused for refused in result.refusals if not refused.retryable]:
        raise lasting[0]
    unfinished = [o for o in result.outcomes if o.disposition in ("deferred", "failed")]
    if not unfinished:
        return
    first = unfinished[0]
    raise RapTransferError(
        f"{result.landed} files landed, {result.deferred} were deferred, {result.failed} failed."
        f" First: {first.file.folder.path}/{first.file.text}: {first.reason}",
        todo="A later try lands them; the log names each.",
        path=f"{first.file.folder.path}/{first.file.text}",
        unfinished=tuple((f"{o.file.folder.path}/{o.file.text}", o.reason) for o in unfinished),
    )


def _format_summary(summary: dict[str, Any]) -> str:
    return (
        "Landed {landed} files of {bytes} bytes in {seconds:.1f} s; {already} were there already."
        " Deferred: {deferred}, quarantined: {quarantined}, failed: {failed}, excluded: {excluded}."
        " Manifest files: {manifests}.".format(**summary | {"manifests": len(summary["manifests"])})
    )


def _first_try(context: Context, retries: int) -> int:
    """Return the number of the first try since the task was last cleared."""
    # Airflow then allows the number of retries beyond the tries so far.
    return getattr(context.get("ti"), "max_tries", 0) - retries + 1


def _run_of(context: Context) -> dict[str, Any]:
    """Return the ids of the task, for the manifest."""
    ti = context.get("ti")
    return {
        "dag": ti.dag_id if ti else None,
        "run": ti.run_id if ti else None,
        "task": ti.task_id if ti else None,
        "map_index": ti.map_index if ti else None,
        "try_number": ti.try_number if ti else None,
    }
