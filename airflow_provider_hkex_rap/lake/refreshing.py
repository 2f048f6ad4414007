"""Read the entries that other runs write while this one lands."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow_provider_hkex_rap.lake.ledger import FolderDay, Ledger
    from airflow_provider_hkex_rap.lake.storage_calls import StorageCalls
    from airflow_provider_hkex_rap.lake.store import Lake

log = logging.getLogger(__name__)


class Refresh:
    """Bring the ledger up to date; calls that come together share one reading.

    :param calls: runs the storage calls.
    :param lake: the lake.
    :param ledger: the ledger.
    :param days: the business dates of the files that this run lands.
    :param own_run: the stamp of this run, whose own manifest files are left out.
    """

    def __init__(
        self, calls: StorageCalls, lake: Lake, ledger: Ledger, days: Collection[FolderDay], own_run: str
    ) -> None:
        self._calls = calls
        self._lake = lake
        self._ledger = ledger
        self._days = days
        self._own_run = own_run
        self._current: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    async def now(self) -> None:
        """Read every entry that was in the manifest at the time of this call.

        :raises LakeError: if the lake cannot be read.
        """
        # A reading that has begun may have missed an entry; many callers share the one after it.
        await asyncio.shield(self._upcoming())

    def soon(self) -> None:
        """Start a reading, and do not wait for it; an error is logged, since a later reading may succeed."""
        self._upcoming().add_done_callback(_log_error)

    async def close(self) -> None:
        """Wait for the readings that still run; their errors no longer concern a file."""
        tasks = [task for task in (self._current, self._next) if task]
        await asyncio.gather(*tasks, return_exceptions=True)

    def _upcoming(self) -> asyncio.Task[None]:
        if self._next is None:
            self._next = asyncio.create_task(self._read(self._current))
        return self._next

    async def _read(self, before: asyncio.Task[None] | None) -> None:
        if before:
            await asyncio.wait({before})
        self._current, self._next = self._next, None
        await self._ledger.read(self._calls, self._lake, self._days, self._own_run)


def _log_error(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        log.warning("The manifest could not be read again: %s.", error)
