"""Look up the names that the lake holds."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.lake.storage_calls import StorageCalls
    from airflow_provider_hkex_rap.lake.store import Lake


class Lookups:
    """Look up names in the lake; each directory is listed once, at the first question about it.

    :param lake: the lake.
    :param calls: runs the storage calls.
    """

    def __init__(self, lake: Lake, calls: StorageCalls) -> None:
        self._lake = lake
        self._calls = calls
        self._listings: dict[str, asyncio.Task[frozenset[str]]] = {}

    async def names(self, directory: str) -> frozenset[str]:
        """Return the names in a directory, as they were when it was first listed.

        :param directory: relative to the lake.
        :raises OSError: if the lake cannot list it.
        """
        listing = self._listings.get(directory)
        if listing is None:
            call = self._calls.run(self._lake.names, directory)
            listing = self._listings[directory] = asyncio.create_task(call)
        # Many files share one listing: the cancellation of one must not cancel it for the others.
        return listing.result() if listing.done() else await asyncio.shield(listing)

    async def close(self) -> None:
        """Wait for the listings that still run; their errors no longer concern a file."""
        await asyncio.gather(*self._listings.values(), return_exceptions=True)
