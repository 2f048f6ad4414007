"""The files and folders that the simulated RAP holds, in memory."""

from __future__ import annotations

import hashlib
import stat
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Protocol

from airflow_provider_hkex_rap.rap.files import Kind
from airflow_provider_hkex_rap.testing.events import path_text

_HEADING = "account,series,position,price,currency\r\n"
_ROW = "A{},HSI{:05d}{},{:04d},{:08.2f},HKD\r\n"
# Every number has all its places, so that tools take it for one.
_ROW_BYTES = len(_ROW.format("000000", 0, "C", 1_000, 1e4))
_ROWS = 2_011
"""Rows after which generated ones repeat; a prime, so that blocks of a power of two differ."""
_PERIOD = _ROWS * _ROW_BYTES
_CHUNK = 1 << 20
_INVERT = bytes(range(255, -1, -1))

_MODES = {
    Kind.FILE: stat.S_IFREG | 0o444,
    Kind.DIRECTORY: stat.S_IFDIR | 0o555,
    Kind.SYMLINK: stat.S_IFLNK | 0o777,
    Kind.OTHER: stat.S_IFIFO | 0o444,
}


class Content(Protocol):
    """The content of a file."""

    @property
    def size(self) -> int:
        """Number of bytes."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Return at most *length* bytes from *offset*; none at the end."""
        ...


@dataclass(frozen=True, slots=True)
class Given:
    """Content held in memory."""

    data: bytes

    @property
    def size(self) -> int:
        """Number of bytes."""
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        """Return at most *length* bytes from *offset*."""
        return self.data[offset : offset + length]


@dataclass(frozen=True, slots=True)
class Generated:
    """A CSV file, generated when it is read; equal salts give equal rows.

    A file that is too small for its heading and one row has a text without meaning.

    :param size: number of bytes.
    :param salt: any text; it selects the rows.
    """

    size: int
    salt: str

    def read(self, offset: int, length: int) -> bytes:
        """Return at most *length* bytes from *offset*."""
        end = min(offset + length, self.size)
        head = self._head()
        parts = [head[offset:end]]
        at = max(offset, len(head))
        while at < end:
            start = (at - len(head) + self._shift) % _PERIOD
            parts.append(_rows()[start : start + end - at])
            at += len(parts[-1])
        return b"".join(parts)

    def _head(self) -> bytes:
        """Return the heading, and a first row that is long enough for all others to be whole."""
        digest = hashlib.sha256(self.salt.encode()).hexdigest()
        first = _ROW.format(digest[:6], 0, "C", 1_000, 1e4)
        more = self.size - len(_HEADING) - len(first)
        if more < 0:
            return (digest * (self.size // len(digest) + 1))[: self.size].encode()
        return (_HEADING + first.replace("HSI", "HSI" + "-" * (more % _ROW_BYTES))).encode()

    @property
    def _shift(self) -> int:
        digest = hashlib.sha256(self.salt.encode()).digest()
        return int.from_bytes(digest[:8], "big") % _ROWS * _ROW_BYTES


@dataclass(frozen=True, slots=True)
class Joined:
    """Two contents, one after the other."""

    first: Content
    second: Content

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self.first.size + self.second.size

    def read(self, offset: int, length: int) -> bytes:
        """Return at most *length* bytes from *offset*."""
        head = self.first.read(offset, length)
        return head + self.second.read(max(offset - self.first.size, 0), length - len(head))


@dataclass(frozen=True, slots=True)
class Inverted:
    """Other content of the same size: every bit is inverted."""

    of: Content

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self.of.size

    def read(self, offset: int, length: int) -> bytes:
        """Return at most *length* bytes from *offset*."""
        return self.of.read(offset, length).translate(_INVERT)


@cache
def _rows() -> bytes:
    random = Random(0)  # noqa: S311
    rows = (
        _ROW.format(
            f"{n:06d}",
            random.randrange(10_000, 30_000),
            "CP"[n % 2],
            random.choice((-1, 10)) * random.randint(100, 999),
            random.uniform(1e4, 99e3),
        )
        for n in range(_ROWS)
    )
    return "".join(rows).encode()


@dataclass(slots=True, eq=False)
class ServedFile:
    """A file, or another entry of a listing, that the simulated RAP serves.

    :param folder: path of the folder on RAP.
    :param name: the name, in bytes.
    :param body: the content.
    :param mtime: seconds since the epoch.
    :param kind: file, folder, symlink or other.
    :param since: seconds since the epoch at which the file appears, by the simulator's clock.
    :param until: seconds since the epoch at which the file disappears.
    """

    folder: str
    name: bytes
    body: Content
    mtime: int
    kind: Kind = Kind.FILE
    since: float = float("-inf")
    until: float = float("inf")

    @property
    def path(self) -> bytes:
        """The path on RAP."""
        return self.folder.encode() + b"/" + self.name

    @property
    def text(self) -> str:
        """The name as text; bytes that are not UTF-8 become ``%XX``."""
        return path_text(self.name)

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self.body.size

    @property
    def content(self) -> bytes:
        """The whole content."""
        return self.body.read(0, self.size)

    @property
    def sha256(self) -> str:
        """SHA-256 of the content, in hexadecimal."""
        digest = hashlib.sha256()
        for offset in range(0, self.size, _CHUNK):
            digest.update(self.body.read(offset, _CHUNK))
        return digest.hexdigest()

    @property
    def mode(self) -> int:
        """The POSIX mode that a listing shows."""
        return _MODES[self.kind]

    def grow(self, by: int, now: int) -> None:
        """Add *by* bytes at the end; set the mtime to *now*, or one second ahead if that is later.

        :param by: number of bytes.
        :param now: seconds since the epoch.
        """
        self.body = Joined(self.body, Generated(by, f"{self.text} grown at {now}"))
        self.mtime = max(now, self.mtime + 1)

    def rewrite(self, now: int) -> None:
        """Replace the content by other content of the same size; set the mtime as :meth:`grow` does.

        :param now: seconds since the epoch.
        """
        self.body = Inverted(self.body)
        self.mtime = max(now, self.mtime + 1)


class Tree:
    """Folders by path, and their files by name.

    :param folders: paths of folders that exist even if they are empty.
    """

    def __init__(self, *folders: str) -> None:
        self._folders: dict[str, dict[bytes, ServedFile]] = {folder: {} for folder in folders}

    def put(self, file: ServedFile) -> None:
        """Add *file*, or replace the file of the same name; create its folder if it does not exist."""
        self._folders.setdefault(file.folder, {})[file.name] = file

    def remove(self, folder: str, name: bytes) -> None:
        """Remove a file.

        :raises KeyError: if it does not exist.
        """
        del self._folders[folder][name]

    def files(self, folder: str) -> list[ServedFile]:
        """Return the files of *folder*; none if it does not exist."""
        return list(self._folders.get(folder, {}).values())

    def get(self, folder: str, name: bytes) -> ServedFile | None:
        """Return the file of that name, or None if it does not exist."""
        return self._folders.get(folder, {}).get(name)

    def holds(self, folder: str) -> bool:
        """Return whether the folder or a folder below it exists."""
        return any(f"{known}/".startswith(f"{folder}/") for known in list(self._folders))

    def subfolders(self, folder: str) -> list[str]:
        """Return the names of the folders directly in *folder*."""
        prefix = folder.rstrip("/") + "/"
        below = (known.removeprefix(prefix) for known in list(self._folders) if known.startswith(prefix))
        return list(dict.fromkeys(path.partition("/")[0] for path in below))
