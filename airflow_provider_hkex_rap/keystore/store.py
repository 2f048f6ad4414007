"""Key stores: the protocol that they follow, and the keys of an account in one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from airflow_provider_hkex_rap.keystore.record import Happened, KeyRecord, StoredKey
from airflow_provider_hkex_rap.rap.account import Account
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError, RapError
from airflow_provider_hkex_rap.rap.keys import PrivateKey
from airflow_provider_hkex_rap.rap.masking import mask_private_key

if TYPE_CHECKING:
    import pendulum

    from airflow_provider_hkex_rap.keystore.record import PendingKey


@runtime_checkable
class KeyStore(Protocol):
    """Keeps one text, a secret, for each account.

    A class of your own needs these two methods and a constructor without arguments; the connection's
    ``key_store`` is its dotted path. Test it with ``KeyStoreContract`` of ``keystore.contract``.
    """

    def read(self, account: str) -> str | None:
        """Return the text kept for an account; None only where there surely is none.

        :param account: the RAP user account (§3.1).
        :raises KeyStoreError: the store cannot be read now.
        """
        ...

    def write(self, account: str, text: str, *, replacing: str | None) -> None:
        """Keep a text in the place of another, whole and durably, or leave the store as it is.

        :param account: the RAP user account (§3.1).
        :param text: what to keep: ASCII, some 20 kB.
        :param replacing: the text that :meth:`read` gave before; None for none.
        :raises KeyStoreConflict: the store holds something else than *replacing*.
        :raises KeyStoreError: the store cannot be written now.
        """
        ...


class KeyStoreError(RapError):
    """A key store could not be read or written."""

    account: str


class KeyStoreConflict(KeyStoreError):
    """Somebody else has written the account's record since it was read; nothing was written."""


def conflict(account: str, place: str) -> KeyStoreConflict:
    """Return the error of a store that holds something else than was to be replaced.

    :param account: the RAP user account.
    :param place: where the store keeps the record, in words.
    """
    return KeyStoreConflict(
        f"The keys of {account} in {place} were changed by somebody else; nothing was written.",
        why="Another task or command works on the keys of the same account.",
        todo="Let it finish; a later try goes on from what it has left.",
        account=account,
    )


class AccountKeys:
    """The keys of one account, as last read from its key store.

    :param store: the key store.
    :param account: the RAP user account.
    :param mask: is told each line of every private key that is read or written, before anything can show it.
    :param passphrase: what encrypts private keys that are added; None leaves that to the store.
    :raises RapConfigurationError: what the store holds is not a record of this account.
    :raises KeyStoreError: the store cannot be read now.
    """

    record: KeyRecord
    """What the store holds."""

    def __init__(
        self,
        store: KeyStore,
        account: Account,
        *,
        mask: Callable[[str], object],
        passphrase: str | None = None,
    ) -> None:
        self.store = store
        self.account = account
        self._mask = mask
        self._passphrase = passphrase
        self.reload()

    def reload(self) -> None:
        """Read the record again.

        :raises RapConfigurationError: what the store holds is not a record of this account.
        :raises KeyStoreError: the store cannot be read now.
        """
        self._text = self.store.read(self.account.name)
        if self._text is None:
            self.record = KeyRecord(account=self.account.name)
        else:
            self.record = KeyRecord.from_json(self._text, self.account)
        self._mask_keys(self.record)

    def save(self, record: KeyRecord) -> None:
        """Keep *record* in the place of the one last read or saved.

        :raises KeyStoreConflict: somebody else has written in between; nothing was written.
        :raises KeyStoreError: the store cannot be written now.
        """
        if record == self.record:
            return
        self._mask_keys(record)
        text = record.to_json()
        self.store.write(self.account.name, text, replacing=self._text)
        self._text, self.record = text, record

    def check_opens(self, key: StoredKey | PendingKey) -> None:
        """Check that the passphrase opens a private key that is kept.

        :raises RapConfigurationError: it does not.
        """
        PrivateKey.load(key.private_key, self._passphrase)

    def exported(self, key: PrivateKey) -> str:
        """Return a private key as the store is to hold it: encrypted where a passphrase is set."""
        begin, *body, end = key.to_openssh(self._passphrase).splitlines()
        # On one line a key is one secret to mask: Airflow's masker takes its time for each.
        text = "\n".join((begin, "".join(body), end, ""))
        mask_private_key(text, self._mask)
        return text

    def keep_unregistered(
        self, key: PrivateKey, now: pendulum.DateTime, *, replace_other: bool = False
    ) -> None:
        """Keep a new key for its registration with HKEX (§5); it becomes current by its first login.

        :param key: the key.
        :param now: the clock's time.
        :param replace_other: whether to forget a key that waits for its registration already.
        :raises RapConfigurationError: one does, or another account of the customer has this key (§3.2).
        :raises KeyStoreConflict: somebody else has written in between; nothing was written.
        :raises KeyStoreError: the store cannot be read or written now.
        """
        if not replace_other:
            self.check_none_waits()
        self.check_not_shared(key.fingerprint)
        kept = StoredKey(fingerprint=key.fingerprint, private_key=self.exported(key))
        record = replace(self.record, unregistered=kept)
        self.save(record.noted(now, Happened.CREATED, key.fingerprint, note="For registration (§5)."))

    def check_none_waits(self) -> None:
        """Check that no key waits for its registration.

        :raises RapConfigurationError: one does.
        """
        waiting = self.record.unregistered
        if waiting:
            raise RapConfigurationError(
                f"{self.account} has a key that waits for its registration: {waiting.fingerprint}.",
                why="If HKEX registers it after all, its private half is needed.",
                todo="Register that one, which 'airflow hkex-rap register' packs again; or give --replace.",
                account=self.account.name,
                fingerprint=waiting.fingerprint,
            )

    def check_not_shared(self, fingerprint: str) -> None:
        """Check that no other account of the customer has the key (§3.2).

        :raises RapConfigurationError: one has.
        :raises KeyStoreError: the store cannot be read now.
        """
        for number in range(1, 5):
            other = Account(f"D{self.account.customer}00{number}")
            if other == self.account or (text := self.store.read(other.name)) is None:
                continue
            if KeyRecord.from_json(text, other).knows(fingerprint):
                raise RapConfigurationError(
                    f"The key {fingerprint} of {self.account} is a key of {other} too.",
                    why="Each RAP user account has a key pair of its own (guide §3.2).",
                    todo=f"Give {self.account} its own key; 'airflow hkex-rap register' makes one for each.",
                    account=self.account.name,
                    fingerprint=fingerprint,
                )

    def _mask_keys(self, record: KeyRecord) -> None:
        for key in record.keys:
            mask_private_key(key.private_key, self._mask)
