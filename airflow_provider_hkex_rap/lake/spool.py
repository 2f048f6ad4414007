"""Keep a file's bytes, hashed as they arrive, until the file is known to be whole."""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import shutil
import tempfile
import threading
from typing import TYPE_CHECKING

from airflow_provider_hkex_rap.lake.layout import PART_PREFIX, PART_SUFFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MEMORY_BYTES = 2**20
"""A file of at most this many bytes is kept in memory; a larger one on disk."""
_PIECES_WAITING = 16
"""How many pieces of a file, of at most 256 KiB each, wait for the disk at most."""


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
        self._disk: _DiskWriter | None = None

    def write(self, data: bytes) -> None:
        """Add the next bytes.

        :param data: the bytes.
        :raises OSError: if these or earlier bytes cannot be written to disk; `error` is then set to the same
            error.
        """
        self.size += len(data)
        if self._disk is None and max(self.size, self._listed or 0) <= MEMORY_BYTES:
            self._memory.append(data)
            return
        with self._keeping_error():
            if self._disk is None:
                self._disk = _DiskWriter(self._path, self._hash)
                for earlier in self._memory:
                    self._disk.write(earlier)
                self._memory.clear()
            self._disk.write(data)

    def _hash(self, data: bytes) -> None:
        self._sha256.update(data)
        if self._md5:
            self._md5.update(data)

    def finish(self) -> None:
        """End the writing: all bytes have arrived.

        :raises OSError: if the last bytes cannot be written to disk; `error` is then set to the same error.
        """
        if self._memory:
            # Joined once: `content` is read more than once.
            self._memory = [b"".join(self._memory)]
            self._hash(self._memory[0])
        with self._keeping_error():
            if self._disk:
                self._disk.close()

    @contextlib.contextmanager
    def _keeping_error(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = error
            raise

    @property
    def content(self) -> bytes | str:
        """The bytes, or the path of the file that contains them."""
        return b"".join(self._memory) if self._disk is None else self._path

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
        if self._disk:
            with contextlib.suppress(OSError):
                self._disk.close()
            with contextlib.suppress(OSError):
                os.unlink(self._path)


class _DiskWriter:
    """Hash bytes and write them to a new file in a thread, while the event loop receives the next ones.

    :param path: the file; it must not exist.
    :param hash_bytes: called in the thread with each piece, in order.
    :raises OSError: if the file cannot be created.
    """

    def __init__(self, path: str, hash_bytes: Callable[[bytes], object]) -> None:
        self._file = open(path, "xb", buffering=0)  # noqa: SIM115 (closed by the thread)
        self._hash = hash_bytes
        self._error: Exception | None = None
        self._pieces: queue.Queue[bytes | None] = queue.Queue(_PIECES_WAITING)
        self._thread = threading.Thread(target=self._run, name="hkex-rap-spool", daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> None:
        """Hand over the next bytes; wait while too many of them wait for the disk.

        :param data: the bytes.
        :raises OSError: if earlier bytes could not be written.
        """
        if self._error:
            raise self._error
        self._pieces.put(data)

    def close(self) -> None:
        """Wait until all bytes are written; a second call does nothing.

        :raises OSError: if bytes could not be written.
        """
        if self._thread.is_alive():
            self._pieces.put(None)
            self._thread.join()
        if self._error:
            raise self._error

    def _run(self) -> None:
        try:
            with self._file:
                while (piece := self._pieces.get()) is not None:
                    if self._error is None:
                        self._write(piece)
        # Closing a file may fail too: some file systems tell only then that they have no space.
        except OSError as error:
            self._error = error

    def _write(self, piece: bytes) -> None:
        try:
            self._hash(piece)
            rest = memoryview(piece)
            while rest:
                rest = rest[self._file.write(rest) or 0 :]
        # After any error this thread must still take the next pieces: else `write` would wait for ever.
        except Exception as error:
            self._error = error
