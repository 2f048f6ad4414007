"""Create files on a local disk, whole or not at all, and never over another file."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import hashlib
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from airflow_provider_hkex_rap.lake.layout import PART_PREFIX, PART_SUFFIX, is_part
from airflow_provider_hkex_rap.rap.errors import LakeConflict

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

STALE_SECONDS = 24 * 3600
"""An unfinished file of at least this age was left by a killed process."""

_TURN_SECONDS = 10.0
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_MISSING_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK, errno.ENOSYS}
"""The answers of file systems that make no hard links: SMB, FUSE, exFAT, BeeGFS and others."""
_MISSING_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}
"""The answers of file systems that cannot store a directory on demand, such as some shared folders."""
_MISSING_RENAME = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM}
"""The answers of kernels and file systems without ``RENAME_NOREPLACE``."""


class NewFile:
    """A file that becomes visible whole or not at all: it is on the disk before it gets its name.

    The name itself survives a power cut after `Lake.sync`. Small files that are written ahead are stored side
    by side::

        with NewFile("/data/rap/reports", content, mtime) as new:
            new.write_ahead()
            size = new.publish("TP001.csv")

    :param directory: the absolute path of its directory; missing ones are made.
    :param content: the bytes, or the path of the file that contains them.
    :param mtime: the modification time to set, in seconds since the epoch; None to leave it.
    :param sha256: the SHA-256 of the file that *content* names.
    """

    def __init__(self, directory: str, content: bytes | str, mtime: int | None, sha256: str = "") -> None:
        self._directory = directory
        self._content = content
        self._mtime = mtime
        self._sha256 = sha256
        self._part = ""
        """The path of the unfinished file; empty if there is none."""
        self._descriptor: int | None = None
        """The unfinished file, until it is on the disk."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._discard()

    def write_ahead(self) -> None:
        """Write bytes, and let the disk begin to store them, so that `publish` has less to wait for.

        Does nothing if the content is in a file.

        :raises OSError: if they cannot be written; `publish` starts again.
        """
        if isinstance(self._content, bytes):
            _store_soon(self._write())

    def publish(self, name: str) -> int:
        """Give the file a name, unless the name is taken.

        :param name: its name in its directory.
        :returns: the size of the file under its name, in bytes, as `os.stat` reports it.
        :raises FileExistsError: if the name is taken; another may be tried.
        :raises LakeConflict: if a copy of the file that *content* names has other bytes.
        :raises OSError: if the disk refuses it; nothing of it is visible then.
        """
        path = f"{self._directory}/{name}"
        if not self._part:
            self._write()
        if self._descriptor is not None:
            # Linux may drop bytes that it could not store; the next fsync then succeeds without them.
            with self._discarding_a_failure():
                os.fsync(self._descriptor)
                self._close()
        _name_exclusively(self._part, path)
        self._discard()
        return os.stat(path, follow_symlinks=False).st_size

    def _write(self) -> int:
        """Write an unfinished file whole, and return its descriptor."""
        # The file of a failed attempt may still be there.
        self._part = f"{self._directory}/{PART_PREFIX}{secrets.token_hex(8)}{PART_SUFFIX}"
        with self._discarding_a_failure():
            try:
                self._descriptor = self._open()
            except FileNotFoundError:
                os.makedirs(self._directory, exist_ok=True)
                self._descriptor = self._open()
            if isinstance(self._content, bytes):
                _write(self._descriptor, self._content)
            # After the last byte and before the name: an equal mtime then proves a whole file.
            if self._mtime is not None and 0 <= self._mtime < 2**32:
                # Some shared folders let nobody set a time: the file then lands without that proof.
                with contextlib.suppress(OSError):
                    os.utime(self._descriptor, (self._mtime, self._mtime))
            return self._descriptor

    def _open(self) -> int:
        """Open the unfinished file: empty if the content is bytes, else with the bytes of the spool file."""
        if isinstance(self._content, bytes):
            return os.open(self._part, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)
        try:
            os.link(self._content, self._part)
        except OSError:
            # The spool is on another file system.
            shutil.copyfile(self._content, self._part)
            if _sha256(self._part) != self._sha256:
                raise LakeConflict(
                    f"The copy of {self._content} at {self._part} has other bytes.",
                    todo="Check the disks.",
                    uri=self._part,
                ) from None
        return os.open(self._part, os.O_RDONLY | os.O_CLOEXEC)

    @contextlib.contextmanager
    def _discarding_a_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._discard()
            raise

    def _discard(self) -> None:
        """Remove the unfinished file; if that fails, a later `sweep` does."""
        with contextlib.suppress(OSError):
            self._close()
        part, self._part = self._part, ""
        if part:
            with contextlib.suppress(OSError):
                os.unlink(part)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _write(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        written = os.write(descriptor, rest)
        if not written:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rest = rest[written:]


def _store_soon(descriptor: int) -> None:
    """Let Linux begin to store a file that was just written, without waiting for it."""
    if sys.platform == "linux":
        # Linux stores the bytes that are not on the disk; it drops from memory only those that are.
        with contextlib.suppress(OSError):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _name_exclusively(part: str, path: str) -> None:
    """Give a finished file its name, unless the name is taken; *part* may keep its own name.

    Without hard links, a rename that replaces nothing does the same. If the file system has none either, one
    writer at a time may look for the name and rename: the one that has created a hidden file for it.

    :raises FileExistsError: if *path* exists.
    """
    try:
        os.link(part, path)
    except OSError as error:
        if error.errno not in _MISSING_LINKS:
            raise
    else:
        return
    try:
        rename_exclusively(part, path)
    except OSError as error:
        if error.errno not in _MISSING_RENAME:
            raise
    else:
        return
    with _turn_at(path):
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        os.rename(part, path)


@contextlib.contextmanager
def _turn_at(path: str) -> Iterator[None]:
    """Wait for the turn to write a name, and hold it; other hosts may write to the same directory."""
    directory, name = os.path.split(path)
    turn = f"{directory}/{PART_PREFIX}{hashlib.sha256(name.encode()).hexdigest()[:32]}{PART_SUFFIX}"
    end = time.monotonic() + _TURN_SECONDS
    while True:
        try:
            os.close(os.open(turn, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666))
            break
        except FileExistsError:
            if time.monotonic() > end:
                # A rename takes no time: a killed process has left it.
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(turn)
            time.sleep(_TURN_SECONDS / 1000)
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(turn)


def rename_exclusively(source: str, target: str) -> None:
    """Rename a file, unless *target* exists.

    :param source: the absolute path.
    :param target: its new absolute path, on the same file system.
    :raises FileExistsError: if *target* exists.
    :raises OSError: if the system call fails, or does not exist (``ENOSYS``).
    """
    rename = _renameat2()
    if rename is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    arguments = _AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE
    if rename(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), source, None, target)


@functools.cache
def _renameat2() -> Callable[..., int] | None:
    """Return Linux's system call, which Python does not offer; None if the C library has none."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return None
    call.argtypes = ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint
    call.restype = ctypes.c_int
    found: Callable[..., int] = call
    return found


def sync_directory(directory: str) -> None:
    """Make the names in a directory survive a power cut, if its file system can do that on demand.

    :param directory: its absolute path.
    :raises OSError: if the disk fails, or there is no such directory.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _MISSING_SYNC:
            raise
    finally:
        os.close(descriptor)


def sweep(directory: str) -> None:
    """Remove unfinished files that killed processes left in a directory.

    :param directory: its absolute path.
    :raises OSError: if the directory cannot be listed.
    """
    with os.scandir(directory) as entries:
        parts = [entry for entry in entries if is_part(entry.name)]
    if not parts:
        return
    with contextlib.suppress(OSError):
        limit = _time_of(directory) - STALE_SECONDS
        for part in parts:
            with contextlib.suppress(OSError):
                # ctime, since an unfinished file may carry RAP's mtime.
                if part.stat(follow_symlinks=False).st_ctime >= limit:
                    continue
                if part.is_dir(follow_symlinks=False):
                    shutil.rmtree(part.path)
                else:
                    os.unlink(part.path)


def _time_of(directory: str) -> float:
    """Return the time by the clock of a directory's file system, which may differ from ours."""
    with tempfile.TemporaryFile(dir=directory) as file:
        return os.fstat(file.fileno()).st_ctime
