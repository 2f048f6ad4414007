"""Enter the files that the lake holds without an entry."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import time
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_hkex_rap.lake.begun import Place
from airflow_provider_hkex_rap.lake.creating import create_once
from airflow_provider_hkex_rap.lake.entry import NO_ENTRY, Disposition
from airflow_provider_hkex_rap.lake.layout import claim_path, is_part, rap_name_of, versions
from airflow_provider_hkex_rap.rap.errors import MOST_CHARACTERS
from airflow_provider_hkex_rap.rap.files import RemoteFile
from airflow_provider_hkex_rap.rap.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    import pendulum

    from airflow_provider_hkex_rap.lake.entries import Entries, Target
    from airflow_provider_hkex_rap.lake.lookups import Lookups
    from airflow_provider_hkex_rap.lake.outcomes import Outcomes
    from airflow_provider_hkex_rap.lake.refreshing import Refresh
    from airflow_provider_hkex_rap.lake.storage_calls import StorageCalls
    from airflow_provider_hkex_rap.lake.store import Lake, Landed, Proven

_T = TypeVar("_T")

log = logging.getLogger(__name__)

SETTLE_SECONDS = 10.0
"""A file that has no entry after this time was left by a killed run: a live one writes its entries sooner."""
_POLL_SECONDS = 1.0
_FILES = 256
"""How many files are handed to the threads at a time."""
_VERSION = re.compile(r"(?P<stem>.+)\.v[0-9]+(?P<extension>(?:\.[^.]+)*)", re.DOTALL)


class Claims:
    """Enter each file of a directory that has the proof of a commit and no entry.

    Another run may be about to enter such a file. So its entry is awaited for `SETTLE_SECONDS`; then the file
    is entered as ``landed``, or as ``already`` if another run that waited has entered it.

    :param lake: the lake.
    :param calls: runs the storage calls.
    :param lookups: the names that the lake holds.
    :param entries: takes the entries.
    :param outcomes: takes the outcomes of planned files.
    :param refresh: brings the ledger up to date.
    :param run: the stamp of this run.
    :param targets: the planned files, each with its place in the lake.
    """

    def __init__(
        self,
        lake: Lake,
        calls: StorageCalls,
        lookups: Lookups,
        entries: Entries,
        outcomes: Outcomes,
        refresh: Refresh,
        run: str,
        targets: Iterable[Target],
    ) -> None:
        self._lake = lake
        self._calls = calls
        self._lookups = lookups
        self._entries = entries
        self._outcomes = outcomes
        self._refresh = refresh
        self._run = run
        self._planned: dict[str, list[RemoteFile]] = {}
        for target in targets:
            if target.listed.size is not None and target.listed.mtime is not None:
                self._planned.setdefault(target.directory, []).append(target.listed)
        self._directories: dict[str, asyncio.Task[None]] = {}
        self._settled: set[RemoteFile] = set()
        self._refused: dict[str, Exception] = {}

    def has_settled(self, target: Target) -> bool:
        """Return whether a planned file was among the claimed ones and has its outcome.

        :param target: the planned file.
        """
        return target.listed in self._settled

    async def settle(self, target: Target) -> bool:
        """Claim the files of a target's directory; return whether the target was among them.

        :param target: a planned file.
        :raises Exception: if the lake cannot be read.
        """
        claiming = self._directories.get(target.directory)
        if claiming is None:
            claiming = asyncio.create_task(self._claim(_place_of(target)))
            self._directories[target.directory] = claiming
        if claiming.done():
            claiming.result()
        else:
            # Many files share one claim: the cancellation of one must not cancel it for the others.
            await asyncio.shield(claiming)
        if error := self._refused.get(target.path):
            raise error
        return self.has_settled(target)

    async def claim_left(self, places: Sequence[Place]) -> bool:
        """Claim the files that killed runs left; an error is logged, since a later run tries again.

        :param places: the directories in which those runs landed files.
        :returns: whether there was no error.
        """
        for place in places:
            if place.directory not in self._directories:
                self._directories[place.directory] = asyncio.create_task(self._claim(place))
        directories = {place.directory for place in places}
        claims = [self._directories[directory] for directory in directories]
        errors = [error for error in await asyncio.gather(*claims, return_exceptions=True) if error]
        errors += [e for path, e in self._refused.items() if path.rpartition("/")[0] in directories]
        if errors:
            error = printable(str(errors[0]), MOST_CHARACTERS)
            log.warning("The files that a killed run left could not be claimed: %s", error)
        return not errors

    async def add_found(self, target: Target, landed: Landed, downloaded: pendulum.DateTime | None) -> None:
        """Record a planned file that proved to be in the lake: after its bytes were read, or by its proof.

        :param target: the file.
        :param landed: the file in the lake.
        :param downloaded: when its last byte arrived; None if it was not read.
        :raises LakeError: if the manifest cannot be read again.
        """
        path = f"{target.directory}/{landed.name}"
        await self._await_owners(lambda: self._entries.ledger.owner(path) is None)
        await self._record(target, landed, downloaded)

    async def _record(self, target: Target, landed: Landed, downloaded: pendulum.DateTime | None) -> None:
        ledger = self._entries.ledger
        reason = "Another run landed it meanwhile."
        uri = ledger.uri_of_content(target.file, landed.sha256)
        if uri and self._entries.add_repeated(target, landed.sha256, uri, reason, downloaded):
            disposition = Disposition.ALREADY
        elif not uri:
            disposition, reason = await self._add(target, landed, downloaded, listed=True)
        else:
            disposition, reason = Disposition.FAILED, NO_ENTRY
        self._outcomes.add_target(target, disposition, reason)

    async def _add(
        self, target: Target, landed: Landed, downloaded: pendulum.DateTime | None, *, listed: bool
    ) -> tuple[Disposition, str]:
        disposition, reason = Disposition.LANDED, "Adopted: the lake had it, without a manifest entry."
        if not await self._wins(target, landed):
            disposition, reason = Disposition.ALREADY, "Another run has adopted it."
        age = None if listed else max(0.0, time.time() - (landed.created or target.file.mtime or 0))
        if not self._entries.add_in_lake(target, landed, downloaded, disposition, reason, age=age):
            return Disposition.FAILED, NO_ENTRY
        return disposition, reason

    async def _wins(self, target: Target, landed: Landed) -> bool:
        """Decide which of several runs enters a file as landed: the one that creates its mark."""
        path = claim_path(
            self._entries.ledger.customer,
            target.file.folder,
            target.name.business_date,
            f"{target.directory}/{landed.name}",
        )
        try:
            await self._calls.run(create_once, self._lake, path, self._run.encode())
        except FileExistsError:
            return False
        return True

    async def close(self) -> None:
        """Wait for the claims that still run; their errors no longer concern a file."""
        await asyncio.gather(*self._directories.values(), return_exceptions=True)

    async def _claim(self, place: Place) -> None:
        directory = place.directory
        present = await self._lookups.names(directory)
        if not self._unowned(directory, present):
            return
        await self._refresh.now()
        found = await self._proven(directory, self._unowned(directory, present))
        if not found:
            return
        names = [proven.landed.name for proven in found]
        await self._await_owners(lambda: bool(self._unowned(directory, names)))
        planned = self._planned_by_name(directory, present)
        # In the order in which RAP published them, so that each supersedes the one before.
        for proven in sorted(found, key=lambda proven: (proven.mtime, proven.landed.name)):
            if self._entries.ledger.owner(f"{directory}/{proven.landed.name}") is None:
                await self._enter(place, proven, planned.get(proven.landed.name, ()), present)

    async def _await_owners(self, waits: Callable[[], bool]) -> None:
        """Read the manifest until other runs have entered what they have landed, or have had time to.

        :param waits: whether a file still has no entry.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + SETTLE_SECONDS
        await self._refresh.now()
        while waits() and loop.time() < end:
            await asyncio.sleep(_POLL_SECONDS)
            await self._refresh.now()

    def _unowned(self, directory: str, present: Iterable[str]) -> list[str]:
        owner = self._entries.ledger.owner
        return sorted(name for name in present if not is_part(name) and owner(f"{directory}/{name}") is None)

    async def _proven(self, directory: str, names: Sequence[str]) -> list[Proven]:
        """Return the files that have the proof of a commit; an error concerns its own file only."""
        found: list[Proven] = []
        for start in range(0, len(names), _FILES):
            paths = [f"{directory}/{name}" for name in names[start : start + _FILES]]
            infos = await self._calls.map(self._attempt(self._lake.stat), [(path,) for path in paths])
            calls = [(path, info) for path, info in zip(paths, infos, strict=True) if info]
            proven = await self._calls.map(self._attempt(self._lake.proven), calls)
            found += [each for each in proven if each]
        return found

    def _attempt(self, call: Callable[..., _T | None]) -> Callable[[tuple[Any, ...]], _T | None]:
        """Return a storage call that keeps its error, for the file of its first argument."""

        def attempt(arguments: tuple[Any, ...]) -> _T | None:
            try:
                return call(*arguments)
            # Any error of the storage.
            except Exception as error:
                self._refused[arguments[0]] = error
                return None

        return attempt

    def _planned_by_name(self, directory: str, present: Collection[str]) -> dict[str, list[RemoteFile]]:
        """Return the planned files that each name in the lake may belong to, the shortest names first."""
        planned: dict[str, list[RemoteFile]] = {}
        for file in sorted(self._planned.get(directory, ()), key=lambda file: (len(file.text), file.text)):
            for version in itertools.takewhile(present.__contains__, versions(file.text)):
                planned.setdefault(version, []).append(file)
        return planned

    async def _enter(
        self, place: Place, proven: Proven, planned: Sequence[RemoteFile], present: Collection[str]
    ) -> None:
        directory, name = place.directory, proven.landed.name
        for listed in planned:
            if (listed.size, listed.mtime) == (proven.size, proven.mtime) and listed not in self._settled:
                self._settled.add(listed)
                await self._record(self._entries.target(listed), proven.landed, None)
                return
        on_rap = planned[0].name if planned else _unlisted_name(name, present).encode()
        file = RemoteFile(place.folder, on_rap, proven.size, proven.mtime)
        # The place in the lake is that of the file, whatever today's naming says.
        target = self._entries.target(file)._replace(directory=directory, name=place.name)
        await self._add(target, proven.landed, None, listed=False)


def _place_of(target: Target) -> Place:
    return Place(target.file.folder, target.directory, target.name)


def _unlisted_name(name: str, present: Collection[str]) -> str:
    """Return the name on RAP that a file in the lake most likely had, if RAP lists it no longer."""
    match = _VERSION.fullmatch(name)
    base = match["stem"] + match["extension"] if match else ""
    return rap_name_of(base if base in present else name)
