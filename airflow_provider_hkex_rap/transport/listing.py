"""Translate the entries of an SFTP listing."""

from __future__ import annotations

import re
import stat
from typing import TYPE_CHECKING

from airflow_provider_hkex_rap.rap.files import Kind, RemoteFile
from airflow_provider_hkex_rap.rap.key_folder import KeyFile

if TYPE_CHECKING:
    import asyncssh

    from airflow_provider_hkex_rap.rap.folders import Folder

_KINDS = {stat.S_IFREG: Kind.FILE, stat.S_IFDIR: Kind.DIRECTORY, stat.S_IFLNK: Kind.SYMLINK}
_LONG_NAME_KINDS = {b"d": Kind.DIRECTORY, b"l": Kind.SYMLINK, b"-": Kind.FILE}
_LONG_NAME = re.compile(rb"([-a-zA-Z])[-rwxXsStTlL]{8,10}(?=[\s.+@]|$)")
"""The beginning of a line of ``ls -l``: a letter for the kind, and the mode, which some servers shorten."""


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
