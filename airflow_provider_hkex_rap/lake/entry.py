"""The manifest entry: its fields, and its form as one line of NDJSON."""

from __future__ import annotations

import base64
import datetime
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import AfterValidator, TypeAdapter, ValidationError

from airflow_provider_hkex_rap.rap.folders import Folder

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pendulum

    from airflow_provider_hkex_rap.rap.files import RemoteFile

SCHEMA_VERSION: Literal[1] = 1
MOST_INTEGER = 2**63 - 1
"""The largest number in an entry: readers of the manifest take its numbers as signed integers of 64 bits."""


class Disposition(StrEnum):
    """How the landing of a listed file ended."""

    LANDED = "landed"
    ALREADY = "already"
    """Its bytes are in the lake: they landed before, or another run is landing them."""
    DEFERRED = "deferred"
    """It was incomplete, or changed while it was read; the next run reads it again."""
    QUARANTINED = "quarantined"
    """It may not enter the lake."""
    FAILED = "failed"


def _iso_date(text: str) -> str:
    datetime.date.fromisoformat(text)
    return text


def _iso_time(text: str) -> str:
    datetime.datetime.fromisoformat(text)
    return text


_Time = Annotated[str, AfterValidator(_iso_time)]


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
    :param listed_size: the bytes that RAP lists, if the file has another size; else None.
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
    :param dag: the DAG's id; None outside a DAG run, as are *run*, *task*, *map_index* and *try_number*.
    :param run: the DAG run's id.
    :param task: the task's id.
    :param map_index: the index of a mapped task, -1 of another; None also in entries of an earlier version.
    :param try_number: number of the task's try, from 1.
    :param first_seen: when the file was first listed.
    :param downloaded: when its last byte arrived; None if it was adopted without a download.
    :param committed: when it was complete in the lake.
    :param package_version: version of the package that wrote the entry.
    :param disposition: ``landed``, ``already`` or ``quarantined``.
    :param reason: why, if the file did not land in the ordinary way; else empty.
    """

    schema_version: Literal[1]
    customer: str
    folder: str
    rap_path: str
    rap_path_base64: str | None
    report: str
    business_date: Annotated[str, AfterValidator(_iso_date)]
    business_date_rule: str
    size: int | None
    listed_size: int | None = None
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
    map_index: int | None = None
    try_number: int | None
    first_seen: _Time
    downloaded: _Time | None
    committed: _Time | None
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


class BadLine(NamedTuple):
    """A line of a manifest file that is not a valid entry."""

    number: int
    """Counted from 1."""
    reason: str


class Lines(NamedTuple):
    """The content of a manifest file."""

    entries: list[Entry]
    bad: list[BadLine]


_ENTRY = TypeAdapter(Entry)


def rap_path(file: RemoteFile) -> tuple[str, str | None]:
    """Return a file's path on RAP as text, and its bytes in base64 if they are not UTF-8.

    :param file: an entry of a folder's listing.
    """
    text = f"{file.folder.path}/{file.text}"
    return text, None if text.encode() == file.path else base64.b64encode(file.path).decode()


NO_ENTRY = "Its manifest entry cannot be written; the log says why."
"""The reason of a file that fails since its entry would not read back."""


def utc(moment: pendulum.DateTime) -> str:
    """Return a time in the manifest's form: ISO 8601 in UTC, to the millisecond.

    :param moment: an aware time.
    """
    text = moment.astimezone(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return _shared(text)


# Many files land in one millisecond: a long run keeps its text once.
@lru_cache(64)
def _shared(text: str) -> str:
    return text


def to_line(entry: Entry) -> bytes:
    """Return an entry as one line of NDJSON: every key, null if it has no value; without the line break.

    :param entry: the entry.
    :raises ValueError: if `from_line` would not give the same entry back.
    """
    try:
        line = _ENTRY.dump_json(entry)
    except ValueError as error:
        raise ValueError(f"it cannot be written as JSON: {error}") from error
    if from_line(line) != entry:
        raise ValueError("it reads back as another entry")
    return line


def from_line(line: bytes) -> Entry:
    """Return the entry in one line of NDJSON; keys that a later version may add are left out.

    :param line: the line, with or without its line break.
    :raises ValueError: if it is not an entry, has another schema version, or a value that is not valid.
    """
    try:
        entry = _ENTRY.validate_json(line, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"])) or "line"
        reason = f"{place}: {first['msg']}"
        if place == "schema_version" and isinstance(first["input"], int):
            reason += f", and it is {first['input']}. Upgrade the package if a later version wrote the line"
        raise ValueError(reason) from error
    # A listed entry may have an empty name; it is quarantined, and its entry must be readable all the same.
    if not entry.name and entry.uri is not None:
        raise ValueError("rap_path: it names no file")
    return entry


def to_lines(entries: Iterable[Entry]) -> bytes:
    """Return the content of a manifest file.

    :param entries: its entries.
    :raises ValueError: if an entry would not read back as it is.
    """
    return b"".join(to_line(entry) + b"\n" for entry in entries)


def from_lines(content: bytes) -> Lines:
    """Return the entries of a manifest file; a bad line hides no other.

    :param content: the file's bytes.
    """
    lines = Lines([], [])
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            lines.entries.append(from_line(line))
        except ValueError as error:
            lines.bad.append(BadLine(number, str(error)))
    if not lines.entries and not lines.bad:
        lines.bad.append(BadLine(1, "the file has no entries"))
    return lines
