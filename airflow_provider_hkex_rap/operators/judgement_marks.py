"""What earlier judgements have left in the lake: the days that they judged, and the files that they saw."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from airflow_provider_hkex_rap.lake.completeness import MARK, Scope
from airflow_provider_hkex_rap.lake.layout import new_run
from airflow_provider_hkex_rap.lake.marks import MARK_DAYS, read_marks, write_mark
from airflow_provider_hkex_rap.rap.errors import RapTransferError

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.lake.entry import Entry
    from airflow_provider_hkex_rap.lake.marks import Mark
    from airflow_provider_hkex_rap.lake.storage_calls import StorageCalls
    from airflow_provider_hkex_rap.operators.ingest import Ingest

log = logging.getLogger(__name__)


class JudgementMarks:
    """The marks of the judgements of a customer.

    :param ingest: the landing whose days are judged.
    :param scope: what the judgements of the task cover.
    """

    def __init__(self, ingest: Ingest, scope: Scope) -> None:
        self._lake = ingest.request.lake
        self._customer = ingest.source.login.account.customer
        self._clock = ingest.source.clock
        self._run: str | None = ingest.run.get("run")
        self._day = ingest.request.day.isoformat()
        self._scope = scope.key
        # The marks of several folders lie with the first of them.
        self._folder = min(scope.folders)

    async def read(self, calls: StorageCalls) -> list[Mark]:
        """Return the marks of the last `MARK_DAYS` days, the newest last.

        A mark whose days are no dates is logged and left out: its days are judged again.

        :param calls: runs the storage calls.
        :raises OSError: if the lake cannot be read.
        """
        now = self._clock()
        since = now.subtract(days=MARK_DAYS)
        marks = await read_marks(calls, self._lake, self._customer, self._folder, MARK, since, now)
        return [mark for mark in marks if _has_valid_days(mark)]

    def own(self, marks: Sequence[Mark]) -> dict[str, Any] | None:
        """Return the last mark of this run of this task, for its day.

        :param marks: as `read` returns them.
        """
        own = [
            mark.payload
            for mark in marks
            if (mark.payload.get("scope"), mark.payload.get("run"), mark.payload.get("day"))
            == (self._scope, self._run, self._day)
            # A mark of an earlier version does not tell which files are left, or when they were listed.
            and "listed" in mark.payload
        ]
        return own[-1] if own else None

    async def write(self, calls: StorageCalls, payload: dict[str, Any]) -> None:
        """Write a mark.

        :param calls: runs the storage calls.
        :param payload: as `Completeness.mark` returns it.
        :raises OSError: if the lake refuses it.
        """
        await write_mark(
            calls, self._lake, self._customer, self._folder, MARK, new_run(self._clock()), payload
        )


def _has_valid_days(mark: Mark) -> bool:
    try:
        for day in mark.payload.get("days", ()):
            date.fromisoformat(day)
    except (TypeError, ValueError) as error:
        log.warning("Ignoring the mark of the days that run %s has judged: %s.", mark.run, error)
        return False
    return True


def not_landed_error(mark: Mapping[str, Any], entries: Iterable[Entry]) -> RapTransferError | None:
    """Return the error of the files that a try has listed and that have not landed since; None if all have.

    :param mark: the mark of the try.
    :param entries: the entries of the manifest.
    """
    known: dict[str, list[Entry]] = {path: [] for path, _, _ in mark["unfinished"]}
    for entry in entries:
        if entry.uri and entry.rap_path in known:
            known[entry.rap_path].append(entry)
    left = [
        path
        for path, size, mtime in mark["unfinished"]
        if not any(_is_as_new(entry, size, mtime, mark["listed"]) for entry in known[path])
    ]
    number = len(left) + mark["unnamed"]
    if not number:
        return None
    return RapTransferError(
        f"RAP listed up to {number} files that have not landed: {', '.join(left[:3]) or 'see the log'}.",
        why="RAP has shut. The log of the last try that found it open says why they did not land.",
        path=left[0] if left else "",
    )


def _is_as_new(entry: Entry, size: int | None, mtime: int | None, listed: str) -> bool:
    """Return whether an entry's content is the one that was listed, or a newer one.

    :param entry: an entry of the file's name, with a URI.
    :param size: the listed size in bytes; None if it is unknown.
    :param mtime: the listed mtime, in seconds since the epoch; None if it is unknown.
    :param listed: when it was listed, in the form of `Entry.first_seen`.
    """
    is_later = entry.first_seen >= listed
    if mtime is None or entry.mtime is None:
        # A file that was claimed without a download may have an older content.
        return is_later and entry.downloaded is not None
    listed_size = entry.size if entry.listed_size is None else entry.listed_size
    if entry.mtime == mtime and size in (None, listed_size):
        return True
    return is_later and entry.mtime >= mtime
