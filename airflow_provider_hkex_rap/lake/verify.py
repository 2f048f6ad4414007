"""Check the manifest against the bytes in the lake."""

from __future__ import annotations

from enum import Enum, auto
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_hkex_rap.lake.layout import business_date_of, folder_directory, relative_path
from airflow_provider_hkex_rap.lake.listing import list_files
from airflow_provider_hkex_rap.lake.manifest import READERS, Entry, read_manifests
from airflow_provider_hkex_rap.lake.storage_calls import StorageCalls
from airflow_provider_hkex_rap.rap.folders import Folder

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pendulum

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


async def verify(
    lake: Lake,
    customer: str,
    folders: Iterable[Folder] = tuple(Folder),
    since: pendulum.Date | None = None,
) -> list[Problem]:
    """Read every landed byte of a customer, and return the disagreements with the manifest.

    ::

        problems = asyncio.run(verify(lake, "CXYZ"))

    :param lake: the lake.
    :param customer: the DCASS customer code, such as ``CXYZ``.
    :param folders: the folders on RAP.
    :param since: leave out files and entries of earlier business dates.
    :returns: a problem for each file that is missing, differs from its entry, or has no entry.
    :raises OSError: if the lake cannot be read.
    """
    problems: list[Problem] = []
    async with StorageCalls(READERS) as calls:
        for folder in folders:
            claims: _Claims = {}
            async for manifest in read_manifests(calls, lake, customer, folder):
                if not is_since(manifest.path, since):
                    continue
                if manifest.error:
                    what = f"The manifest file is unreadable: {manifest.error}."
                    uri = lake.uri_of(manifest.path)
                    problems.append(Problem(ProblemKind.UNREADABLE_MANIFEST, uri, what))
                for entry in manifest.entries:
                    _claim(claims, entry)
            problems += (
                Problem(ProblemKind.UNCLAIMED, lake.uri_of(path), "It has no manifest entry.")
                for path in await list_files(calls, lake, folder_directory(customer, folder))
                if path not in claims and is_since(path, since)
            )
            problems += await _measure(calls, lake, claims)
    return problems


def is_since(path: str, since: pendulum.Date | None) -> bool:
    """Return whether a path belongs to a business date from *since* on; a path without a date always does.

    :param path: the path of a report or manifest file, relative to the lake.
    :param since: the first business date; None for all.
    """
    business_date = business_date_of(path)
    return since is None or business_date is None or business_date >= since.isoformat()


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
