"""Choose the keys of a login, and store what the login shows about them (§4.3, §6.1)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_hkex_rap.keystore.offers import (
    CONNECTION_KEY,
    MOST_OFFERS,
    Offer,
    keys_to_offer,
    record_after_login,
    record_after_refusal,
    with_known_expiry,
    without_passed_day,
)
from airflow_provider_hkex_rap.keystore.record import StoredKey
from airflow_provider_hkex_rap.keystore.store import AccountKeys, KeyStoreError
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError, RapError
from airflow_provider_hkex_rap.rap.keys import PrivateKey

if TYPE_CHECKING:
    import pendulum

    from airflow_provider_hkex_rap.keystore.record import KeyRecord, PendingKey
    from airflow_provider_hkex_rap.keystore.store import KeyStore
    from airflow_provider_hkex_rap.rap.account import Account
    from airflow_provider_hkex_rap.rap.clock import Clock
    from airflow_provider_hkex_rap.rap.errors import RapAuthenticationError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ChosenKeys:
    """The keys of one login. Made by :meth:`LoginKeys.choose`; ``repr`` shows no key material.

    :param private_keys: the keys to offer, in this order; one or two.
    :param offers: the same keys as in the key store, with their roles.
    :param account_keys: the account's keys as they were read for this login.
    :param left: further keys in hand, which a later login offers.
    :param unreadable: the errors of keys that are not offered because they cannot be read.
    :param is_test: whether the login only tests a pending key.
    """

    private_keys: tuple[PrivateKey, ...]
    offers: tuple[Offer, ...] = field(repr=False)
    account_keys: AccountKeys = field(repr=False)
    left: tuple[Offer, ...] = field(default=(), repr=False)
    unreadable: Mapping[Offer, RapConfigurationError] = field(default_factory=dict, repr=False)
    is_test: bool = False


class LoginKeys:
    """The keys of one account at a login: which keys to offer, and what the login shows about them.

    Each method that reads or writes the store blocks; call it in a thread::

        chosen = await asyncio.to_thread(login_keys.choose)
        async with open_session(replace(login, client_keys=chosen.private_keys)) as session:
            await asyncio.to_thread(login_keys.note_login, chosen, session.client_key_fingerprint)

    :param store: the key store.
    :param account: the RAP user account.
    :param connection_key: the connection's own key, if it has one.
    :param key_expires: the last day of the registered key, as the connection gives it; None if it does not.
    :param passphrase: decrypts and encrypts the private keys in the store; None leaves new keys in the clear.
    :param clock: gives the time.
    :param mask: called with the lines of every private key, before anything else uses it.
    """

    def __init__(
        self,
        store: KeyStore,
        account: Account,
        *,
        connection_key: PrivateKey | None,
        key_expires: pendulum.Date | None,
        passphrase: str | None,
        clock: Clock,
        mask: Callable[[Sequence[str]], object],
    ) -> None:
        self._store = store
        self._account = account
        self._connection_key = connection_key
        self._key_expires = key_expires
        self._passphrase = passphrase
        self._clock = clock
        self._mask = mask
        # The private key itself is stored only once the key has become current.
        self._own: StoredKey | None = None
        if connection_key:
            self._own = StoredKey(fingerprint=connection_key.fingerprint, private_key="")

    def read(self) -> AccountKeys:
        """Read the account's keys from the store.

        :raises RapConfigurationError: if the store's text is not a record of this account.
        :raises KeyStoreError: if the store cannot be read now.
        """
        return AccountKeys(self._store, self._account, mask=self._mask, passphrase=self._passphrase)

    def with_known_expiry(self, record: KeyRecord) -> KeyRecord:
        """Return the record with the connection's ``key_expires``, if it applies to the current key.

        :param record: the account's record.
        """
        return with_known_expiry(record, self._own, self._key_expires, self._clock().date())

    def choose(self, only: PendingKey | None = None) -> ChosenKeys:
        """Read the store and return the keys to offer.

        :param only: offer this key of a renewal in progress and no other.
        :raises RapConfigurationError: if there is no key, no key can be read, or another account of the
            customer has the connection's key (§3.2).
        :raises KeyStoreError: if the store cannot be read now.
        """
        keys = self.read()
        left = [Offer(only, "the pending key")] if only else list(self._offers(keys))
        read: dict[Offer, PrivateKey] = {}
        unreadable: dict[Offer, RapConfigurationError] = {}
        while left and len(read) < MOST_OFFERS:
            offer = left.pop(0)
            try:
                read[offer] = self._private_key(offer)
            except RapConfigurationError as error:
                # Another key may log in, for example after the passphrase was changed.
                log.warning("Not offering %s of %s: %s", offer.role, self._account, error)
                unreadable[offer] = error
        if not read:
            raise next(iter(unreadable.values()))
        return ChosenKeys(tuple(read.values()), tuple(read), keys, tuple(left), unreadable, only is not None)

    def note_login(self, chosen: ChosenKeys, fingerprint: str) -> KeyRecord:
        """Store what a successful login shows: which key is current, and if RAP refused another one.

        Does nothing after a login that only tests a pending key. If the store fails, a warning is logged,
        because the login is good nevertheless.

        :param chosen: the keys that were offered.
        :param fingerprint: the MD5 fingerprint of the key that RAP accepted.
        :returns: the account's record after the login.
        """
        keys = chosen.account_keys
        if chosen.is_test:
            return keys.record
        self._warn_if_refused(chosen.offers, fingerprint)
        record = record_after_login(keys.record, chosen.offers, fingerprint, self._clock())
        if record.current and record.current.fingerprint == fingerprint:
            record = without_passed_day(record, self._key_expires, self._clock().date())
        record = self._with_readable_copy(self.with_known_expiry(record), keys)
        self._warn_if_expired(record)
        shows_more = record != keys.record
        record = record.logged_in(self._clock())
        if record == keys.record:
            return record
        if self._save(keys, record, f"the login of {self._account} with key {fingerprint}") and shows_more:
            log.info("The key store has %s as a key of %s.", fingerprint, self._account)
        return record

    def note_superseded(self) -> None:
        """Store that another login has ended a session of ours (§4.3); if the store fails, log a warning."""
        try:
            # The session may have changed the record since it was read for the login.
            keys = self.read()
        except RapError as error:
            log.warning("The key store could not save the superseded session of %s: %s", self._account, error)
            return
        record = keys.record.with_superseded_session(self._clock())
        self._save(keys, record, f"the superseded session of {self._account}")

    def note_refusal(self, chosen: ChosenKeys, error: RapAuthenticationError) -> RapError:
        """Store that RAP has refused the offered keys, and return the error to raise.

        The next login offers the other keys in hand first. If the store fails, a warning is logged.

        :param chosen: the keys that were offered.
        :param error: the refusal.
        :returns: *error* with what is known of the keys; or the error of the current key if it cannot be read
            and every other key was refused, because that may be the only registered key.
        """
        if chosen.is_test:
            return error
        keys = chosen.account_keys
        record = record_after_refusal(keys.record, error.fingerprints, self._clock().date())
        is_kept = record == keys.record or self._save(keys, record, f"the refused login of {self._account}")
        untried = [offer for offer in chosen.left if offer.key.fingerprint not in record.refused]
        if not is_kept or not error.fingerprints:
            # The next login would offer the same keys again.
            untried = []
        for offer, unreadable in chosen.unreadable.items():
            if _is_current(offer, record) and not untried:
                return unreadable
            error.why = f"{error.why} Not offered: {unreadable.what}"
        self._explain(error, record, chosen.offers, untried)
        return error

    def _save(self, keys: AccountKeys, record: KeyRecord, what: str) -> bool:
        """Save a record after a login, and return whether that succeeded; the login stands either way."""
        try:
            keys.save(record)
        except KeyStoreError as error:
            log.warning("The key store could not save %s: %s", what, error)
            return False
        return True

    def _explain(
        self, error: RapAuthenticationError, record: KeyRecord, offers: Sequence[Offer], untried: list[Offer]
    ) -> None:
        """Add to a refusal which of the keys have ended, and which key the next login offers."""
        today = self._clock().date()
        ended = []
        for offer in offers:
            last_day = self._last_day(offer, record)
            if last_day and last_day < today and offer.key.fingerprint in error.fingerprints:
                ended.append(f"{offer.role} {offer.key.fingerprint} ended on {last_day}")
        if ended:
            text = ", ".join(ended)
            error.why = f"{text[0].upper()}{text[1:]}: register again (§5). {error.why}"
        if untried:
            error.retryable = True
            error.todo = (
                f"Another key remains: the next login offers {untried[0].role} {untried[0].key.fingerprint}. "
                + error.todo
            )

    def _last_day(self, offer: Offer, record: KeyRecord) -> pendulum.Date | None:
        """Return the last day of a key, as the store knows it or as the connection gives it."""
        last_day: pendulum.Date | None = getattr(offer.key, "last_day", None)
        typed = record.typed
        if typed and typed.day == self._key_expires:
            is_its_day = typed.fingerprint == offer.key.fingerprint
        else:
            is_its_day = offer.key is self._own or _is_current(offer, record)
        return last_day or (self._key_expires if is_its_day else None)

    def _offers(self, keys: AccountKeys) -> tuple[Offer, ...]:
        own = self._own
        if own and not keys.record.knows(own.fingerprint):
            keys.check_not_shared(own.fingerprint)
        if offers := keys_to_offer(keys.record, own, self._clock().date()):
            return offers
        raise RapConfigurationError(
            f"There is no private key of {self._account}.",
            why="RAP identifies an account by its registered RSA key and has no passwords (guide §3.2);"
            " neither the connection nor its key store has a key.",
            todo="Set the extra 'key_file' or 'private_key' to the private key registered for the account.",
            account=self._account.name,
        )

    def _private_key(self, offer: Offer) -> PrivateKey:
        # The connection's copy opens by the connection's passphrase, and the store's may have an earlier one.
        if self._connection_key and offer.key.fingerprint == self._connection_key.fingerprint:
            return self._connection_key
        source = f"the key store, {offer.role},"
        try:
            key = PrivateKey.load(offer.key.private_key, self._passphrase, source=source)
        except RapConfigurationError as error:
            error.why = (
                error.why or "If the passphrase was changed, the store's keys have the earlier passphrase."
            )
            raise
        if key.fingerprint != offer.key.fingerprint:
            raise RapConfigurationError(
                f"The private key in {source} has the fingerprint {key.fingerprint}, not"
                f" {offer.key.fingerprint}.",
                why="Somebody has edited the record in the key store.",
                todo="Restore it from a backup of the store.",
                account=self._account.name,
            )
        return key

    def _warn_if_refused(self, offers: Sequence[Offer], fingerprint: str) -> None:
        first = offers[0]
        if first.key.fingerprint == fingerprint:
            return
        (used,) = (offer for offer in offers if offer.key.fingerprint == fingerprint)
        log.warning(
            "RAP refused %s %s of %s and accepted %s %s. %s",
            first.role,
            first.key.fingerprint,
            self._account,
            used.role,
            fingerprint,
            "Take it out of the connection, or register it (§5)."
            if first.role == CONNECTION_KEY
            else "Renew or register the key (§5, §6).",
        )

    def _warn_if_expired(self, record: KeyRecord) -> None:
        expires, current = self._key_expires, record.current
        if expires and expires < self._clock().date() and current and not current.uploaded:
            log.warning(
                "'key_expires' of the connection (%s) has passed, but the key of %s logs in: correct it.",
                expires,
                self._account,
            )

    def _with_readable_copy(self, record: KeyRecord, keys: AccountKeys) -> KeyRecord:
        """Return the record with the connection's copy of a key, if the store's copy does not open."""
        own = self._connection_key
        if own and any(key.fingerprint == own.fingerprint and not keys.opens(key) for key in record.keys):
            return record.with_private_key(own.fingerprint, keys.exported(own))
        return record


def _is_current(offer: Offer, record: KeyRecord) -> bool:
    return record.current is not None and offer.key.fingerprint == record.current.fingerprint
