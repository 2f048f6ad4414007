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
_LONG_NAME_KINDS = {b"d": Kind.DIRECTORY, b"l": Kind.SYMLINK}
_LONG_NAME = re.compile(rb"([dl])[-rwxsStT]{9}[.+@ ]")
"""The beginning of a line of ``ls -l``; some servers send the bare name instead."""


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
    match = _LONG_NAME.match(_bytes(entry.longname or b""))
    return _LONG_NAME_KINDS[match[1]] if match else Kind.FILE


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text
