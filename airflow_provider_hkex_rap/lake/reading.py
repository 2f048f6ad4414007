"""Read the files of a plan from RAP, many at a time, in one session."""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import TYPE_CHECKING

from airflow_provider_hkex_rap.lake.committing import WholeFile, share
from airflow_provider_hkex_rap.lake.entry import NO_ENTRY, Disposition
from airflow_provider_hkex_rap.lake.spool import Spool
from airflow_provider_hkex_rap.rap.errors import RapPermissionDenied, RapTransferError
from airflow_provider_hkex_rap.rap.files import Attributes, ReadEnd, RemoteFile, ReportSource, unsettled

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_hkex_rap.aio.budget import Budget
    from airflow_provider_hkex_rap.lake.claims import Claims
    from airflow_provider_hkex_rap.lake.committing import Commits
    from airflow_provider_hkex_rap.lake.entries import Entries, Target
    from airflow_provider_hkex_rap.lake.outcomes import Outcomes
    from airflow_provider_hkex_rap.lake.refreshing import Refresh
    from airflow_provider_hkex_rap.lake.storage_calls import StorageCalls
    from airflow_provider_hkex_rap.lake.store import Lake
    from airflow_provider_hkex_rap.rap.clock import Clock
    from airflow_provider_hkex_rap.rap.folders import Folder

FILES_IN_FLIGHT = 400
"""How many files are read at once, over one login."""
BATCH_FILES = 100
"""The entries that other runs wrote meanwhile are read before every further batch of this many files."""

log = logging.getLogger(__name__)


class Reading:
    """Read files once each, and hand those that arrived whole to the commits.

    :param source: a login to RAP.
    :param lake: the lake.
    :param calls: runs the storage calls; once stopped, no further file is read.
    :param claims: enters files that another run left in the lake without an entry.
    :param refresh: brings the ledger up to date.
    :param entries: takes the entries of files that need no commit.
    :param outcomes: takes the outcome of each file that does not reach the commits.
    :param commits: takes the files that were read whole.
    :param bytes_in_flight: the budget of bytes that are read or committed at once.
    :param clock: gives the time.
    :param spools: the directory for the spools.
    """

    def __init__(
        self,
        source: ReportSource,
        lake: Lake,
        calls: StorageCalls,
        claims: Claims,
        refresh: Refresh,
        entries: Entries,
        outcomes: Outcomes,
        commits: Commits,
        bytes_in_flight: Budget,
        clock: Clock,
        spools: str,
    ) -> None:
        self._source = source
        self._lake = lake
        self._calls = calls
        self._claims = claims
        self._refresh = refresh
        self._entries = entries
        self._outcomes = outcomes
        self._commits = commits
        self._bytes_in_flight = bytes_in_flight
        self._clock = clock
        self._spools = spools
        self._numbers = itertools.count()
        self._relisting = _Relisting(source)
        self._files_in_flight = asyncio.Semaphore(FILES_IN_FLIGHT)

    async def run(self, files: Iterable[RemoteFile]) -> None:
        """Read files, and return when the last byte has arrived.

        :param files: the files to read, in order.
        :raises RapError: if the session ends.
        """
        try:
            async with asyncio.TaskGroup() as reads:
                for number, file in enumerate(files, 1):
                    if number % BATCH_FILES == 0:
                        self._refresh.soon()
                    await self._files_in_flight.acquire()
                    await self._bytes_in_flight.take(share(file))
                    read = reads.create_task(self._read(file))
                    read.add_done_callback(lambda _: self._files_in_flight.release())
        except BaseExceptionGroup as group:
            # Each file in flight reports the end of the one session.
            first = group.exceptions[0]
            raise first from first.__cause__

    async def _read(self, file: RemoteFile) -> None:
        whole: WholeFile | None = None
        try:
            whole = await self._read_whole(file)
        finally:
            if whole is None:
                self._bytes_in_flight.give(share(file))
        if whole:
            self._commits.add(whole)

    async def _read_whole(self, listed: RemoteFile) -> WholeFile | None:
        """Read one file; return None if it has its outcome without a commit."""
        target = self._entries.target(listed)
        if await self._is_settled(target):
            return None
        if self._calls.stopped:
            raise asyncio.CancelledError
        spool = Spool(f"{self._spools}/{next(self._numbers)}", listed.size, md5=self._lake.reports_md5)
        keep = False
        try:
            end = await self._fill(spool, listed)
            if end is None:
                return None
            if end.attributes != (listed.size, listed.mtime):
                target = self._entries.target(listed, end.attributes)
            if self._is_repeated(target, spool):
                return None
            keep = True
            note = f"RAP answered an error at its end: {end.error}." if end.error else ""
            return WholeFile(target, spool, self._clock(), note)
        finally:
            if not keep:
                spool.discard()

    async def _is_settled(self, target: Target) -> bool:
        """Return whether a file has its outcome and need not be read: another run has landed it."""
        if self._claims.has_settled(target):
            return True
        if self._entries.ledger.has(target.file) and target.file.mtime is not None:
            self._outcomes.add(target.listed, Disposition.ALREADY, "Another run landed it meanwhile.")
            return True
        try:
            return await self._claims.settle(target)
        # Any error of the storage concerns this file only.
        except Exception as error:
            self._outcomes.add_refused(target.listed, self._lake.uri_of(target.path), error)
            return True

    async def _fill(self, spool: Spool, file: RemoteFile) -> ReadEnd | None:
        """Read a file into a spool; return its size and mtime, or None if it could not be read whole."""
        try:
            end = await self._source.read(file, spool.write)
            spool.finish()
        except Exception as error:
            if spool.error:
                self._outcomes.add(file, Disposition.FAILED, f"The spool could not be written: {spool.error}")
            elif isinstance(error, (RapTransferError, RapPermissionDenied)):
                self._outcomes.add(file, Disposition.FAILED, str(error))
            else:
                raise
            return None
        after = end.attributes
        reason = unsettled(file, spool.size, end)
        if not reason and not _is_proven(file, spool.size, after):
            reason = await self._relisted_otherwise(file, spool.size)
        if reason:
            self._outcomes.add(file, Disposition.DEFERRED, reason)
            return None
        return ReadEnd(Attributes(spool.size, file.mtime if after.mtime is None else after.mtime), end.error)

    async def _relisted_otherwise(self, file: RemoteFile, size: int) -> str:
        """List the folder again, and return why the file may have changed; an empty text if it has not."""
        arrived = f"{size} bytes arrived, but {file.size} were listed"
        if size == file.size:
            arrived = "RAP did not confirm the size and the time of the file after it was read"
        try:
            if await self._relisting.has(file):
                return ""
        except (RapTransferError, RapPermissionDenied) as error:
            return f"{arrived}, and it cannot be listed again: {error}"
        return f"{arrived}, and the listing now shows another size or time: RAP may still be writing it."

    def _is_repeated(self, target: Target, spool: Spool) -> bool:
        """Record a file whose bytes landed before, if they did."""
        uri = self._entries.ledger.uri_of_content(target.listed, spool.sha256)
        if uri is None:
            return False
        reason = "The same bytes landed before."
        if self._entries.add_repeated(target, spool.sha256, uri, reason, self._clock()):
            self._outcomes.add(target.listed, Disposition.ALREADY, reason)
        else:
            self._outcomes.add(target.listed, Disposition.FAILED, NO_ENTRY)
        return True


def _is_proven(listed: RemoteFile, size: int, after: Attributes) -> bool:
    """Return whether all that was listed of a file is known after its read too, and agrees with its bytes."""
    if listed.size is None and listed.mtime is None:
        # A second listing would show nothing either.
        return True
    is_size_known = after.size == size and listed.size in (None, size)
    return is_size_known and (after.mtime is not None or listed.mtime is None)


class _Relisting:
    """Tell if RAP still lists a file as before, by a listing that began after the file was read.

    :param source: a login to RAP.
    """

    def __init__(self, source: ReportSource) -> None:
        self._source = source
        self._turns = itertools.count()
        self._lock = asyncio.Lock()
        self._listed: dict[Folder, tuple[int, frozenset[RemoteFile]]] = {}

    async def has(self, file: RemoteFile) -> bool:
        """Return whether RAP still lists a file with the same size and mtime.

        :param file: the file as it was listed before.
        :raises RapError: if the folder cannot be listed.
        """
        asked = next(self._turns)
        # The files that ask while a listing is under way share the next one.
        async with self._lock:
            began, files = self._listed.get(file.folder, (-1, frozenset()))
            if began < asked:
                began = next(self._turns)
                files = frozenset(await self._source.list_folder(file.folder))
                self._listed[file.folder] = (began, files)
        return file in files
