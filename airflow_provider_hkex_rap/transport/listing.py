"""Gather the entries of an SFTP listing, and translate them."""

from __future__ import annotations

import re
import stat
from typing import TYPE_CHECKING, Generic, TypeVar

from airflow_provider_hkex_rap.rap.errors import RapTransferError
from airflow_provider_hkex_rap.rap.files import Kind, RemoteFile
from airflow_provider_hkex_rap.rap.key_folder import KeyFile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import asyncssh

    from airflow_provider_hkex_rap.rap.folders import Folder

_KINDS = {stat.S_IFREG: Kind.FILE, stat.S_IFDIR: Kind.DIRECTORY, stat.S_IFLNK: Kind.SYMLINK}
_LONG_NAME_KINDS = {b"d": Kind.DIRECTORY, b"l": Kind.SYMLINK, b"-": Kind.FILE}
_LONG_NAME = re.compile(rb"([-a-zA-Z])[-rwxXsStTlL]{8,10}(?=[\s.+@]|$)")
"""The beginning of a line of ``ls -l``: a letter for the kind, and the mode, which some servers shorten."""

_MOST_ENTRIES = 1_000_000
_MOST_NAME_BYTES = 256 * 2**20
_MOST_EMPTY = 1_000
"""Bounds of one listing, and of answers without names in a row: a server may answer without an end."""

T = TypeVar("T")


class Listing(Generic[T]):
    """The entries of a directory but ``.`` and ``..``, by name, as they arrive.

    :param path: the directory.
    :param entry_of: returns an entry as asyncssh gives it as one of ours.
    """

    def __init__(self, path: str, entry_of: Callable[[asyncssh.SFTPName], T]) -> None:
        self.path = path
        self._entry_of = entry_of
        self.most = 0
        """The most entries that an attempt has listed."""
        self.begin()

    def begin(self) -> None:
        """Begin again: forget the entries."""
        # A name that is listed again, as in a listing that changes meanwhile, counts as it was listed last.
        self.entries: dict[bytes | str, T] = {}
        self.has_repeated = False
        """Whether a name was listed more than once."""
        self._listed = self._name_bytes = self._empty = 0

    def add(self, names: Sequence[asyncssh.SFTPName]) -> None:
        """Add the names of one answer.

        :param names: the names, with their attributes.
        :raises RapTransferError: if there are so many that the listing has no end.
        """
        for name in names:
            self._listed += 1
            self._name_bytes += len(name.filename)
            if name.filename not in (b".", b".."):
                self.has_repeated |= name.filename in self.entries
                self.entries[name.filename] = self._entry_of(name)
        self.most = max(self.most, len(self.entries))
        # An answer without names is no proof of the end.
        self._empty = 0 if names else self._empty + 1
        if self._listed > _MOST_ENTRIES or self._name_bytes > _MOST_NAME_BYTES or self._empty > _MOST_EMPTY:
            raise _endless(self.path)


def _endless(path: str) -> RapTransferError:
    return RapTransferError(
        f"The listing of {path} does not end: it has more than {_MOST_ENTRIES:,} entries,"
        f" {_MOST_NAME_BYTES:,} bytes of names, or {_MOST_EMPTY:,} answers in a row without any.",
        why="RAP keeps the reports of ten days (§4.1).",
        todo="Ask HKEX; the server, or a proxy before it, is failing.",
        path=path,
    )


def remote_file(folder: Folder, entry: asyncssh.SFTPName) -> RemoteFile:
    """Return an entry of a report folder.

    :param folder: the folder that was listed.
    :param entry: the entry as asyncssh gives it.
    """
    return RemoteFile(folder, _bytes(entry.filename), entry.attrs.size, mtime_of(entry.attrs), _kind(entry))


def key_file(entry: asyncssh.SFTPName) -> KeyFile:
    """Return an entry of the key folder.

    :param entry: the entry as asyncssh gives it.
    """
    return KeyFile(_bytes(entry.filename).decode(errors="replace"), mtime_of(entry.attrs))


def mtime_of(attrs: asyncssh.SFTPAttrs) -> int | None:
    """Return a modification time in seconds since the epoch; None if the server sent none, or 0.

    :param attrs: the attributes of a file.
    """
    return int(attrs.mtime) if attrs.mtime else None


def _kind(entry: asyncssh.SFTPName) -> Kind:
    if file_type := stat.S_IFMT(entry.attrs.permissions or 0):
        return _KINDS.get(file_type, Kind.OTHER)
    # The long name is for people to read (SFTP version 3), but without a mode nothing else tells the kind.
    long_name = _bytes(entry.longname or b"")
    match = _LONG_NAME.match(long_name)
    # Some servers send the bare name instead of a line; a file's name may look like the beginning of one.
    if match is None or long_name == _bytes(entry.filename):
        return Kind.FILE
    return _LONG_NAME_KINDS.get(match[1], Kind.OTHER)


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text
