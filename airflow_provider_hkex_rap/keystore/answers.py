"""Read RAP's answers to uploaded keys from the key folder (§6)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import chain, repeat
from typing import TYPE_CHECKING, Final, NamedTuple

import pendulum

from airflow_provider_hkex_rap.rap.clock import HONG_KONG
from airflow_provider_hkex_rap.rap.errors import RapTransferError
from airflow_provider_hkex_rap.rap.key_lifecycle import last_day_of_new_key
from airflow_provider_hkex_rap.rap.keys import public_key_file_name
from airflow_provider_hkex_rap.rap.result_file import Received, ResultName

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.keystore.record import KeyRecord, PendingKey
    from airflow_provider_hkex_rap.rap.account import Account
    from airflow_provider_hkex_rap.rap.clock import Clock
    from airflow_provider_hkex_rap.rap.key_folder import KeyFile, KeyFolder

AWAIT_RESULT: Final = timedelta(minutes=10)
"""Time to wait for a result file. The guide says that RAP writes it immediately (§6)."""
AWAIT_REMOVAL: Final = timedelta(minutes=2)
"""Time to wait until RAP removes an uploaded key file, before the next upload."""
_ANSWER_SECONDS = timedelta(days=2).total_seconds()
_PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds between two listings; the last pause repeats."""


class Answer(NamedTuple):
    """A result file, as it was read."""

    file: str
    """The file's name."""
    accepted: bool
    """True for ``.rcvd``, False for ``.rej``."""
    fingerprint: str | None
    """The MD5 fingerprint in the file; None if there is none."""
    content: bytes
    mtime: int | None = None
    """Seconds since the epoch; None if RAP sent no mtime."""
    is_kept: bool = False
    """Whether the record has a copy of the file, of this time."""

    def taken(self, now: pendulum.DateTime) -> pendulum.DateTime:
        """Return when RAP took the key, in Hong Kong: the file's mtime, or *now* if that cannot be.

        RAP keeps an answer for 24 hours (§6), so an older mtime is not the time of the upload.

        :param now: the current time.
        """
        if self.mtime is None:
            return now
        written = pendulum.from_timestamp(self.mtime, HONG_KONG)
        return written if abs((now - written).total_seconds()) <= _ANSWER_SECONDS else now


class KeyAnswers(NamedTuple):
    """RAP's answers to the account's uploads, as they were read from the key folder."""

    record: KeyRecord
    """The account's record with a copy of each (§6), and with what they say about uploads."""
    answers: list[Answer]
    """The answers, oldest first."""
    foreign: list[Answer]
    """Those that accept a key of somebody else, and are news."""


def result_names(listing: Sequence[KeyFile]) -> tuple[str, ...]:
    """Return the names of the result files in a listing."""
    return tuple(sorted(file.name for file in listing if ResultName.parse(file.name)))


def acceptance(answers: Sequence[Answer], pending: PendingKey, record: KeyRecord) -> Answer | None:
    """Return the answer that accepts the pending key, or None.

    A ``.rcvd`` counts by its fingerprint. One that was listed before the upload and is in the record belongs
    to an earlier upload of the same key.

    :param answers: RAP's answers.
    :param pending: the key that was uploaded.
    :param record: the account's record.
    """
    for answer in answers:
        is_new = answer.file not in pending.results_before
        # If no fingerprint can be read, the text may have changed; then the login with the key decides.
        fingerprint = answer.fingerprint or (pending.fingerprint if is_new else None)
        is_news = is_new or not record.has_result(answer.file, answer.content)
        if answer.accepted and fingerprint == pending.fingerprint and is_news:
            return answer
    return None


class AnswerReader:
    """List the key folder repeatedly, and read the answers in it.

    RAP's listing may be stale (guide §6, note 2), so each step lists the folder anew.

    :param account: the RAP user account; files of other accounts are ignored.
    :param clock: gives the time.
    :param sleep: waits for a number of seconds.
    """

    def __init__(self, account: Account, clock: Clock, sleep: Callable[[float], Awaitable[object]]) -> None:
        self._account = account
        self._clock = clock
        self._sleep = sleep

    async def listings(self, rap: KeyFolder, within: timedelta) -> AsyncIterator[Sequence[KeyFile]]:
        """List the key folder until *within* has passed, with growing pauses.

        :param rap: a login.
        :param within: the time after which no further listing is made.
        :raises RapError: if the session ends.
        """
        deadline = self._clock() + within
        for pause in chain(_PAUSES, repeat(_PAUSES[-1])):
            yield await rap.list_key_folder()
            if self._clock().add(seconds=pause) > deadline:
                return
            await self._sleep(pause)

    async def await_removal(self, rap: KeyFolder, listing: Sequence[KeyFile]) -> Sequence[KeyFile]:
        """Wait until a key file that was uploaded just now has left the folder.

        RAP does not allow an upload to replace a file (§4.2), and removes an uploaded file soon.

        :param rap: a login.
        :param listing: the last listing.
        :returns: *listing* itself if there is nothing to wait for; otherwise the newest listing.
        :raises RapError: if the session ends.
        """
        if self._has_new_key_file(listing):
            async for listing in self.listings(rap, AWAIT_REMOVAL):
                if not self._has_new_key_file(listing):
                    break
        return listing

    def unprocessed(
        self, listing: Sequence[KeyFile], pending: PendingKey | None, answers: Sequence[Answer]
    ) -> KeyFile | None:
        """Return the account's key file in the folder if RAP has not processed it; otherwise None.

        RAP may leave a processed file in the folder (§4.2), so its answer decides: one to our upload, or a
        result file that is not older than the key file.

        :param listing: the files in the key folder.
        :param pending: the new key of a renewal in progress, which RAP has not answered.
        :param answers: RAP's answers in the folder.
        """
        name = public_key_file_name(self._account)
        file = next((file for file in listing if file.name == name), None)
        if file is None or (pending and pending.accepted):
            return None
        if any(file.mtime is not None and (answer.mtime or 0) >= file.mtime for answer in answers):
            return None
        day = None if file.mtime is None else pendulum.from_timestamp(file.mtime, HONG_KONG).date()
        if pending and pending.submitted:
            return file if day is None or day >= pending.submitted else None
        # RAP keeps its answers for 24 hours (§6), so that of an older file may be gone.
        since = self._clock().subtract(hours=24).timestamp()
        return file if file.mtime is not None and file.mtime >= since else None

    def _has_new_key_file(self, listing: Sequence[KeyFile]) -> bool:
        # RAP has not removed an older file until now, and is not going to.
        since = self._clock().subtract(seconds=AWAIT_REMOVAL.total_seconds()).timestamp()
        name = public_key_file_name(self._account)
        return any(file.name == name and (file.mtime is None or file.mtime >= since) for file in listing)

    async def read(
        self, rap: KeyFolder, listing: Sequence[KeyFile], record: KeyRecord, *, run: str | None = None
    ) -> KeyAnswers:
        """Read the answers to the account's uploads; each new one is read until it is the same twice.

        RAP may still be writing a new answer. One that stays empty is returned after half a minute. An answer
        of which the record has a copy is not opened.

        :param rap: a login.
        :param listing: the files in the key folder.
        :param record: the account's record; nothing is saved.
        :param run: the DAG run, if there is one.
        :raises RapError: if the session ends.
        """
        answers = await self._read_once(rap, listing, record)
        for pause in _PAUSES:
            if all(answer.is_kept for answer in answers):
                break
            await self._sleep(pause)
            answers, last = await self._read_once(rap, listing, record), answers
            if answers == last and all(answer.content for answer in answers):
                break
        foreign, now = [], self._clock()
        ours = record.current.fingerprint if record.current else None
        # First what they say about the current key: an upload before that one does not end it.
        for answer in sorted(answers, key=lambda answer: answer.fingerprint != ours):
            before = record = record.with_result(answer.file, answer.content, now, answer.mtime)
            if answer.accepted:
                record = _with_upload(record, answer, now, run)
            if record.foreign_upload != before.foreign_upload:
                foreign.append(answer)
        return KeyAnswers(record, answers, foreign)

    async def _read_once(self, rap: KeyFolder, listing: Sequence[KeyFile], record: KeyRecord) -> list[Answer]:
        answers = []
        for file in sorted(listing, key=lambda file: (file.mtime or 0, file.name)):
            name = ResultName.parse(file.name)
            if name is None or not name.is_for(self._account):
                continue
            kept = record.result_content(file.name, file.mtime, self._clock())
            try:
                content = await rap.read_key_file(file.name) if kept is None else kept
            except RapTransferError:
                # RAP has removed it since the listing, or is still writing it. The next listing shows which.
                continue
            fingerprint = Received.parse(content).fingerprint
            answers.append(
                Answer(file.name, name.accepted, fingerprint, content, file.mtime, kept is not None)
            )
        return answers


def _with_upload(record: KeyRecord, answer: Answer, now: pendulum.DateTime, run: str | None) -> KeyRecord:
    """Return the record with what an answer that accepts a key says about its upload (§6.1, §6.3).

    The day of the upload gives the last day of the current key, if it is that key and its last day is not
    known. If the key is not ours, somebody else has uploaded it, and the current key ends.
    """
    found, current, taken = answer.fingerprint or answer.file, record.current, answer.taken(now)
    if current and current.fingerprint == found and current.last_day is None:
        day = taken.date()
        return replace(record, current=replace(current, uploaded=day, last_day=last_day_of_new_key(day)))
    if record.knows(found) or record.has_history_of(found):
        return record
    return record.with_foreign_upload(found, taken, run=run, note=f"RAP lists {answer.file}.")
