"""Keep a file's bytes, hashed as they arrive, until the file is known to be whole."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from typing import TYPE_CHECKING, BinaryIO

from airflow_provider_hkex_rap.lake.layout import PART_PREFIX, PART_SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterator

MEMORY_BYTES = 2**20
"""A file of at most this many bytes is kept in memory; a larger one on disk."""


@contextlib.contextmanager
def spool_directory(parent: str) -> Iterator[str]:
    """Make a private directory, and remove it with its content at the end.

    :param parent: the directory to make it in.
    :raises OSError: if it cannot be made.
    """
    directory = tempfile.mkdtemp(PART_SUFFIX, PART_PREFIX, parent)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class Spool:
    """One file's bytes: write them as they arrive, then finish, then use them, then discard.

    ::

        spool = Spool(f"{directory}/1", listed=10)
        spool.write(b"0123456789")
        spool.finish()
        lake.commit(report_directory, "TP001.csv", spool, mtime)
        spool.discard()

    :param path: the file to keep the bytes in if they exceed `MEMORY_BYTES`; it must not exist.
    :param listed: the size that RAP listed, in bytes; the file may prove to have another.
    :param md5: True to compute MD5 as well as SHA-256, for storages that report MD5.
    """

    def __init__(self, path: str, listed: int | None, *, md5: bool = False) -> None:
        self.size = 0
        self.error: OSError | None = None
        self._path = path
        self._listed = listed
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False) if md5 else None
        self._memory: list[bytes] = []
        self._file: BinaryIO | None = None

    def write(self, data: bytes) -> None:
        """Add the next bytes.

        :param data: the bytes.
        :raises OSError: if they cannot be written to disk; `error` is then set to the same error.
        """
        self.size += len(data)
        self._sha256.update(data)
        if self._md5:
            self._md5.update(data)
        try:
            self._keep(data)
        except OSError as error:
            self.error = error
            raise

    def _keep(self, data: bytes) -> None:
        if self._file is None and max(self.size, self._listed or 0) <= MEMORY_BYTES:
            self._memory.append(data)
            return
        if self._file is None:
            self._file = open(self._path, "xb")  # noqa: SIM115 (closed by finish or discard)
            self._file.writelines(self._memory)
            self._memory.clear()
        self._file.write(data)

    def finish(self) -> None:
        """End the writing: all bytes have arrived.

        :raises OSError: if the last bytes cannot be written to disk; `error` is then set to the same error.
        """
        try:
            if self._file:
                self._file.close()
        except OSError as error:
            self.error = error
            raise

    @property
    def content(self) -> bytes | str:
        """The bytes, or the path of the file that contains them."""
        return b"".join(self._memory) if self._file is None else self._path

    @property
    def sha256(self) -> str:
        """The SHA-256 of the bytes, in hexadecimal."""
        return self._sha256.hexdigest()

    @property
    def md5(self) -> str | None:
        """The MD5 of the bytes, in hexadecimal; None if *md5* is False."""
        return self._md5.hexdigest() if self._md5 else None

    def discard(self) -> None:
        """Delete the bytes."""
        self._memory.clear()
        if self._file:
            with contextlib.suppress(OSError):
                self._file.close()
            with contextlib.suppress(OSError):
                os.unlink(self._path)
