"""The protocol of key stores, and the keys of one account in a store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from airflow_provider_hkex_rap.keystore.record import Happened, KeyRecord, StoredKey
from airflow_provider_hkex_rap.rap.account import Account
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError, RapError
from airflow_provider_hkex_rap.rap.keys import PrivateKey, is_encrypted
from airflow_provider_hkex_rap.rap.masking import mask_private_key

if TYPE_CHECKING:
    import pendulum

    from airflow_provider_hkex_rap.keystore.record import PendingKey


@runtime_checkable
class KeyStore(Protocol):
    """Store one secret text for each account.

    Your own class needs these two methods and a constructor without arguments. Set the connection's
    ``key_store`` to its dotted path. Test it with ``KeyStoreContract`` of ``testing.key_store_contract``::

        class VaultKeyStore:
            def read(self, account: str) -> str | None: ...
            def write(self, account: str, text: str, *, replacing: str | None) -> None: ...
    """

    def read(self, account: str) -> str | None:
        """Return the text of an account; None only if it is certain that there is none.

        :param account: the RAP user account (§3.1).
        :raises KeyStoreError: if the store cannot be read now.
        """
        ...

    def write(self, account: str, text: str, *, replacing: str | None) -> None:
        """Replace the text of an account, completely and durably, or leave the store unchanged.

        :param account: the RAP user account (§3.1).
        :param text: the new text: ASCII, about 20 kB.
        :param replacing: the text that :meth:`read` has returned before; None if it has returned None.
        :raises KeyStoreConflict: if the store has another text than *replacing*.
        :raises KeyStoreError: if the store cannot be written now.
        """
        ...


class KeyStoreError(RapError):
    """A key store could not be read or written."""

    account: str


class KeyStoreConflict(KeyStoreError):
    """Another process has written the account's record since it was read; nothing was written."""


def conflict(account: str, place: str) -> KeyStoreConflict:
    """Return the error of a write that would replace another text than the one last read.

    :param account: the RAP user account.
    :param place: the place of the record, in words, such as ``the variable x``.
    """
    return KeyStoreConflict(
        f"Another process has changed the keys of {account} in {place}; nothing was written.",
        why="Another task or command works on the keys of the same account.",
        todo="Let it finish. A later try continues from the record that it has written.",
        account=account,
    )


class AccountKeys:
    """The keys of one account, as last read from its key store.

    :param store: the key store.
    :param account: the RAP user account.
    :param mask: called with the lines of every private key that is read or written, before it is used.
    :param passphrase: encrypts private keys that are added; None leaves them in the clear.
    :raises RapConfigurationError: if the store's text is not a record of this account.
    :raises KeyStoreError: if the store cannot be read now.
    """

    record: KeyRecord
    """The record as last read or saved."""

    def __init__(
        self,
        store: KeyStore,
        account: Account,
        *,
        mask: Callable[[Sequence[str]], object],
        passphrase: str | None = None,
    ) -> None:
        self.store = store
        self.account = account
        self._mask = mask
        self._passphrase = passphrase
        self.reload()

    def reload(self) -> None:
        """Read the record again.

        :raises RapConfigurationError: if the store's text is not a record of this account.
        :raises KeyStoreError: if the store cannot be read now.
        """
        self._text = self.store.read(self.account.name)
        if self._text is None:
            self.record = KeyRecord(account=self.account.name)
        else:
            self.record = KeyRecord.from_json(self._text, self.account)
        self._mask_keys(self.record)

    def save(self, record: KeyRecord) -> None:
        """Replace the record that was last read or saved; do nothing if it is the same.

        :param record: the new record.
        :raises KeyStoreConflict: if another process has written in between; nothing was written.
        :raises KeyStoreError: if the store cannot be written now.
        """
        if record == self.record:
            return
        self._mask_keys(record)
        text = record.to_json()
        self.store.write(self.account.name, text, replacing=self._text)
        self._text, self.record = text, record

    def check_opens(self, key: StoredKey | PendingKey, source: str = "the key store") -> None:
        """Check that the passphrase decrypts a private key of the record.

        :param key: a key of the record.
        :param source: names the key in the error.
        :raises RapConfigurationError: if it does not.
        """
        PrivateKey.load(key.private_key, self._passphrase, source=source)

    def opens(self, key: StoredKey | PendingKey) -> bool:
        """Return whether the passphrase decrypts a private key of the record.

        :param key: a key of the record.
        """
        # Reading a key takes a quarter of a second, and each login asks.
        if key.private_key and not is_encrypted(key.private_key):
            return True
        try:
            self.check_opens(key)
        except RapConfigurationError:
            return False
        return True

    def exported(self, key: PrivateKey) -> str:
        """Return a private key as text for the store, encrypted if a passphrase is set; mask it."""
        begin, *body, end = key.to_openssh(self._passphrase).splitlines()
        # One line is one secret to mask; Airflow's masker is slow if there are many.
        text = "\n".join((begin, "".join(body), end, ""))
        mask_private_key(text, self._mask)
        return text

    def keep_unregistered(
        self, key: PrivateKey, now: pendulum.DateTime, *, replace_other: bool = False
    ) -> None:
        """Store a new key for its registration with HKEX (§5); it becomes current by its first login.

        :param key: the new key.
        :param now: the current time.
        :param replace_other: whether to drop another key that waits for its registration.
        :raises RapConfigurationError: if another key waits for its registration and is not to be replaced, or
            another account of the customer has this key (§3.2).
        :raises KeyStoreConflict: if another process has written in between; nothing was written.
        :raises KeyStoreError: if the store cannot be read or written now.
        """
        if not replace_other:
            self.check_none_waits()
        self.check_not_shared(key.fingerprint)
        kept = StoredKey(fingerprint=key.fingerprint, private_key=self.exported(key))
        record = replace(self.record, unregistered=kept)
        self.save(record.noted(now, Happened.CREATED, key.fingerprint, note="For registration (§5)."))

    def check_none_waits(self) -> None:
        """Check that no key waits for its registration.

        :raises RapConfigurationError: if one does.
        """
        waiting = self.record.unregistered
        if waiting:
            raise RapConfigurationError(
                f"{self.account} has a key that waits for its registration: {waiting.fingerprint}.",
                why="If HKEX still registers it, its private key is needed.",
                todo="Register that key ('airflow hkex-rap register' packs it again), or add --replace.",
                account=self.account.name,
                fingerprint=waiting.fingerprint,
            )

    def check_not_shared(self, fingerprint: str) -> None:
        """Check that no other account of the customer has the key (§3.2).

        :param fingerprint: the key's MD5 fingerprint.
        :raises RapConfigurationError: if one has.
        :raises KeyStoreError: if the store cannot be read now.
        """
        for number in range(1, 5):
            other = Account(f"D{self.account.customer}00{number}")
            if other == self.account or (text := self.store.read(other.name)) is None:
                continue
            if KeyRecord.from_json(text, other).knows(fingerprint):
                raise RapConfigurationError(
                    f"The key {fingerprint} of {self.account} is a key of {other} too.",
                    why="Each RAP user account needs its own key pair (guide §3.2).",
                    todo=f"Give {self.account} its own key: 'airflow hkex-rap register' makes one.",
                    account=self.account.name,
                    fingerprint=fingerprint,
                )

    def _mask_keys(self, record: KeyRecord) -> None:
        for key in record.keys:
            mask_private_key(key.private_key, self._mask)
