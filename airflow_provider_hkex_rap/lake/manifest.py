"""Read the manifest: the files of some business dates, or of all."""

from __future__ import annotations

import datetime
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_hkex_rap.lake.entry import BadLine, Entry, from_lines
from airflow_provider_hkex_rap.lake.layout import (
    MANIFESTS,
    business_date_of,
    manifest_directory,
    manifest_stamp,
)
from airflow_provider_hkex_rap.lake.listing import list_directories, list_files

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Container, Iterable, Sequence

    from airflow_provider_hkex_rap.lake.storage_calls import StorageCalls
    from airflow_provider_hkex_rap.lake.store import Lake
    from airflow_provider_hkex_rap.rap.folders import Folder

WINDOW_DAYS_BACK = 31
"""The first business date that is read by default, in days before today; RAP lists ten days (§4.1)."""
WINDOW_DAYS_AHEAD = 11
"""The last one, in days after today: a date in a file's name may be ten days after its mtime."""
READERS = 16
"""How many manifest files are read at once."""


class ManifestFile(NamedTuple):
    """One manifest file that was read."""

    path: str
    """Relative to the lake."""
    folder: Folder
    business_date: str
    """In ISO form."""
    entries: tuple[Entry, ...]
    bad: tuple[BadLine, ...]

    def problems(self, lake: Lake) -> list[str]:
        """Return a text for each line that is not valid.

        :param lake: the lake.
        """
        return [f"{lake.uri_of(self.path)}, line {number}: {reason}" for number, reason in self.bad]


def window(today: datetime.date) -> list[datetime.date]:
    """Return the business dates that a run reads, whatever the length of the history.

    :param today: the date in Hong Kong.
    """
    return days_between(
        today - datetime.timedelta(WINDOW_DAYS_BACK), today + datetime.timedelta(WINDOW_DAYS_AHEAD)
    )


def days_between(first: datetime.date, last: datetime.date) -> list[datetime.date]:
    """Return every day from one to another, both included; none if *last* is before *first*.

    :param first: the first day.
    :param last: the last day.
    """
    return [datetime.date.fromordinal(number) for number in range(first.toordinal(), last.toordinal() + 1)]


async def read_manifests(
    calls: StorageCalls,
    lake: Lake,
    customer: str,
    folder: Folder,
    days: Iterable[datetime.date] | None,
    known: Container[str] = (),
) -> AsyncIterator[ManifestFile]:
    """Yield a folder's manifest files, in the order in which their runs started; a few in memory at a time.

    Each day is listed by its name, or with its month, so that the rest of the history costs nothing.

    ::

        async with StorageCalls(READERS) as calls:
            async for manifest in read_manifests(calls, lake, "CXYZ", Folder.DCASS, window(today)):
                ...

    :param calls: runs the storage calls.
    :param lake: the lake.
    :param customer: the DCASS customer code, such as ``CXYZ``.
    :param folder: the folder on RAP.
    :param days: the business dates; None for all.
    :param known: paths that are not read.
    :raises OSError: if the lake cannot be read.
    """
    listed = await list_manifests(calls, lake, customer, folder, days)
    paths = [path for path in listed if path not in known]
    for start in range(0, len(paths), READERS):
        batch = paths[start : start + READERS]
        for manifest in await calls.map(partial(read_manifest, lake, folder), batch):
            if manifest:
                yield manifest


async def list_manifests(
    calls: StorageCalls, lake: Lake, customer: str, folder: Folder, days: Iterable[datetime.date] | None
) -> list[str]:
    """Return the paths of a folder's manifest files, in the order in which their runs started.

    :param calls: runs the storage calls.
    :param lake: the lake.
    :param customer: the DCASS customer code, such as ``CXYZ``.
    :param folder: the folder on RAP.
    :param days: the business dates; None for all.
    :raises OSError: if the lake cannot be read.
    """
    if days is None:
        found = await list_files(calls, lake, f"{MANIFESTS}/{customer}/{folder}")
    else:
        found = await _list_days(calls, lake, customer, folder, [day.isoformat() for day in days])
    stamped = ((manifest_stamp(path), path) for path in found)
    return [path for _, path in sorted((stamp, path) for stamp, path in stamped if stamp)]


async def _list_days(
    calls: StorageCalls, lake: Lake, customer: str, folder: Folder, days: Sequence[str]
) -> list[str]:
    if not lake.lists_trees:
        return await list_directories(calls, lake, [manifest_directory(customer, folder, d) for d in days])
    # An object store lists the days of a month in one call.
    months = sorted({day[: len("2026-11")] for day in days})
    found = await calls.map(partial(lake.walk, f"{MANIFESTS}/{customer}/{folder}"), months)
    wanted = set(days)
    return [path for paths in found for path in paths if business_date_of(path) in wanted]


def read_manifest(lake: Lake, folder: Folder, path: str) -> ManifestFile | None:
    """Return a manifest file; None if it was moved out of the lake since it was listed.

    :param lake: the lake.
    :param folder: its folder on RAP.
    :param path: its path, as `list_manifests` returns it.
    :raises OSError: if the lake cannot be read.
    """
    try:
        lines = from_lines(lake.read(path))
    except FileNotFoundError:
        return None
    return ManifestFile(path, folder, business_date_of(path) or "", tuple(lines.entries), tuple(lines.bad))
