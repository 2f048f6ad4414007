"""A lake on any fsspec file system; landed files are never overwritten or deleted."""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import inspect
import os
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from airflow_provider_hkex_rap.lake.layout import is_part, versions
from airflow_provider_hkex_rap.lake.local_files import NewFile, sweep, sync_directory
from airflow_provider_hkex_rap.lake.object_names import keep_whole_names
from airflow_provider_hkex_rap.lake.refusals import code_of, refusal
from airflow_provider_hkex_rap.rap.errors import LakeConflict, RapConfigurationError, RapError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from fsspec import AbstractFileSystem

    from airflow_provider_hkex_rap.lake.spool import Spool

T = TypeVar("T")

_OBJECT_STORES = frozenset({"s3", "gs", "gcs", "abfs", "az"})
# These refuse to overwrite by themselves; fsspec's other backends look first, and then write.
_EXCLUSIVE = _OBJECT_STORES | {"file"}

_CHUNK = 2**20
# One upload holds at most this many parts in memory.
_S3_UPLOAD = {"chunksize": 8 * 2**20, "max_concurrency": 4}
_CONFLICT = "ConditionalRequestConflict"
"""The code with which S3 answers an exclusive create beside another request for the same key: try again."""
_CONFLICT_PAUSES = (0.1, 0.3, 1.0, 3.0)
"""Seconds before each further try."""


class Landed(NamedTuple):
    """A file in the lake."""

    name: str
    """Its name in its directory, one of those that `versions` yields."""
    sha256: str
    etag: str | None
    version_id: str | None
    adopted: bool
    """Whether the lake had it before."""
    created: float | None = None
    """When it entered the lake, by the storage's clock, in seconds since the epoch; None if unknown."""


class Proven(NamedTuple):
    """A file in the lake that a run has committed, by the proof that it left."""

    landed: Landed
    size: int
    mtime: int
    """RAP's modification time, in seconds since the epoch."""


class ListedPath(str):
    """The path of a listed file, relative to the lake, with the file's state at that time."""

    __slots__ = ("state",)
    state: tuple[int | None, str | None, float | None]
    """Size, ETag and time, each None if the listing lacks it; if one differs, the file has changed."""


class DirectoryListing(NamedTuple):
    """The content of one directory; paths are relative to the lake."""

    files: list[str]
    directories: list[str]


class Lake:
    """A lake: everything below one root of one file system.

    Its methods make storage calls that block, and may be called from several threads at once::

        lake = Lake(fsspec.filesystem("file"), "/data/rap")
        lake.names("reports/customer=CXYZ/folder=DCASS/report=TP001/business_date=2026-11-20")

    :param fs: the fsspec file system, such as ``ObjectStoragePath(uri).fs``.
    :param root: the lake's root, as a path on *fs*, such as ``ObjectStoragePath(uri).path``.
    :param uri: the root as a URI, for the manifest; if empty, *fs* builds it from *root*.
    :raises RapConfigurationError: if *fs* cannot refuse to overwrite a file.
    """

    def __init__(self, fs: AbstractFileSystem, root: str, uri: str = "") -> None:
        self.fs = fs
        self.root = root.rstrip("/")
        self.uri = (uri or str(fs.unstrip_protocol(root))).rstrip("/")
        protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
        self.is_local = "file" in protocols
        self._is_s3 = "s3" in protocols
        self._is_gcs = bool(protocols & {"gs", "gcs"})
        self._is_azure = bool(protocols & {"abfs", "az"})
        self.lists_trees = bool(protocols & _OBJECT_STORES)
        """Whether the storage lists a whole tree in one call."""
        self.reports_md5 = self.lists_trees
        """Whether the storage returns the MD5 of most files."""
        self.turn: contextlib.AbstractContextManager[object] = (
            contextlib.nullcontext() if protocols & _EXCLUSIVE else threading.RLock()
        )
        """Held by a commit if the storage looks first, and then writes; else it locks nothing."""
        # In one part, s3fs does not ask for the size first; older versions never do.
        in_parts = self._is_s3 and "max_concurrency" in inspect.signature(fs._cat_file).parameters
        self._read_options = {"max_concurrency": 1} if in_parts else {}
        if not self.is_local:
            _require_exclusive_create(fs)
            keep_whole_names(fs)

    def uri_of(self, relative: str) -> str:
        """Return the URI of a file or directory.

        :param relative: its path relative to the lake.
        """
        return f"{self.uri}/{relative}"

    def _path(self, relative: str) -> str:
        return f"{self.root}/{relative}"

    # Reading

    def names(self, directory: str) -> frozenset[str]:
        """Return the names of the files and directories in a directory; none if it does not exist.

        On a local file system, unfinished files that killed processes left there are removed.

        :param directory: relative to the lake.
        :raises OSError: if the lake cannot list it.
        """
        path = self._path(directory)
        try:
            if self.is_local:
                sweep(path)
                return frozenset(os.listdir(path))
            self.fs.invalidate_cache(path)
            found = {entry.strip("/") for entry in self._ls(path)}
        except FileNotFoundError:
            return frozenset()
        # A folder marker of an object store, an empty object that ends in "/", is listed in its own folder.
        below = (entry.removeprefix(f"{path.strip('/')}/") for entry in found - {path.strip("/")})
        return frozenset(entry.partition("/")[0] for entry in below)

    def _ls(self, path: str) -> list[str]:
        if not self._is_s3 or "/" not in path:
            entries: list[str] = self.fs.ls(path, detail=False)
            return entries
        # If there is no such directory, `ls` of s3fs lists the parent as well. A tree costs no more than a
        # directory, since the directories of reports have none below them.
        parent, _, name = path.rpartition("/")
        return list(self.fs.find(parent, prefix=f"{name}/"))

    def list_directory(self, directory: str) -> DirectoryListing:
        """Return the finished files and the directories in a directory; none if it does not exist.

        :param directory: relative to the lake.
        :raises OSError: if the lake cannot list it.
        """
        path = self._path(directory)
        self.fs.invalidate_cache(path)
        try:
            found = self.fs.ls(path, detail=True)
        except FileNotFoundError:
            found = []
        listing = DirectoryListing([], [])
        for info in found:
            relative = self._listed(info["name"].rstrip("/"), info)
            is_directory = info["type"] == "directory"
            is_marker = not is_directory and info["name"].endswith("/")
            if not is_marker and not is_part(relative.rpartition("/")[2]):
                (listing.directories if is_directory else listing.files).append(relative)
        return listing

    def walk(self, directory: str, prefix: str = "") -> list[str]:
        """Return the sorted paths of the finished files below a directory; none if it does not exist.

        :param directory: relative to the lake, as are the paths.
        :param prefix: how the paths below *directory* begin; an object store lists no others, a local lake
            ignores it.
        :raises OSError: if the lake cannot list it.
        """
        self.fs.invalidate_cache()
        options = {"prefix": prefix} if prefix and self.lists_trees else {}
        try:
            found = self.fs.find(self._path(directory), detail=True, **options)
        except FileNotFoundError:
            return []
        files = (self._listed(path, info) for path, info in found.items() if not path.endswith("/"))
        return sorted(path for path in files if not any(map(is_part, path.split("/"))))

    def _listed(self, path: str, info: dict[str, Any]) -> ListedPath:
        listed = ListedPath(self._relative(path))
        listed.state = info.get("size"), _etag(info), _created(info)
        return listed

    def _relative(self, path: str) -> str:
        # A backend may return paths with or without the leading slash of the root.
        return path.lstrip("/")[len(self.root.lstrip("/")) + 1 :]

    def read(self, relative: str) -> bytes:
        """Return a file's bytes.

        :param relative: its path relative to the lake.
        :raises FileNotFoundError: if it does not exist.
        """
        content: bytes = self.fs.cat_file(self._path(relative), **self._read_options)
        return content

    def measure(self, relative: str) -> tuple[int, str] | None:
        """Read a file and return its size in bytes and its SHA-256; None if it does not exist.

        :param relative: its path relative to the lake.
        :raises OSError: if the lake cannot be read.
        """
        info = self.stat(relative)
        return (int(info["size"]), self._sha256(self._path(relative))) if info else None

    def stat(self, relative: str) -> dict[str, Any] | None:
        """Return the file system's attributes of a file, past any cache; None if it does not exist.

        :param relative: its path relative to the lake.
        :raises OSError: if the lake cannot be read.
        """
        path = self._path(relative)
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

    def proven(self, relative: str, info: dict[str, Any]) -> Proven | None:
        """Return a file with the proof that `commit` leaves; None if it has none.

        The proof is RAP's modification time: of a local file, its own, in whole seconds; of an object, in its
        metadata.

        :param relative: its path relative to the lake.
        :param info: its attributes, as `stat` returns them.
        :raises OSError: if the lake cannot be read.
        """
        path = self._path(relative)
        if self.is_local:
            mtime = os.stat(path).st_mtime_ns
            if mtime % 10**9:
                return None
            sha256, seconds = self._sha256(path), mtime // 10**9
        else:
            metadata: dict[str, str] = self.fs.metadata(path) if self._is_s3 else info.get("metadata") or {}
            sha256 = metadata.get("sha256", "")
            written = metadata.get("rap-mtime") or metadata.get("rap_mtime") or ""
            if not sha256 or not written.isdecimal():
                return None
            seconds = int(written)
        landed = self._landed(relative.rpartition("/")[2], sha256, info, adopted=True)
        return Proven(landed, int(info["size"]), seconds)

    # Writing

    def spool_parent(self) -> str:
        """Return the directory for spools: the root of a local lake, so that landing needs no copy.

        Unfinished files that killed processes left there are removed.

        :raises OSError: if the lake's root cannot be made.
        """
        parent = self.root if self.is_local else tempfile.gettempdir()
        os.makedirs(parent, exist_ok=True)
        sweep(parent)
        return parent

    def new_file(self, directory: str, spool: Spool, mtime: int | None) -> NewFile:
        """Return the file of a local lake that `commit` publishes, to write it ahead.

        :param directory: the directory it belongs in, relative to the lake.
        :param spool: its bytes, finished.
        :param mtime: RAP's modification time, in seconds since the epoch; None if RAP sends none.
        """
        return NewFile(self._path(directory), spool.content, mtime, spool.sha256)

    def commit(
        self,
        directory: str,
        name: str,
        spool: Spool,
        mtime: int | None,
        present: Collection[str] = (),
        new: NewFile | None = None,
    ) -> Landed:
        """Make a whole file visible, exactly once per content, and verify it.

        If a name is taken by the same bytes, those are adopted; if by anything else, the file lands under the
        next name of `versions`.

        :param directory: the directory it belongs in, relative to the lake.
        :param name: its name on RAP, or as `safe_name` returns it.
        :param spool: its bytes, finished.
        :param mtime: RAP's modification time, in seconds since the epoch; None if RAP sends none.
        :param present: names in the directory that are known to be taken.
        :param new: the result of `new_file`, on a local lake; by default one of its own.
        :raises LakeConflict: if the lake holds other bytes than were written, or too many versions.
        :raises LakeError: if the lake refuses the file; nothing of it is visible then.
        """
        try:
            with contextlib.ExitStack() as stack:
                if self.is_local and new is None:
                    new = stack.enter_context(self.new_file(directory, spool, mtime))
                return self._commit(directory, name, spool, mtime, present, new)
        except RapError:
            raise
        # Object stores raise errors of their own libraries, which name neither the lake nor a next step.
        except Exception as error:
            uri = self.uri_of(f"{directory}/{name}")
            raise refusal(f"{uri} was not written", uri, error) from error

    def _commit(
        self,
        directory: str,
        name: str,
        spool: Spool,
        mtime: int | None,
        present: Collection[str],
        new: NewFile | None,
    ) -> Landed:
        for candidate in versions(name):
            relative = f"{directory}/{candidate}"
            with self.turn:
                answer = None if candidate in present else self._create(relative, spool, mtime, new)
                adopted = answer is None
                if answer and self._proves(answer, spool):
                    return self._landed(candidate, spool.sha256, answer, adopted=False)
                info = self.stat(relative)
                held = info and self._holds(relative, info, spool)
            if info and held:
                return self._landed(candidate, spool.sha256, info, adopted=adopted)
            if not adopted:
                uri = self.uri_of(relative)
                raise LakeConflict(
                    f"{uri} does not hold the {spool.size} bytes that were written to it.",
                    why=f"Their SHA-256 is {spool.sha256}; the storage reports {info}.",
                    todo="Check the storage, then run again: the report lands under the next version.",
                    uri=uri,
                )
        raise AssertionError  # pragma: no cover (versions raises at its end)

    def create(self, relative: str, content: bytes) -> None:
        """Write a small new file, durably.

        :param relative: its path relative to the lake.
        :param content: its bytes.
        :raises FileExistsError: if it exists.
        :raises OSError: if the lake refuses it; nothing of it is visible then.
        """
        if self.is_local:
            directory, _, name = relative.rpartition("/")
            with NewFile(self._path(directory), content, None) as new:
                new.publish(name)
            self.sync([directory])
        else:
            _without_conflict(partial(self.fs.pipe_file, self._path(relative), content, mode="create"))

    def sync(self, directories: Iterable[str]) -> None:
        """Make the names of the files in directories survive a power cut; only a local lake needs this.

        :param directories: relative to the lake.
        """
        waiting = set(directories) if self.is_local else set()
        # Each directory once, the deepest first, up to the root.
        for depth in range(max((directory.count("/") for directory in waiting), default=-1), -1, -1):
            level = {directory for directory in waiting if directory.count("/") == depth and directory}
            for directory in level:
                sync_directory(self._path(directory))
            waiting = waiting - level | {directory.rpartition("/")[0] for directory in level}
        if waiting:
            sync_directory(self.root)

    def _create(
        self, relative: str, spool: Spool, mtime: int | None, new: NewFile | None
    ) -> dict[str, Any] | None:
        """Create a file exclusively; return the attributes that the storage answers, or None if it exists."""
        path = self._path(relative)
        try:
            if new:
                return {"size": new.publish(relative.rpartition("/")[2])}
            return _without_conflict(partial(self._upload, path, spool, mtime))
        # An object store may have stored the file and lost its answer, or have its own error for "exists";
        # and a directory may have the name.
        except Exception:
            if not (os.path.lexists(path) if self.is_local else self.stat(relative)):
                raise
            return None

    def _upload(self, path: str, spool: Spool, mtime: int | None) -> dict[str, Any]:
        options = {"mode": "create"} | self._proof_options(spool.sha256, str(mtime))
        content = spool.content
        if self._is_s3 and isinstance(content, str) and spool.size < _S3_UPLOAD["chunksize"]:
            # `put_file` of s3fs keeps the answer to itself, which has the MD5.
            content = Path(content).read_bytes()
        if isinstance(content, bytes):
            answer = self.fs.pipe_file(path, content, **options)
        else:
            answer = self.fs.put_file(content, path, **options, **(_S3_UPLOAD if self._is_s3 else {}))
        # gcsfs does not return the answer, nor do the others if a file has many parts.
        return answer if isinstance(answer, dict) else {}

    def _proof_options(self, sha256: str, mtime: str) -> dict[str, Any]:
        """Return the options of an upload that keep the proof for `proven` in the object's metadata."""
        metadata = {"sha256": sha256, "rap-mtime": mtime}
        if self._is_s3:
            return {"Metadata": metadata}
        if self._is_gcs:
            return {"metadata": metadata}
        if self._is_azure:
            # adlfs passes on headers, but no metadata. On Azure a name must be an identifier: no hyphen.
            return {"headers": {"x-ms-meta-sha256": sha256, "x-ms-meta-rap_mtime": mtime}}
        return {}

    def _proves(self, answer: dict[str, Any], spool: Spool) -> bool:
        """Return whether the answer to an exclusive create proves that the file has the spooled bytes."""
        # Reading back a local file that this process has just written reads the page cache, not the disk.
        return bool(answer["size"] == spool.size) if self.is_local else _has_md5(answer, spool)

    def _holds(self, relative: str, info: dict[str, Any], spool: Spool) -> bool:
        """Return whether a file holds the spooled bytes."""
        return info["size"] == spool.size and (
            _has_md5(info, spool) or self._sha256(self._path(relative)) == spool.sha256
        )

    def _landed(self, name: str, sha256: str, info: dict[str, Any], *, adopted: bool) -> Landed:
        return Landed(name, sha256, _etag(info), info.get("VersionId"), adopted, _created(info))


def _has_md5(attributes: dict[str, Any], spool: Spool) -> bool:
    """Return whether a checksum that the storage has computed is that of the spooled bytes."""
    # S3 without a key of the bucket's own; Azure, in the answer to an upload of one part; GCS.
    md5s = _etag(attributes), bytes(attributes.get("content_md5") or b"").hex(), attributes.get("md5Hash")
    return spool.md5 is not None and (
        spool.md5 in md5s or base64.b64encode(bytes.fromhex(spool.md5)).decode() in md5s
    )


def _without_conflict(create: Callable[[], T]) -> T:
    """Call an exclusive create, and again while S3 reports a conflict with another request for its key."""
    for pause in _CONFLICT_PAUSES:
        try:
            return create()
        except Exception as error:
            if code_of(error) != _CONFLICT:
                raise
        time.sleep(pause)
    return create()


def _etag(info: dict[str, Any]) -> str | None:
    etag = info.get("ETag") or info.get("etag")
    return etag.strip('"') if isinstance(etag, str) else None


def _created(info: dict[str, Any]) -> float | None:
    """Return when a file entered the lake, in seconds since the epoch; None if the storage does not say."""
    # A local file's ctime, since its mtime is RAP's; the other keys are those of the object stores.
    for key in ("created", "LastModified", "creation_time", "timeCreated", "last_modified"):
        value = info.get(key)
        if isinstance(value, str):
            value = datetime.datetime.fromisoformat(value)
        if isinstance(value, datetime.datetime):
            return value.timestamp()
        if isinstance(value, (int, float)):
            return float(value)
    return None


def _require_exclusive_create(fs: AbstractFileSystem) -> None:
    """Refuse a backend without ``mode="create"``: it would ignore the argument and overwrite."""
    for name in ("put_file", "pipe_file"):
        method = getattr(fs, f"_{name}", None) or getattr(fs, name)
        # Azure's backend turns mode="create" into overwrite=False.
        if not {"mode", "overwrite"} & inspect.signature(method).parameters.keys():
            raise RapConfigurationError(
                f"The file system {type(fs).__name__} cannot be a lake.",
                why='It does not support mode="create", and would overwrite landed files.',
                todo="Upgrade its fsspec backend, or use file, s3, gs or abfs.",
                backend=type(fs).__name__,
            )
