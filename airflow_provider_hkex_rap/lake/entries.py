"""Build the manifest entries of a landing, and record them in ledger and manifest."""

from __future__ import annotations

import itertools
import logging
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import cache, partial
from typing import TYPE_CHECKING, NamedTuple

import pendulum

from airflow_provider_hkex_rap.lake.entry import (
    MOST_INTEGER,
    SCHEMA_VERSION,
    Disposition,
    Entry,
    rap_path,
    to_line,
    utc,
)
from airflow_provider_hkex_rap.lake.layout import report_directory, versions
from airflow_provider_hkex_rap.lake.ledger import FolderDay
from airflow_provider_hkex_rap.rap.printable import printable

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.lake.ledger import Content, Ledger
    from airflow_provider_hkex_rap.lake.manifest_writer import ManifestWriter
    from airflow_provider_hkex_rap.lake.planning import Quarantined
    from airflow_provider_hkex_rap.lake.store import Lake, Landed
    from airflow_provider_hkex_rap.rap.clock import Clock
    from airflow_provider_hkex_rap.rap.files import Attributes, RemoteFile
    from airflow_provider_hkex_rap.rap.report_name import Naming, ReportName

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The login and the task that fetched the files; goes into each manifest entry.

    :param account: the RAP user account, such as ``DCXYZ001``.
    :param site: ``primary`` or ``secondary``.
    :param address: ``host:port`` of the server.
    :param host_key_fingerprint: SHA-256 fingerprint of the server's key.
    :param client_key_fingerprint: MD5 fingerprint of the account's key (§3.2.2).
    :param dag: the DAG's id; None outside a DAG run, as are *run*, *task*, *map_index* and *try_number*.
    :param run: the DAG run's id.
    :param task: the task's id.
    :param map_index: the index of a mapped task, -1 of another.
    :param try_number: number of the task's try, from 1.
    :param package_version: version of this package.
    """

    account: str
    site: str
    address: str
    host_key_fingerprint: str | None
    client_key_fingerprint: str | None
    dag: str | None
    run: str | None
    task: str | None
    map_index: int | None
    try_number: int | None
    package_version: str


class Target(NamedTuple):
    """A listed file and its place in the lake."""

    listed: RemoteFile
    """The file as it was listed and planned."""
    file: RemoteFile
    """The file with the size and mtime that the reading proved."""
    name: ReportName
    directory: str
    """The directory it belongs in, relative to the lake."""

    @property
    def known(self) -> RemoteFile:
        """The file as the ledger knows it: by the listed size, if the listing has one."""
        return self.file if self.listed.size is None else replace(self.file, size=self.listed.size)

    @property
    def folder_day(self) -> FolderDay:
        """The part of the manifest that it belongs in."""
        return FolderDay(self.file.folder, self.name.business_date)

    @property
    def path(self) -> str:
        """The path that it belongs at, relative to the lake."""
        return f"{self.directory}/{self.file.text}"


class Entries:
    """Build the entries of one landing, and add them to ledger and manifest.

    :param lake: the lake.
    :param ledger: the files that the lake has.
    :param manifest: writes the entries to the lake.
    :param origin: the login and the task that fetch the files.
    :param naming: the rules that read business date and report from a file's name.
    :param clock: gives the time.
    :param seen: when the files were listed.
    """

    def __init__(
        self,
        lake: Lake,
        ledger: Ledger,
        manifest: ManifestWriter,
        origin: Origin,
        naming: Naming,
        clock: Clock,
        seen: pendulum.DateTime,
    ) -> None:
        self.ledger = ledger
        self._lake = lake
        self._manifest = manifest
        self._origin = asdict(origin)
        self._naming = naming
        self._clock = clock
        self._seen = seen
        # The files of a report share these texts.
        self._first_seen = utc(seen)
        self._directory = cache(partial(report_directory, ledger.customer))
        self._iso_date = cache(pendulum.Date.isoformat)

    def target(self, listed: RemoteFile, after: Attributes | None = None) -> Target:
        """Return the place of a file in the lake.

        :param listed: the file as it was listed.
        :param after: size and mtime after the reading, if they differ from the listing.
        """
        file = replace(listed, size=after.size, mtime=after.mtime) if after else listed
        name = self._naming.read(file.text, file.mtime, self._seen)
        return Target(listed, file, name, self._directory(file.folder, name.report, name.business_date))

    def add_quarantined(self, entry: Quarantined) -> None:
        """Record that a listed entry may not enter the lake, unless an earlier entry says so.

        :param entry: the entry, and the reason.
        """
        file, reason = entry
        log.warning(
            "Quarantined %s of %s; it is not read: %s", printable(file.text), file.folder.path, reason
        )
        if file.size is not None and file.size > MOST_INTEGER:
            # Nothing proves the size of a file that is not read, and readers of the manifest take 64 bits.
            file, reason = replace(file, size=None), f"{reason} RAP says that it has {file.size} bytes."
        if not self.ledger.quarantined(file):
            self._record(self._entry(self.target(file), Disposition.QUARANTINED, reason))

    def add_repeated(
        self, target: Target, sha256: str, uri: str, reason: str, downloaded: pendulum.DateTime | None = None
    ) -> bool:
        """Record that a file's bytes landed before, so that the next run does not read it again.

        :param target: the file.
        :param sha256: SHA-256 of its bytes, in hexadecimal.
        :param uri: the URI of those bytes in the lake.
        :param reason: the text for the entry.
        :param downloaded: when its last byte arrived; None if it was not read.
        :returns: False if its entry would not read back; the file then has no entry.
        """
        current = self.ledger.current(target.file, target.name.business_date.isoformat())
        is_current = current is not None and current.uri == uri
        if is_current and self.ledger.has(target.known):
            return True
        return self._record(
            self._entry(
                target,
                Disposition.ALREADY,
                reason,
                sha256=sha256,
                uri=uri,
                supersedes=current.uri if current and not is_current else None,
                downloaded=utc(downloaded) if downloaded else None,
                committed=None if is_current else self._now_after(current),
            )
        )

    def add_landed(
        self, target: Target, landed: Landed, downloaded: pendulum.DateTime | None, reason: str
    ) -> bool:
        """Record a file that this run has committed.

        :param target: the file.
        :param landed: the file in the lake.
        :param downloaded: when its last byte arrived; None if it was adopted without a download.
        :param reason: the text for the entry.
        :returns: False if its entry would not read back; the file then has no entry.
        """
        return self.add_in_lake(target, landed, downloaded, Disposition.LANDED, reason)

    def add_in_lake(
        self,
        target: Target,
        landed: Landed,
        downloaded: pendulum.DateTime | None,
        disposition: Disposition,
        reason: str,
        *,
        age: float | None = None,
    ) -> bool:
        """Record a file that is in the lake.

        :param target: the file.
        :param landed: the file in the lake.
        :param downloaded: when its last byte arrived; None if it was not read.
        :param disposition: landed, or already.
        :param reason: the text for the entry.
        :param age: how many seconds ago it came into the lake, if RAP does not list this content now; None if
            it does, and it is the current one.
        :returns: False if its entry would not read back; the file then has no entry.
        """
        day = target.name.business_date.isoformat()
        if age is None:
            replaced = self.ledger.current(target.file, day)
            committed = self._now_after(replaced)
        else:
            committed = utc(self._clock().subtract(seconds=age))
            replaced = self._version_before(target, landed)
            if replaced:
                # Some storages know the time to the second only.
                committed = max(committed, _just_after(replaced))
        return self._record(
            self._entry(
                target,
                disposition,
                reason,
                sha256=landed.sha256,
                uri=self._lake.uri_of(f"{target.directory}/{landed.name}"),
                etag=landed.etag,
                version_id=landed.version_id,
                supersedes=replaced.uri if replaced else None,
                downloaded=utc(downloaded) if downloaded else None,
                committed=committed,
            )
        )

    def _now_after(self, content: Content | None) -> str:
        """Return the current time, or the next millisecond after a content that is dated in the future."""
        now = utc(self._clock())
        # The clocks of two workers may differ.
        return max(now, _just_after(content)) if content else now

    def _version_before(self, target: Target, landed: Landed) -> Content | None:
        """Return the content that took a name in the lake just before another of the same name on RAP did."""
        day = target.name.business_date.isoformat()
        before = itertools.takewhile(lambda version: version != landed.name, versions(target.file.text))
        uris = [self._lake.uri_of(f"{target.directory}/{version}") for version in before]
        return next(
            filter(None, (self.ledger.content(target.file, day, uri) for uri in reversed(uris))), None
        )

    def _entry(
        self,
        target: Target,
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
            schema_version=SCHEMA_VERSION,
            customer=self.ledger.customer,
            folder=target.file.folder.value,
            rap_path=path,
            rap_path_base64=path_base64,
            report=target.name.report,
            business_date=self._iso_date(target.name.business_date),
            business_date_rule=target.name.rule,
            size=target.file.size,
            listed_size=None if target.known == target.file else target.listed.size,
            mtime=target.file.mtime,
            sha256=sha256,
            uri=uri,
            etag=etag,
            version_id=version_id,
            supersedes=supersedes,
            first_seen=self._first_seen,
            downloaded=downloaded,
            committed=committed,
            disposition=disposition.value,
            reason=reason,
            **self._origin,
        )

    def _record(self, entry: Entry) -> bool:
        try:
            line = to_line(entry)
        except ValueError as error:
            log.error("%s gets no manifest entry: %s.", printable(entry.uri or entry.rap_path), error)
            return False
        self.ledger.add(entry)
        self._manifest.add(entry, line)
        return True


def _just_after(content: Content) -> str:
    """Return the next millisecond after a content came into the lake."""
    return utc(pendulum.instance(datetime.fromisoformat(content.committed)).add(microseconds=1000))
