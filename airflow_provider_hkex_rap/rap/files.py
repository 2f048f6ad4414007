"""A file on RAP as a listing describes it, and the source that it is read from."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.rap.folders import Folder

NAME_BYTES = 255
"""The longest name, in bytes of UTF-8, that common file systems accept; a longer one cannot land."""

_PERCENT = "hkex_rap_percent"


def _percent(error: UnicodeError) -> tuple[str, int]:
    """Write bytes that cannot be decoded as ``%XX``."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(f"%{byte:02X}" for byte in error.object[error.start : error.end]), error.end


codecs.register_error(_PERCENT, _percent)


def name_text(name: bytes) -> str:
    """Return a name or a path on RAP as text; bytes that are not UTF-8 become ``%XX``.

    :param name: the name or path, in the bytes that RAP sent.
    """
    return name.decode("utf-8", _PERCENT)


def is_too_long(name: str) -> bool:
    """Return whether a name is longer than `NAME_BYTES`.

    A server may send names of megabytes: check this before work that costs more than the length.

    :param name: the name as text, as `name_text` returns it.
    """
    return len(name) > NAME_BYTES or len(name.encode(errors="surrogatepass")) > NAME_BYTES


class Kind(StrEnum):
    """The kind of a listed entry."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One entry of a folder's listing, as RAP sent it.

    :param folder: the folder that was listed.
    :param name: the entry's name, in the bytes that RAP sent.
    :param size: bytes; None if the listing has no size.
    :param mtime: modification time, in seconds since the epoch; None if the listing has none.
    :param kind: the kind of entry; a file if the listing has no kind.
    """

    folder: Folder
    name: bytes
    size: int | None
    mtime: int | None
    kind: Kind = Kind.FILE

    @property
    def path(self) -> bytes:
        """The path on RAP, in the bytes of the name."""
        return self.folder.path.encode() + b"/" + self.name

    @property
    def text(self) -> str:
        """The name as text; bytes that are not UTF-8 become ``%XX``."""
        return name_text(self.name)


class Attributes(NamedTuple):
    """Size in bytes and modification time in seconds since the epoch; each None if RAP sends none."""

    size: int | None
    mtime: int | None


class ReadEnd(NamedTuple):
    """What RAP showed of a file once its last byte had been read."""

    attributes: Attributes
    """Its size and mtime then."""
    error: str = ""
    """The error by which RAP answered at the end of the file, instead of saying that it is the end."""
    has_changed: bool = False
    """Whether RAP showed another size or mtime earlier, after the file was opened."""


def unsettled(listed: RemoteFile | Attributes, size: int, end: ReadEnd) -> str:
    """Return why a file that was read may be incomplete or changed; an empty text if it is neither.

    :param listed: the file as it was listed, or its size and mtime, before it was read.
    :param size: how many bytes arrived.
    :param end: what RAP showed of it once the last byte had been read.
    """
    after = end.attributes
    if listed.size is not None and size < listed.size:
        return f"{size} bytes arrived, but {listed.size} were listed: RAP may still be writing it."
    if after.size is not None and after.size > size:
        return f"{size} bytes arrived, but it has {after.size} now: RAP may still be writing it."
    if end.has_changed or (None not in (listed.mtime, after.mtime) and listed.mtime != after.mtime):
        return "RAP rewrote it while it was read."
    return ""


class ReportSource(Protocol):
    """One login to RAP, as the lake uses it."""

    async def list_folder(self, folder: Folder) -> Sequence[RemoteFile]:
        """Return every entry of a folder except ``.`` and ``..``.

        :param folder: the folder to list.
        :raises RapPermissionDenied: if the folder is missing or denied (§4.2).
        :raises RapError: if the session ends before the listing is complete.
        """
        ...

    async def read(self, file: RemoteFile, write: Callable[[bytes], object]) -> ReadEnd:
        """Read a file once to its end, even if that is not where the listing says.

        :param file: an entry of a listing.
        :param write: called with the file's bytes, in order.
        :raises RapTransferError: if this file cannot be read; other files may still succeed.
        :raises RapPermissionDenied: if RAP denies this file; other files may still succeed.
        :raises RapUnavailable: if RAP does not answer; the session has ended.
        :raises RapSessionSuperseded: if RAP ended the session.
        """
        ...
