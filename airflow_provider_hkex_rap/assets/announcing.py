"""Announce the reports that landed: the asset events of a task, and the marks that they were announced.

Airflow discards the events of a failed try, and a worker may be killed at any time. So a mark in the lake
says which manifest files were announced. A task announces all files of the ledger that have no mark, no
matter which task wrote them. It writes the mark after Airflow has recorded its success and its events. If no
mark could be written, the next success announces the same files again: delivery is at least once.

Airflow creates an asset with its first event. If two tasks announce the first reports of a folder at the same
moment, Airflow 3.3 fails one of them, without a retry. So such tasks wait for a lease in the lake.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_hkex_rap.aio.thread import in_thread
from airflow_provider_hkex_rap.assets.uris import reports_uri
from airflow_provider_hkex_rap.lake.manifest import window
from airflow_provider_hkex_rap.lake.marks import MARK_DAYS, acquire_lease, read_marks, write_mark
from airflow_provider_hkex_rap.lake.storage_calls import StorageCalls

if TYPE_CHECKING:
    import datetime
    from collections.abc import Container, Iterable, Mapping, Sequence

    import pendulum

    from airflow_provider_hkex_rap.lake.entry import Entry
    from airflow_provider_hkex_rap.lake.store import Lake
    from airflow_provider_hkex_rap.rap.clock import Clock
    from airflow_provider_hkex_rap.rap.folders import Folder

KIND = "announced"
"""The kind of the marks."""
LEASE = "announcing"
"""The kind of the leases of the tasks that announce the first reports of a folder."""
LEASE_SECONDS = 30.0
"""Seconds after which a lease expires: the task that holds it was killed, or is slow."""
WAIT_SECONDS = 90.0
"""Seconds that a task waits for leases, at most; several tasks may wait for one that was killed."""
_POLL_SECONDS = 1.0

_LATEST_EVENTS = 50
_LATEST_MARKS = 8

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderNews:
    """The new reports of a folder.

    :param folder: the folder on RAP.
    :param uri: the URI of the asset.
    :param extra: the content of the event.
    :param manifests: the manifest files that the event covers, as paths relative to the lake.
    """

    folder: Folder
    uri: str
    extra: dict[str, Any]
    manifests: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class Announcement:
    """The events of one task that succeeds, and their marks.

    ::

        announcement = Announcement(lake=lake, customer="CXYZ", run=run)
        announcement.add(Folder.DCASS, manifests, announced)
        await announcement.wait_for_leases(clock)
        for news in announcement.news:
            context["outlet_events"][REPORTS_LANDED].add(Asset(news.uri), extra=news.extra)
        # once Airflow has recorded the success:
        announcement.mark()

    :param lake: the lake.
    :param customer: the DCASS customer code, such as ``CXYZ``.
    :param run: a name that no other announcement has, as `run_stamp` returns it. It makes the events of two
        tasks differ: Airflow keeps one of several events with equal content.
    """

    lake: Lake
    customer: str
    run: str
    news: list[FolderNews] = field(default_factory=list)

    def add(self, folder: Folder, manifests: Mapping[str, Sequence[Entry]], announced: set[str]) -> None:
        """Add the reports of a folder that were not announced; add nothing if there are none.

        :param folder: the folder on RAP.
        :param manifests: the entries of each manifest file of the folder in the ledger's window, by the
            file's path relative to the lake.
        :param announced: the paths that the folder's marks name.
        """
        before = {_news(entry) for path in manifests.keys() & announced for entry in manifests[path]}
        new = {path: manifests[path] for path in manifests.keys() - announced}
        days = describe_days(self.lake, new, before)
        if days:
            uri = reports_uri(self.customer, folder)
            extra = {
                "run": self.run,
                "customer": self.customer,
                "folder": folder.value,
                "lake": self.lake.uri,
                "days": days,
            }
            covered = tuple(sorted(manifests))
            self.news.append(FolderNews(folder=folder, uri=uri, extra=extra, manifests=covered))

    async def wait_for_leases(self, clock: Clock) -> None:
        """Acquire a lease for each folder whose first reports this task announces; wait for 90 s at most.

        After that, the task announces its reports without the lease.

        :param clock: gives the current time.
        """
        try:
            async with asyncio.timeout(WAIT_SECONDS), StorageCalls(1) as calls:
                # All tasks take the folders in one order, so that no two of them wait for each other.
                for news in sorted(self.news, key=lambda news: news.folder):
                    await self._wait_for_lease(calls, news, clock)
        # Any error of Airflow or of the storage has the same effect: the reports have landed.
        except Exception as error:
            log.warning(
                "Announcing the reports although another task may do so now: %s. If Airflow fails this task"
                " for it, clear the task.",
                str(error) or f"that task has not ended within {WAIT_SECONDS:g} s",
            )

    async def _wait_for_lease(self, calls: StorageCalls, news: FolderNews, clock: Clock) -> None:
        place = (self.lake, self.customer, news.folder, LEASE, self.run)
        is_waiting = False
        while not await in_thread(recorded_runs, news.uri, 1):
            if await acquire_lease(calls, *place, clock(), LEASE_SECONDS):
                return
            if not is_waiting:
                log.info("Another task announces the first reports of %s; waiting for it.", news.uri)
            is_waiting = True
            await asyncio.sleep(_POLL_SECONDS)

    def mark(self) -> None:
        """Write a mark for each event that Airflow has recorded; log errors, since the task has succeeded."""
        for news in self.news:
            try:
                if self.run not in recorded_runs(news.uri):
                    raise LookupError("Airflow has not recorded the event.")
                asyncio.run(self._write_mark(news))
            # Any error of Airflow or of the storage has the same effect, and nobody could handle it.
            except Exception as error:
                log.warning(
                    "The next success announces the reports of %s again, since they could not be marked: %s",
                    news.uri,
                    error,
                )

    async def _write_mark(self, news: FolderNews) -> None:
        async with StorageCalls(1) as calls:
            payload = {"manifests": news.manifests}
            await write_mark(calls, self.lake, self.customer, news.folder, KIND, self.run, payload)


async def read_announced(
    calls: StorageCalls,
    lake: Lake,
    customer: str,
    folder: Folder,
    now: pendulum.DateTime,
    day: datetime.date,
) -> set[str]:
    """Return the paths of the manifest files of a folder that were announced.

    Each mark repeats the paths of the marks before it, for the window of the ledger. So the latest mark is
    enough; a few are read, since tasks that end at the same time do not see each other's mark.

    :param calls: runs the storage calls.
    :param lake: the lake.
    :param customer: the DCASS customer code, such as ``CXYZ``.
    :param folder: the folder on RAP.
    :param now: the current time.
    :param day: the trading day of the run; if it is outside of the window, every mark is read.
    :raises OSError: if the lake cannot be read.
    """
    since = now.subtract(days=MARK_DAYS)
    newest = _LATEST_MARKS if day in window(now.date()) else None
    marks = await read_marks(calls, lake, customer, folder, KIND, since, now, newest=newest)
    return {str(path) for mark in marks for path in mark.payload.get("manifests", ())}


def recorded_runs(uri: str, latest: int = _LATEST_EVENTS) -> set[str]:
    """Return the runs of the latest events of an asset, as Airflow has recorded them.

    :param uri: the URI of the asset, which is its name as well.
    :param latest: how many events to read, at most.
    :raises AirflowRuntimeError: if Airflow does not know.
    """
    from airflow.sdk.execution_time.context import InletEventsAccessor

    events = InletEventsAccessor(asset_name=uri, asset_uri=uri).ascending(False).limit(latest)
    return {str((event.extra or {}).get("run")) for event in events}


def describe_days(
    lake: Lake, manifests: Mapping[str, Iterable[Entry]], announced: Container[object] = ()
) -> list[dict[str, Any]]:
    """Return the landed files of manifest files by business date, the oldest day first.

    :param lake: the lake.
    :param manifests: the entries of each manifest file of one folder, by its path relative to the lake.
    :param announced: the news to leave out.
    :returns: for each business date, ``business_date`` in ISO form, ``count`` of files, ``bytes``, the codes
        of the ``reports``, and ``manifests``, the URIs of the manifest files with their entries.
    """
    files: dict[str, dict[str, Entry]] = {}
    uris: dict[str, set[str]] = {}
    for path, entries in manifests.items():
        for entry in entries:
            # Entered as `already` are also files that a killed run left, and contents that came back.
            if entry.committed and entry.uri and _news(entry) not in announced:
                files.setdefault(entry.business_date, {})[entry.uri] = entry
                uris.setdefault(entry.business_date, set()).add(lake.uri_of(path))
    return [
        {
            "business_date": day,
            "count": len(landed),
            "bytes": sum(entry.size or 0 for entry in landed.values()),
            "reports": sorted({entry.report for entry in landed.values()}),
            "manifests": sorted(uris[day]),
        }
        for day, landed in sorted(files.items())
    ]


def _news(entry: Entry) -> tuple[str | None, str, str | None]:
    """Return the news of an entry: several runs may enter the same file."""
    return entry.uri, entry.business_date, entry.supersedes
