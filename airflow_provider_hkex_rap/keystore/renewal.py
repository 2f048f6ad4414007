"""Renew the key of an account: a state machine whose every step is stored before the next one (§6)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from airflow_provider_hkex_rap.keystore import renewal_errors as errors
from airflow_provider_hkex_rap.keystore.answers import (
    AWAIT_RESULT,
    Answer,
    AnswerReader,
    acceptance,
    result_names,
)
from airflow_provider_hkex_rap.keystore.due import DuePolicy, first_day_of_last_resort
from airflow_provider_hkex_rap.keystore.record import Happened, PendingKey
from airflow_provider_hkex_rap.keystore.store import conflict
from airflow_provider_hkex_rap.rap.errors import RapAuthenticationError
from airflow_provider_hkex_rap.rap.key_lifecycle import login_days_left
from airflow_provider_hkex_rap.rap.keys import KEY_SIZES, PrivateKey, PublicKey
from airflow_provider_hkex_rap.rap.result_file import Rejected

if TYPE_CHECKING:
    import pendulum

    from airflow_provider_hkex_rap.keystore.record import KeyRecord
    from airflow_provider_hkex_rap.keystore.store import AccountKeys
    from airflow_provider_hkex_rap.rap.clock import Clock
    from airflow_provider_hkex_rap.rap.key_folder import KeyFile, KeyFolder

log = logging.getLogger(__name__)


class Logins(Protocol):
    """The logins of a renewal; each ends before the next one starts (§4.3)."""

    def registered(self) -> AbstractAsyncContextManager[KeyFolder]:
        """Log in with the keys that every task uses; this may make another key current in the store."""
        ...

    def with_known_expiry(self, record: KeyRecord) -> KeyRecord:
        """Return the record with the last day that the user has given, if it applies to the current key."""
        ...

    def only(self, key: PendingKey) -> AbstractAsyncContextManager[KeyFolder]:
        """Log in with *key* and no other.

        :raises RapAuthenticationError: if RAP refuses it.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalOutcome:
    """The result of a renewal; contains no key material.

    :param account: the RAP user account.
    :param renewed: whether a new key became current.
    :param reason: why, or why not, as a sentence.
    :param fingerprint: the current key's (§3.2.2); None if no key is known yet.
    :param last_day: the current key's last day (ISO, HKT); None if it is not known.
    :param days_left: days on which the current key can log in, today included; None if that is not known.
    :param previous_fingerprint: the fingerprint of the previous key, while it is kept.
    :param previous_last_day: the last day (ISO, HKT) of the previous key.
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
    def of(cls, record: KeyRecord, today: pendulum.Date, *, renewed: bool, reason: str) -> RenewalOutcome:
        """Return the outcome that leaves the account with these keys.

        :param record: the account's record after the renewal.
        :param today: today's date in Hong Kong.
        :param renewed: whether a new key became current.
        :param reason: why, or why not, as a sentence.
        """
        current, previous = record.current, record.previous
        last_day = current.last_day if current else None
        return cls(
            account=record.account,
            renewed=renewed,
            reason=reason,
            fingerprint=current.fingerprint if current else None,
            last_day=last_day.isoformat() if last_day else None,
            days_left=login_days_left(last_day, today) if last_day else None,
            previous_fingerprint=previous.fingerprint if previous else None,
            previous_last_day=previous.last_day.isoformat() if previous and previous.last_day else None,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary of JSON values."""
        return asdict(self)


class _AfterLogin(StrEnum):
    """The state of the renewal after a login with a registered key."""

    NOT_DUE = "not due"
    TRY_PENDING = "try pending"
    """RAP has accepted the pending key, or has not answered in time: test it by a login."""
    UNANSWERED = "unanswered"
    """An earlier run has started an upload, and RAP has not answered it."""
    PENDING_LOGGED_IN = "pending logged in"
    """The login itself was made with the pending key."""


class Renewal:
    """Renew the key of one account if that is due. Safe to run again after any interruption.

    The steps are: create, submit, await the answer, compare, test by a login, promote. The record in the key
    store says where to continue. There is never more than one pending key, and the old key is kept until the
    new one has logged in::

        outcome = await Renewal(account_keys, logins, system_clock()).run()

    :param keys: the account's keys.
    :param logins: logs in.
    :param clock: gives the time.
    :param key_size: bits of the new key: 2048 or 4096 (§3.2.1).
    :param renew_before_days: number of days on which renewal is due, the last day included; 1 to 365.
    :param force: renew although it is not due; acts once per DAG run.
    :param run: the DAG run, if there is one.
    :param replace_second_key: upload even if RAP may hold two keys, and would replace the newer one (§6.3).
    :param sleep: waits for a number of seconds.
    :param generate: makes a private key with a number of bits.
    :raises RapConfigurationError: if *key_size* or *renew_before_days* is not valid.
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
            raise errors.impossible_key_size(key_size)
        self._policy = DuePolicy(clock, renew_before_days=renew_before_days, force=force, run=run)
        self._answers = AnswerReader(keys.account, clock, sleep)
        self._keys = keys
        self._account = keys.account
        self._logins = logins
        self._clock = clock
        self._key_size = key_size
        self._run = run
        self._replace_second_key = replace_second_key
        self._generate = generate
        self._reason = "A renewal was in progress."

    async def run(self) -> RenewalOutcome:
        """Renew the key if that is due, or continue a renewal that was interrupted.

        :returns: the keys after the renewal.
        :raises RapKeyRejected: if RAP rejects the new key (``.rej``, §6); the key is dropped.
        :raises RapKeyVerificationError: if the new key does not log in, or RAP accepted another key; a later
            try continues. Also if RAP refuses the current key and nothing can be uploaded yet.
        :raises RapConfigurationError: if an upload could replace a valid key (§6.3).
        :raises RapPermissionDenied: if RAP denies the upload (§2.1, §4.2).
        :raises KeyStoreError: if the store fails; a later try continues from the last step that was stored.
        :raises RapError: if a login fails.
        """
        known = self._logins.with_known_expiry(self._record)
        await self._save(known.without_expired(self._clock()))
        pending = self._record.pending
        if pending is None and not self._record.refused_key and self._is_not_due():
            return self._outcome(renewed=False)
        if pending and pending.accepted:
            return await self._continue_accepted()
        return await self._continue_unaccepted()

    async def _continue_accepted(self) -> RenewalOutcome:
        """Test the key that RAP has accepted; upload it again only if that is safe."""
        if await self._logs_in():
            return await self._promote()
        if not await self._submit_accepted_again():
            return self._outcome(renewed=False)
        return await self._test_and_promote()

    async def _continue_unaccepted(self) -> RenewalOutcome:
        """Start a renewal, or continue one whose key RAP has not accepted yet."""
        state = await self._log_in_and_submit()
        if state is _AfterLogin.NOT_DUE:
            # Tasks may continue with the previous key for a while. Somebody must act before it ends.
            if refused := self._record.refused_key:
                raise errors.refused_key(self._account, refused, self._record.previous)
            return self._outcome(renewed=False)
        if state is _AfterLogin.PENDING_LOGGED_IN:
            return await self._promote()
        if state is _AfterLogin.UNANSWERED:
            if await self._logs_in():
                return await self._promote()
            await self._submit_unanswered_again()
        return await self._test_and_promote()

    async def _test_and_promote(self) -> RenewalOutcome:
        if not await self._logs_in():
            raise errors.not_verified(self._account, self._pending, errors.old_key_of(self._record))
        return await self._promote()

    # The steps.

    async def _log_in_and_submit(self) -> _AfterLogin:
        """Log in with a registered key; if a renewal is due, create the new key and submit it."""
        async with self._logins.registered() as rap:
            # The login may have made a key current, and another task may have changed the record.
            await asyncio.to_thread(self._keys.reload)
            pending = self._record.pending
            if pending and rap.client_key_fingerprint == pending.fingerprint:
                return _AfterLogin.PENDING_LOGGED_IN
            if self._record.current is None:
                raise errors.not_stored(self._account)
            listing = await rap.list_key_folder()
            if pending and pending.submitted:
                answered = await self._is_accepted(rap, listing)
                return _AfterLogin.TRY_PENDING if answered else _AfterLogin.UNANSWERED
            if pending is None:
                due = await self._policy.by_warning(rap, listing, self._record)
                self._reason = due.reason
                if not due.is_due:
                    return _AfterLogin.NOT_DUE
            listing = await self._answers.before_upload(rap, listing, self._check_upload)
            if pending is None:
                await self._create(listing)
            await self._submit(rap, listing)
            return _AfterLogin.TRY_PENDING

    async def _create(self, listing: Sequence[KeyFile]) -> None:
        key = await asyncio.to_thread(self._generate, self._key_size)
        pending = PendingKey(
            fingerprint=key.fingerprint,
            private_key=self._keys.exported(key),
            public_key=key.public_key.to_openssh(),
            results_before=result_names(listing),
        )
        record = replace(self._record, pending=pending)
        await self._save_event(record, Happened.CREATED, pending.fingerprint, self._reason)
        log.info("Created a new key %s of %d bits for %s.", key.fingerprint, key.bits, self._account)

    async def _submit(self, rap: KeyFolder, listing: Sequence[KeyFile]) -> None:
        """Upload the pending key and wait for RAP's answer."""
        today = self._clock().date()
        pending = replace(
            self._pending,
            # The days of the old key count from the first upload that RAP has accepted (§6.3).
            submitted=self._pending.submitted if self._pending.accepted else today,
            results_before=result_names(listing),
            accepted=None,
        )
        old = self._record.old_key_after_upload(today)
        log.info(
            "About to upload the public key %s of %s. The old key %s keeps working.",
            pending.fingerprint,
            self._account,
            old.fingerprint if old else rap.client_key_fingerprint,
        )
        record = replace(self._record, pending=pending)
        await self._save_event(record, Happened.SUBMITTED, pending.fingerprint)
        await asyncio.to_thread(self._keys.reload)
        if self._record.pending != pending:
            raise conflict(self._account.name, "the key store")
        content = PublicKey.parse(pending.public_key).to_rfc4716(self._account.name)
        await rap.upload_key(content.encode("ascii"))
        async for fresh in self._answers.listings(rap, AWAIT_RESULT):
            if await self._is_accepted(rap, fresh):
                return
        log.warning(
            "RAP wrote no result file for the key %s of %s within %d minutes. Testing the key by a login.",
            pending.fingerprint,
            self._account,
            AWAIT_RESULT.total_seconds() // 60,
        )

    async def _submit_unanswered_again(self) -> None:
        """Upload the same key again: RAP neither answered the first upload nor accepts a login."""
        async with self._logins.registered() as rap:
            await asyncio.to_thread(self._keys.reload)
            listing = await rap.list_key_folder()
            if await self._is_accepted(rap, listing):
                return
            await self._check_upload(rap, listing)
            waited = await self._answers.await_removal(rap, listing)
            if waited is not listing:
                if await self._is_accepted(rap, waited):
                    return
                await self._check_upload(rap, waited)
            await self._submit(rap, waited)

    async def _submit_accepted_again(self) -> bool:
        """Upload a key again that RAP accepted and then refused, if that can replace no other key (§6.3).

        :returns: whether there is a pending key to test; the login itself may have ended the renewal.
        :raises RapKeyVerificationError: if it could replace another key, or RAP has accepted another since.
        """
        async with self._logins.registered() as rap:
            await asyncio.to_thread(self._keys.reload)
            pending = self._record.pending
            if pending is None or rap.client_key_fingerprint == pending.fingerprint:
                return pending is not None
            listing = await rap.list_key_folder()
            listing = await self._answers.before_upload(rap, listing, self._check_upload_of_accepted)
            await self._submit(rap, listing)
        return True

    async def _logs_in(self) -> bool:
        """Return whether RAP accepts the pending key."""
        pending = self._pending
        try:
            async with self._logins.only(pending):
                log.info("The new key %s of %s has logged in.", pending.fingerprint, self._account)
        except RapAuthenticationError:
            return False
        return True

    async def _promote(self) -> RenewalOutcome:
        await self._save(self._record.promoted(self._clock(), run=self._run))
        outcome = self._outcome(renewed=True)
        log.info(
            "The current key of %s is now %s, valid through %s. The old key %s is valid through %s.",
            outcome.account,
            outcome.fingerprint,
            outcome.last_day,
            outcome.previous_fingerprint,
            outcome.previous_last_day,
        )
        return outcome

    # The checks.

    def _is_not_due(self) -> bool:
        due = self._policy.by_record(self._record)
        self._reason = due.reason
        return due.is_due is False

    async def _check_upload(self, rap: KeyFolder, listing: Sequence[KeyFile]) -> None:
        """Check that an upload replaces no valid key (§6.3).

        :raises RapConfigurationError: if it could.
        """
        if self._replace_second_key:
            return
        for answer in await self._answers.read_foreign(rap, listing, self._record):
            await self._save_if_foreign(answer)
        allowed_from = self._record.uploads_allowed_from
        if allowed_from and self._clock().date() < allowed_from:
            raise errors.too_early(self._account, allowed_from)

    async def _check_upload_of_accepted(self, rap: KeyFolder, listing: Sequence[KeyFile]) -> None:
        """Check that the upload of a key that RAP has accepted before replaces no other key (§6.3).

        :raises RapKeyVerificationError: if it could.
        """
        if self._replace_second_key:
            return
        old = errors.old_key_of(self._record)
        for answer in await self._answers.read_foreign(rap, listing, self._record):
            if await self._save_if_foreign(answer):
                raise errors.another_key(self._account, self._pending, answer, old)
        # Give people time to find the cause. But after the old key's end, no key of ours would be left.
        last_resort = first_day_of_last_resort(old.last_day) if old and old.last_day else None
        for allowed_from in (self._record.uploads_allowed_from, last_resort):
            if allowed_from and self._clock().date() < allowed_from:
                raise errors.not_verified(self._account, self._pending, old)

    # RAP's answers.

    async def _is_accepted(self, rap: KeyFolder, listing: Sequence[KeyFile]) -> bool:
        """Return whether one of RAP's answers accepts the pending key.

        :raises RapKeyRejected: if one of them rejects it.
        :raises RapKeyVerificationError: if one of them accepts another key, and none of them this one.
        """
        pending, before = self._pending, self._pending.results_before
        answers = await self._answers.read_complete(rap, listing, before)
        if accepted := acceptance(answers, pending, self._record):
            await self._save_acceptance(accepted)
            return True
        for answer in answers:
            if answer.file in before:
                continue
            if not answer.accepted:
                await self._save_rejection(answer)
            elif await self._save_if_foreign(answer):
                raise errors.another_key(self._account, pending, answer, errors.old_key_of(self._record))
        return False

    async def _save_acceptance(self, answer: Answer) -> None:
        pending = self._pending
        record = replace(self._record, pending=replace(pending, accepted=answer.file))
        record = record.with_result(answer.file, answer.content, self._clock())
        await self._save_event(record, Happened.ACCEPTED, pending.fingerprint, answer.file)
        log.info("RAP has accepted the new key %s (%s).", pending.fingerprint, answer.file)

    async def _save_rejection(self, answer: Answer) -> NoReturn:
        pending = self._pending
        record = replace(self._record, pending=None).with_result(answer.file, answer.content, self._clock())
        code, message = Rejected.parse(answer.content)
        await self._save_event(record, Happened.REJECTED, pending.fingerprint, f"{code} {message}".strip())
        raise errors.rejected(self._account, pending, answer, self._record.current)

    async def _save_if_foreign(self, answer: Answer) -> bool:
        """Save that RAP has accepted a key that is not in the record; return whether that is news."""
        found = answer.fingerprint or answer.file
        if self._record.knows(found) or self._record.has_history_of(found):
            return False
        await self._save_event(self._record, Happened.UPLOADED_ELSEWHERE, found, f"RAP lists {answer.file}.")
        return True

    # The record.

    @property
    def _record(self) -> KeyRecord:
        return self._keys.record

    @property
    def _pending(self) -> PendingKey:
        pending = self._record.pending
        if pending is None:
            raise conflict(self._account.name, "the key store")
        return pending

    async def _save_event(self, record: KeyRecord, what: Happened, fingerprint: str, note: str = "") -> None:
        await self._save(record.noted(self._clock(), what, fingerprint, run=self._run, note=note))

    async def _save(self, record: KeyRecord) -> None:
        # A store may be slow, and must not block the session.
        await asyncio.to_thread(self._keys.save, record)

    def _outcome(self, *, renewed: bool) -> RenewalOutcome:
        return RenewalOutcome.of(self._record, self._clock().date(), renewed=renewed, reason=self._reason)
