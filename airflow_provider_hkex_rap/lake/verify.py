"""Check the manifest against the bytes in the lake."""

from __future__ import annotations

import datetime
from enum import Enum, auto
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_hkex_rap.lake.layout import folder_directory, relative_path
from airflow_provider_hkex_rap.lake.listing import list_directories, list_files
from airflow_provider_hkex_rap.lake.manifest import READERS, WINDOW_DAYS_AHEAD, days_between, read_manifests
from airflow_provider_hkex_rap.lake.storage_calls import StorageCalls
from airflow_provider_hkex_rap.rap.clock import system_clock
from airflow_provider_hkex_rap.rap.folders import Folder

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_hkex_rap.lake.entry import Entry
    from airflow_provider_hkex_rap.lake.store import Lake

_FILES = 256
"""How many files are handed to the threads at a time."""

_Claims = dict[str, set[tuple[int | None, str | None]]]
"""Size and SHA-256 in the entries, by the file's path relative to the lake."""


class ProblemKind(Enum):
    """The ways in which manifest and lake can disagree."""

    UNREADABLE_MANIFEST = auto()
    MISSING = auto()
    CHANGED = auto()
    UNCLAIMED = auto()


class Problem(NamedTuple):
    """A file on which manifest and lake disagree."""

    kind: ProblemKind
    uri: str
    what: str


class Verified(NamedTuple):
    """The result of a verification."""

    entries: int
    """The entries that were compared."""
    files: int
    """The files in the lake that were compared."""
    problems: list[Problem]


async def verify(
    lake: Lake,
    customer: str,
    folders: Iterable[Folder] = tuple(Folder),
    since: datetime.date | None = None,
    today: datetime.date | None = None,
) -> Verified:
    """Read every landed byte of a customer, and return the disagreements with the manifest.

    ::

        problems = asyncio.run(verify(lake, "CXYZ")).problems

    :param lake: the lake.
    :param customer: the DCASS customer code, such as ``CXYZ``.
    :param folders: the folders on RAP.
    :param since: leave out files and entries of earlier business dates; those days are not even listed.
    :param today: the date in Hong Kong, used only with *since*; None for the date by this machine's clock.
    :returns: with a problem for each file that is missing, differs from its entry, or has no entry.
    :raises OSError: if the lake cannot be read.
    """
    problems: list[Problem] = []
    entries = files = 0
    days = None
    if since is not None:
        last = (today or system_clock()().date()) + datetime.timedelta(WINDOW_DAYS_AHEAD)
        days = days_between(since, max(since, last))
    async with StorageCalls(READERS) as calls:
        for folder in folders:
            claims: _Claims = {}
            async for manifest in read_manifests(calls, lake, customer, folder, days):
                problems += (
                    Problem(
                        ProblemKind.UNREADABLE_MANIFEST,
                        lake.uri_of(manifest.path),
                        f"The manifest file has a bad line {number}: {reason}.",
                    )
                    for number, reason in manifest.bad
                )
                entries += len(manifest.entries)
                for entry in manifest.entries:
                    _claim(claims, entry)
            landed = await _landed(calls, lake, folder_directory(customer, folder), days)
            files += len(landed)
            problems += (
                Problem(ProblemKind.UNCLAIMED, lake.uri_of(path), "It has no manifest entry.")
                for path in landed
                if path not in claims
            )
            problems += await _measure(calls, lake, claims)
    return Verified(entries, files, problems)


async def _landed(
    calls: StorageCalls, lake: Lake, directory: str, days: Iterable[datetime.date] | None
) -> list[str]:
    """Return the landed files of a folder, of some business dates or of all."""
    if days is None:
        return await list_files(calls, lake, directory)
    reports = await calls.run(lake.list_directory, directory)
    wanted = [f"{report}/business_date={day.isoformat()}" for report in reports.directories for day in days]
    return await list_directories(calls, lake, wanted)


def _claim(claims: _Claims, entry: Entry) -> None:
    if entry.uri:
        claims.setdefault(relative_path(entry.uri), set()).add((entry.size, entry.sha256))


async def _measure(calls: StorageCalls, lake: Lake, claims: _Claims) -> list[Problem]:
    problems: list[Problem] = []
    paths = iter(claims)
    while batch := list(islice(paths, _FILES)):
        for path, measured in zip(batch, await calls.map(lake.measure, batch), strict=True):
            problems += _differences(lake.uri_of(path), claims[path], measured)
    return problems


def _differences(
    uri: str, claimed: set[tuple[int | None, str | None]], measured: tuple[int, str] | None
) -> list[Problem]:
    if measured is None:
        return [Problem(ProblemKind.MISSING, uri, "It is missing.")]
    holds = f"It holds {measured[0]} bytes of SHA-256 {measured[1]}"
    return [
        Problem(ProblemKind.CHANGED, uri, f"{holds}; its manifest entry says {size} of {sha256}.")
        for size, sha256 in claimed
        if (size, sha256) != measured
    ]
