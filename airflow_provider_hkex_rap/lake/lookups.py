"""Look up in the lake which files it holds already."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from airflow_provider_hkex_rap.lake.layout import versions

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.lake.entries import Target
    from airflow_provider_hkex_rap.lake.storage_calls import StorageCalls
    from airflow_provider_hkex_rap.lake.store import Lake, Landed


class Lookups:
    """Look up files in the lake; each directory is listed once, at the first question about it.

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

    async def find(self, target: Target) -> list[Landed]:
        """Return the landed files that are provably the listed one, without reading it from RAP.

        `Lake.commit` leaves the proof: RAP's modification time, on the file or in the object's metadata.

        :param target: the file.
        :returns: the matching versions, oldest first; none if RAP sends no size or mtime.
        :raises OSError: if the lake cannot be read.
        """
        size, mtime = target.file.size, target.file.mtime
        present = await self.names(target.directory)
        found: list[Landed] = []
        if size is None or mtime is None:
            return found
        for name in versions(target.file.text):
            if name not in present:
                break
            path = f"{target.directory}/{name}"
            info = await self._calls.run(self._lake.stat, path)
            if info and info["size"] == size:
                landed = await self._calls.run(self._lake.proven, path, info, mtime)
                found += [landed] if landed else []
        return found

    async def close(self) -> None:
        """Wait for the listings that still run; their errors no longer concern a file."""
        await asyncio.gather(*self._listings.values(), return_exceptions=True)
