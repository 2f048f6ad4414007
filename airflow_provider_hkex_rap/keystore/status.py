"""Describe the keys of an account as its key store holds them (§6), for a person."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import pendulum

from airflow_provider_hkex_rap.keystore.expiry import About, ListedWarning, about
from airflow_provider_hkex_rap.keystore.offers import with_known_expiry
from airflow_provider_hkex_rap.keystore.record import Happened, StoredKey
from airflow_provider_hkex_rap.keystore.store import AccountKeys
from airflow_provider_hkex_rap.rap.clock import HONG_KONG
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.expiry_warning import ExpiryWarning
from airflow_provider_hkex_rap.rap.key_lifecycle import first_renewal_day, login_days_left
from airflow_provider_hkex_rap.rap.printable import PATH_CHARACTERS, printable

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.keystore.record import HistoryEntry, KeyRecord, PendingKey
    from airflow_provider_hkex_rap.keystore.store import KeyStore
    from airflow_provider_hkex_rap.rap.account import Account

_SHOWN_CHARACTERS = 200


class AccountStatus:
    """The keys of an account, as its key store holds them; does not log in.

    :param store: the key store.
    :param account: the RAP user account.
    :param today: the day in Hong Kong.
    :param mask: called with the lines of every private key that is read, before it is used.
    :param conn_id: the account's connection, if it is known; without it, no private key is opened.
    :param own: the fingerprint of the connection's own key, if it has one.
    :param passphrase: the connection's passphrase, if it has one.
    :param key_expires: the connection's ``key_expires``, if it has one.
    :raises RapConfigurationError: if the account's record is not valid.
    :raises KeyStoreError: if the store cannot be read now.
    """

    def __init__(
        self,
        store: KeyStore,
        account: Account,
        today: pendulum.Date,
        *,
        mask: Callable[[Sequence[str]], object],
        conn_id: str | None = None,
        own: str | None = None,
        passphrase: str | None = None,
        key_expires: pendulum.Date | None = None,
    ) -> None:
        self._keys = AccountKeys(store, account, mask=mask, passphrase=passphrase)
        own_key = StoredKey(fingerprint=own, private_key="") if own else None
        self.record = with_known_expiry(self._keys.record, own_key, key_expires, today)
        self.today = today
        self._conn_id = conn_id
        self._own = own
        self._key_expires = key_expires

    @property
    def logs_in(self) -> bool:
        """Whether RAP accepts one of the keys, as far as is known; an unregistered key does not count."""
        record = self.record
        kept = [
            key
            for key in (record.current, record.previous)
            if key and not key.refused and key.fingerprint not in record.refused
        ]
        own = self._own
        untried = own is not None and own not in record.refused and not record.knows(own)
        return untried or any(key.is_valid(self.today) and self._opens(key) for key in kept)

    def _opens(self, key: StoredKey) -> bool:
        """Return whether the connection has or opens a key; true without a connection."""
        if not self._conn_id or key.fingerprint == self._own:
            return True
        try:
            self._keys.check_opens(key)
        except RapConfigurationError:
            return False
        return True

    @property
    def rows(self) -> list[dict[str, object]]:
        """A row for each key, the current one first; and one for a connection's key that is not kept yet."""
        record = self.record
        renewed = _last(record, Happened.PROMOTED)
        last_renewal = _day(renewed) if renewed else None
        rows = [
            self._row("current", record.current, self._about_current(), last_renewal),
            self._row("pending", record.pending, self._about_pending()),
            self._row("previous", record.previous, self._about_previous()),
            self._row("unregistered", record.unregistered, self._about_unregistered()),
        ]
        if self._own and not record.knows(self._own):
            rows.append(self._row("connection", self._own_key(), self._about_own()))
        kept = [row for row in rows if row["fingerprint"]]
        return kept or [self._row("none", None, "Register a key (§5): neither store nor connection has one.")]

    def _row(
        self,
        role: str,
        key: StoredKey | PendingKey | None,
        warning: str,
        last_renewal: pendulum.Date | None = None,
    ) -> dict[str, object]:
        last_day: pendulum.Date | None = getattr(key, "last_day", None)
        return {
            "conn_id": self._conn_id,
            "account": self.record.account,
            "key": role,
            "fingerprint": key.fingerprint if key else None,
            "last_day": last_day and last_day.isoformat(),
            "days_left": None if last_day is None else login_days_left(last_day, self.today),
            "last_renewal": last_renewal and last_renewal.isoformat(),
            "warning": printable(warning, limit=PATH_CHARACTERS),
        }

    def _own_key(self) -> StoredKey:
        """Return the connection's key, which the store does not know, with its last day if it is typed."""
        typed, last_day = self.record.typed, self._key_expires
        is_of_other = typed and typed.day == last_day and typed.fingerprint != self._own
        if is_of_other or (last_day and last_day < self.today):
            last_day = None
        return StoredKey(fingerprint=self._own or "", private_key="", last_day=last_day)

    def _about_own(self) -> str:
        last_day, typed = self._own_key().last_day, self._key_expires
        return " ".join(
            filter(
                None,
                (
                    _about_last_day(last_day, self.today) if last_day else "",
                    _about_passed(typed) if typed and typed < self.today else "",
                    "The next login offers it first, and keeps it in the key store if RAP lets it in.",
                ),
            )
        )

    def _about_current(self) -> str:
        current = self.record.current
        about = [
            describe_end(self.record, self.today, self._key_expires),
            self._about_uploads(),
            describe_warning(self.record),
        ]
        if current and not self._opens(current):
            about.append("The connection's 'private_key_passphrase' does not open it: set the one that does.")
        if current and current.refused:
            about.append(
                f"RAP has refused it since {current.refused}: give the connection the key that replaced it"
                " (§6.3), or register again (§5)."
            )
        return " ".join(filter(None, about))

    def _about_uploads(self) -> str:
        """Describe a rejected upload, and one that was not ours, while they matter."""
        record, notes = self.record, []
        rejected = _last(record, Happened.REJECTED, Happened.PROMOTED, Happened.ADOPTED)
        if rejected and rejected.what is Happened.REJECTED:
            notes.append(f"RAP rejected its renewal on {_day(rejected)}: {rejected.note}.")
        elsewhere, current = record.foreign_upload, record.current
        if elsewhere:
            ends = f", so this key ends on {current.last_day}" if current and current.last_day else ""
            notes.append(
                f"Somebody else uploaded the key {elsewhere.fingerprint} on {_day(elsewhere)}{ends}: give the"
                " connection that key, or register again (§5). No renewal before"
                f" {record.uploads_allowed_from} (§6.3)."
            )
        return " ".join(notes)

    def _about_pending(self) -> str:
        pending = self.record.pending
        if not pending:
            return ""
        step = f"uploaded on {pending.submitted}" if pending.submitted else "not uploaded yet"
        return f"A renewal is in progress: {step}, {'accepted' if pending.accepted else 'not accepted yet'}."

    def _about_previous(self) -> str:
        previous = self.record.previous
        expired = previous and not previous.is_valid(self.today)
        return "It has expired; the next run of the renewal forgets it." if expired else ""

    def _about_unregistered(self) -> str:
        waiting = self.record.unregistered
        if not waiting:
            return ""
        made = [entry for entry in self.record.history if entry.fingerprint == waiting.fingerprint]
        waits = f"has waited since {_day(made[0])}" if made else "waits"
        return f"It {waits} for its registration with HKEX (§5); its first login makes it current."


def describe_end(record: KeyRecord, today: pendulum.Date, key_expires: pendulum.Date | None) -> str:
    """Return what is known of the end of the current key; an empty text if it is far (§6.1, §6.2).

    :param record: the account's record.
    :param today: the day in Hong Kong.
    :param key_expires: the connection's ``key_expires``, if it has one and is known.
    """
    current = record.current
    if current is None:
        return ""
    return " ".join(
        filter(
            None,
            (
                _about_last_day(current.last_day, today),
                _about_typed(record, today, key_expires),
            ),
        )
    )


def _about_last_day(last_day: pendulum.Date | None, today: pendulum.Date) -> str:
    if last_day is None:
        return "Its last day is not known; the renewal waits for RAP's warning (§6.2)."
    if today > last_day:
        return f"It ended on {last_day}: register again (§5)."
    first = first_renewal_day(last_day)
    if today >= first:
        return (
            f"Its renewal has been due since {first} (§6): the next run of RapKeyRenewalOperator renews it."
        )
    return ""


def _about_typed(record: KeyRecord, today: pendulum.Date, key_expires: pendulum.Date | None) -> str:
    """Describe a ``key_expires`` that is not the last day of the current key."""
    current, typed = record.current, record.typed
    if current is None or key_expires is None or key_expires == current.last_day:
        return ""
    said = f"'key_expires' of the connection ({key_expires})"
    is_of_other = typed and typed.day == key_expires and typed.fingerprint != current.fingerprint
    if is_of_other and current.uploaded:
        # We have renewed that key, and know the last day of this one.
        return ""
    if key_expires < today:
        return _about_passed(key_expires)
    if typed and is_of_other:
        whose = f"of the key {typed.fingerprint}" if typed.fingerprint else "of an earlier key"
        return f"{said} is that {whose}: correct it, or leave it blank."
    if record.foreign_upload:
        return f"{said} is later than the day on which the upload by somebody else ends this key (§6.1)."
    if current.uploaded:
        return f"{said} is later than the last day that follows from the upload on {current.uploaded} (§6.1)."
    return f"{said} is not applied: the connection has another key."


def _about_passed(key_expires: pendulum.Date) -> str:
    return (
        f"'key_expires' of the connection ({key_expires}) has passed: it is ignored. Correct it, or leave it"
        " blank."
    )


def describe_warning(record: KeyRecord) -> str:
    """Return RAP's last warning in words; an empty text if there was none (§6.2).

    :param record: the account's record.
    """
    warning = record.warning
    if warning is None:
        return ""
    text = printable(" ".join(warning.text.split())[:_SHOWN_CHARACTERS])
    found = ListedWarning(ExpiryWarning.parse(warning.text.encode()), warning.day)
    other = " of another key" if about(found, record) is About.ANOTHER else ""
    return f"RAP's last warning{other}, of {warning.day} (§6.2): {text}"


def _last(record: KeyRecord, *what: Happened) -> HistoryEntry | None:
    return next((entry for entry in reversed(record.history) if entry.what in what), None)


def _day(entry: HistoryEntry) -> pendulum.Date:
    return pendulum.DateTime.fromisoformat(entry.at).in_timezone(HONG_KONG).date()
