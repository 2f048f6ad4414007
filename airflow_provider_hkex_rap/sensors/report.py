"""The sensor that waits for reports to arrive on RAP."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import date, timedelta
from fnmatch import fnmatchcase
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator, PokeReturnValue
from airflow.sdk.exceptions import AirflowSensorTimeout, AirflowSkipException

from airflow_provider_hkex_rap.lake.planning import read_listing
from airflow_provider_hkex_rap.operators.arguments import check_number, check_poking, parse_patterns
from airflow_provider_hkex_rap.operators.task import POOL, RapFolderTask
from airflow_provider_hkex_rap.rap.clock import is_time, time_of
from airflow_provider_hkex_rap.rap.folders import Folder
from airflow_provider_hkex_rap.rap.printable import printable
from airflow_provider_hkex_rap.rap.report_name import Naming
from airflow_provider_hkex_rap.rap.retention import left_on, retention_expired
from airflow_provider_hkex_rap.sensors.context import (
    look_once,
    never_waiting_in_a_test_run,
    sensor_context,
    skipping_on_absence_only,
)

if TYPE_CHECKING:
    import pendulum
    from airflow.sdk import Context

    from airflow_provider_hkex_rap.hooks.login_source import AirflowLoginSource
    from airflow_provider_hkex_rap.lake.layout import Refused
    from airflow_provider_hkex_rap.rap.errors import RapError
    from airflow_provider_hkex_rap.rap.files import RemoteFile
    from airflow_provider_hkex_rap.runner.runner import SessionRunner


_NAMED = 10
"""Entries that may not land and that the log names, at most."""


class RapReportSensor(RapFolderTask, BaseSensorOperator):
    """Wait until reports of a trading day have arrived on RAP.

    Each poke is one login and one listing, which is read as the download reads it: an entry that is listed
    twice counts once, and one that may not land does not count. Between pokes the task gives its slot and its
    login back. Outside the service hours it reschedules itself to the opening, and looks once after it before
    it may time out. ::

        RapReportSensor(task_id="arrived", folder="DCASS", reports=["TP001_*"])

    :param folder: the folder to look in: ``DCASS``, ``DCASS_OTHERS`` or ``HKCC_SEOCH_CCMS_GLOB`` (§4.2).
    :param reports: globs on file names; each must match files of the business date.
    :param business_date: the day of the reports (YYYY-MM-DD); by default the run's trading day.
    :param min_files: how many files each glob must match.
    :param stable_for: seconds a file's mtime must be in the past before the file counts; a file without an
        mtime, or with one before 1980 or more than a day ahead, counts at once. If RAP's clock is ahead of
        ours, the log says so.
    :param soft_fail: of Airflow; skips the task only if the reports have not arrived in time. A refused
        login, a wrong argument, and a time-out whose last look failed, fail.
    :param naming: a regular expression with the named groups ``report`` and ``date``, as for the download.
    :param rap_conn_id: an Airflow connection of the type ``hkex_rap``.
    :param poke_interval: seconds between pokes; at least 60 (§4.1).
    :returns: the files found, each with name, size (bytes) and mtime (ISO 8601, UTC).
    :raises RapRetentionExpired: if the day is past the ten days (§4.1): RAP no longer lists it whole.
    :raises RapPermissionDenied: if RAP does not show the folder to the account.
    :raises RapConfigurationError: if an argument or a field of the connection is not of the valid form.
    :raises RapUnavailable: if RAP cannot be reached until the time-out; before it, the sensor looks again.
    :raises RapSessionSuperseded: if another login ends the last session before the time-out.
    :raises AirflowSensorTimeout: if the reports did not arrive in time; it names those that are missing.
    """

    template_fields: Sequence[str] = (
        "folder",
        "reports",
        "business_date",
        "naming",
        "rap_conn_id",
    )
    ui_color = "#e4f0e8"

    _source: AirflowLoginSource
    _sessions: SessionRunner
    _awaited = ""
    failed_look: RapError | None = None

    def __init__(
        self,
        *,
        folder: str,
        reports: Sequence[str] = ("*",),
        business_date: str | date | None = None,
        min_files: int = 1,
        stable_for: float = 60,
        naming: str | None = None,
        rap_conn_id: str = "hkex_rap_default",
        pool: str = POOL,
        mode: str = "reschedule",
        poke_interval: timedelta | float = 600,
        **kwargs: Any,
    ) -> None:
        super().__init__(pool=pool, mode=mode, poke_interval=poke_interval, **kwargs)
        check_poking(self)
        self.folder = folder
        self.reports = reports
        self.business_date = business_date
        self.min_files = min_files
        self.stable_for = stable_for
        self.naming = naming
        self.rap_conn_id = rap_conn_id

    def execute(self, context: Context) -> Any:
        """Look for the reports, and wait for them."""
        with self.ending(context):
            self._parse(context)
            # Before the base class: its time-out must not end a wait for the opening without a look after it.
            self._sessions.check_open([self._folder.service])
            try:
                with skipping_on_absence_only(self), never_waiting_in_a_test_run(self):
                    return super().execute(sensor_context(context))
            except (AirflowSensorTimeout, AirflowSkipException) as error:
                raise type(error)(f"{error} {self._awaited}") from None

    def parse_folders(self) -> tuple[Folder, ...]:
        """Return the folder that the sensor lists."""
        return (Folder.parse(self.folder),)

    def _parse(self, context: Context) -> None:
        """Check the arguments before any network traffic.

        :raises RapConfigurationError: if an argument or a field of the connection is not of the valid form.
        """
        from airflow_provider_hkex_rap.hooks.login_source import AirflowLoginSource

        (self._folder,) = self.parse_folders()
        self._globs = parse_patterns(self.reports, "reports", at_least_one=True)
        check_number("min_files", self.min_files, least=1, form="a whole number of files", whole=True)
        check_number("stable_for", self.stable_for, least=0, form="a number of seconds")
        self._naming = Naming(self.naming or None)
        self._source = AirflowLoginSource(self.rap_conn_id)
        self._source.check()
        self._sessions = self.session_runner(self._source, context)
        self._day = self.run_day(context)

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once: one login, one listing; works alone too, as in a test."""
        if self._runner is None:
            with self.ending(context):
                self._parse(context)
                return self.poke(context)
        files = look_once(self, context, self._source, self._sessions, self._listing, self._folder.service)
        if files is None:
            self._awaited = f"The last look failed: {self.failed_look}"
            return PokeReturnValue(False)
        return self._judge(files)

    async def _listing(self) -> Sequence[RemoteFile]:
        async with self._sessions.session() as session:
            return await self._sessions.list_folder(session, self._folder)

    def _judge(self, files: Sequence[RemoteFile]) -> PokeReturnValue:
        now = self._source.clock()
        if now.date() >= left_on(self._day):
            # RAP may still list a part of the day, such as the files of its night.
            raise retention_expired(self._day, self._folder.path, "Not every report")
        listed = [
            (file, refused)
            for file, refused in read_listing(files)
            if self._naming.read(file.text, file.mtime, now).business_date == self._day
        ]
        usable = [file for file, refused in listed if not refused]
        waits = _waits(usable, now, self.stable_for)
        settled = {file.name: file for file in usable if file.name not in waits}
        found = {glob: [f for f in settled.values() if fnmatchcase(f.text, glob)] for glob in self._globs}
        short = {glob: len(matches) for glob, matches in found.items() if len(matches) < self.min_files}
        if not short:
            arrived = {file.name: file for matches in found.values() for file in matches}
            counts = ", ".join(f"{glob} ({len(matches)})" for glob, matches in found.items())
            self.log.info("Arrived in %s for %s: %s.", self._folder.path, self._day.isoformat(), counts)
            return PokeReturnValue(True, [_facts(file, now) for file in arrived.values()])
        self._awaited = " ".join(
            (
                f"Still waiting in {self._folder.path} for {self._day.isoformat()}: "
                + ", ".join(f"{glob} ({count} of {self.min_files})" for glob, count in short.items())
                + ".",
                *_describe_waits(waits.values()),
                *self._describe_refused(listed),
            )
        )
        self.log.log(
            logging.WARNING if any(age < 0 for age in waits.values()) else logging.INFO, "%s", self._awaited
        )
        return PokeReturnValue(False)

    def _describe_refused(self, listed: Iterable[tuple[RemoteFile, Refused | None]]) -> Iterator[str]:
        wanted = (
            f"{printable(file.text)} does not count, since it may not land: {refused.reason}"
            for file, refused in listed
            if refused and any(fnmatchcase(file.text, glob) for glob in self._globs)
        )
        return islice(wanted, _NAMED)


def _waits(files: Iterable[RemoteFile], now: pendulum.DateTime, stable_for: float) -> dict[bytes, float]:
    """Return the age in seconds of each file that does not count yet, by name; below 0 if it is ahead of us.

    A file without an mtime counts at once, as does one whose mtime cannot be its time (see `is_time`): the
    download takes it for no time either. One that is less than a day ahead does not count.
    """
    waits: dict[bytes, float] = {}
    for file in files:
        if file.mtime is None or not is_time(file.mtime, now):
            continue
        age = now.timestamp() - file.mtime
        if age < stable_for:
            waits[file.name] = age
    return waits


def _describe_waits(ages: Collection[float]) -> Iterator[str]:
    ahead = [-age for age in ages if age < 0]
    if fresh := len(ages) - len(ahead):
        yield f"{fresh} files of that day are too fresh to be whole."
    if ahead:
        yield (
            f"RAP's files of that day are up to {max(ahead):.0f} s ahead of our clock, so that {len(ahead)}"
            " do not count yet: synchronise this machine's clock (NTP)."
        )


def _facts(file: RemoteFile, now: pendulum.DateTime) -> dict[str, Any]:
    time = time_of(file.mtime, now)
    return {"name": file.text, "size": file.size, "mtime": time and time.in_timezone("UTC").isoformat()}
