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
_MISSING_RENAME = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM}
"""The answers of kernels and file systems without ``RENAME_NOREPLACE``."""


class NewFile:
    """A file that becomes visible whole or not at all: its bytes are written and durable before it is named.

    If several are written before the first is named, the disk stores them side by side::

        with NewFile("/data/rap/reports", content, mtime) as file:
            file.write()
            size = file.name("/data/rap/reports/TP001.csv")

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
        self._part = f"{directory}/{PART_PREFIX}{secrets.token_hex(8)}{PART_SUFFIX}"
        self._descriptor: int | None = None
        self._is_durable = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._discard()

    def write(self) -> None:
        """Write the bytes, and let the disk begin to store them.

        :raises LakeConflict: if a copy of the file that *content* names has other bytes.
        :raises OSError: if the disk refuses it; `name` then writes it again.
        """
        with self._discarding_a_failure():
            self._descriptor = self._open()
            if isinstance(self._content, bytes):
                _write(self._descriptor, self._content)
            # After the last byte and before the name: an equal mtime then proves a whole file.
            if self._mtime is not None and 0 <= self._mtime < 2**32:
                os.utime(self._descriptor, (self._mtime, self._mtime))
            _store_soon(self._descriptor)

    def name(self, path: str) -> int:
        """Give the file a name in its directory, unless the name is taken; write it before if need be.

        :param path: the absolute path.
        :returns: the size of the file under its name, in bytes, as the file system tells it.
        :raises FileExistsError: if *path* exists; another name may be tried.
        :raises LakeConflict: as `write` does.
        :raises OSError: if the disk refuses it; nothing of it is visible then.
        """
        if not self._is_durable:
            if self._descriptor is None:
                self.write()
            with self._discarding_a_failure():
                self._close(durably=True)
            self._is_durable = True
        _name_exclusively(self._part, path)
        return os.stat(path, follow_symlinks=False).st_size

    @contextlib.contextmanager
    def _discarding_a_failure(self) -> Iterator[None]:
        # Above all after fsync: the next one may succeed although this one has lost bytes.
        try:
            yield
        except BaseException:
            self._discard()
            raise

    def _discard(self) -> None:
        with contextlib.suppress(OSError):
            self._close()
        with contextlib.suppress(OSError):
            os.unlink(self._part)

    def _close(self, *, durably: bool = False) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        try:
            if durably:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _open(self) -> int:
        """Open the file: empty if the content is bytes, else with the bytes of the spool file."""
        try:
            return self._open_in_directory()
        except FileNotFoundError:
            os.makedirs(self._directory, exist_ok=True)
            return self._open_in_directory()

    def _open_in_directory(self) -> int:
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


def _write(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        written = os.write(descriptor, rest)
        if not written:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rest = rest[written:]


def _store_soon(descriptor: int) -> None:
    """Let Linux begin to store a file without waiting for it, so that fsync has less to wait for."""
    if sys.platform == "linux":
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
