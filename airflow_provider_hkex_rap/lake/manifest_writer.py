"""Write the manifest while files land."""

from __future__ import annotations

import asyncio
import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from airflow_provider_hkex_rap.lake.layout import manifest_path, relative_path
from airflow_provider_hkex_rap.lake.manifest import Disposition, Entry, to_json
from airflow_provider_hkex_rap.rap.errors import LakeConflict

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_hkex_rap.lake.store import Lake

BATCH_FILES = 128
"""Entries are written once this many wait; a killed run leaves about as many files without entries."""
BATCH_SECONDS = 2.0
"""Entries are written once the oldest has waited this many seconds."""
# Threads of their own, so that entries are never queued behind commits, and the last ones go side by side.
_THREADS = 32


class ManifestWriter:
    """Write a run's entries in small batches, each after the names of its files are durable.

    :param lake: the lake.
    :param customer: the DCASS customer code, such as ``CXYZ``.
    :param run: the run's stamp, as `run_stamp` returns it.
    """

    def __init__(self, lake: Lake, customer: str, run: str) -> None:
        self.written: list[Entry] = []
        self.uris: list[str] = []
        self._lake = lake
        self._customer = customer
        self._run = run
        self._pool = ThreadPoolExecutor(_THREADS, "hkex-rap-manifest")
        self._pending: list[Entry] = []
        self._failed: list[Entry] = []
        self._error: Exception | None = None
        self._writes: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._sequence = itertools.count(1)

    def add(self, entry: Entry) -> None:
        """Take an entry, to be written soon.

        :param entry: the entry of a file that is in the lake, or may not enter it.
        """
        self._pending.append(entry)
        if len(self._pending) >= BATCH_FILES:
            self._flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(BATCH_SECONDS, self._flush)

    async def close(self, retry: Callable[[], bool]) -> None:
        """Write the entries that are left, side by side.

        :param retry: called if some could not be written; True to try them once more.
        :raises LakeConflict: if entries could not be written.
        """
        await self._write_rest()
        if self._failed and retry():
            await self._write_rest()
        self._pool.shutdown()
        if self._failed:
            raise LakeConflict(
                f"{len(self._failed)} files have no manifest entry: {self._lake.uri} refused the manifest.",
                why=str(self._error or ""),
                todo="Make the lake writable and run again: files that landed are adopted, not landed twice.",
                uri=self._lake.uri,
            ) from self._error

    async def _write_rest(self) -> None:
        self._pending += self._failed
        self._failed = []
        self._flush()
        while self._writes:
            await asyncio.gather(*self._writes)

    def _flush(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        batches: dict[tuple[str, str], list[Entry]] = {}
        for entry in self._pending:
            batches.setdefault((entry.folder, entry.business_date), []).append(entry)
        self._pending = []
        for (folder, business_date), entries in batches.items():
            path = manifest_path(self._customer, folder, business_date, self._run, next(self._sequence))
            write = asyncio.create_task(self._write(path, entries))
            self._writes.add(write)
            write.add_done_callback(self._writes.discard)

    async def _write(self, path: str, entries: list[Entry]) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._pool, self._create, path, entries)
        # Any error of the storage: the entries are tried once more at the end.
        except Exception as error:
            self._error = error
            self._failed += entries
        else:
            self.written += entries
            self.uris.append(self._lake.uri_of(path))

    def _create(self, path: str, entries: list[Entry]) -> None:
        landed = [entry.uri for entry in entries if entry.uri and entry.disposition == Disposition.LANDED]
        for directory in {relative_path(uri).rpartition("/")[0] for uri in landed}:
            self._lake.sync(directory)
        self._lake.create(path, to_json(entries))
