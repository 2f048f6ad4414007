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
import tempfile
import time
from collections.abc import Callable, Iterator

from airflow_provider_hkex_rap.lake.layout import PART_PREFIX, PART_SUFFIX, is_part
from airflow_provider_hkex_rap.rap.errors import LakeConflict

STALE_SECONDS = 24 * 3600
"""An unfinished file of at least this age was left by a killed process."""

_TURN_SECONDS = 10.0
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_MISSING_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK, errno.ENOSYS}
"""The answers of file systems that make no hard links: SMB, FUSE, exFAT, BeeGFS and others."""
_MISSING_RENAME = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM}
"""The answers of kernels and file systems without ``RENAME_NOREPLACE``."""


def create_whole(path: str, content: bytes | str, mtime: int | None, sha256: str = "") -> int:
    """Make a new file visible whole: temporary file, fsync, exclusive link.

    :param path: the absolute path; missing directories are made.
    :param content: the bytes, or the path of the file that contains them.
    :param mtime: the modification time to set, in seconds since the epoch; None to leave it.
    :param sha256: the SHA-256 of the file that *content* names.
    :returns: the size of the new file under its name, in bytes, as the file system tells it.
    :raises FileExistsError: if *path* exists.
    :raises LakeConflict: if a copy of the file that *content* names has other bytes.
    :raises OSError: if the disk refuses it; nothing of it is visible then.
    """
    directory = os.path.dirname(path)
    part = f"{directory}/{PART_PREFIX}{secrets.token_hex(8)}{PART_SUFFIX}"
    try:
        try:
            descriptor = _open_part(part, content, sha256)
        except FileNotFoundError:
            os.makedirs(directory, exist_ok=True)
            descriptor = _open_part(part, content, sha256)
        try:
            if isinstance(content, bytes):
                _write(descriptor, content)
            # After the last byte and before the name: an equal mtime then proves a whole file.
            if mtime is not None and 0 <= mtime < 2**32:
                os.utime(descriptor, (mtime, mtime))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        _name_exclusively(part, path)
        return os.stat(path, follow_symlinks=False).st_size
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)


def _open_part(part: str, content: bytes | str, sha256: str) -> int:
    """Open a new unfinished file: empty if *content* is bytes, else with the bytes of the spool file."""
    if isinstance(content, bytes):
        return os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)
    try:
        os.link(content, part)
    except OSError:
        # The spool is on another file system.
        shutil.copyfile(content, part)
        if _sha256(part) != sha256:
            raise LakeConflict(
                f"The copy of {content} at {part} has other bytes.", todo="Check the disks.", uri=part
            ) from None
    return os.open(part, os.O_RDONLY | os.O_CLOEXEC)


def _write(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        written = os.write(descriptor, rest)
        if not written:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rest = rest[written:]


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
