"""Enter files that are in the lake without an entry: a killed run left them, or another lands them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_hkex_rap.lake.entry import Disposition
from airflow_provider_hkex_rap.lake.layout import versions

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_hkex_rap.lake.entries import Entries, Target
    from airflow_provider_hkex_rap.lake.ledger import FolderDay
    from airflow_provider_hkex_rap.lake.lookups import Lookups
    from airflow_provider_hkex_rap.lake.outcomes import Outcomes
    from airflow_provider_hkex_rap.lake.storage_calls import StorageCalls
    from airflow_provider_hkex_rap.lake.store import Lake, Landed

SETTLED_SECONDS = 60.0
"""A file that has been in the lake for so long without an entry was left by a killed run: a run that lives
enters its files within seconds."""
ADOPTED = "Adopted: the lake had it, without a manifest entry."
ELSEWHERE = "Another run has landed it."
CONCURRENT = "Another run is landing it."


class Adopting:
    """Decide about files that the lake has and that this run has not written.

    :param lake: the lake.
    :param calls: runs the storage calls.
    :param lookups: the names that the lake holds.
    :param entries: takes the entries.
    :param outcomes: takes the outcome of each planned file.
    :param run: the stamp of this run, whose own entries are in the ledger already.
    """

    def __init__(
        self,
        lake: Lake,
        calls: StorageCalls,
        lookups: Lookups,
        entries: Entries,
        outcomes: Outcomes,
        run: str,
    ) -> None:
        self._lake = lake
        self._calls = calls
        self._lookups = lookups
        self._entries = entries
        self._outcomes = outcomes
        self._run = run

    async def refresh(self, days: Iterable[FolderDay]) -> None:
        """Read the entries that other runs have written meanwhile.

        :param days: the business dates to read again.
        :raises OSError: if the lake cannot be read.
        """
        await self._entries.ledger.read(self._calls, self._lake, days, self._run)

    def has_landed(self, target: Target) -> bool:
        """Record the outcome of a planned file that another run has landed meanwhile, if one has.

        :param target: the file.
        """
        if target.file.mtime is None or not self._entries.ledger.has(target.file):
            return False
        self._outcomes.add(target.listed, Disposition.ALREADY, ELSEWHERE)
        return True

    async def adopt(self, target: Target) -> bool:
        """Enter the files of a name that the lake has without an entry, also if RAP has republished it since.

        :param target: the listed file.
        :returns: whether the listed file now has its outcome and need not be read.
        :raises OSError: if the lake cannot be read.
        """
        present = await self._lookups.names(target.directory)
        # Without an mtime of RAP there is no proof.
        if target.file.mtime is None or target.file.size is None:
            return False
        for name in versions(target.file.text):
            if name not in present:
                return False
            path = f"{target.directory}/{name}"
            if self._entries.ledger.owner(path) is None and await self._claim(target, path):
                return True
        return False

    async def settle(self, target: Target, landed: Landed) -> None:
        """Record a file whose commit found the same bytes in the lake.

        :param target: the file that was read.
        :param landed: the file in the lake.
        :raises OSError: if the lake cannot be read.
        """
        path = f"{target.directory}/{landed.name}"
        await self.refresh([target.folder_day])
        if self._entries.ledger.owner(path) is not None:
            self._already(target, landed, ELSEWHERE)
            return
        info = await self._calls.run(self._lake.stat, path)
        if info is None or self._lake.age(info) < SETTLED_SECONDS:
            self._already(target, landed, CONCURRENT)
        else:
            self._landed(target, landed)

    async def _claim(self, target: Target, path: str) -> bool:
        """Enter one file; return whether it is the listed one."""
        info = await self._calls.run(self._lake.stat, path)
        proof = await self._calls.run(self._lake.proof, path, info) if info else None
        if info is None or proof is None:
            return False
        await self.refresh([target.folder_day])
        if self.has_landed(target):
            return True
        if self._entries.ledger.owner(path) is not None:
            return False
        left = self._left(target, info, proof.mtime)
        landed = self._lake.landed(path, proof.sha256, info)
        is_listed = left.file == target.file
        if self._lake.age(info) >= SETTLED_SECONDS:
            self._landed(left, landed, outcome=is_listed)
        elif is_listed:
            self._already(target, landed, CONCURRENT)
        return is_listed

    @staticmethod
    def _left(target: Target, info: dict[str, Any], mtime: int) -> Target:
        """Return the file as it was when a killed run landed it: RAP may have republished it since."""
        return target._replace(file=replace(target.file, size=int(info["size"]), mtime=mtime))

    def _landed(self, target: Target, landed: Landed, *, outcome: bool = True) -> None:
        self._entries.add_landed(target, landed, None, ADOPTED)
        if outcome:
            self._outcomes.landed_bytes += target.file.size or 0
            self._outcomes.add(target.listed, Disposition.LANDED, ADOPTED)

    def _already(self, target: Target, landed: Landed, reason: str) -> None:
        uri = self._lake.uri_of(f"{target.directory}/{landed.name}")
        self._entries.add_repeated(target, landed.sha256, uri, reason)
        self._outcomes.add(target.listed, Disposition.ALREADY, reason)
