"""Write the manifest while files land."""

from __future__ import annotations

import asyncio
import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_hkex_rap.lake.creating import create_once
from airflow_provider_hkex_rap.lake.entry import Disposition, Entry
from airflow_provider_hkex_rap.lake.layout import manifest_path, relative_path
from airflow_provider_hkex_rap.lake.manifest import ManifestFile
from airflow_provider_hkex_rap.lake.refusals import same_cause
from airflow_provider_hkex_rap.rap.errors import LakeConflict
from airflow_provider_hkex_rap.rap.folders import Folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_hkex_rap.lake.store import Lake

BATCH_FILES = 128
"""Entries are written once this many wait; a killed run leaves about as many files without entries."""
BATCH_SECONDS = 2.0
"""Entries are written once the oldest has waited this many seconds."""
# Threads of their own, so that entries are never queued behind commits, and the last ones go side by side.
_THREADS = 32


class _Batch(NamedTuple):
    """The content of one manifest file."""

    path: str
    entries: list[Entry]
    lines: list[bytes]


class ManifestWriter:
    """Write a run's entries in small batches, each after the names of its files are durable.

    :param lake: the lake.
    :param customer: the DCASS customer code, such as ``CXYZ``.
    :param run: the run's stamp, as `run_stamp` returns it.
    """

    def __init__(self, lake: Lake, customer: str, run: str) -> None:
        self.run = run
        self.written: list[Entry] = []
        self.files: list[ManifestFile] = []
        """The manifest files that were written."""
        self._lake = lake
        self._customer = customer
        self._pool = ThreadPoolExecutor(_THREADS, "hkex-rap-manifest")
        self._pending: list[tuple[Entry, bytes]] = []
        self._failed: list[_Batch] = []
        self._error: Exception | None = None
        self._writes: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._sequence = itertools.count(1)

    def add(self, entry: Entry, line: bytes) -> None:
        """Take an entry, to be written soon.

        :param entry: the entry of a file that is in the lake, or may not enter it.
        :param line: the entry as `to_line` returns it.
        """
        self._pending.append((entry, line))
        if len(self._pending) >= BATCH_FILES:
            self._flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(BATCH_SECONDS, self._flush)

    async def close(self, retry: Callable[[], bool]) -> None:
        """Write the entries that are left, side by side.

        :param retry: called if some could not be written; True to try them once more.
        :raises LakeConflict: if entries could not be written.
        """
        self._flush()
        await self._settle()
        if self._failed and retry():
            failed, self._failed = self._failed, []
            for batch in failed:
                # The same bytes at the same path: if only the answer was lost, nothing is entered twice.
                self._start(batch)
            await self._settle()
        self._pool.shutdown()
        if self._failed:
            raise LakeConflict(
                f"{sum(len(batch.entries) for batch in self._failed)} files have no manifest entry: "
                f"{self._lake.uri} refused the manifest.",
                why=f"{same_cause(self._error)}." if self._error else "",
                todo="Make the lake writable and run again: files that landed are adopted, not landed twice.",
                uri=self._lake.uri,
            ) from self._error

    async def _settle(self) -> None:
        while self._writes:
            await asyncio.gather(*self._writes)

    def _flush(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        batches: dict[tuple[str, str], _Batch] = {}
        for entry, line in self._pending:
            key = entry.folder, entry.business_date
            if key not in batches:
                path = manifest_path(self._customer, *key, self.run, next(self._sequence))
                batches[key] = _Batch(path, [], [])
            batches[key].entries.append(entry)
            batches[key].lines.append(line + b"\n")
        self._pending = []
        for batch in batches.values():
            self._start(batch)

    def _start(self, batch: _Batch) -> None:
        write = asyncio.create_task(self._write(batch))
        self._writes.add(write)
        write.add_done_callback(self._writes.discard)

    async def _write(self, batch: _Batch) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._pool, self._create, batch)
        # Any error of the storage: the batch is tried once more at the end.
        except Exception as error:
            self._error = error
            self._failed.append(batch)
        else:
            self.written += batch.entries
            first = batch.entries[0]
            self.files.append(
                ManifestFile(
                    batch.path, Folder(first.folder), first.business_date, tuple(batch.entries), bad=()
                )
            )

    def _create(self, batch: _Batch) -> None:
        landed = [
            entry.uri for entry in batch.entries if entry.uri and entry.disposition == Disposition.LANDED
        ]
        self._lake.sync({relative_path(uri).rpartition("/")[0] for uri in landed})
        create_once(self._lake, batch.path, b"".join(batch.lines))
