"""A lake on any fsspec file system, where what has landed is never overwritten or deleted."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import os
import secrets
import shutil
import tempfile
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_hkex_rap.lake.layout import PART_PREFIX, PART_SUFFIX, is_part, versions
from airflow_provider_hkex_rap.rap.errors import LakeConflict, RapConfigurationError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from fsspec import AbstractFileSystem

    from airflow_provider_hkex_rap.lake.spool import Spool

STALE_SECONDS = 24 * 3600
"""Something unfinished that is this old was left by a process that was killed."""

# These refuse to overwrite by themselves; fsspec's other backends look first, and then write.
_EXCLUSIVE = frozenset({"file", "s3", "gs", "gcs", "abfs", "az"})

_CHUNK = 2**20
# One upload holds at most as many parts as this in memory.
_S3_UPLOAD = {"chunksize": 8 * 2**20, "max_concurrency": 4}


class Landed(NamedTuple):
    """A file in the lake."""

    name: str
    """Its name in its directory: the report's own, or with ``.v2``, ``.v3``..."""
    sha256: str
    etag: str | None
    version_id: str | None
    adopted: bool
    """Whether it was there already."""


class Lake:
    """A lake, below one root of one file system.

    Its methods may be called from several threads at once.

    :param fs: the fsspec file system, such as ``ObjectStoragePath(uri).fs``.
    :param root: the path on it that everything lies below, such as ``ObjectStoragePath(uri).path``.
    :param uri: the root as a URI, for the manifest; left out, *fs* gives it.
    :raises RapConfigurationError: *fs* cannot refuse to overwrite a file.
    """

    def __init__(self, fs: AbstractFileSystem, root: str, uri: str = "") -> None:
        self.fs = fs
        self.root = root.rstrip("/")
        self.uri = (uri or str(fs.unstrip_protocol(root))).rstrip("/")
        protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
        self.is_local = "file" in protocols
        self.is_s3 = "s3" in protocols
        """Whether a lake reports the MD5 of most files, and keeps metadata with them."""
        self._turn: contextlib.AbstractContextManager[object] = (
            contextlib.nullcontext() if protocols & _EXCLUSIVE else threading.Lock()
        )
        if not self.is_local:
            _require_exclusive_create(fs)

    def uri_of(self, relative: str) -> str:
        """Return the URI of a path relative to the lake."""
        return f"{self.uri}/{relative}"

    def _path(self, relative: str) -> str:
        return f"{self.root}/{relative}"

    # Reading

    def names(self, directory: str) -> frozenset[str]:
        """Return the names of what a directory holds; none if it does not exist.

        On a local file system, what killed processes left unfinished there is removed.

        :param directory: relative to the lake.
        """
        path = self._path(directory)
        try:
            if self.is_local:
                _sweep(path)
                return frozenset(os.listdir(path))
            self.fs.invalidate_cache(path)
            return frozenset(entry.rstrip("/").rpartition("/")[2] for entry in self.fs.ls(path, detail=False))
        except FileNotFoundError:
            return frozenset()

    def walk(self, directory: str) -> list[str]:
        """Return the finished files below a directory, relative to the lake, sorted; none if it is not there.

        :param directory: relative to the lake.
        """
        self.fs.invalidate_cache()
        try:
            found = self.fs.find(self._path(directory))
        except FileNotFoundError:
            return []
        # A backend may give its paths with or without the leading slash that the root has.
        start = len(self.root.lstrip("/")) + 1
        relative = (path.lstrip("/")[start:] for path in found)
        return sorted(path for path in relative if not any(map(is_part, path.split("/"))))

    def read(self, relative: str) -> bytes:
        """Return a file's bytes.

        :param relative: its path relative to the lake.
        :raises FileNotFoundError: it does not exist.
        """
        content: bytes = self.fs.cat_file(self._path(relative))
        return content

    def measure(self, relative: str) -> tuple[int, str] | None:
        """Return a file's size (bytes) and the SHA-256 of the bytes that it holds; None if it does not exist.

        :param relative: its path relative to the lake.
        """
        info = self._info(self._path(relative))
        return (int(info["size"]), self._sha256(self._path(relative))) if info else None

    def _info(self, path: str) -> dict[str, Any] | None:
        """Return what the file system says of a file, past any cache; None if it does not exist."""
        self.fs.invalidate_cache(path.rpartition("/")[0])
        try:
            info: dict[str, Any] = self.fs.info(path)
        except FileNotFoundError:
            return None
        return info if info["type"] == "file" else None

    def _sha256(self, path: str) -> str:
        digest = hashlib.sha256()
        with self.fs.open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        return digest.hexdigest()

    # Writing

    def spool_parent(self) -> str:
        """Return where spools belong: beside the files on a local lake, so that landing them needs no copy.

        What killed processes left there is removed.

        :raises OSError: the lake's root cannot be made.
        """
        parent = self.root if self.is_local else tempfile.gettempdir()
        os.makedirs(parent, exist_ok=True)
        _sweep(parent)
        return parent

    def find(
        self, directory: str, name: str, size: int, mtime: int, present: Collection[str]
    ) -> Iterator[Landed]:
        """Yield the landed files that are provably a listed one, without reading it from RAP.

        `commit` leaves the proof: RAP's modification time, on the file or in the object's metadata.

        :param directory: where the file belongs, relative to the lake.
        :param name: its name, as `safe_name` gives it.
        :param size: the listed size, in bytes.
        :param mtime: the listed modification time, in seconds since the epoch.
        :param present: the names of what the directory holds.
        """
        for candidate in versions(name):
            if candidate not in present:
                return
            path = self._path(f"{directory}/{candidate}")
            info = self._info(path)
            if info and info["size"] == size and (sha256 := self._proof(path, info, mtime)):
                yield self._landed(candidate, sha256, info, adopted=True)

    def _proof(self, path: str, info: dict[str, Any], mtime: int) -> str | None:
        """Return a landed file's SHA-256 if it is the file of that modification time."""
        if self.is_local:
            return self._sha256(path) if int(info["mtime"]) == mtime else None
        if self.is_s3:
            metadata: dict[str, str] = self.fs.metadata(path)
            return metadata.get("sha256") if metadata.get("rap-mtime") == str(mtime) else None
        return None

    def commit(
        self, directory: str, name: str, spool: Spool, mtime: int | None, present: Collection[str] = ()
    ) -> Landed:
        """Make a whole file visible, exactly once per content, and verify it.

        Where the name is taken by the same bytes, they are adopted; where by others, it lands as ``.v2``...

        :param directory: where it belongs, relative to the lake.
        :param name: its name, as `safe_name` gives it.
        :param spool: its bytes, all there.
        :param mtime: RAP's modification time, in seconds since the epoch; None where RAP does not say.
        :param present: names known to be taken.
        :raises LakeConflict: what landed is not what was written.
        :raises OSError: the lake does not take it; nothing of it is visible.
        """
        for candidate in versions(name):
            path = self._path(f"{directory}/{candidate}")
            with self._turn:
                adopted = candidate in present or not self._created(path, spool, mtime)
                info = self._info(path)
                held = info and self._holds(path, info, spool, adopted=adopted)
            if info and held:
                return self._landed(candidate, spool.sha256, info, adopted=adopted)
            if not adopted:
                uri = self.uri_of(f"{directory}/{candidate}")
                raise LakeConflict(
                    f"{uri} does not hold the {spool.size} bytes that were written to it.",
                    why=f"Their SHA-256 is {spool.sha256}; the file system says {info}.",
                    todo="Check the storage, then run again: the report lands under the next version.",
                    uri=uri,
                )
        raise AssertionError  # pragma: no cover (versions never end)

    def create(self, relative: str, content: bytes) -> None:
        """Write a small file that must not exist yet, durably.

        :param relative: its path relative to the lake.
        :raises FileExistsError: it exists.
        :raises OSError: the lake does not take it; nothing of it is visible.
        """
        if self.is_local:
            self._link(self._path(relative), content, None)
            self.sync(relative.rpartition("/")[0])
        else:
            self.fs.pipe_file(self._path(relative), content, mode="create")

    def sync(self, directory: str) -> None:
        """Make the names of what has landed in a directory survive a power cut.

        :param directory: relative to the lake.
        """
        while self.is_local:
            descriptor = os.open(self._path(directory), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if not directory:
                return
            directory = directory.rpartition("/")[0]

    def _created(self, path: str, spool: Spool, mtime: int | None) -> bool:
        """Create a file exclusively; say whether it is ours, and not there before."""
        try:
            if self.is_local:
                self._link(path, spool.content, mtime, spool.sha256)
            else:
                self._upload(path, spool, mtime)
        # An object store may have taken the file and lost its answer, or word "exists" in its own way.
        except Exception:
            if self._info(path) is None:
                raise
            return False
        return True

    def _link(self, path: str, content: bytes | str, mtime: int | None, sha256: str = "") -> None:
        """Make a local file visible whole: temporary file, fsync, exclusive link."""
        directory = os.path.dirname(path)
        os.makedirs(directory, exist_ok=True)
        part = f"{directory}/{PART_PREFIX}{secrets.token_hex(8)}{PART_SUFFIX}"
        try:
            descriptor = self._open_part(part, content, sha256)
            try:
                if isinstance(content, bytes):
                    _write(descriptor, content)
                # After the last byte and before the name: an equal time then proves a whole file.
                if mtime is not None and 0 <= mtime < 2**32:
                    os.utime(descriptor, (mtime, mtime))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.link(part, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part)

    def _open_part(self, part: str, content: bytes | str, sha256: str) -> int:
        """Open a new part of the lake: empty, or holding what was spooled to a file."""
        if isinstance(content, bytes):
            return os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)
        try:
            os.link(content, part)
        except OSError:
            # The lake spans several file systems.
            shutil.copyfile(content, part)
            if self._sha256(part) != sha256:
                raise LakeConflict(
                    f"The copy of {content} at {part} has other bytes.", todo="Check the disks.", uri=part
                ) from None
        return os.open(part, os.O_RDONLY | os.O_CLOEXEC)

    def _upload(self, path: str, spool: Spool, mtime: int | None) -> None:
        options: dict[str, Any] = {"mode": "create"}
        content = spool.content
        if self.is_s3:
            options["Metadata"] = {"sha256": spool.sha256, "rap-mtime": str(mtime)}
        if isinstance(content, bytes):
            self.fs.pipe_file(path, content, **options)
        else:
            self.fs.put_file(content, path, **options, **(_S3_UPLOAD if self.is_s3 else {}))

    def _holds(self, path: str, info: dict[str, Any], spool: Spool, *, adopted: bool) -> bool:
        """Say whether a file holds the spooled bytes."""
        if info["size"] != spool.size:
            return False
        # Reading back what this process has just written locally would ask the page cache, not the disk.
        proven = not adopted if self.is_local else self.is_s3 and _etag(info) == spool.md5
        return proven or self._sha256(path) == spool.sha256

    def _landed(self, name: str, sha256: str, info: dict[str, Any], *, adopted: bool) -> Landed:
        return Landed(name, sha256, _etag(info), info.get("VersionId"), adopted)


def _write(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _etag(info: dict[str, Any]) -> str | None:
    etag = info.get("ETag") or info.get("etag")
    return etag.strip('"') if isinstance(etag, str) else None


def _sweep(directory: str) -> None:
    """Remove what killed processes left unfinished in a local directory."""
    # ctime: a part carries RAP's mtime. Real time: the files' own, not the trial clock's.
    limit = time.time() - STALE_SECONDS
    with os.scandir(directory) as entries:
        parts = [entry for entry in entries if is_part(entry.name)]
    for part in parts:
        with contextlib.suppress(OSError):
            if part.stat(follow_symlinks=False).st_ctime >= limit:
                continue
            if part.is_dir(follow_symlinks=False):
                shutil.rmtree(part.path)
            else:
                os.unlink(part.path)


def _require_exclusive_create(fs: AbstractFileSystem) -> None:
    """Refuse a backend that does not know ``mode="create"``: it would take the argument and overwrite."""
    for name in ("put_file", "pipe_file"):
        method = getattr(fs, f"_{name}", None) or getattr(fs, name)
        # Azure's backend turns mode="create" into overwrite=False.
        if not {"mode", "overwrite"} & inspect.signature(method).parameters.keys():
            raise RapConfigurationError(
                f"The file system {type(fs).__name__} cannot be a lake.",
                why='It does not know mode="create", and would overwrite what has landed.',
                todo="Upgrade its fsspec backend, or use file, s3, gs or abfs.",
                backend=type(fs).__name__,
            )
