"""Write the manifest while files land."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

from airflow_provider_hkex_rap.lake.layout import manifest_path, relative_path
from airflow_provider_hkex_rap.lake.manifest import Disposition, Entry, to_json
from airflow_provider_hkex_rap.rap.errors import LakeConflict

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from airflow_provider_hkex_rap.lake.store import Lake

BATCH_FILES = 128
BATCH_SECONDS = 2.0
"""How many files, and how much time, a killed run can leave without entries."""


class ManifestWriter:
    """Writes a run's entries in small batches, each after the names of its files are durable.

    :param lake: the lake.
    :param customer: the DCASS customer code.
    :param run: the run's stamp.
    :param pool: where the writing is done.
    """

    def __init__(self, lake: Lake, customer: str, run: str, pool: ThreadPoolExecutor) -> None:
        self.written: list[Entry] = []
        self.uris: list[str] = []
        self._lake = lake
        self._customer = customer
        self._run = run
        self._pool = pool
        self._pending: list[Entry] = []
        self._failed: list[Entry] = []
        self._error: Exception | None = None
        self._writes: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._sequence = itertools.count(1)

    def add(self, entry: Entry) -> None:
        """Take an entry, to be written soon.

        :param entry: of a file that is in the lake, or may not enter it.
        """
        self._pending.append(entry)
        if len(self._pending) >= BATCH_FILES:
            self._flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(BATCH_SECONDS, self._flush)

    async def close(self) -> None:
        """Write what is left.

        :raises LakeConflict: not all entries could be written, at the second attempt either.
        """
        for _ in range(2):
            self._pending += self._failed
            self._failed = []
            self._flush()
            while self._writes:
                await asyncio.wait(self._writes)
        if self._failed:
            raise LakeConflict(
                f"{len(self._failed)} files have no manifest entry: {self._lake.uri} does not take it.",
                why=str(self._error or ""),
                todo="Make the lake writable and run again: files that landed are adopted, not landed twice.",
                uri=self._lake.uri,
            ) from self._error

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
        # Whatever a storage backend raises: the entries are tried once more at the end.
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
