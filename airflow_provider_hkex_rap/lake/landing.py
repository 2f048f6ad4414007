"""Land what RAP lists and the lake does not have: read once, checked, committed, entered in the manifest."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import secrets
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from airflow_provider_hkex_rap.lake.layout import (
    Refused,
    report_directory,
    run_stamp,
    safe_name,
    versions,
)
from airflow_provider_hkex_rap.lake.manifest import Disposition, Entry, Ledger, rap_path, utc
from airflow_provider_hkex_rap.lake.manifest_writer import ManifestWriter
from airflow_provider_hkex_rap.lake.spool import MEMORY_BYTES, Spool, spool_directory
from airflow_provider_hkex_rap.lake.store import Landed
from airflow_provider_hkex_rap.rap.errors import RapPermissionDenied, RapTransferError
from airflow_provider_hkex_rap.rap.files import Attributes, RemoteFile, ReportSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import pendulum

    from airflow_provider_hkex_rap.lake.store import Lake
    from airflow_provider_hkex_rap.rap.clock import Clock
    from airflow_provider_hkex_rap.rap.report_name import Naming, ReportName

FILES_IN_FLIGHT = 400
"""How many files are read at once, over one login."""
BYTES_IN_FLIGHT = 32 * 2**20
"""How many bytes may be on their way into the lake at once, about."""
COMMIT_THREADS = 16
LOCAL_COMMIT_THREADS = 4
COMMIT_FILES = 16
"""How many files one thread commits to a local lake at a time."""

# A large file waits on disk: two at a time keep the line busy while one is committed.
_LARGEST_SHARE = BYTES_IN_FLIGHT // 2
_SMALLEST_SHARE = 4096

log = logging.getLogger(__name__)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where files came from, and who fetched them; goes into each manifest entry.

    :param account: the RAP user account.
    :param site: the site of RAP.
    :param address: the address that answered.
    :param host_key_fingerprint: of the server's key, SHA-256.
    :param client_key_fingerprint: of the account's key, MD5 (§3.2.2).
    :param dag: the DAG's id; None outside a DAG, as for *run*, *task* and *try_number*.
    :param package_version: this package's.
    """

    account: str
    site: str
    address: str
    host_key_fingerprint: str | None
    client_key_fingerprint: str | None
    dag: str | None
    run: str | None
    task: str | None
    try_number: int | None
    package_version: str


class Quarantined(NamedTuple):
    """A listed entry that may not enter the lake."""

    file: RemoteFile
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do about a listing.

    :param todo: the files to land, oldest first: they leave RAP first.
    :param already: the files that the lake has.
    :param quarantined: the entries that may not enter it.
    :param seen: when the listing was taken.
    """

    todo: tuple[RemoteFile, ...]
    already: tuple[RemoteFile, ...]
    quarantined: tuple[Quarantined, ...]
    seen: pendulum.DateTime


class Outcome(NamedTuple):
    """What became of one file."""

    file: RemoteFile
    disposition: Disposition
    reason: str


class Progress(NamedTuple):
    """How far a landing has come; bytes as RAP listed them."""

    files: int
    total_files: int
    bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Landing:
    """What a landing did.

    :param landed: how many files are in the lake that the manifest did not have.
    :param already: how many were there.
    :param deferred: how many were not whole, or changed while they were read.
    :param quarantined: how many may not enter the lake.
    :param failed: how many could not be read, or not be written.
    :param bytes: the bytes of the files that landed.
    :param entries: what was written to the manifest.
    :param outcomes: the files that were planned and what became of each, as they finished.
    :param manifests: the URIs of the manifest files written.
    """

    landed: int
    already: int
    deferred: int
    quarantined: int
    failed: int
    bytes: int
    entries: tuple[Entry, ...]
    outcomes: tuple[Outcome, ...]
    manifests: tuple[str, ...]


def plan(
    files: Iterable[RemoteFile],
    ledger: Ledger,
    naming: Naming,
    now: pendulum.DateTime,
    *,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    business_date: pendulum.Date | None = None,
) -> Plan:
    """Say which listed files to land.

    :param files: the listings of one or more folders.
    :param ledger: what the lake has.
    :param naming: the rules by which files' names are read.
    :param now: when the listings were taken.
    :param include: globs on the file's name, case-sensitive; one of them must match.
    :param exclude: globs on the file's name, none of which may match.
    :param business_date: leave out the files of other days.
    """
    todo: list[RemoteFile] = []
    already: list[RemoteFile] = []
    quarantined: list[Quarantined] = []
    for file in dict.fromkeys(files):
        if not _wanted(file.text, include, exclude):
            continue
        if business_date and naming.read(file.text, file.mtime, now).business_date != business_date:
            continue
        name = safe_name(file)
        if isinstance(name, Refused):
            quarantined.append(Quarantined(file, name.reason))
        # One without a time may be another of that size: only its bytes can tell.
        elif file.mtime is not None and ledger.has(file):
            already.append(file)
        else:
            todo.append(file)
    # Without a time it may be the oldest.
    todo.sort(key=lambda file: (file.mtime or 0, file.name))
    return Plan(tuple(todo), tuple(already), tuple(quarantined), now)


def _wanted(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in include) and not any(
        fnmatchcase(name, glob) for glob in exclude
    )


async def land(
    source: ReportSource,
    lake: Lake,
    ledger: Ledger,
    plan: Plan,
    *,
    origin: Origin,
    naming: Naming,
    clock: Clock,
    progress: Callable[[Progress], object] | None = None,
) -> Landing:
    """Land the files of a plan, many at a time.

    Each is read once into a private spool; if what arrived is what was listed, and has not changed since, it
    is committed to the lake, verified, and entered in the manifest. A file that fails holds up no other.
    However this ends, files that landed get their entries, and an exception's ``landing`` says what was done.

    :param source: a login to RAP; its account shares the ledger's customer.
    :param lake: where the files go.
    :param ledger: what the lake has; the new entries are added to it.
    :param plan: what to land.
    :param origin: where the files come from, for the manifest.
    :param naming: the rules by which files' names are read.
    :param clock: gives the time.
    :param progress: called as files finish.
    :raises LakeConflict: files have landed and their manifest entries could not be written.
    :raises RapError: the session is over.
    :raises OSError: the spool could not be made, or the lake could not be read.
    """
    run = _Run(source, lake, ledger, plan, origin, naming, clock, progress)
    try:
        await run.land()
    except BaseException as error:
        error.__dict__.update(landing=run.landing())
        raise
    return run.landing()


class _Target(NamedTuple):
    """A file on its way."""

    listed: RemoteFile
    file: RemoteFile
    """With the size and time that it proved to have."""
    name: ReportName
    directory: str
    """Where it belongs, relative to the lake."""


class _Whole(NamedTuple):
    """A file that has been read."""

    target: _Target
    spool: Spool
    downloaded: pendulum.DateTime


class _Run:
    """One landing under way: its state is touched on the event loop only, the lake in threads only."""

    def __init__(
        self,
        source: ReportSource,
        lake: Lake,
        ledger: Ledger,
        plan: Plan,
        origin: Origin,
        naming: Naming,
        clock: Clock,
        progress: Callable[[Progress], object] | None,
    ) -> None:
        self._source = source
        self._lake = lake
        self._ledger = ledger
        self._plan = plan
        self._origin = asdict(origin)
        self._seen = utc(plan.seen)
        self._naming = naming
        self._clock = clock
        self._progress = progress
        self._total_bytes = sum(file.size or 0 for file in plan.todo)
        self._done_bytes = 0
        self._landed_bytes = 0
        self._outcomes: list[Outcome] = []
        self._pool = ThreadPoolExecutor(
            LOCAL_COMMIT_THREADS if lake.is_local else COMMIT_THREADS, "hkex-rap-lake"
        )
        self._manifest = ManifestWriter(
            lake, ledger.customer, run_stamp(clock(), secrets.token_hex(3)), self._pool
        )
        self._present: dict[str, asyncio.Future[frozenset[str]]] = {}
        self._numbers = itertools.count()
        self._slots = asyncio.Semaphore(FILES_IN_FLIGHT)
        self._room = _Room(BYTES_IN_FLIGHT)
        self._whole: list[_Whole] = []
        # On a local disk, changing threads for each file costs more than its commit; elsewhere the wait does.
        self._commit_files = COMMIT_FILES if lake.is_local else 1
        self._commits: set[asyncio.Task[None]] = set()

    def landing(self) -> Landing:
        """Return what has been done so far."""
        counts = Counter(outcome.disposition for outcome in self._outcomes)
        return Landing(
            landed=counts[Disposition.LANDED],
            already=counts[Disposition.ALREADY] + len(self._plan.already),
            deferred=counts[Disposition.DEFERRED],
            quarantined=len(self._plan.quarantined),
            failed=counts[Disposition.FAILED],
            bytes=self._landed_bytes,
            entries=tuple(self._manifest.written),
            outcomes=tuple(self._outcomes),
            manifests=tuple(self._manifest.uris),
        )

    async def land(self) -> None:
        with self._pool, contextlib.ExitStack() as stack:
            try:
                self._quarantine()
                if self._plan.todo:
                    self._spools = stack.enter_context(spool_directory(self._lake.spool_parent()))
                    await self._read_all()
            finally:
                self._commit_whole()
                while self._commits:
                    await asyncio.wait(self._commits)
                await self._manifest.close()

    def _quarantine(self) -> None:
        for file, reason in self._plan.quarantined:
            log.warning("Not landing %r from %s: %s", file.name, file.folder.path, reason)
            if not self._ledger.quarantined(file):
                self._record(self._entry(self._target(file), Disposition.QUARANTINED, reason))

    async def _read_all(self) -> None:
        try:
            async with asyncio.TaskGroup() as reads:
                for file in self._plan.todo:
                    await self._slots.acquire()
                    await self._room.take(_share(file))
                    task = reads.create_task(self._land(file))
                    task.add_done_callback(lambda _: self._slots.release())
        except BaseExceptionGroup as group:
            # The files in flight all report the end of the one session.
            raise group.exceptions[0] from None

    async def _land(self, listed: RemoteFile) -> None:
        """Land one file, up to its commit."""
        target = self._target(listed)
        if await self._adopt(target):
            return
        spool = Spool(f"{self._spools}/{next(self._numbers)}", listed.size, md5=self._lake.is_s3)
        try:
            after = await self._read(listed, spool)
        except BaseException:
            spool.discard()
            raise
        if after is None:
            spool.discard()
            return
        if after != (listed.size, listed.mtime):
            target = self._target(listed, after)
        if uri := self._ledger.uri_of_content(listed, spool.sha256):
            self._repeat(target, spool, uri)
        else:
            self._whole.append(_Whole(target, spool, self._clock()))
            if len(self._whole) == 1:
                asyncio.get_running_loop().call_soon(self._commit_whole)

    def _commit_whole(self) -> None:
        """Hand the files that have been read to the threads."""
        for start in range(0, len(self._whole), self._commit_files):
            commit = asyncio.create_task(self._commit(self._whole[start : start + self._commit_files]))
            self._commits.add(commit)
            commit.add_done_callback(self._commits.discard)
        self._whole = []

    def _target(self, listed: RemoteFile, after: Attributes | None = None) -> _Target:
        """Return where a file belongs, by what its listing, and then the reading, says of it."""
        file = replace(listed, size=after.size, mtime=after.mtime) if after else listed
        name = self._naming.read(file.text, file.mtime, self._plan.seen)
        return _Target(
            listed, file, name, report_directory(self._ledger.customer, file.folder, name.business_date)
        )

    async def _adopt(self, target: _Target) -> bool:
        """Enter a file in the manifest that a killed run has left in the lake.

        :returns: whether that was all there is to do about the file.
        """
        name, size, mtime = target.file.text, target.file.size, target.file.mtime
        try:
            present = await self._names(target.directory)
            if size is None or mtime is None or name not in present:
                return False
            found = await self._in_thread(
                lambda: list(self._lake.find(target.directory, name, size, mtime, present))
            )
        except Exception as error:
            self._fail(target, error)
            return True
        for landed in found:
            if self._ledger.owner(self._lake.uri_of(f"{target.directory}/{landed.name}")) is None:
                self._enter(target, landed, None)
                return True
        return False

    async def _read(self, file: RemoteFile, spool: Spool) -> Attributes | None:
        """Read a file whole; return its size and time, or None where it was not to be had."""
        try:
            after = await self._source.read(file, spool.write)
            spool.finish()
        except Exception as error:
            if spool.error:
                self._finish(file, Disposition.FAILED, f"The spool does not take it: {spool.error}")
            elif isinstance(error, (RapTransferError, RapPermissionDenied)):
                self._finish(file, Disposition.FAILED, str(error))
            else:
                raise
            return None
        if reason := _unsettled(file, spool.size, after):
            self._finish(file, Disposition.DEFERRED, reason)
            return None
        return Attributes(spool.size, file.mtime if after.mtime is None else after.mtime)

    async def _commit(self, files: list[_Whole]) -> None:
        directories = {file.target.directory for file in files}
        asked = await asyncio.gather(*map(self._names, directories), return_exceptions=True)
        present = dict(zip(directories, asked, strict=True))
        results = await self._in_thread(
            lambda: [self._attempt(file, present[file.target.directory]) for file in files]
        )
        for (target, spool, downloaded), result in zip(files, results, strict=True):
            spool.discard()
            if isinstance(result, Landed):
                self._enter(target, result, downloaded)
            else:
                self._fail(target, result)

    def _fail(self, target: _Target, error: Exception) -> None:
        uri = self._lake.uri_of(f"{target.directory}/{target.file.text}")
        log.warning("%s did not land.", uri, exc_info=error)
        reason = f"The lake does not take it: {str(error) or type(error).__name__}"
        self._finish(target.listed, Disposition.FAILED, reason)

    def _attempt(self, file: _Whole, present: frozenset[str] | BaseException) -> Landed | Exception:
        target = file.target
        try:
            if isinstance(present, BaseException):
                raise present
            return self._lake.commit(
                target.directory, target.file.text, file.spool, target.file.mtime, present
            )
        # Whatever a storage backend raises is about this file; others may fit, or find it well again.
        except Exception as error:
            return error

    def _repeat(self, target: _Target, spool: Spool, uri: str) -> None:
        """Take note of a file whose bytes have landed before, so that the next run does not read it again."""
        reason = "The same bytes landed before."
        if not self._ledger.has(target.file):
            self._record(
                self._entry(
                    target,
                    Disposition.ALREADY,
                    reason,
                    sha256=spool.sha256,
                    uri=uri,
                    downloaded=utc(self._clock()),
                )
            )
        spool.discard()
        self._finish(target.listed, Disposition.ALREADY, reason)

    def _enter(self, target: _Target, landed: Landed, downloaded: pendulum.DateTime | None) -> None:
        """Enter a committed file in the manifest."""
        reason = "Adopted: the lake had it, without a manifest entry." if landed.adopted else ""
        self._record(
            self._entry(
                target,
                Disposition.LANDED,
                reason,
                sha256=landed.sha256,
                uri=self._lake.uri_of(f"{target.directory}/{landed.name}"),
                etag=landed.etag,
                version_id=landed.version_id,
                supersedes=self._superseded(target, landed),
                downloaded=utc(downloaded) if downloaded else None,
                committed=utc(self._clock()),
            )
        )
        self._landed_bytes += target.file.size or 0
        self._finish(target.listed, Disposition.LANDED, reason)

    def _superseded(self, target: _Target, landed: Landed) -> str | None:
        """Return the URI of the content that a later version replaces."""
        before = itertools.takewhile(lambda version: version != landed.name, versions(target.file.text))
        for version in reversed(list(before)):
            uri = self._lake.uri_of(f"{target.directory}/{version}")
            # RAP may have a file of its own whose name ends in .v2.
            if self._ledger.owner(uri) in (None, target.file.name):
                return uri
        return None

    def _entry(
        self,
        target: _Target,
        disposition: Disposition,
        reason: str,
        *,
        sha256: str | None = None,
        uri: str | None = None,
        etag: str | None = None,
        version_id: str | None = None,
        supersedes: str | None = None,
        downloaded: str | None = None,
        committed: str | None = None,
    ) -> Entry:
        path, path_base64 = rap_path(target.file)
        return Entry(
            customer=self._ledger.customer,
            folder=target.file.folder.value,
            rap_path=path,
            rap_path_base64=path_base64,
            report=target.name.report,
            business_date=target.name.business_date.isoformat(),
            business_date_rule=target.name.rule,
            size=target.file.size,
            mtime=target.file.mtime,
            sha256=sha256,
            uri=uri,
            etag=etag,
            version_id=version_id,
            supersedes=supersedes,
            first_seen=self._seen,
            downloaded=downloaded,
            committed=committed,
            disposition=disposition.value,
            reason=reason,
            **self._origin,
        )

    def _record(self, entry: Entry) -> None:
        self._ledger.add(entry)
        self._manifest.add(entry)

    def _finish(self, file: RemoteFile, disposition: Disposition, reason: str) -> None:
        """Take note of what became of a file; each ends here once."""
        self._outcomes.append(Outcome(file, disposition, reason))
        self._done_bytes += file.size or 0
        self._room.give(_share(file))
        if self._progress:
            state = Progress(len(self._outcomes), len(self._plan.todo), self._done_bytes, self._total_bytes)
            # From the loop, so that an error in it cannot keep a file from its entry.
            asyncio.get_running_loop().call_soon(self._progress, state)

    async def _names(self, directory: str) -> frozenset[str]:
        """Return what a directory of the lake held when this run first asked."""
        if directory not in self._present:
            self._present[directory] = asyncio.create_task(
                self._in_thread(lambda: self._lake.names(directory))
            )
        asked = self._present[directory]
        # One question for many files: the end of one must not cancel it for the others.
        return asked.result() if asked.done() else await asyncio.shield(asked)

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


class _Room:
    """Bounds the bytes on their way; `take` is for one task only.

    :param total: bytes.
    """

    def __init__(self, total: int) -> None:
        self._free = total
        self._given = asyncio.Event()

    async def take(self, share: int) -> None:
        while self._free < share:
            self._given.clear()
            await self._given.wait()
        self._free -= share

    def give(self, share: int) -> None:
        self._free += share
        self._given.set()


def _share(file: RemoteFile) -> int:
    """Return how much of the bytes in flight a file stands for."""
    size = MEMORY_BYTES if file.size is None else file.size
    return min(max(size, _SMALLEST_SHARE), _LARGEST_SHARE)


def _unsettled(listed: RemoteFile, size: int, after: Attributes) -> str:
    """Return why a file that was read is not to be trusted; nothing if it is."""
    if listed.size is not None and size != listed.size:
        return f"{size} bytes arrived of {listed.size} listed: RAP may still be writing it."
    if after.size is not None and size != after.size:
        return f"{size} bytes arrived, and RAP has {after.size} now: it may still be writing it."
    if None not in (listed.mtime, after.mtime) and listed.mtime != after.mtime:
        return "RAP wrote it again while it was read."
    return ""
