"""The manifest: one entry for each file that landed, and the ledger that is read from it."""

from __future__ import annotations

import base64
import datetime
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_hkex_rap.lake.layout import (
    MANIFESTS,
    folder_directory,
    manifest_stamp,
    run_stamp,
)
from airflow_provider_hkex_rap.rap.folders import Folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pendulum

    from airflow_provider_hkex_rap.lake.store import Lake
    from airflow_provider_hkex_rap.rap.files import RemoteFile

SCHEMA_VERSION = 1
LOOK_BACK_DAYS = 30
"""How far back the ledger looks; RAP lists the past ten calendar days (§4.1)."""
READERS = 16

_TYPES = {"str": str, "str | None": str | None, "int": int, "int | None": int | None}

log = logging.getLogger(__name__)


class Disposition(StrEnum):
    """What became of a listed file."""

    LANDED = "landed"
    ALREADY = "already"
    """Its bytes had landed before."""
    DEFERRED = "deferred"
    """It was not whole, or changed while it was read; the next run reads it again."""
    QUARANTINED = "quarantined"
    """It may not enter the lake."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What the manifest says of one file; flat, so that any reader of JSON can query it.

    Times but *mtime* are ISO 8601 in UTC.

    :param customer: the DCASS customer code.
    :param folder: the folder on RAP.
    :param rap_path: the path on RAP; bytes that are not UTF-8 show as ``%XX``.
    :param rap_path_base64: the path's own bytes where they are not UTF-8, else None.
    :param report: the report's code or name.
    :param business_date: the day that the report is about, in ISO form.
    :param business_date_rule: what gave that day: ``pattern``, ``name``, ``mtime`` or ``first_seen``.
    :param size: bytes; None where nothing was read and RAP did not say.
    :param mtime: RAP's modification time, in seconds since the epoch; None where RAP does not say.
    :param sha256: of the bytes, in hexadecimal; None for a file that did not enter the lake.
    :param uri: where the bytes are; None for a file that did not enter the lake.
    :param etag: the object store's, if any.
    :param version_id: the object store's, if any.
    :param supersedes: the URI of the content that this one replaces on RAP.
    :param account: the RAP user account that read the file; *site* and *address* are where.
    :param host_key_fingerprint: of the server's key, SHA-256.
    :param client_key_fingerprint: of the account's key, MD5 (§3.2.2).
    :param dag: the DAG's id; *run*, *task* and *try_number* follow.
    :param first_seen: when the file was first listed.
    :param downloaded: when its last byte arrived; None where it was adopted without a download.
    :param committed: when it was found whole in the lake.
    :param package_version: of the package that wrote the entry.
    :param disposition: ``landed``, ``already`` or ``quarantined``.
    :param reason: why, where it is not plainly landed.
    """

    schema_version: int = SCHEMA_VERSION
    customer: str
    folder: str
    rap_path: str
    rap_path_base64: str | None
    report: str
    business_date: str
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

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Entry:
        """Return the entry of those values; ones that a later version may add are left out.

        :param values: a JSON object of a manifest file.
        :raises ValueError: a value is missing, or of another type than it should be.
        """
        known: dict[str, Any] = {}
        for field in fields(cls):
            if not isinstance(values.get(field.name), _TYPES[str(field.type)]):
                raise ValueError(f"an entry has no valid {field.name!r}")
            known[field.name] = values[field.name]
        entry = cls(**known)
        if not entry.name:
            raise ValueError("an entry names no file")
        datetime.date.fromisoformat(entry.business_date)
        return entry


def rap_path(file: RemoteFile) -> tuple[str, str | None]:
    """Return a file's path on RAP as text, and its bytes in base64 where they are not UTF-8.

    :param file: an entry of a folder's listing.
    """
    text = f"{file.folder.path}/{file.text}"
    return text, None if text.encode() == file.path else base64.b64encode(file.path).decode()


def utc(moment: pendulum.DateTime) -> str:
    """Return a time in UTC, in the manifest's form: ISO 8601, to the millisecond.

    :param moment: an aware time.
    """
    return moment.astimezone(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def to_json(entries: Iterable[Entry]) -> bytes:
    """Return the content of a manifest file.

    :param entries: what it says.
    """
    document = {"schema_version": SCHEMA_VERSION, "entries": [asdict(entry) for entry in entries]}
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def from_json(content: bytes) -> list[Entry]:
    """Return the entries of a manifest file.

    :param content: the file's bytes.
    :raises ValueError: it is not a manifest, or one of another schema version.
    """
    try:
        document = json.loads(content)
        if document["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"it has schema version {document['schema_version']}, not {SCHEMA_VERSION}")
        return [Entry.parse(values) for values in document["entries"]]
    except (TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"it does not have a manifest's form: {error!r}") from error


class ManifestFile(NamedTuple):
    """One manifest file, read."""

    path: str
    """Relative to the lake."""
    entries: list[Entry]
    error: str = ""
    """Why it could not be read."""


def read_manifests(
    lake: Lake,
    customer: str,
    folder: Folder,
    since: pendulum.DateTime | None = None,
    day: pendulum.Date | None = None,
) -> Iterator[ManifestFile]:
    """Yield a folder's manifest files, in the order in which their runs started; a few in memory at a time.

    :param lake: the lake.
    :param customer: the DCASS customer code.
    :param folder: the folder on RAP.
    :param since: leave out those of runs that started earlier.
    :param day: a business date of which nothing is left out.
    :raises OSError: the lake cannot be read.
    """
    earliest = run_stamp(since, "") if since else ""
    stamped = (
        (manifest_stamp(path), path)
        for path in lake.walk(f"{MANIFESTS}/{folder_directory(customer, folder)}")
    )
    of_day = f"/business_date={day}/"
    paths = sorted(
        (stamp, path)
        for stamp, path in stamped
        if stamp and (stamp >= earliest.rstrip("-") or of_day in path)
    )
    with ThreadPoolExecutor(READERS) as pool:
        for start in range(0, len(paths), READERS):
            yield from pool.map(lambda item: _read(lake, item[1]), paths[start : start + READERS])


def _read(lake: Lake, path: str) -> ManifestFile:
    try:
        return ManifestFile(path, from_json(lake.read(path)))
    except (ValueError, FileNotFoundError) as error:
        return ManifestFile(path, [], str(error))


class Ledger:
    """What has landed of a customer's files, from whichever account and on whichever day.

    :param customer: the DCASS customer code.
    """

    def __init__(self, customer: str) -> None:
        self.customer = customer
        self._seen: set[tuple[str, bytes, int | None, int | None]] = set()
        self._contents: dict[tuple[str, bytes, str], str] = {}
        self._owners: dict[str, bytes] = {}
        self._quarantined: set[tuple[str, bytes]] = set()
        self._days: dict[str, set[tuple[str, str]]] = {}

    @classmethod
    def load(
        cls,
        lake: Lake,
        customer: str,
        folders: Iterable[Folder],
        now: pendulum.DateTime,
        day: pendulum.Date | None = None,
    ) -> Ledger:
        """Return the ledger of the last thirty days, and of one day however long ago.

        A manifest file that cannot be understood is logged and left out: what it spoke of is adopted again.

        :param lake: the lake.
        :param customer: the DCASS customer code.
        :param folders: the folders on RAP.
        :param now: the time from which to look back.
        :param day: a business date that is asked about.
        :raises OSError: the lake cannot be read.
        """
        ledger = cls(customer)
        for folder in folders:
            for manifest in read_manifests(lake, customer, folder, now.subtract(days=LOOK_BACK_DAYS), day):
                if manifest.error:
                    log.warning(
                        "Ignoring the manifest file %s: %s.", lake.uri_of(manifest.path), manifest.error
                    )
                for entry in manifest.entries:
                    ledger.add(entry)
        return ledger

    def add(self, entry: Entry) -> None:
        """Take note of an entry.

        :param entry: one that is, or is about to be, in the manifest.
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
        """Say whether the lake has a file of that folder, name, size and time.

        :param file: the file; where RAP does not say its size or time, it must not have said them before.
        """
        return (file.folder.value, file.name, file.size, file.mtime) in self._seen

    def uri_of_content(self, file: RemoteFile, sha256: str) -> str | None:
        """Return where a file's bytes are, if the lake has them under any date or time.

        :param file: the file.
        :param sha256: of its bytes, in hexadecimal.
        """
        return self._contents.get((file.folder.value, file.name, sha256))

    def owner(self, uri: str) -> bytes | None:
        """Return the name on RAP of the file whose content is at a URI; None if no entry speaks of it.

        :param uri: a path in the lake, as `Lake.uri_of` gives it.
        """
        return self._owners.get(uri)

    def quarantined(self, file: RemoteFile) -> bool:
        """Say whether it has been recorded that a file may not enter the lake.

        :param file: the file.
        """
        return (file.folder.value, file.name) in self._quarantined

    def of_day(self, business_date: pendulum.Date) -> set[tuple[str, str]]:
        """Return folder and name of every file that the lake has of a business date.

        :param business_date: the day that they are about.
        """
        return set(self._days.get(business_date.isoformat(), ()))
