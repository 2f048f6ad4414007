"""The renewal of a key, step by step: each is kept in the key store before the next is taken (§6)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from enum import StrEnum
from itertools import chain, count, islice, repeat
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

from airflow_provider_hkex_rap.keystore.answers import Answer, read_answers, result_names
from airflow_provider_hkex_rap.keystore.expiry import is_warned
from airflow_provider_hkex_rap.keystore.record import Happened, PendingKey
from airflow_provider_hkex_rap.keystore.store import KeyStoreError, conflict
from airflow_provider_hkex_rap.rap.calendar import is_public_holiday, is_trading_day
from airflow_provider_hkex_rap.rap.errors import (
    RapAuthenticationError,
    RapConfigurationError,
    RapKeyRejected,
    RapKeyVerificationError,
)
from airflow_provider_hkex_rap.rap.expiry_warning import EXPIRY_WARNING_FILE
from airflow_provider_hkex_rap.rap.key_lifecycle import (
    OVERLAP_DAYS,
    days_left,
    first_renewal_day,
)
from airflow_provider_hkex_rap.rap.keys import KEY_SIZES, PrivateKey, PublicKey, public_key_file_name
from airflow_provider_hkex_rap.rap.result_file import Rejected

if TYPE_CHECKING:
    import pendulum

    from airflow_provider_hkex_rap.keystore.record import KeyRecord, StoredKey
    from airflow_provider_hkex_rap.keystore.store import AccountKeys
    from airflow_provider_hkex_rap.rap.clock import Clock
    from airflow_provider_hkex_rap.rap.key_folder import KeyFile, KeyFolder

log = logging.getLogger(__name__)

AWAIT_RESULT: Final = timedelta(minutes=10)
"""How long a result file is waited for; the guide says that it comes immediately (§6)."""
AWAIT_DEPARTURE: Final = timedelta(minutes=2)
"""How long an unanswered key file of ours may lie in the folder before the same key is uploaded again."""
_PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds between two listings; the last one repeats."""


class Logins(Protocol):
    """How a renewal logs in; one login is over before the next begins (§4.3)."""

    def registered(self) -> AbstractAsyncContextManager[KeyFolder]:
        """Log in as every task does; this may make a key current that was not, in the store."""
        ...

    def with_known_expiry(self, record: KeyRecord) -> KeyRecord:
        """Return the record with the last day that the user gives, where that is about the current key."""
        ...

    def only(self, key: PendingKey) -> AbstractAsyncContextManager[KeyFolder]:
        """Log in with that key and no other.

        :raises RapAuthenticationError: RAP refused it.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a renewal has come to; holds no key material.

    :param account: the RAP user account.
    :param renewed: whether a new key became current.
    :param reason: why, or why not.
    :param fingerprint: the current key (§3.2.2); None where none is known yet.
    :param last_day: its last day (ISO, HKT); None where it is not known.
    :param days_left: days on which it still logs in, today included; None where that is not known.
    :param previous_fingerprint: the key that it has renewed, while that one is kept.
    :param previous_last_day: that one's last day (ISO, HKT).
    """

    account: str
    renewed: bool
    reason: str
    fingerprint: str | None
    last_day: str | None
    days_left: int | None
    previous_fingerprint: str | None
    previous_last_day: str | None

    @classmethod
    def of(cls, record: KeyRecord, today: pendulum.Date, *, renewed: bool, reason: str) -> Outcome:
        """Return what the record says of the keys.

        :param record: what the store holds.
        :param today: the day in Hong Kong.
        :param renewed: whether a new key became current.
        :param reason: why, or why not.
        """
        current, previous = record.current, record.previous
        last_day = current.last_day if current else None
        return cls(
            account=record.account,
            renewed=renewed,
            reason=reason,
            fingerprint=current.fingerprint if current else None,
            last_day=last_day.isoformat() if last_day else None,
            days_left=days_left(last_day, today) if last_day else None,
            previous_fingerprint=previous.fingerprint if previous else None,
            previous_last_day=previous.last_day.isoformat() if previous and previous.last_day else None,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON knows it."""
        return asdict(self)


class _Progress(StrEnum):
    """What a login with a registered key has brought."""

    NOT_DUE = "not due"
    GIVEN = "given"
    """RAP has taken the pending key, or its answer was waited for in vain."""
    OPEN = "open"
    """An earlier run has begun an upload, and nothing tells whether RAP has taken the key."""
    LOGGED_IN = "logged in"
    """The login itself was with the pending key."""


class Renewal:
    """Renews the key of one account where that is due; safe to repeat after any interruption.

    create, submit, await, compare, test, promote: what has been kept says where to go on. There is never more
    than one pending key, and the old key works until the new one has logged in.

    :param keys: the account's keys.
    :param logins: how to log in.
    :param clock: gives the time.
    :param key_size: bits of the new key: 2048 or 4096 (§3.2.1).
    :param renew_before_days: on how many days before the end, the last one included, a renewal is due.
    :param force: renew although it is not due; once in a DAG run.
    :param run: the DAG run, where there is one.
    :param replace_second_key: upload although RAP may hold two keys and would replace the newer one (§6.3).
    :param sleep: waits for a number of seconds.
    :param generate: makes a private key of a size in bits.
    :raises RapConfigurationError: *key_size* or *renew_before_days* is not possible.
    """

    def __init__(
        self,
        keys: AccountKeys,
        logins: Logins,
        clock: Clock,
        *,
        key_size: int = 4096,
        renew_before_days: int = 30,
        force: bool = False,
        run: str | None = None,
        replace_second_key: bool = False,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        generate: Callable[[int], PrivateKey] = PrivateKey.generate,
    ) -> None:
        if key_size not in KEY_SIZES:
            raise RapConfigurationError(
                f"'key_size' of {key_size!r} is not possible.",
                why="RAP accepts RSA keys of 2048 or 4096 bits (guide §3.2.1).",
                todo="Leave it at 4096.",
                key_size=key_size,
            )
        first_renewal_day(clock().date(), renew_before_days)
        self._keys = keys
        self._logins = logins
        self._clock = clock
        self._key_size = key_size
        self._renew_before_days = renew_before_days
        self._force = force
        self._run = run
        self._replace_second_key = replace_second_key
        self._sleep = sleep
        self._generate = generate
        self._reason = "A renewal was in progress."

    async def run(self) -> Outcome:
        """Renew the key if that is due, or finish a renewal that was begun.

        :returns: what the keys are now.
        :raises RapKeyRejected: RAP rejected the key (``.rej``, §6); the pending one is forgotten.
        :raises RapKeyVerificationError: the new key does not log in, or RAP took another; a later try
            goes on. Or RAP refuses the current key, and nothing can be uploaded yet.
        :raises RapConfigurationError: no key may be uploaded now (§6.3).
        :raises RapPermissionDenied: RAP denied the upload (§2.1, §4.2).
        :raises KeyStoreError: the store failed; what was kept stands, and a later try goes on from there.
        :raises RapError: a login failed.
        """
        known = self._logins.with_known_expiry(self._record)
        await self._save(known.without_expired(self._clock()))
        pending = self._record.pending
        if pending is None and self._is_due() is False and not self._refused_key:
            return self._outcome(renewed=False)
        if not (pending and pending.accepted):
            progress = await self._ask()
            if progress is _Progress.NOT_DUE:
                self._check_not_refused()
                return self._outcome(renewed=False)
            if progress is _Progress.LOGGED_IN or (progress is _Progress.OPEN and await self._logs_in()):
                return await self._promote()
            if progress is _Progress.OPEN:
                await self._submit_again()
        elif await self._logs_in():
            return await self._promote()
        elif not await self._submit_anew():
            return self._outcome(renewed=False)
        if not await self._logs_in():
            raise self._not_verified()
        return await self._promote()

    # The steps.

    async def _ask(self) -> _Progress:
        """Log in with a registered key; where a new one is due, create it, submit it, await the answer."""
        async with self._logins.registered() as rap:
            # The login itself may have made a key current, and another task may have gone on.
            await asyncio.to_thread(self._keys.reload)
            pending = self._record.pending
            if pending and rap.client_key_fingerprint == pending.fingerprint:
                return _Progress.LOGGED_IN
            if self._record.current is None:
                raise KeyStoreError(
                    f"The key store does not keep the key of {self._keys.account} that has logged in.",
                    why="A renewal goes on from what is kept; the log says above what the store said.",
                    todo="See that the key store can be written; this key works meanwhile.",
                    account=self._keys.account.name,
                )
            listing = await rap.list_key_folder()
            if pending and pending.submitted:
                return _Progress.GIVEN if await self._is_accepted(rap, listing) else _Progress.OPEN
            if pending is None and not await self._is_due_or_warned(rap, listing):
                return _Progress.NOT_DUE
            listing = await self._departure(rap, listing)
            await self._check_upload(rap, listing)
            if pending is None:
                await self._create(listing)
            await self._submit(rap, listing)
            return _Progress.GIVEN

    async def _create(self, listing: Sequence[KeyFile]) -> None:
        key = await asyncio.to_thread(self._generate, self._key_size)
        pending = PendingKey(
            fingerprint=key.fingerprint,
            private_key=self._keys.exported(key),
            public_key=key.public_key.to_openssh(),
            results_before=result_names(listing),
        )
        record = replace(self._record, pending=pending)
        await self._note(record, Happened.CREATED, pending.fingerprint, self._reason)
        log.info("Made a new key %s of %d bits for %s.", key.fingerprint, key.bits, self._keys.account)

    async def _submit(self, rap: KeyFolder, listing: Sequence[KeyFile]) -> None:
        """Upload the pending key and wait for RAP's answer."""
        today = self._clock().date()
        pending = replace(
            self._pending,
            # The old key's days count from the first upload that RAP has accepted (§6.3).
            submitted=self._pending.submitted if self._pending.accepted else today,
            results_before=result_names(listing),
            accepted=None,
        )
        account, old = self._keys.account, self._record.old_key_after_upload(today)
        log.info(
            "About to upload the public key %s of %s. The key %s goes on to work.",
            pending.fingerprint,
            account,
            old.fingerprint if old else rap.client_key_fingerprint,
        )
        await self._note(replace(self._record, pending=pending), Happened.SUBMITTED, pending.fingerprint)
        await asyncio.to_thread(self._keys.reload)
        if self._record.pending != pending:
            raise conflict(account.name, "the key store")
        content = PublicKey.parse(pending.public_key).to_rfc4716(account.name)
        await rap.upload_key(content.encode("ascii"))
        await self._await_answer(rap)

    async def _submit_again(self) -> None:
        """Upload the same key once more: RAP neither answered the first upload nor lets the key in."""
        async with self._logins.registered() as rap:
            await asyncio.to_thread(self._keys.reload)
            listing = await self._departure(rap, await rap.list_key_folder())
            if await self._is_accepted(rap, listing):
                return
            await self._check_upload(rap, listing)
            await self._submit(rap, listing)

    async def _submit_anew(self) -> bool:
        """Upload a key that RAP has accepted and then refused, where that replaces none in use (§6.3).

        :returns: whether there is something to try; the login itself may have ended the renewal.
        :raises RapKeyVerificationError: it may replace one, or RAP has taken another key since.
        """
        async with self._logins.registered() as rap:
            await asyncio.to_thread(self._keys.reload)
            pending = self._record.pending
            if pending is None or rap.client_key_fingerprint == pending.fingerprint:
                return pending is not None
            listing = await self._departure(rap, await rap.list_key_folder())
            if not self._replace_second_key:
                for answer in await self._foreign_answers(rap, listing):
                    if await self._note_if_unknown(answer):
                        raise self._another_key(answer)
                # Somebody may yet find out why; once the old key is over, none of ours may be left.
                known = (self._record.uploads_allowed_from, self._last_days_of_old_key)
                if any(allowed_from and self._clock().date() < allowed_from for allowed_from in known):
                    raise self._not_verified()
            await self._submit(rap, listing)
        return True

    async def _departure(self, rap: KeyFolder, listing: Sequence[KeyFile]) -> Sequence[KeyFile]:
        """Wait while a key file that has just been uploaded is listed: RAP denies changes to it (§4.2).

        :returns: the last listing.
        """
        if self._lies_there(listing):
            async for listing in self._listings(rap, AWAIT_DEPARTURE):
                if not self._lies_there(listing):
                    break
        return listing

    def _lies_there(self, listing: Sequence[KeyFile]) -> bool:
        # One that is older has not been taken away, and is not going to be.
        since = self._clock().subtract(seconds=AWAIT_DEPARTURE.total_seconds()).timestamp()
        name = public_key_file_name(self._keys.account)
        return any(file.name == name and (file.mtime is None or file.mtime >= since) for file in listing)

    async def _await_answer(self, rap: KeyFolder) -> None:
        """List the folder until it holds an answer, or ten minutes are over."""
        async for listing in self._listings(rap, AWAIT_RESULT):
            if await self._is_accepted(rap, listing):
                return
        log.warning("RAP has answered the upload with no result file; trying the new key all the same.")

    async def _listings(self, rap: KeyFolder, within: timedelta) -> AsyncIterator[Sequence[KeyFile]]:
        """List the folder again and again: a listing of before does not show what is new (#2)."""
        deadline = self._clock() + within
        for pause in chain(_PAUSES, repeat(_PAUSES[-1])):
            yield await rap.list_key_folder()
            if self._clock().add(seconds=pause) > deadline:
                return
            await self._sleep(pause)

    async def _is_accepted(self, rap: KeyFolder, listing: Sequence[KeyFile]) -> bool:
        """Compare RAP's answers with the pending key; return whether one of them accepts it.

        :raises RapKeyRejected: one of them rejects it.
        :raises RapKeyVerificationError: one of them accepts another key, and none of them this one.
        """
        ours, before = self._pending.fingerprint, self._pending.results_before
        answers = await self._whole_answers(rap, listing)
        for answer in answers:
            new = answer.file not in before
            # A text that cannot be read may have changed: the login with the key will tell.
            fingerprint = answer.fingerprint or (ours if new else None)
            kept = self._record.has_result(answer.file, answer.content)
            if answer.accepted and fingerprint == ours and (new or not kept):
                await self._keep_acceptance(answer)
                return True
        for answer in answers:
            if answer.file in before:
                continue
            if not answer.accepted:
                await self._keep_rejection(answer)
            elif await self._note_if_unknown(answer):
                raise self._another_key(answer)
        return False

    async def _whole_answers(self, rap: KeyFolder, listing: Sequence[KeyFile]) -> list[Answer]:
        """Read the answers until the new ones read the same twice: RAP may still be writing one."""
        before = self._pending.results_before
        answers = await read_answers(rap, listing, self._keys.account)
        for pause in _PAUSES:
            if all(answer.file in before for answer in answers):
                break
            await self._sleep(pause)
            answers, last = await read_answers(rap, listing, self._keys.account), answers
            if answers == last and all(answer.content or answer.file in before for answer in answers):
                break
        return answers

    async def _foreign_answers(self, rap: KeyFolder, listing: Sequence[KeyFile]) -> list[Answer]:
        """Return the answers that accept a key and that we have not had for one of ours."""
        kept = self._record.has_result
        answers = await read_answers(rap, listing, self._keys.account)
        return [answer for answer in answers if answer.accepted and not kept(answer.file, answer.content)]

    async def _note_if_unknown(self, answer: Answer) -> bool:
        """Note that RAP has taken a key that the store does not know; return whether it was news."""
        found = answer.fingerprint or answer.file
        if self._record.knows(found) or self._record.tells_of(found):
            return False
        note = f"RAP lists {answer.file}."
        await self._note(self._record, Happened.UPLOADED_ELSEWHERE, found, note)
        return True

    async def _logs_in(self) -> bool:
        """Return whether RAP lets the pending key in."""
        pending = self._pending
        try:
            async with self._logins.only(pending):
                log.info("The new key %s of %s has logged in.", pending.fingerprint, self._keys.account)
        except RapAuthenticationError:
            return False
        return True

    async def _promote(self) -> Outcome:
        await self._save(self._record.promoted(self._clock(), run=self._run))
        outcome = self._outcome(renewed=True)
        log.info(
            "%s now has the key %s, valid through %s. The old key %s is valid through %s.",
            outcome.account,
            outcome.fingerprint,
            outcome.last_day,
            outcome.previous_fingerprint,
            outcome.previous_last_day,
        )
        return outcome

    # Whether a renewal is due.

    def _is_due(self) -> bool | None:
        """Return whether a new key is due; None where only RAP's warning can tell. Note the reason."""
        if self._is_forced():
            self._reason = "It was forced."
            return True
        current = self._record.current
        if current is None or current.last_day is None:
            return None
        first = first_renewal_day(current.last_day, self._renew_before_days)
        self._reason = (
            f"The last day of {current.fingerprint} is {current.last_day}; it is renewed from {first}."
        )
        return self._clock().date() >= first

    def _is_forced(self) -> bool:
        acts = (Happened.CREATED, Happened.PROMOTED)
        history = self._record.history
        rejected = {entry.fingerprint for entry in history if entry.what is Happened.REJECTED}
        acted = {entry.fingerprint for entry in history if entry.run == self._run and entry.what in acts}
        return self._force and not (self._run and acted - rejected)

    async def _is_due_or_warned(self, rap: KeyFolder, listing: Sequence[KeyFile]) -> bool:
        due = self._is_due()
        if due is not None:
            return due
        warned = await is_warned(rap, listing, self._record, self._clock().date())
        self._reason = (
            f"Its last day is not known, and RAP warns of it ({EXPIRY_WARNING_FILE}, §6.2)."
            if warned
            else "Its last day is not known, and RAP does not warn of it yet; 'key_expires' can say it."
        )
        return warned

    async def _check_upload(self, rap: KeyFolder, listing: Sequence[KeyFile]) -> None:
        """Check that an upload replaces no key that somebody uses (§6.3).

        :raises RapConfigurationError: it may.
        """
        if self._replace_second_key:
            return
        for answer in await self._foreign_answers(rap, listing):
            await self._note_if_unknown(answer)
        allowed_from = self._record.uploads_allowed_from
        if allowed_from and self._clock().date() < allowed_from:
            raise self._too_early(allowed_from)

    @property
    def _refused_key(self) -> StoredKey | None:
        """The current key, where RAP refuses it."""
        current = self._record.current
        return current if current and current.refused else None

    def _check_not_refused(self) -> None:
        """Check that the login was with the current key: tasks may go on with the previous one, for a while.

        :raises RapKeyVerificationError: it does not.
        """
        current, previous = self._refused_key, self._record.previous
        if current is None:
            return
        through = f" through {previous.last_day}" if previous and previous.last_day else ""
        raise RapKeyVerificationError(
            f"RAP has refused the current key {current.fingerprint} of {self._keys.account} since"
            f" {current.refused}.",
            why="Another upload has taken its place (guide §6.3), or HKEX has removed it.",
            todo=f"Another key of ours logs in{through}. Before it ends, give the connection the key that was"
            " uploaded, or register again (§5).",
            account=self._keys.account.name,
            fingerprint=current.fingerprint,
        )

    # RAP's answers.

    async def _keep_acceptance(self, answer: Answer) -> None:
        now, pending = self._clock(), self._pending
        record = replace(self._record, pending=replace(pending, accepted=answer.file))
        await self._note(
            record.with_result(answer.file, answer.content, now),
            Happened.ACCEPTED,
            pending.fingerprint,
            answer.file,
        )
        log.info("RAP has accepted the new key %s (%s).", pending.fingerprint, answer.file)

    async def _keep_rejection(self, answer: Answer) -> NoReturn:
        now, pending = self._clock(), self._pending
        code, message = Rejected.parse(answer.content)
        record = replace(self._record, pending=None).with_result(answer.file, answer.content, now)
        await self._note(record, Happened.REJECTED, pending.fingerprint, f"{code} {message}".strip())
        raise RapKeyRejected(
            f"RAP rejected the new key of {self._keys.account} ({answer.file}): {code} {message}.",
            why="The code is HKEX's; the result file is kept whole in the key store (§6).",
            todo=f"The old key still works{self._until()}. Ask HKEX what the code means; the next run makes a"
            " new key.",
            account=self._keys.account.name,
            fingerprint=pending.fingerprint,
            code=code,
            message=message,
            result_file=answer.file,
        )

    # Errors.

    def _another_key(self, answer: Answer) -> RapKeyVerificationError:
        pending = self._pending
        return RapKeyVerificationError(
            f"RAP took the key {answer.fingerprint} for {self._keys.account} ({answer.file}), not the"
            f" uploaded {pending.fingerprint}.",
            why="Somebody else has uploaded a key for this account, or the upload was damaged on its way.",
            todo=f"The old key still works{self._until()}. Find who uploaded that key. A later try sees if"
            " the new key logs in, and uploads nothing while that other key counts (§6.3).",
            account=self._keys.account.name,
            fingerprint=pending.fingerprint,
            received=answer.fingerprint,
            result_file=answer.file,
        )

    def _not_verified(self) -> RapKeyVerificationError:
        pending = self._pending
        told = f"accepted it ({pending.accepted})" if pending.accepted else "gave no result file"
        return RapKeyVerificationError(
            f"The new key {pending.fingerprint} of {self._keys.account} does not log in; RAP {told}.",
            why="A new key is effective immediately once it was uploaded successfully (§6).",
            todo=f"The old key still works{self._until()}. A later try goes on with the same new key; if that"
            " fails too, ask HKEX about this upload before the old key ends.",
            account=self._keys.account.name,
            fingerprint=pending.fingerprint,
            result_file=pending.accepted,
        )

    def _too_early(self, allowed_from: pendulum.Date) -> RapConfigurationError:
        uploaded = allowed_from.subtract(days=OVERLAP_DAYS)
        return RapConfigurationError(
            f"No new key of {self._keys.account} is uploaded before {allowed_from}.",
            why=f"A key was uploaded on {uploaded}, less than {OVERLAP_DAYS} days ago, so RAP may hold two,"
            " and a third would take the place of the newer one (guide §6.3).",
            todo="Where somebody has renewed it by hand, give the connection that key: it is current from"
            " its first login on. Only '--replace-second-key' on the command line uploads all the same.",
            account=self._keys.account.name,
            allowed_from=allowed_from.isoformat(),
        )

    def _until(self) -> str:
        """Say how long the current key works at most, if RAP has taken the pending one."""
        old = self._old_key
        return f" through {old.last_day}" if old and old.last_day else ""

    @property
    def _old_key(self) -> StoredKey | None:
        """The key that logs in beside the pending one, if RAP has taken that."""
        pending = self._record.pending
        submitted = pending.submitted if pending else None
        return self._record.old_key_after_upload(submitted) if submitted else self._record.current

    @property
    def _last_days_of_old_key(self) -> pendulum.Date | None:
        """The first of the last two days on which RAP is open for all and the old key logs in."""
        last_day = self._old_key.last_day if self._old_key else None
        if not last_day:
            return None
        before = (last_day.subtract(days=days) for days in count())
        first, second = islice((it for it in before if is_trading_day(it) and not is_public_holiday(it)), 2)
        return min(first, second)

    # The record.

    @property
    def _record(self) -> KeyRecord:
        return self._keys.record

    @property
    def _pending(self) -> PendingKey:
        pending = self._record.pending
        if pending is None:
            raise conflict(self._keys.account.name, "the key store")
        return pending

    async def _note(self, record: KeyRecord, what: Happened, fingerprint: str, note: str = "") -> None:
        await self._save(record.noted(self._clock(), what, fingerprint, run=self._run, note=note))

    async def _save(self, record: KeyRecord) -> None:
        # A store may take its time, and a session must not be held up by it.
        await asyncio.to_thread(self._keys.save, record)

    def _outcome(self, *, renewed: bool) -> Outcome:
        return Outcome.of(self._record, self._clock().date(), renewed=renewed, reason=self._reason)
