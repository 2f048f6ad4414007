"""Read RAP's answers to uploaded keys from the key folder (§6)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from itertools import chain, repeat
from typing import TYPE_CHECKING, Final, NamedTuple

from airflow_provider_hkex_rap.rap.errors import RapTransferError
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

    async def before_upload(
        self,
        rap: KeyFolder,
        listing: Sequence[KeyFile],
        check: Callable[[KeyFolder, Sequence[KeyFile]], Awaitable[None]],
    ) -> Sequence[KeyFile]:
        """Check an upload, wait until the last key file has left the folder, and check again.

        The first check comes before the wait, because a refused upload has nothing to wait for.

        :param rap: a login.
        :param listing: the last listing.
        :param check: raises an error if nothing may be uploaded.
        :returns: the newest listing.
        :raises RapError: if the session ends, or *check* raises it.
        """
        await check(rap, listing)
        waited = await self.await_removal(rap, listing)
        if waited is not listing:
            await check(rap, waited)
        return waited

    def _has_new_key_file(self, listing: Sequence[KeyFile]) -> bool:
        # RAP has not removed an older file until now, and is not going to.
        since = self._clock().subtract(seconds=AWAIT_REMOVAL.total_seconds()).timestamp()
        name = public_key_file_name(self._account)
        return any(file.name == name and (file.mtime is None or file.mtime >= since) for file in listing)

    async def read(self, rap: KeyFolder, listing: Sequence[KeyFile]) -> list[Answer]:
        """Return the answers to the account's uploads, oldest first.

        :param rap: a login.
        :param listing: the files in the key folder.
        :raises RapError: if the session ends.
        """
        answers = []
        for file in sorted(listing, key=lambda file: (file.mtime or 0, file.name)):
            name = ResultName.parse(file.name)
            if name is None or not name.is_for(self._account):
                continue
            try:
                content = await rap.read_key_file(file.name)
            except RapTransferError:
                # RAP has removed it since the listing, or is still writing it. The next listing shows which.
                continue
            answers.append(Answer(file.name, name.accepted, Received.parse(content).fingerprint, content))
        return answers

    async def read_complete(
        self, rap: KeyFolder, listing: Sequence[KeyFile], before: Sequence[str]
    ) -> list[Answer]:
        """Return the answers, after every new one was read twice with the same content.

        RAP may still be writing a new answer. An answer that stays empty is returned after half a minute.

        :param rap: a login.
        :param listing: the files in the key folder.
        :param before: names of result files that are not new.
        :raises RapError: if the session ends.
        """
        answers = await self.read(rap, listing)
        for pause in _PAUSES:
            if all(answer.file in before for answer in answers):
                break
            await self._sleep(pause)
            answers, last = await self.read(rap, listing), answers
            if answers == last and all(answer.content or answer.file in before for answer in answers):
                break
        return answers

    async def read_foreign(
        self, rap: KeyFolder, listing: Sequence[KeyFile], record: KeyRecord
    ) -> list[Answer]:
        """Return the answers that accept a key and are not in the record.

        :param rap: a login.
        :param listing: the files in the key folder.
        :param record: the account's record, with the answers to our own uploads.
        :raises RapError: if the session ends.
        """
        answers = await self.read(rap, listing)
        return [it for it in answers if it.accepted and not record.has_result(it.file, it.content)]
