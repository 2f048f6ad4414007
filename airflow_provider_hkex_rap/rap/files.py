"""What a listing of RAP says of a file, and what can be read of it."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.rap.folders import Folder

_PERCENT = "hkex_rap_percent"


def _percent(error: UnicodeError) -> tuple[str, int]:
    """Show undecodable bytes as ``%XX``."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(f"%{byte:02X}" for byte in error.object[error.start : error.end]), error.end


codecs.register_error(_PERCENT, _percent)


def name_text(name: bytes) -> str:
    """Return a name or a path on RAP as text; bytes that are not UTF-8 show as ``%XX``."""
    return name.decode("utf-8", _PERCENT)


class Kind(StrEnum):
    """What a listed entry is."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One entry of a folder's listing, as RAP gave it.

    :param folder: the folder that was listed.
    :param name: the entry's name in the bytes that came over the wire.
    :param size: bytes; None where the listing did not say.
    :param mtime: seconds since the epoch; None where the listing did not say.
    :param kind: what the entry is; a file where the listing did not say.
    """

    folder: Folder
    name: bytes
    size: int | None
    mtime: int | None
    kind: Kind = Kind.FILE

    @property
    def path(self) -> bytes:
        """The path on RAP."""
        return self.folder.path.encode() + b"/" + self.name

    @property
    def text(self) -> str:
        """The name as text; bytes that are not UTF-8 show as ``%XX``."""
        return name_text(self.name)


class Attributes(NamedTuple):
    """Size (bytes) and modification time (seconds since the epoch), each None where RAP does not say."""

    size: int | None
    mtime: int | None


class ReportSource(Protocol):
    """One login to RAP, as the lake sees it."""

    async def list_folder(self, folder: Folder) -> Sequence[RemoteFile]:
        """Return every entry of *folder* but ``.`` and ``..``.

        :raises RapPermissionDenied: the folder is missing or denied (§4.2).
        :raises RapError: the session ended; the listing is not complete.
        """
        ...

    async def read(self, file: RemoteFile, write: Callable[[bytes], object]) -> Attributes:
        """Read *file* once, handing its bytes to *write* in order; return its attributes after the last byte.

        :raises RapTransferError: this file could not be read; others may.
        :raises RapUnavailable: the session is over.
        :raises RapSessionSuperseded: the session is over.
        """
        ...
