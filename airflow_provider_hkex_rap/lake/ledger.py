"""The ledger: the files that have landed, as the manifest names them."""

from __future__ import annotations

import datetime
import logging
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_hkex_rap.aio.together import run_all
from airflow_provider_hkex_rap.lake.layout import relative_path
from airflow_provider_hkex_rap.lake.manifest import ManifestFile, read_manifests, window
from airflow_provider_hkex_rap.lake.refusals import refusing
from airflow_provider_hkex_rap.rap.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

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


class _Seen(NamedTuple):
    """A file that landed, by its size and mtime on RAP."""

    uri: str
    sha256: str
    business_date: str


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
        self._seen: dict[tuple[str, bytes, int | None, int | None], _Seen] = {}
        self._contents: dict[tuple[str, bytes, str], str] = {}
        self._owners: dict[str, bytes] = {}
        self._versions: dict[tuple[str, bytes, str], set[Content]] = {}
        self._quarantined: set[tuple[str, bytes]] = set()
        self._days: dict[str, set[tuple[str, str]]] = {}

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
        name = entry.name
        if entry.uri is None or entry.sha256 is None:
            self._quarantined.add((entry.folder, name))
            return
        seen = _Seen(entry.uri, entry.sha256, entry.business_date)
        listed_size = entry.size if entry.listed_size is None else entry.listed_size
        self._seen[entry.folder, name, listed_size, entry.mtime] = seen
        self._contents.setdefault((entry.folder, name, entry.sha256), entry.uri)
        self._owners.setdefault(relative_path(entry.uri), name)
        if entry.committed:
            content = Content(entry.committed, entry.mtime or 0, entry.uri)
            self._versions.setdefault((entry.folder, name, entry.business_date), set()).add(content)
        self._days.setdefault(entry.business_date, set()).add((entry.folder, entry.text))

    def has(self, file: RemoteFile) -> bool:
        """Return whether the lake has a file of that folder, name, listed size and mtime.

        :param file: the file; a size or mtime of None matches only an entry that has None as well.
        """
        return (file.folder.value, file.name, file.size, file.mtime) in self._seen

    def returned(self, file: RemoteFile) -> tuple[str, str] | None:
        """Return SHA-256 and URI of a file that the lake `has`, if a later content of its name is current.

        RAP has then published the earlier content again, with the time that it had.

        :param file: the file.
        """
        seen = self._seen[file.folder.value, file.name, file.size, file.mtime]
        current = self.current(file, seen.business_date)
        return None if current is None or current.uri == seen.uri else (seen.sha256, seen.uri)

    def uri_of_content(self, file: RemoteFile, sha256: str) -> str | None:
        """Return the URI of a file's bytes if they landed before, under any date or mtime; else None.

        :param file: the file.
        :param sha256: SHA-256 of its bytes, in hexadecimal.
        """
        return self._contents.get((file.folder.value, file.name, sha256))

    def owner(self, uri: str) -> bytes | None:
        """Return the name on RAP of the file whose content is at a URI; None if no entry names the URI.

        :param uri: a URI as `Lake.uri_of` returns it, or a path relative to the lake.
        """
        return self._owners.get(relative_path(uri))

    def current(self, file: RemoteFile, business_date: str) -> Content | None:
        """Return the current content of a name and business date; None if there is none.

        :param file: the file.
        :param business_date: in ISO form.
        """
        return max(self._versions.get((file.folder.value, file.name, business_date), ()), default=None)

    def content(self, file: RemoteFile, business_date: str, uri: str) -> Content | None:
        """Return the content at a URI, if it is one of a name and business date.

        :param file: the file.
        :param business_date: in ISO form.
        :param uri: the URI.
        """
        versions = self._versions.get((file.folder.value, file.name, business_date), ())
        return max((content for content in versions if content.uri == uri), default=None)

    def quarantined(self, file: RemoteFile) -> bool:
        """Return whether an earlier entry says that a file may not enter the lake.

        :param file: the file.
        """
        return (file.folder.value, file.name) in self._quarantined

    def of_day(self, business_date: datetime.date) -> set[tuple[str, str]]:
        """Return folder and name of every landed file of a business date.

        :param business_date: the day that the reports are about.
        """
        return set(self._days.get(business_date.isoformat(), ()))


class _Known:
    """The manifest files that need not be read."""

    def __init__(self, read: dict[str, ManifestFile], own_run: str) -> None:
        self._read = read
        self._own = f"/{own_run}-" if own_run else ""

    def __contains__(self, path: object) -> bool:
        return path in self._read or bool(self._own and self._own in str(path))
