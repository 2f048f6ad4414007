"""The manifest: one entry for each file that landed, and the ledger that is read from it."""

from __future__ import annotations

import base64
import datetime
import logging
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import AfterValidator, TypeAdapter, ValidationError

from airflow_provider_hkex_rap.lake.layout import (
    MANIFESTS,
    business_date_of,
    manifest_stamp,
    run_stamp,
)
from airflow_provider_hkex_rap.lake.listing import list_files
from airflow_provider_hkex_rap.rap.folders import Folder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    import pendulum

    from airflow_provider_hkex_rap.lake.storage_calls import StorageCalls
    from airflow_provider_hkex_rap.lake.store import Lake
    from airflow_provider_hkex_rap.rap.files import RemoteFile

SCHEMA_VERSION: Literal[1] = 1
LOOK_BACK_DAYS = 30
"""How many days back the ledger looks; RAP lists the past ten calendar days (§4.1)."""
READERS = 16
"""How many manifest files are read at once."""

log = logging.getLogger(__name__)


class Disposition(StrEnum):
    """How the landing of a listed file ended."""

    LANDED = "landed"
    ALREADY = "already"
    """Its bytes had landed before."""
    DEFERRED = "deferred"
    """It was incomplete, or changed while it was read; the next run reads it again."""
    QUARANTINED = "quarantined"
    """It may not enter the lake."""
    FAILED = "failed"


def _iso_date(text: str) -> str:
    datetime.date.fromisoformat(text)
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file's entry in the manifest; flat, so that any reader of JSON can query it.

    Times other than *mtime* are ISO 8601 in UTC.

    :param schema_version: version of this form, `SCHEMA_VERSION`.
    :param customer: the DCASS customer code, such as ``CXYZ``.
    :param folder: the folder on RAP, such as ``DCASS``.
    :param rap_path: the path on RAP; bytes that are not UTF-8 are written as ``%XX``.
    :param rap_path_base64: the path's own bytes in base64 if they are not UTF-8, else None.
    :param report: the report's code or name.
    :param business_date: the day that the report is about, in ISO form.
    :param business_date_rule: the source of that day: ``pattern``, ``name``, ``mtime`` or ``first_seen``.
    :param size: bytes; None if nothing was read and RAP sent no size.
    :param mtime: RAP's modification time, in seconds since the epoch; None if RAP sent none.
    :param sha256: SHA-256 of the bytes, in hexadecimal; None for a file that did not enter the lake.
    :param uri: URI of the bytes in the lake; None for a file that did not enter the lake.
    :param etag: the object store's ETag, if any.
    :param version_id: the object store's version id, if any.
    :param supersedes: the URI of the content that this one replaces on RAP, if any.
    :param account: the RAP user account that read the file.
    :param site: the site of RAP that it was read from.
    :param address: ``host:port`` of the server that it was read from.
    :param host_key_fingerprint: SHA-256 fingerprint of the server's key.
    :param client_key_fingerprint: MD5 fingerprint of the account's key (§3.2.2).
    :param dag: the DAG's id; None outside a DAG run, as are *run*, *task* and *try_number*.
    :param run: the DAG run's id.
    :param task: the task's id.
    :param try_number: number of the task's try, from 1.
    :param first_seen: when the file was first listed.
    :param downloaded: when its last byte arrived; None if it was adopted without a download.
    :param committed: when it was complete in the lake.
    :param package_version: version of the package that wrote the entry.
    :param disposition: ``landed``, ``already`` or ``quarantined``.
    :param reason: why, if the file did not land in the ordinary way; else empty.
    """

    schema_version: int
    customer: str
    folder: str
    rap_path: str
    rap_path_base64: str | None
    report: str
    business_date: Annotated[str, AfterValidator(_iso_date)]
    business_date_rule: str
    size: int | None
    mtime: int | None
    sha256: str | None
    uri: str | None
    etag: str | None
    version_id: str | None
    supersedes: str | None
    account: str
    site: str
    address: str
    host_key_fingerprint: str | None
    client_key_fingerprint: str | None
    dag: str | None
    run: str | None
    task: str | None
    try_number: int | None
    first_seen: str
    downloaded: str | None
    committed: str | None
    package_version: str
    disposition: str
    reason: str

    @property
    def name(self) -> bytes:
        """The file's name on RAP, in its own bytes."""
        path = (
            base64.b64decode(self.rap_path_base64, validate=True)
            if self.rap_path_base64
            else self.rap_path.encode()
        )
        return path.removeprefix(Folder(self.folder).path.encode() + b"/")

    @property
    def text(self) -> str:
        """The file's name on RAP as text, as in `RemoteFile.text`."""
        return self.rap_path.removeprefix(Folder(self.folder).path + "/")


@dataclass(frozen=True, slots=True)
class _Document:
    """The content of a manifest file."""

    schema_version: Literal[1]
    entries: list[Entry]


_DOCUMENT = TypeAdapter(_Document)


def rap_path(file: RemoteFile) -> tuple[str, str | None]:
    """Return a file's path on RAP as text, and its bytes in base64 if they are not UTF-8.

    :param file: an entry of a folder's listing.
    """
    text = f"{file.folder.path}/{file.text}"
    return text, None if text.encode() == file.path else base64.b64encode(file.path).decode()


def utc(moment: pendulum.DateTime) -> str:
    """Return a time in the manifest's form: ISO 8601 in UTC, to the millisecond.

    :param moment: an aware time.
    """
    return moment.astimezone(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def to_json(entries: Iterable[Entry]) -> bytes:
    """Return the content of a manifest file.

    :param entries: its entries.
    """
    return _DOCUMENT.dump_json(_Document(SCHEMA_VERSION, list(entries)))


def from_json(content: bytes) -> list[Entry]:
    """Return the entries of a manifest file; fields that a later version may add are left out.

    :param content: the file's bytes.
    :raises ValueError: if it is not a manifest, has another schema version, or an entry that is not valid.
    """
    try:
        entries = _DOCUMENT.validate_json(content, strict=True).entries
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"])) or "file"
        raise ValueError(f"it is not a valid manifest: {place}: {first['msg']}") from error
    if not all(entry.name for entry in entries):
        raise ValueError("an entry names no file")
    return entries


class ManifestFile(NamedTuple):
    """One manifest file that was read."""

    path: str
    """Relative to the lake."""
    entries: list[Entry]
    error: str = ""
    """Why it could not be read; empty if it was."""


async def read_manifests(
    calls: StorageCalls,
    lake: Lake,
    customer: str,
    folder: Folder,
    since: pendulum.DateTime | None = None,
    day: pendulum.Date | None = None,
) -> AsyncIterator[ManifestFile]:
    """Yield a folder's manifest files, in the order in which their runs started; a few in memory at a time.

    ::

        async with StorageCalls(READERS) as calls:
            async for manifest in read_manifests(calls, lake, "CXYZ", Folder.DCASS):
                ...

    :param calls: runs the storage calls.
    :param lake: the lake.
    :param customer: the DCASS customer code, such as ``CXYZ``.
    :param folder: the folder on RAP.
    :param since: leave out the files of runs that started earlier.
    :param day: a business date of which all files are kept, whenever their runs started.
    :raises OSError: if the lake cannot be read.
    """
    earliest = run_stamp(since, "").rstrip("-") if since else ""
    of_day = day.isoformat() if day else ""
    found = await list_files(calls, lake, f"{MANIFESTS}/{customer}/{folder}")
    stamped = ((manifest_stamp(path), path) for path in found)
    paths = sorted(
        (stamp, path)
        for stamp, path in stamped
        if stamp and (stamp >= earliest or business_date_of(path) == of_day)
    )
    for start in range(0, len(paths), READERS):
        batch = (path for _, path in paths[start : start + READERS])
        for manifest in await calls.map(partial(_read, lake), batch):
            yield manifest


def _read(lake: Lake, path: str) -> ManifestFile:
    try:
        return ManifestFile(path, from_json(lake.read(path)))
    except (ValueError, FileNotFoundError) as error:
        return ManifestFile(path, [], str(error))


class Ledger:
    """The files of a customer that have landed, by any of its accounts.

    :param customer: the DCASS customer code, such as ``CXYZ``.
    """

    def __init__(self, customer: str) -> None:
        self.customer = customer
        self._seen: set[tuple[str, bytes, int | None, int | None]] = set()
        self._contents: dict[tuple[str, bytes, str], str] = {}
        self._owners: dict[str, bytes] = {}
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
        day: pendulum.Date | None = None,
    ) -> Ledger:
        """Return the ledger of the last thirty days, and of one more day if given.

        A manifest file that is not valid is logged and left out: the next run adopts its files again.

        :param calls: runs the storage calls.
        :param lake: the lake.
        :param customer: the DCASS customer code, such as ``CXYZ``.
        :param folders: the folders on RAP.
        :param now: the time from which to look back.
        :param day: a business date to include, however long ago it landed.
        :raises OSError: if the lake cannot be read.
        """
        ledger = cls(customer)
        since = now.subtract(days=LOOK_BACK_DAYS)
        for folder in folders:
            async for manifest in read_manifests(calls, lake, customer, folder, since, day):
                if manifest.error:
                    uri = lake.uri_of(manifest.path)
                    log.warning("Ignoring the manifest file %s: %s.", uri, manifest.error)
                for entry in manifest.entries:
                    ledger.add(entry)
        return ledger

    def add(self, entry: Entry) -> None:
        """Add an entry.

        :param entry: an entry that is, or will soon be, in the manifest.
        """
        name = entry.name
        if entry.uri is None or entry.sha256 is None:
            self._quarantined.add((entry.folder, name))
            return
        self._seen.add((entry.folder, name, entry.size, entry.mtime))
        self._contents.setdefault((entry.folder, name, entry.sha256), entry.uri)
        self._owners.setdefault(entry.uri, name)
        self._days.setdefault(entry.business_date, set()).add((entry.folder, entry.text))

    def has(self, file: RemoteFile) -> bool:
        """Return whether the lake has a file of that folder, name, size and mtime.

        :param file: the file; a size or mtime of None matches only an entry that has None as well.
        """
        return (file.folder.value, file.name, file.size, file.mtime) in self._seen

    def uri_of_content(self, file: RemoteFile, sha256: str) -> str | None:
        """Return the URI of a file's bytes if they landed before, under any date or mtime; else None.

        :param file: the file.
        :param sha256: SHA-256 of its bytes, in hexadecimal.
        """
        return self._contents.get((file.folder.value, file.name, sha256))

    def owner(self, uri: str) -> bytes | None:
        """Return the name on RAP of the file whose content is at a URI; None if no entry names the URI.

        :param uri: a URI as `Lake.uri_of` returns it.
        """
        return self._owners.get(uri)

    def quarantined(self, file: RemoteFile) -> bool:
        """Return whether an earlier entry says that a file may not enter the lake.

        :param file: the file.
        """
        return (file.folder.value, file.name) in self._quarantined

    def of_day(self, business_date: pendulum.Date) -> set[tuple[str, str]]:
        """Return folder and name of every landed file of a business date.

        :param business_date: the day that the reports are about.
        """
        return set(self._days.get(business_date.isoformat(), ()))
