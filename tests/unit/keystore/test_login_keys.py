"""The keys that a login offers, and the record after a login."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pendulum
import pytest

from airflow_provider_hkex_rap.keystore.login_keys import LoginKeys
from airflow_provider_hkex_rap.keystore.record import KeyRecord, PendingKey, StoredKey
from airflow_provider_hkex_rap.keystore.store import AccountKeys, KeyStoreError
from airflow_provider_hkex_rap.rap.account import Account
from airflow_provider_hkex_rap.rap.errors import RapAuthenticationError, RapConfigurationError

from .model import ACCOUNT, NOW, MemoryStore, key, stored


def refusal(*numbers: int) -> RapAuthenticationError:
    """Return the error of a login in which RAP refused these keys."""
    return RapAuthenticationError(
        "Refused.", why="Likely causes.", fingerprints=tuple(key(number).fingerprint for number in numbers)
    )


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.INFO):
        yield


def login_keys(store: MemoryStore, number: int | None = 1, **changes: Any) -> LoginKeys:
    arguments = {
        "connection_key": None if number is None else key(number),
        "key_expires": None,
        "passphrase": None,
        "clock": lambda: NOW,
        "mask": lambda secret: None,
        **changes,
    }
    return LoginKeys(store, ACCOUNT, **arguments)


def keep(store: MemoryStore, account: Account = ACCOUNT, **keys: StoredKey | PendingKey) -> None:
    account_keys = AccountKeys(store, account, mask=lambda secret: None)
    account_keys.save(replace(account_keys.record, **keys))  # type: ignore[arg-type]


def record(store: MemoryStore) -> KeyRecord:
    return AccountKeys(store, ACCOUNT, mask=lambda secret: None).record


def locked(number: int) -> StoredKey:
    return StoredKey(fingerprint=key(number).fingerprint, private_key=key(number).to_openssh("another"))


def pending(number: int) -> PendingKey:
    return PendingKey(
        fingerprint=key(number).fingerprint, private_key=key(number).to_openssh(), public_key="ssh-rsa"
    )


def test_the_first_login_stores_the_connections_key() -> None:
    store = MemoryStore()
    keys = login_keys(store, key_expires=NOW.date().add(days=20))
    chosen = keys.choose()
    assert chosen.private_keys == (key(1),)
    keys.note_login(chosen, key(1).fingerprint)
    current = record(store).current
    assert (current.fingerprint, current.last_day) == (key(1).fingerprint, NOW.date().add(days=20))
    (again,) = login_keys(store, None).choose().private_keys
    assert again.public_key == key(1).public_key


def test_a_stored_key_is_encrypted_if_there_is_a_passphrase() -> None:
    store = MemoryStore()
    keys = login_keys(store, passphrase="secret")
    keys.note_login(keys.choose(), key(1).fingerprint)
    with pytest.raises(RapConfigurationError, match=r"the current key, cannot be used: it is encrypted"):
        login_keys(store, None).choose()
    (again,) = login_keys(store, None, passphrase="secret").choose().private_keys
    assert again.fingerprint == key(1).fingerprint


def test_a_login_that_tests_a_pending_key_offers_it_alone_and_stores_nothing() -> None:
    store = MemoryStore()
    keep(store, current=stored(1), pending=pending(2))
    before = dict(store.texts)
    keys = login_keys(store)
    chosen = keys.choose(pending(2))
    assert [it.fingerprint for it in chosen.private_keys] == [key(2).fingerprint]
    keys.note_login(chosen, key(2).fingerprint)
    assert store.texts == before


def test_without_any_key_there_is_nothing_to_offer() -> None:
    with pytest.raises(RapConfigurationError, match=f"There is no private key of {ACCOUNT}"):
        login_keys(MemoryStore(), None).choose()


def test_a_key_of_another_account_is_refused() -> None:
    store = MemoryStore()
    keep(store, Account("DCXYZ003"), current=stored(1))
    with pytest.raises(RapConfigurationError, match="is a key of DCXYZ003 too"):
        login_keys(store).choose()


def test_a_key_that_cannot_be_read_is_left_out_and_explains_a_refusal(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = MemoryStore()
    keep(store, current=locked(3), unregistered=stored(4), previous=stored(5))
    keys = login_keys(store, None, passphrase="secret")
    chosen = keys.choose()
    # The key that cannot be read takes no place.
    assert [it.fingerprint for it in chosen.private_keys] == [key(4).fingerprint, key(5).fingerprint]
    assert "Not offering the current key of DCXYZ001" in caplog.text
    assert "the store's keys have the earlier passphrase" in str(keys.note_refusal(chosen, refusal(4, 5)))


def test_a_replaced_key_of_the_connection_is_offered_if_the_current_one_cannot_be_read() -> None:
    store = MemoryStore()
    keys = login_keys(store)
    keys.note_login(keys.choose(), key(1).fingerprint)
    keep(store, current=locked(3))
    chosen = keys.choose()
    assert chosen.private_keys == (key(1),)
    assert "the current key, cannot be used" in str(keys.note_refusal(chosen, refusal(1)))
    with pytest.raises(RapConfigurationError, match="the current key, cannot be used"):
        login_keys(store, None).choose()


def test_a_refusal_is_kept_and_the_error_says_that_another_key_remains() -> None:
    store = MemoryStore()
    keep(store, current=stored(1), previous=stored(2), unregistered=stored(3))
    keys = login_keys(store, None)
    chosen = keys.choose()
    error = keys.note_refusal(chosen, refusal(1, 3))
    assert error.retryable
    assert f"the next login offers the previous key {key(2).fingerprint}" in str(error)
    assert record(store).refused == (key(1).fingerprint, key(3).fingerprint)
    chosen = keys.choose()
    assert [it.fingerprint for it in chosen.private_keys] == [key(2).fingerprint, key(1).fingerprint]
    error = keys.note_refusal(chosen, refusal(2, 1))
    assert not error.retryable
    assert "remains" not in str(error)


@pytest.mark.parametrize("typed", [True, False])
def test_a_refusal_names_a_last_day_that_has_passed(typed: bool) -> None:
    store, yesterday = MemoryStore(), NOW.date().subtract(days=1)
    keep(store, current=stored(1, None if typed else yesterday))
    keys = login_keys(store, None, key_expires=yesterday if typed else None)
    error = keys.note_refusal(keys.choose(), refusal(1))
    expected = (
        f"The current key {key(1).fingerprint} ended on {yesterday}: register again (§5). Likely causes."
    )
    assert error.why == expected


def test_a_key_with_a_new_passphrase_is_read_from_the_connection_and_kept_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = MemoryStore()
    keep(store, current=locked(1), previous=locked(2))
    keys = login_keys(store, 1, passphrase="new")
    chosen = keys.choose()
    assert chosen.private_keys == (key(1),)
    assert "the store's keys have the earlier passphrase" in caplog.text
    keys.note_login(chosen, key(1).fingerprint)
    (again,) = login_keys(store, None, passphrase="new").choose().private_keys
    assert again.fingerprint == key(1).fingerprint


def test_a_record_that_was_edited_is_refused() -> None:
    store = MemoryStore()
    keep(store, current=replace(stored(1), fingerprint="aa"))
    with pytest.raises(RapConfigurationError, match=f"fingerprint {key(1).fingerprint}, not aa"):
        login_keys(store, None).choose()


def test_a_refused_key_is_stored_as_refused_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    keep(store, current=stored(1), previous=stored(2, NOW.date()))
    keys = login_keys(store, None)
    keys.note_login(keys.choose(), key(2).fingerprint)
    assert record(store).current.refused == NOW.date()
    assert f"refused the current key {key(1).fingerprint}" in caplog.text
    assert f"accepted the previous key {key(2).fingerprint}" in caplog.text


def test_a_last_day_that_has_passed_is_ignored_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    keys = login_keys(store, key_expires=NOW.date().subtract(days=1))
    keys.note_login(keys.choose(), key(1).fingerprint)
    assert record(store).current.last_day is None
    assert "has passed, but the key of DCXYZ001 logs in" in caplog.text


def test_a_store_that_fails_is_a_warning_and_the_login_stays_good(caplog: pytest.LogCaptureFixture) -> None:
    def fail(step: str) -> None:
        raise KeyStoreError("The disk is full.")

    store = MemoryStore(fail)
    keys = login_keys(store)
    keys.note_login(keys.choose(), key(1).fingerprint)
    assert not store.texts
    assert "The disk is full." in caplog.text


def test_no_representation_shows_a_private_key() -> None:
    store = MemoryStore()
    masked: list[str] = []
    keep(store, current=stored(1))
    chosen = login_keys(store, mask=masked.extend).choose()
    shown = f"{chosen!r} {chosen}"
    assert key(1).fingerprint in shown
    assert masked
    assert not [secret for secret in masked if secret in shown]


def test_the_expiry_of_the_connection_applies_to_its_own_key_only() -> None:
    day = pendulum.Date(2027, 1, 31)
    keys = login_keys(MemoryStore(), key_expires=day)
    assert keys.with_known_expiry(KeyRecord(account=ACCOUNT.name, current=stored(1))).current.last_day == day
    assert keys.with_known_expiry(KeyRecord(account=ACCOUNT.name, current=stored(2))).current.last_day is None
