"""``airflow hkex-rap status``: the keys of the accounts, from their key stores (§6)."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import pendulum
from airflow.sdk.exceptions import AirflowException

from airflow_provider_hkex_rap.cli.command import (
    FAILED,
    NO_CONNECTION,
    command,
    command_clock,
    printable,
    show,
)
from airflow_provider_hkex_rap.keystore.opening import open_key_store
from airflow_provider_hkex_rap.keystore.record import Happened
from airflow_provider_hkex_rap.rap.account import Account
from airflow_provider_hkex_rap.rap.clock import HONG_KONG
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError, RapError
from airflow_provider_hkex_rap.rap.key_lifecycle import first_renewal_day, first_warning_day, login_days_left

if TYPE_CHECKING:
    from argparse import Namespace

    from airflow_provider_hkex_rap.hooks.rap import RapHook
    from airflow_provider_hkex_rap.keystore.record import HistoryEntry, KeyRecord, PendingKey, StoredKey
    from airflow_provider_hkex_rap.keystore.store import KeyStore

_ENVIRONMENT = "AIRFLOW_CONN_"
_UNKNOWN_END = (
    "Its last day is not known: set 'key_expires' in the connection, or RAP's warning tells (§6.2)."
)


@command
def status(args: Namespace) -> int:
    """Print a row for each key; fail where an account has none that logs in, or a store cannot be read."""
    accounts = args.account or []
    if args.key_store and not accounts:
        raise RapConfigurationError(
            "--key-store goes with --account.",
            why="A connection names its own key store.",
            todo="Name the accounts, or leave --key-store out.",
            key_store=args.key_store,
        )
    looks = [(name, partial(_of_account, name, args.key_store)) for name in accounts]
    conn_ids = args.conn_id or ([] if accounts else _conn_ids())
    looks += [(conn_id, partial(_of_connection, conn_id)) for conn_id in conn_ids]
    rows: list[dict[str, object]] = []
    failed = False
    for name, look in looks:
        try:
            keys = look()
        except RapError as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed = True
        else:
            rows += keys.rows
            failed |= not keys.logs_in
    if rows:
        show(rows, args.output)
    return FAILED if failed else 0


class AccountStatus:
    """What a key store tells of the keys of an account; it logs in nowhere.

    :param store: the key store.
    :param account: the RAP user account.
    :param today: the day in Hong Kong.
    :param conn_id: the account's connection, where it is known.
    :param own: the fingerprint of the connection's own key, where it has one.
    :param passphrase: the connection's, where it has one.
    :raises RapConfigurationError: the account's record is not valid.
    :raises KeyStoreError: the store cannot be read now.
    """

    def __init__(
        self,
        store: KeyStore,
        account: Account,
        today: pendulum.Date,
        *,
        conn_id: str | None = None,
        own: str | None = None,
        passphrase: str | None = None,
    ) -> None:
        from airflow.sdk.log import mask_secret

        from airflow_provider_hkex_rap.keystore.store import AccountKeys

        self._keys = AccountKeys(store, account, mask=mask_secret, passphrase=passphrase)
        self.record = self._keys.record
        self.today = today
        self._conn_id = conn_id
        self._own = own

    @property
    def logs_in(self) -> bool:
        """Whether a key is there that RAP lets in as far as we know; one that waits for HKEX is not."""
        record = self.record
        kept = [key for key in (record.current, record.previous) if key and not key.refused]
        untried = bool(self._own) and not record.knows(self._own or "")
        return untried or any(key.is_valid(self.today) and self._opens(key) for key in kept)

    def _opens(self, key: StoredKey) -> bool:
        """Return whether the connection's passphrase opens a key; without a connection none is known."""
        if not self._conn_id:
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
            note = "The next login offers it first, and keeps it in the key store if RAP lets it in."
            rows.append(self._row("connection", None, note, fingerprint=self._own))
        kept = [row for row in rows if row["fingerprint"]]
        return kept or [self._row("none", None, "Register a key (§5): neither store nor connection has one.")]

    def _row(
        self,
        role: str,
        key: StoredKey | PendingKey | None,
        warning: str,
        last_renewal: pendulum.Date | None = None,
        *,
        fingerprint: str | None = None,
    ) -> dict[str, object]:
        last_day: pendulum.Date | None = getattr(key, "last_day", None)
        return {
            "conn_id": self._conn_id,
            "account": self.record.account,
            "key": role,
            "fingerprint": key.fingerprint if key else fingerprint,
            "last_day": last_day and last_day.isoformat(),
            "days_left": None if last_day is None else login_days_left(last_day, self.today),
            "last_renewal": last_renewal and last_renewal.isoformat(),
            "warning": printable(warning),
        }

    def _about_current(self) -> str:
        current = self.record.current
        about = [end_warning(current, self.today) if current else "", self._about_uploads()]
        if current and not self._opens(current):
            about.append("The connection's 'private_key_passphrase' does not open it: set the one that does.")
        if current and current.refused:
            about.append(
                f"RAP has refused it since {current.refused}, and lets another key of ours in: give the"
                " connection the key that took its place (§6.3), or register again (§5)."
            )
        return " ".join(filter(None, about))

    def _about_uploads(self) -> str:
        """Say of a rejected upload, and of one that was not ours, while they matter."""
        record, said = self.record, []
        rejected = _last(record, Happened.REJECTED, Happened.PROMOTED, Happened.ADOPTED)
        if rejected and rejected.what is Happened.REJECTED:
            said.append(f"RAP rejected its renewal on {_day(rejected)}: {rejected.note}.")
        elsewhere, allowed_from = _last(record, Happened.UPLOADED_ELSEWHERE), record.uploads_allowed_from
        if elsewhere and allowed_from and self.today < allowed_from:
            said.append(
                f"RAP told on {_day(elsewhere)} of a key {elsewhere.fingerprint} that is not ours; no renewal"
                f" before {allowed_from} (§6.3)."
            )
        return " ".join(said)

    def _about_pending(self) -> str:
        pending = self.record.pending
        if not pending:
            return ""
        step = f"uploaded on {pending.submitted}" if pending.submitted else "not uploaded yet"
        return f"A renewal is in progress: {step}, {'accepted' if pending.accepted else 'not accepted yet'}."

    def _about_previous(self) -> str:
        previous = self.record.previous
        over = previous and not previous.is_valid(self.today)
        return "It has expired; the next run of the renewal forgets it." if over else ""

    def _about_unregistered(self) -> str:
        waiting = self.record.unregistered
        if not waiting:
            return ""
        made = [entry for entry in self.record.history if entry.fingerprint == waiting.fingerprint]
        since = f" since {_day(made[0])}" if made else ""
        return f"It waits{since} for its registration with HKEX (§5); its first login makes it current."


def end_warning(key: StoredKey, today: pendulum.Date) -> str:
    """Say what is wrong with the end of a current key; nothing where it is far (§6.1, §6.2).

    :param key: the current key.
    :param today: the day in Hong Kong.
    """
    last_day = key.last_day
    if last_day is None:
        return _UNKNOWN_END
    if today > last_day:
        return f"It has expired on {last_day}, and RAP has removed it: register again (§5)."
    if today >= first_warning_day(last_day):
        return "RAP warns of it (§6.2): see why its renewal has not succeeded."
    if today >= first_renewal_day(last_day):
        return "Its renewal is due (§6): the next run of RapKeyRenewalOperator renews it."
    return ""


def _last(record: KeyRecord, *what: Happened) -> HistoryEntry | None:
    return next((entry for entry in reversed(record.history) if entry.what in what), None)


def _day(entry: HistoryEntry) -> pendulum.Date:
    return pendulum.DateTime.fromisoformat(entry.at).in_timezone(HONG_KONG).date()


def _of_connection(conn_id: str) -> AccountStatus:
    from airflow_provider_hkex_rap.hooks.rap import RapHook

    hook = RapHook(conn_id)
    # The connection's own key may be a file that only the workers have; the store is read without it.
    connection = hook.get_connection(conn_id)
    return AccountStatus(
        hook.key_store,
        Account(connection.login or ""),
        hook.clock().date(),
        conn_id=conn_id,
        own=_own_fingerprint(hook),
        passphrase=hook.key_passphrase,
    )


def _of_account(name: str, key_store: str | None) -> AccountStatus:
    return AccountStatus(open_key_store(key_store), Account(name), command_clock()().date())


def _own_fingerprint(hook: RapHook) -> str | None:
    """Return the fingerprint of the connection's own key; None where it has none, or not on this host."""
    try:
        keys = hook.login.client_keys
    except RapConfigurationError:
        return None
    return keys[0].fingerprint if keys else None


def _conn_ids() -> list[str]:
    """Return the connections of the type hkex_rap in Airflow's database and in the environment.

    :raises RapConfigurationError: there is none.
    """
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        stored = select(Connection.conn_id).where(Connection.conn_type == "hkex_rap")
        found = {*session.scalars(stored), *_conn_ids_in_environment()}
    if not found:
        raise RapConfigurationError(
            "There is no connection of the type hkex_rap in Airflow's database or in the environment.",
            why="Other secrets backends do not list what they hold.",
            todo=f"Name it by --conn-id, or an account by --account. {NO_CONNECTION}",
        )
    return sorted(found)


def _conn_ids_in_environment() -> Iterator[str]:
    from airflow_provider_hkex_rap.hooks.rap import RapHook

    for name in list(os.environ):
        conn_id = name.removeprefix(_ENVIRONMENT).lower()
        if name.startswith(_ENVIRONMENT):
            try:
                connection = RapHook.get_connection(conn_id)
            except (AirflowException, ValueError):
                # Somebody else's, and not valid.
                continue
            if connection.conn_type == RapHook.conn_type:
                yield conn_id
