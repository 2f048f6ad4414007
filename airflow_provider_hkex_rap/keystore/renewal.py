"""Renew the key of an account: a state machine whose every step is stored before the next one (§6)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, NoReturn, Protocol

from airflow_provider_hkex_rap.keystore import renewal_errors as errors
from airflow_provider_hkex_rap.keystore.answers import (
    AWAIT_RESULT,
    Answer,
    AnswerReader,
    KeyAnswers,
    acceptance,
    result_names,
)
from airflow_provider_hkex_rap.keystore.due import DuePolicy
from airflow_provider_hkex_rap.keystore.expiry import WARNING_CHARACTERS, read_warning
from airflow_provider_hkex_rap.keystore.record import Happened, KeptWarning, PendingKey
from airflow_provider_hkex_rap.keystore.renewal_outcome import RenewalOutcome
from airflow_provider_hkex_rap.keystore.store import conflict
from airflow_provider_hkex_rap.keystore.upload_checks import UploadChecks
from airflow_provider_hkex_rap.rap.errors import RapAuthenticationError, RapPermissionDenied
from airflow_provider_hkex_rap.rap.keys import KEY_SIZES, PrivateKey, PublicKey
from airflow_provider_hkex_rap.rap.result_file import Rejected

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.keystore.record import KeyRecord, StoredKey
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


class _AfterLogin(StrEnum):
    """The state of the renewal after a login with a registered key."""

    NOT_DUE = "not due"
    TRY_PENDING = "try pending"
    """RAP has answered the upload of the pending key, or not in time: test the key by a login."""
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
        self._checks = UploadChecks(clock, self._policy, replace_second_key=replace_second_key)
        self._reader = AnswerReader(keys.account, clock, sleep)
        self._keys = keys
        self._account = keys.account
        self._logins = logins
        self._clock = clock
        self._key_size = key_size
        self._run = run
        self._generate = generate
        self._reason = "A renewal was in progress."

    async def run(self) -> RenewalOutcome:
        """Renew the key if that is due, or continue a renewal that was interrupted.

        :returns: the keys after the renewal.
        :raises RapKeyRejected: if RAP rejects the new key (``.rej``, §6); the key is dropped.
        :raises RapKeyVerificationError: if the new key does not log in, RAP accepted another key, or RAP has
            not processed an upload; a later try continues. Also if RAP refuses the current key, or warns of a
            key that may be the current one.
        :raises RapConfigurationError: if an upload could replace a valid key (§6.3), or the current key in
            the store does not open.
        :raises RapPermissionDenied: if RAP denies the upload (§2.1, §4.2).
        :raises KeyStoreError: if the store fails; a later try continues from the last step that was stored.
        :raises RapError: if a login fails.
        """
        await asyncio.to_thread(self._keys.reload)
        known = self._logins.with_known_expiry(self.record)
        await self._save(known.without_expired(self._clock()))
        pending = self.record.pending
        if pending and (pending.accepted or pending.rejected):
            return await self._continue_answered()
        return await self._continue_unanswered()

    async def _continue_answered(self) -> RenewalOutcome:
        """Test the key that RAP has answered; if it was accepted, upload it again only if that is safe."""
        if await self._logs_in():
            return await self._promote()
        if self._pending.rejected:
            await self._forget_rejected(self.record)
        if not await self._submit_accepted_again():
            return self._outcome(renewed=False)
        return await self._test_and_promote()

    async def _continue_unanswered(self) -> RenewalOutcome:
        """Start a renewal, or continue one whose key RAP has not answered yet."""
        state = await self._log_in_and_submit()
        if state is _AfterLogin.NOT_DUE:
            return self._outcome(renewed=False)
        if state is _AfterLogin.PENDING_LOGGED_IN:
            return await self._promote()
        if state is _AfterLogin.UNANSWERED:
            if await self._logs_in():
                return await self._promote()
            if not await self._submit_unanswered_again():
                return self._outcome(renewed=False)
        return await self._test_and_promote()

    async def _test_and_promote(self) -> RenewalOutcome:
        if await self._logs_in():
            return await self._promote()
        if self._pending.rejected:
            await self._forget_rejected(self.record)
        raise errors.not_verified(self._account, self._pending, errors.old_key_of(self.record))

    # The steps.

    async def _log_in_and_submit(self) -> _AfterLogin:
        """Log in with a registered key; if a renewal is due, create the new key and submit it."""
        async with self._logins.registered() as rap:
            # The login may have made a key current, and another task may have changed the record.
            await asyncio.to_thread(self._keys.reload)
            pending = self.record.pending
            if pending and self._is_key_of(rap, pending):
                return _AfterLogin.PENDING_LOGGED_IN
            if self.record.current is None:
                raise errors.not_stored(self._account)
            listing = await rap.list_key_folder()
            if pending and pending.submitted:
                answered = await self._is_answered(rap, listing)
                return _AfterLogin.TRY_PENDING if answered else _AfterLogin.UNANSWERED
            await self._check_current(rap)
            if pending is None and not await self._is_due(rap, listing):
                return _AfterLogin.NOT_DUE
            listing = await self._before_upload(rap, listing, self._checks.first)
            if pending is None:
                await self._create(listing)
            await self._submit(rap, listing)
            return _AfterLogin.TRY_PENDING

    async def _check_current(self, rap: KeyFolder) -> None:
        """Check that the current key opens, and that RAP accepts it.

        Tasks may continue with another key for a while. Somebody must act before it ends, and an upload could
        replace the key that somebody else has uploaded.

        :raises RapConfigurationError: if the key in the store does not open.
        :raises RapKeyVerificationError: if the login was made with another key.
        """
        current = self.record.current
        # A key that has logged in opens.
        if current is None or self._is_key_of(rap, current) or self._policy.is_forced(self.record):
            return
        await asyncio.to_thread(self._keys.check_opens, current, "the key store, the current key,")
        refused = replace(current, refused=current.refused or self._clock().date())
        raise errors.refused_key(self._account, refused, self.record.previous)

    async def _is_due(self, rap: KeyFolder, listing: Sequence[KeyFile]) -> bool:
        """Return whether a new key is due; keep what the key folder shows about the current one.

        :raises RapKeyVerificationError: if the warning is unclear.
        """
        await self._keep_answers(rap, listing)
        found = await read_warning(rap, listing, self.record, self._clock().date())
        if found:
            kept = KeptWarning(day=found.day, text=found.warning.text[:WARNING_CHARACTERS])
            await self._save(replace(self.record, warning=kept))
        due = self._policy.by_warning(found, self.record)
        self._reason = due.reason
        return due.is_due

    async def _create(self, listing: Sequence[KeyFile]) -> None:
        key = await asyncio.to_thread(self._generate, self._key_size)
        pending = PendingKey(
            fingerprint=key.fingerprint,
            private_key=self._keys.exported(key),
            public_key=key.public_key.to_openssh(),
            results_before=result_names(listing),
        )
        record = replace(self.record, pending=pending)
        await self._save_event(record, Happened.CREATED, pending.fingerprint, self._reason)
        log.info("Created a new key %s of %d bits for %s.", key.fingerprint, key.bits, self._account)

    async def _submit(self, rap: KeyFolder, listing: Sequence[KeyFile]) -> None:
        """Upload the pending key and wait for RAP's answer."""
        today = self._clock().date()
        pending = replace(
            self._pending,
            # The days of the old key count from the first upload that RAP has accepted (§6.3).
            submitted=self._pending.submitted if self._pending.accepted else today,
            attempts=self._pending.attempts_begun + 1,
            results_before=result_names(listing),
            accepted=None,
        )
        old = self.record.old_key_after_upload(today)
        log.info(
            "About to upload the public key %s of %s. The old key %s keeps working.",
            pending.fingerprint,
            self._account,
            old.fingerprint if old else rap.client_key_fingerprint,
        )
        before = self._pending
        await self._save_event(replace(self.record, pending=pending), Happened.SUBMITTED, before.fingerprint)
        await asyncio.to_thread(self._keys.reload)
        if self.record.pending != pending:
            raise conflict(self._account.name, "the key store")
        content = PublicKey.parse(pending.public_key).to_rfc4716(self._account.name)
        try:
            await rap.upload_key(content.encode("ascii"))
        except RapPermissionDenied:
            # RAP has nothing of this upload, so it does not count.
            await self._take_back(before)
            raise
        counted = replace(self._pending, uploads=self._pending.uploads + 1)
        await self._save(replace(self.record, pending=counted))
        async for fresh in self._reader.listings(rap, AWAIT_RESULT):
            if await self._is_answered(rap, fresh):
                return
        log.warning(
            "RAP wrote no result file for the key %s of %s within %d minutes. Testing the key by a login.",
            pending.fingerprint,
            self._account,
            AWAIT_RESULT.total_seconds() // 60,
        )

    async def _take_back(self, before: PendingKey) -> None:
        """Restore the pending key as it was before a denied upload, and drop the event of the upload."""
        events = [it for it in self.record.history if it.what is Happened.SUBMITTED]
        history = tuple(it for it in self.record.history if it is not events[-1])
        await self._save(replace(self.record, pending=before, history=history))

    async def _submit_unanswered_again(self) -> bool:
        """Upload the same key again: RAP neither answered the first upload nor accepts a login.

        :returns: whether there is a pending key to test; the login itself may have ended the renewal.
        """
        async with self._logins.registered() as rap:
            await asyncio.to_thread(self._keys.reload)
            if (pending := self.record.pending) is None or self._is_key_of(rap, pending):
                return pending is not None
            listing = await rap.list_key_folder()
            if not await self._is_answered(rap, listing):
                waited = await self._before_upload(rap, listing, self._checks.again)
                if waited is listing or not await self._is_answered(rap, waited):
                    await self._submit(rap, waited)
        return True

    async def _submit_accepted_again(self) -> bool:
        """Upload a key again that RAP accepted and then refused, if that can replace no other key (§6.3).

        :returns: whether there is a pending key to test; the login itself may have ended the renewal.
        :raises RapKeyVerificationError: if it could replace another key, or RAP has accepted another since.
        """
        async with self._logins.registered() as rap:
            await asyncio.to_thread(self._keys.reload)
            if (pending := self.record.pending) is None or self._is_key_of(rap, pending):
                return pending is not None
            listing = await rap.list_key_folder()
            listing = await self._before_upload(rap, listing, self._checks.of_accepted)
            await self._submit(rap, listing)
        return True

    async def _logs_in(self) -> bool:
        """Return whether RAP accepts the pending key."""
        pending = self._pending
        try:
            async with self._logins.only(pending) as rap:
                is_proven = self._is_key_of(rap, pending)
        except RapAuthenticationError:
            return False
        if is_proven:
            log.info("The new key %s of %s has logged in.", pending.fingerprint, self._account)
        return is_proven

    @staticmethod
    def _is_key_of(rap: KeyFolder, key: StoredKey | PendingKey) -> bool:
        """Return whether a login was made with a key."""
        return rap.client_key_fingerprint == key.fingerprint

    async def _promote(self) -> RenewalOutcome:
        await self._save(self.record.promoted(self._clock(), run=self._run))
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

    async def _before_upload(
        self, rap: KeyFolder, listing: Sequence[KeyFile], check: Callable[[KeyAnswers], None]
    ) -> Sequence[KeyFile]:
        """Check an upload, wait until the last key file has left the folder, and check again.

        The first check comes before the wait, because a refused upload has nothing to wait for.

        :param check: a check of `UploadChecks`.
        :returns: the newest listing.
        :raises RapKeyVerificationError: if RAP has not processed the last key file.
        """
        found = await self._keep_answers(rap, listing)
        check(found)
        waited = await self._reader.await_removal(rap, listing)
        if waited is not listing:
            found = await self._keep_answers(rap, waited)
            check(found)
        waiting = self._reader.unprocessed(waited, self.record.pending, found.answers)
        if waiting and not self._checks.is_asked_for(self.record):
            raise errors.not_processed(self._account, waiting, errors.old_key_of(self.record))
        return waited

    # RAP's answers.

    async def _is_answered(self, rap: KeyFolder, listing: Sequence[KeyFile]) -> bool:
        """Return whether RAP has answered the upload of the pending key, so that a login can test the key.

        :raises RapKeyRejected: if RAP rejects its only upload.
        :raises RapKeyVerificationError: if RAP accepts another key, and does not answer this one.
        """
        read = await self._reader.read(rap, listing, self.record, run=self._run)
        pending, record = self._pending, read.record
        if accepted := acceptance(read.answers, pending, self.record):
            await self._save_acceptance(record, accepted)
            return True
        news = [answer for answer in read.answers if answer.file not in pending.results_before]
        if rejections := [answer for answer in news if not answer.accepted]:
            record = replace(record, pending=replace(pending, rejected=rejections[0].file))
            if pending.attempts_begun < 2:
                await self._forget_rejected(record)
            # The upload before, whose answer was lost, may have put the key in force.
            await self._save(record)
            return True
        await self._save(record)
        if read.foreign:
            old = errors.old_key_of(self.record)
            raise errors.another_key(self._account, pending, read.foreign[0], old)
        return False

    async def _keep_answers(self, rap: KeyFolder, listing: Sequence[KeyFile]) -> KeyAnswers:
        """Read RAP's answers to the account's uploads, and save a copy of each (§6)."""
        read = await self._reader.read(rap, listing, self.record, run=self._run)
        await self._save(read.record)
        return read

    async def _save_acceptance(self, record: KeyRecord, answer: Answer) -> None:
        pending = replace(self._pending, accepted=answer.file)
        if pending.submitted and pending.uploads < 2:
            # RAP may have taken it on a later day than the upload began.
            pending = replace(pending, submitted=max(pending.submitted, answer.taken(self._clock()).date()))
        record = replace(record, pending=pending)
        await self._save_event(record, Happened.ACCEPTED, pending.fingerprint, answer.file)
        log.info("RAP has accepted the new key %s (%s).", pending.fingerprint, answer.file)

    async def _forget_rejected(self, record: KeyRecord) -> NoReturn:
        """Drop the pending key of a record, which RAP has rejected, and raise the error.

        :raises RapKeyRejected: always.
        """
        pending = record.pending
        if pending is None:
            raise conflict(self._account.name, "the key store")
        kept = [file.content for file in record.results if file.name == pending.rejected]
        rejected = Rejected.parse(kept[-1].encode("utf-8", "surrogateescape") if kept else b"")
        note = f"{rejected.code} {rejected.message}".strip()
        await self._save_event(replace(record, pending=None), Happened.REJECTED, pending.fingerprint, note)
        raise errors.rejected(self._account, pending, rejected, self.record.current)

    # The record.

    @property
    def record(self) -> KeyRecord:
        """The account's keys, as they were read or saved last."""
        return self._keys.record

    @property
    def _pending(self) -> PendingKey:
        pending = self.record.pending
        if pending is None:
            raise conflict(self._account.name, "the key store")
        return pending

    async def _save_event(self, record: KeyRecord, what: Happened, fingerprint: str, note: str = "") -> None:
        await self._save(record.noted(self._clock(), what, fingerprint, run=self._run, note=note))

    async def _save(self, record: KeyRecord) -> None:
        # A store may be slow, and must not block the session.
        await asyncio.to_thread(self._keys.save, record)

    def _outcome(self, *, renewed: bool) -> RenewalOutcome:
        return RenewalOutcome.of(self.record, self._clock().date(), renewed=renewed, reason=self._reason)
