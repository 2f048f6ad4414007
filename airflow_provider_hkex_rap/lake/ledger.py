"""The ledger: the files that have landed, as the manifest names them."""

from __future__ import annotations

import datetime
import logging
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_hkex_rap.aio.together import run_all
from airflow_provider_hkex_rap.lake.entry import rap_path
from airflow_provider_hkex_rap.lake.layout import relative_path
from airflow_provider_hkex_rap.lake.manifest import ManifestFile, read_manifests, window
from airflow_provider_hkex_rap.lake.refusals import refusing
from airflow_provider_hkex_rap.rap.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pendulum

    from airflow_provider_hkex_rap.lake.entry import Entry
    from airflow_provider_hkex_rap.lake.storage_calls import StorageCalls
    from airflow_provider_hkex_rap.lake.store import Lake
    from airflow_provider_hkex_rap.rap.files import RemoteFile
    from airflow_provider_hkex_rap.rap.folders import Folder

log = logging.getLogger(__name__)


class FolderDay(NamedTuple):
    """One business date of one folder: one directory of the manifest."""

    folder: Folder
    day: datetime.date


class Content(NamedTuple):
    """One content of a name and business date; the greatest one is current."""

    committed: str
    """When it came into the lake, or RAP listed it again instead of a later one; as in the entry."""
    mtime: int
    uri: str


class Ledger:
    """The files of a customer that have landed, by any of its accounts.

    A file is found by folder, name, and size and mtime or SHA-256; never by its path in the lake.

    :param customer: the DCASS customer code, such as ``CXYZ``.
    """

    def __init__(self, customer: str) -> None:
        self.customer = customer
        self.manifests: dict[str, ManifestFile] = {}
        """The manifest files that were read, by path relative to the lake; without this run's own."""
        self.loaded: set[FolderDay] = set()
        """The business dates that were read."""
        # One index of the entries by name: an index for each lookup would take more memory than the entries.
        self._landed: dict[str, Entry | tuple[Entry, ...]] = {}
        self._owners: dict[str, dict[str, Entry]] | None = None
        self._quarantined: set[str] = set()

    @classmethod
    async def load(
        cls,
        calls: StorageCalls,
        lake: Lake,
        customer: str,
        folders: Iterable[Folder],
        now: pendulum.DateTime,
        day: datetime.date | None = None,
    ) -> Ledger:
        """Return the ledger of the `window` of business dates around today, and of one more day if given.

        :param calls: runs the storage calls.
        :param lake: the lake.
        :param customer: the DCASS customer code, such as ``CXYZ``.
        :param folders: the folders on RAP.
        :param now: the current time in Hong Kong.
        :param day: a business date to include, however long ago it was.
        :raises LakeError: if the lake cannot be read.
        """
        ledger = cls(customer)
        days = {*window(now.date()), *([day] if day else [])}
        await ledger.read(calls, lake, (FolderDay(folder, each) for folder in folders for each in days))
        return ledger

    async def read(
        self, calls: StorageCalls, lake: Lake, days: Iterable[FolderDay], own_run: str = ""
    ) -> None:
        """Read the manifest files of some days that were not read before.

        A line that is not valid is logged once and left out: its file is entered again.

        :param calls: runs the storage calls.
        :param lake: the lake.
        :param days: the days; those that were read before are listed again for new files.
        :param own_run: the stamp of a run whose manifest files are left out.
        :raises LakeError: if the lake cannot be read.
        """
        by_folder: dict[Folder, set[datetime.date]] = {}
        for folder, day in days:
            by_folder.setdefault(folder, set()).add(day)
        with refusing(f"The manifest of {lake.uri} cannot be read", lake.uri):
            await run_all(
                *(
                    self._read_folder(calls, lake, folder, sorted(wanted), own_run)
                    for folder, wanted in by_folder.items()
                )
            )

    async def _read_folder(
        self, calls: StorageCalls, lake: Lake, folder: Folder, days: list[datetime.date], own_run: str
    ) -> None:
        known = _Known(self.manifests, own_run)
        async for manifest in read_manifests(calls, lake, self.customer, folder, days, known):
            for number, reason in manifest.bad:
                uri = lake.uri_of(manifest.path)
                log.warning("Ignoring line %d of the manifest file %s: %s.", number, uri, printable(reason))
            for entry in manifest.entries:
                self.add(entry)
            self.manifests[manifest.path] = manifest
        self.loaded.update(FolderDay(folder, day) for day in days)

    def add(self, entry: Entry) -> None:
        """Add an entry.

        :param entry: an entry that is, or will soon be, in the manifest.
        """
        path = entry.rap_path_base64 or entry.rap_path
        if entry.uri is None or entry.sha256 is None:
            self._quarantined.add(path)
            return
        self._landed[path] = (*_several(self._landed[path]), entry) if path in self._landed else entry
        if self._owners is not None:
            _add_owner(self._owners, entry)

    def _entries(self, file: RemoteFile) -> tuple[Entry, ...]:
        """Return the entries of a file's folder and name, in the order in which they were added."""
        path, path_base64 = rap_path(file)
        return _several(self._landed.get(path_base64 or path, ()))

    def _seen(self, file: RemoteFile) -> Entry | None:
        """Return the last entry of a file's folder, name, listed size and mtime; None if there is none."""
        found = None
        for entry in self._entries(file):
            listed_size = entry.size if entry.listed_size is None else entry.listed_size
            if (listed_size, entry.mtime) == (file.size, file.mtime):
                found = entry
        return found

    def has(self, file: RemoteFile) -> bool:
        """Return whether the lake has a file of that folder, name, listed size and mtime.

        :param file: the file; a size or mtime of None matches only an entry that has None as well.
        """
        return self._seen(file) is not None

    def returned(self, file: RemoteFile) -> tuple[str, str] | None:
        """Return SHA-256 and URI of a file that the lake `has`, if a later content of its name is current.

        RAP has then published the earlier content again, with the time that it had.

        :param file: the file.
        """
        seen = self._seen(file)
        if seen is None or seen.uri is None or seen.sha256 is None:
            return None
        current = self.current(file, seen.business_date)
        return None if current is None or current.uri == seen.uri else (seen.sha256, seen.uri)

    def uri_of_content(self, file: RemoteFile, sha256: str) -> str | None:
        """Return the URI of a file's bytes if they landed before, under any date or mtime; else None.

        :param file: the file.
        :param sha256: SHA-256 of its bytes, in hexadecimal.
        """
        return next((entry.uri for entry in self._entries(file) if entry.sha256 == sha256), None)

    def owner(self, uri: str) -> bytes | None:
        """Return the name on RAP of the file whose content is at a URI; None if no entry names the URI.

        :param uri: a URI as `Lake.uri_of` returns it, or a path relative to the lake.
        """
        # Only the files of a directory that was not empty before are asked for: most runs need no index.
        if self._owners is None:
            self._owners = {}
            for entries in self._landed.values():
                for entry in _several(entries):
                    _add_owner(self._owners, entry)
        directory, _, name = relative_path(uri).rpartition("/")
        owner = self._owners.get(directory, {}).get(name)
        return owner.name if owner else None

    def current(self, file: RemoteFile, business_date: str) -> Content | None:
        """Return the current content of a name and business date; None if there is none.

        :param file: the file.
        :param business_date: in ISO form.
        """
        return max(self._contents(file, business_date), default=None)

    def content(self, file: RemoteFile, business_date: str, uri: str) -> Content | None:
        """Return the content at a URI, if it is one of a name and business date.

        :param file: the file.
        :param business_date: in ISO form.
        :param uri: the URI.
        """
        contents = self._contents(file, business_date)
        return max((content for content in contents if content.uri == uri), default=None)

    def _contents(self, file: RemoteFile, business_date: str) -> Iterator[Content]:
        for entry in self._entries(file):
            if entry.committed and entry.uri and entry.business_date == business_date:
                yield Content(entry.committed, entry.mtime or 0, entry.uri)

    def quarantined(self, file: RemoteFile) -> bool:
        """Return whether an earlier entry says that a file may not enter the lake.

        :param file: the file.
        """
        path, path_base64 = rap_path(file)
        return (path_base64 or path) in self._quarantined


def _several(entries: Entry | tuple[Entry, ...]) -> tuple[Entry, ...]:
    """Return the entries of a name: most names have one, which is kept without a tuple."""
    return entries if isinstance(entries, tuple) else (entries,)


def _add_owner(owners: dict[str, dict[str, Entry]], entry: Entry) -> None:
    directory, _, name = relative_path(entry.uri or "").rpartition("/")
    owners.setdefault(directory, {}).setdefault(name, entry)


class _Known:
    """The manifest files that need not be read."""

    def __init__(self, read: dict[str, ManifestFile], own_run: str) -> None:
        self._read = read
        self._own = f"/{own_run}-" if own_run else ""

    def __contains__(self, path: object) -> bool:
        return path in self._read or bool(self._own and self._own in str(path))
