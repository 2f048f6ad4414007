"""Extract the facts for the grid from manifest files, and cache them in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from cachetools import LRUCache

from airflow_provider_hkex_rap.lake.completeness import recorded, was_whole
from airflow_provider_hkex_rap.lake.manifest import READERS, list_manifests, read_manifest
from airflow_provider_hkex_rap.lake.storage_calls import StorageCalls
from airflow_provider_hkex_rap.lake.store import ListedPath

if TYPE_CHECKING:
    from datetime import date

    from airflow_provider_hkex_rap.lake.entry import Entry
    from airflow_provider_hkex_rap.lake.manifest import ManifestFile
    from airflow_provider_hkex_rap.lake.store import Lake
    from airflow_provider_hkex_rap.rap.folders import Folder
    from airflow_provider_hkex_rap.rap.judgement import Sighting


class LandedFile(NamedTuple):
    """A file that has landed, as the grid counts and judges it."""

    uri: str
    sighting: Sighting
    was_whole: bool
    """Whether RAP still listed the file's day whole when it listed the file (§4.1)."""
    size: int | None
    committed: str | None


class Download(NamedTuple):
    """The last download of an account, by the entries of a manifest file."""

    account: str
    at: str
    site: str
    address: str


class Extract(NamedTuple):
    """The facts of one manifest file that the grid and the accounts show."""

    files: tuple[LandedFile, ...]
    downloads: tuple[Download, ...]
    problems: tuple[str, ...]
    """A text for each line that is not valid."""


class ExtractCache:
    """The extracts of manifest files, as long as these have the state of their listing; safe in any thread.

    :param files: number of landed files that all extracts may have together; the least recently used are
        removed first.
    """

    def __init__(self, files: int) -> None:
        self._lock = Lock()
        self._extracts: LRUCache[tuple[object, ...], Extract] = LRUCache(files, _weight)

    def get(self, lake: Lake, path: str) -> Extract | None:
        """Return the extract of a manifest file; None if it is not known, or if the file has changed.

        :param lake: the lake.
        :param path: the path of the manifest file, as it was listed.
        """
        with self._lock:
            return self._extracts.get(_key(lake, path))

    def put(self, lake: Lake, path: str, extract: Extract) -> None:
        """Keep the extract of a manifest file.

        :param lake: the lake.
        :param path: the path of the manifest file, as it was listed.
        :param extract: its extract.
        """
        # A person may repair a damaged file.
        if extract.problems or _weight(extract) > self._extracts.maxsize:
            return
        with self._lock:
            self._extracts[_key(lake, path)] = extract


async def read_extracts(
    lake: Lake,
    customer: str,
    folders: Iterable[Folder],
    days: Iterable[date],
    cache: ExtractCache | None = None,
) -> list[Extract]:
    """Return the extracts of a customer's manifest files, those of each folder in the order of their runs.

    :param lake: the lake.
    :param customer: the DCASS customer code, such as ``CXYZ``.
    :param folders: the folders on RAP.
    :param days: the business dates.
    :param cache: extracts of earlier calls, which are not read again; None to read every file.
    :raises OSError: if the lake cannot be read.
    """
    days, found = tuple(days), list[Extract | None]()
    async with StorageCalls(READERS) as calls:
        for folder in folders:
            paths = await list_manifests(calls, lake, customer, folder, days)
            for start in range(0, len(paths), READERS):
                batch = paths[start : start + READERS]
                found += await calls.map(partial(_extract, lake, folder, cache), batch)
    return [extract for extract in found if extract]


def last_downloads(extracts: Iterable[Extract]) -> dict[str, Download]:
    """Return the last download of each account.

    :param extracts: the extracts of manifest files.
    """
    return _last(download for extract in extracts for download in extract.downloads)


def _key(lake: Lake, path: str) -> tuple[object, ...]:
    # A lake that is copied in place shows a part of a manifest file first.
    return (lake.uri, path, path.state if isinstance(path, ListedPath) else None)


def _weight(extract: Extract) -> int:
    # A manifest file without a landed file takes room too.
    return max(1, len(extract.files))


def _extract(lake: Lake, folder: Folder, cache: ExtractCache | None, path: str) -> Extract | None:
    if cache and (known := cache.get(lake, path)):
        return known
    manifest = read_manifest(lake, folder, path)
    if manifest is None:
        return None
    extract = Extract(
        tuple(map(_landed_file, (entry for entry in manifest.entries if entry.uri))),
        tuple(_last(_downloads(manifest)).values()),
        tuple(manifest.problems(lake)),
    )
    if cache:
        cache.put(lake, path, extract)
    return extract


def _landed_file(entry: Entry) -> LandedFile:
    sighting = recorded(entry)
    whole = was_whole(entry, sighting.business_date)
    return LandedFile(str(entry.uri), sighting, whole, entry.size, entry.committed)


def _downloads(manifest: ManifestFile) -> Iterator[Download]:
    for entry in manifest.entries:
        if entry.uri and entry.downloaded:
            yield Download(entry.account, entry.downloaded, entry.site, entry.address)


def _last(downloads: Iterable[Download]) -> dict[str, Download]:
    last: dict[str, Download] = {}
    for download in downloads:
        if download.account not in last or download.at > last[download.account].at:
            last[download.account] = download
    return last
