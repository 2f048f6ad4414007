"""Commit files that were read whole to the lake, and record them."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_hkex_rap.lake.entry import NO_ENTRY, Disposition
from airflow_provider_hkex_rap.lake.spool import MEMORY_BYTES
from airflow_provider_hkex_rap.lake.store import Landed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pendulum

    from airflow_provider_hkex_rap.aio.budget import Budget
    from airflow_provider_hkex_rap.lake.claims import Claims
    from airflow_provider_hkex_rap.lake.entries import Entries, Target
    from airflow_provider_hkex_rap.lake.local_files import NewFile
    from airflow_provider_hkex_rap.lake.lookups import Lookups
    from airflow_provider_hkex_rap.lake.outcomes import Outcomes
    from airflow_provider_hkex_rap.lake.spool import Spool
    from airflow_provider_hkex_rap.lake.storage_calls import StorageCalls
    from airflow_provider_hkex_rap.lake.store import Lake
    from airflow_provider_hkex_rap.rap.files import RemoteFile

BYTES_IN_FLIGHT = 32 * 2**20
"""How many bytes may be on their way into the lake at once, about."""
COMMIT_FILES = 16
"""How many files one thread commits to a local lake at a time; that many file descriptors are open."""

# A large file waits on disk: four at a time keep the line busy while some are committed.
_LARGEST_SHARE = BYTES_IN_FLIGHT // 4
_SMALLEST_SHARE = 4096


@dataclass(frozen=True, slots=True)
class WholeFile:
    """A file that was read whole.

    :param target: the file and its place in the lake.
    :param spool: its bytes.
    :param downloaded: when its last byte arrived.
    :param note: what was unusual at its end, for its entry; else empty.
    """

    target: Target
    spool: Spool
    downloaded: pendulum.DateTime
    note: str = ""


class Commits:
    """Commit whole files in threads while other files are still being read.

    :param lake: the lake.
    :param calls: runs the storage calls; once stopped, no further file is committed.
    :param lookups: the names that the lake holds.
    :param claims: records the files that proved to be in the lake already.
    :param entries: takes the entry of each committed file.
    :param outcomes: takes the outcome of each file.
    :param bytes_in_flight: the budget that the reader took each file's share from; `Commits` returns it.
    """

    def __init__(
        self,
        lake: Lake,
        calls: StorageCalls,
        lookups: Lookups,
        claims: Claims,
        entries: Entries,
        outcomes: Outcomes,
        bytes_in_flight: Budget,
    ) -> None:
        self._lake = lake
        self._calls = calls
        self._lookups = lookups
        self._claims = claims
        self._entries = entries
        self._outcomes = outcomes
        self._bytes_in_flight = bytes_in_flight
        # On a local disk, changing threads for each file costs more than its commit; elsewhere waiting does.
        self._batch_files = COMMIT_FILES if lake.is_local else 1
        self._waiting: list[WholeFile] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._errors: list[BaseException] = []

    def add(self, file: WholeFile) -> None:
        """Commit a file soon, together with those that are read whole at about the same time.

        :param file: the file; its spool is discarded after the commit.
        """
        self._waiting.append(file)
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._start)

    async def close(self) -> list[BaseException]:
        """Commit the files that wait, unless the calls are stopped, and wait for the commits that run.

        :returns: the unexpected errors; the storage's errors are outcomes of their files.
        """
        self._start()
        while self._tasks:
            await asyncio.wait(self._tasks)
        return self._errors

    def _start(self) -> None:
        for start in range(0, len(self._waiting), self._batch_files):
            batch = self._waiting[start : start + self._batch_files]
            task = asyncio.create_task(self._commit(batch))
            self._tasks.add(task)
            task.add_done_callback(self._ended)
        self._waiting = []

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._errors.append(error)

    async def _commit(self, batch: Sequence[WholeFile]) -> None:
        try:
            present = {
                directory: await self._present(directory)
                for directory in dict.fromkeys(file.target.directory for file in batch)
            }
            results = await self._calls.run(self._commit_files, batch, present)
            # The results end early if the calls were stopped meanwhile: the other files were not committed.
            for file, result in zip(batch, results, strict=False):
                if isinstance(result, Landed) and not result.adopted:
                    self._record(file, result)
            # Recorded last: the reading of the manifest that this takes may be cancelled.
            for file, result in zip(batch, results, strict=False):
                if isinstance(result, Exception):
                    self._add_refused(file.target, result)
                elif result.adopted:
                    await self._add_found(file, result)
        finally:
            for file in batch:
                file.spool.discard()
                self._bytes_in_flight.give(share(file.target.listed))

    async def _present(self, directory: str) -> frozenset[str] | Exception:
        try:
            return await self._lookups.names(directory)
        # Any error of the storage concerns the files of this directory only.
        except Exception as error:
            return error

    def _commit_files(
        self, batch: Sequence[WholeFile], present: Mapping[str, frozenset[str] | Exception]
    ) -> list[Landed | Exception]:
        """Commit files in a thread until the calls are stopped; on a local disk, write all of them first."""
        results: list[Landed | Exception] = []
        with contextlib.ExitStack() as stack:
            new_files = [self._written(file, present[file.target.directory], stack) for file in batch]
            for file, new in zip(batch, new_files, strict=True):
                # Held here as well, so that a commit that waited for its turn does not start once stopped.
                with self._lake.turn:
                    if self._calls.stopped:
                        break
                    results.append(self._commit_file(file, present[file.target.directory], new))
        return results

    def _written(
        self, file: WholeFile, present: frozenset[str] | Exception, stack: contextlib.ExitStack
    ) -> NewFile | None:
        """Return a file that is written ahead; None if the lake is not local, or may not need it."""
        target = file.target
        is_new = not isinstance(present, Exception) and target.file.text not in present
        if not (self._lake.is_local and is_new) or self._calls.stopped:
            return None
        new = stack.enter_context(self._lake.new_file(target.directory, file.spool, target.file.mtime))
        # Its commit starts again, and reports the error.
        with contextlib.suppress(OSError):
            new.write_ahead()
        return new

    def _commit_file(
        self, file: WholeFile, present: frozenset[str] | Exception, new: NewFile | None
    ) -> Landed | Exception:
        if isinstance(present, Exception):
            return present
        target = file.target
        try:
            return self._lake.commit(
                target.directory, target.file.text, file.spool, target.file.mtime, present, new
            )
        # Any error of the storage concerns this file only; other files may still succeed.
        except Exception as error:
            return error

    async def _add_found(self, file: WholeFile, landed: Landed) -> None:
        try:
            await self._claims.add_found(file.target, landed, file.downloaded)
        # Any error of the storage concerns this file only: the next run finds it in the lake.
        except Exception as error:
            self._add_refused(file.target, error)

    def _add_refused(self, target: Target, error: Exception) -> None:
        self._outcomes.add_refused(target.listed, self._lake.uri_of(target.path), error)

    def _record(self, file: WholeFile, landed: Landed) -> None:
        target = file.target
        if self._entries.add_landed(target, landed, file.downloaded, file.note):
            self._outcomes.add_target(target, Disposition.LANDED)
        else:
            self._outcomes.add(target.listed, Disposition.FAILED, NO_ENTRY)


def share(file: RemoteFile) -> int:
    """Return the part of `BYTES_IN_FLIGHT` that a file takes while it is read and committed.

    :param file: the file as it was listed.
    """
    size = MEMORY_BYTES if file.size is None else file.size
    return min(max(size, _SMALLEST_SHARE), _LARGEST_SHARE)
