"""The accounts of the board: their keys, logins and site. Nothing of a private key leaves this module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_hkex_rap.board.lakes import choose_customer, find_customers, read_customer
from airflow_provider_hkex_rap.keystore.directory import DirectoryKeyStore
from airflow_provider_hkex_rap.keystore.status import AccountStatus
from airflow_provider_hkex_rap.lake.extracts import Download, last_downloads
from airflow_provider_hkex_rap.rap.errors import RapError
from airflow_provider_hkex_rap.rap.key_lifecycle import WARNING_DAYS, first_renewal_day
from airflow_provider_hkex_rap.rap.printable import printable

if TYPE_CHECKING:
    import pendulum

    from airflow_provider_hkex_rap.board.security import VisibleAccounts
    from airflow_provider_hkex_rap.hooks.login_source import AirflowLoginSource
    from airflow_provider_hkex_rap.keystore.record import KeyRecord

_TEXT = 2000


def accounts(now: pendulum.DateTime, visible: VisibleAccounts, customer: str | None = None) -> dict[str, Any]:
    """Return the accounts as JSON: those of the connections, and those that a customer's manifest names.

    :param now: the time in Hong Kong.
    :param visible: the accounts that the user may see; others are left out, also if a manifest names them.
    :param customer: the customer whose manifest has the last downloads; None for the first that a lake has.
    """
    downloads, errors = _read_downloads(now, customer)
    of_connections = [_of_connection(source, now) for source in visible.connections]
    named = {account["account"] for account in of_connections}
    others = [
        _without_connection(name) for name in sorted(downloads) if name in visible and name not in named
    ]
    found = [*of_connections, *others]
    for account in found:
        account["last_download"] = _download(downloads.get(account["account"]))
    return {"now": now.to_iso8601_string(), "warning_days": WARNING_DAYS, "errors": errors, "accounts": found}


def _read_downloads(now: pendulum.DateTime, customer: str | None) -> tuple[dict[str, Download], list[str]]:
    """Return the last download of each account of a customer, and the errors of lakes."""
    try:
        found = find_customers()
    except RapError as error:
        return {}, [str(error)]
    shown = choose_customer(found, customer)
    errors = [each.error for each in found if each.error]
    extracts = []
    for each in found:
        if each.lake and shown in each.customers:
            try:
                extracts += read_customer(each.lake, str(shown), now.date())
            except RapError as error:
                errors.append(str(error))
    return last_downloads(extracts), errors


def _download(last: Download | None) -> dict[str, Any] | None:
    return last and {"at": last.at, "site": printable(last.site), "address": printable(last.address)}


def _of_connection(source: AirflowLoginSource, now: pendulum.DateTime) -> dict[str, Any]:
    conn_id = source.conn_id
    facts: dict[str, Any] = {"account": "", "connection": conn_id, "site": None, "error": None, "keys": []}
    try:
        facts["account"] = source.account.name
        facts["site"] = source.site.value
        return facts | _keys(source, now.date())
    except RapError as error:
        return facts | {"error": str(error)}
    except Exception as error:  # each secrets backend has its own errors, which may quote a secret
        return facts | {"error": f"The connection {conn_id} cannot be read: {type(error).__name__}."}


def _without_connection(name: str) -> dict[str, Any]:
    return {
        "account": printable(name),
        "connection": None,
        "site": None,
        "error": "Airflow lists no connection of this account, so the board does not know its key store. The"
        " manifest names it. A secrets backend does not list the connections that it holds.",
        "keys": [],
    }


def _keys(source: AirflowLoginSource, today: pendulum.Date) -> dict[str, Any]:
    """Return the state of an account's keys, from its key store.

    :raises RapError: if the connection is not valid, or the key store or the record cannot be read.
    """
    from airflow_provider_hkex_rap.hooks.masking import mask_secrets

    store = source.key_store
    # Neither the connection's key nor the passphrase is read: the board needs no private key.
    status = AccountStatus(store, source.account, today, mask=mask_secrets, key_expires=source.key_expires)
    record = status.record
    if not any(record.keys):
        return {"keys": [], "error": _no_record(store)}
    keys = [_key(row, record, today) for row in status.rows if row["fingerprint"]]
    return {
        "keys": keys,
        "warning": record.warning
        and {"day": record.warning.day.isoformat(), "text": printable(record.warning.text, limit=_TEXT)},
        "last_login": record.last_login,
        "superseded": list(record.superseded),
    }


def _no_record(store: object) -> str:
    """Return why no key is shown; a store on a disk of the workers is not an empty one."""
    if isinstance(store, DirectoryKeyStore):
        if not store.directory.is_dir():
            return (
                f"The API server does not see the directory {store.directory} of the key store, so the board"
                " cannot show the keys. Mount it on the machine of the API server, readable by its user; or"
                " look with 'airflow hkex-rap status' on a worker."
            )
        return (
            f"As the API server sees it, the directory {store.directory} has no record of this account."
            " Either the workers have another disk at this path, or the account has not logged in yet."
        )
    return (
        "The key store has no record of this account yet: the first login with the connection's key makes it,"
        " and 'airflow hkex-rap register' makes a key (§5)."
    )


def _key(row: dict[str, object], record: KeyRecord, today: pendulum.Date) -> dict[str, Any]:
    role = str(row["key"])
    roles = {"current": record.current, "previous": record.previous, "unregistered": record.unregistered}
    stored = roles.get(role)
    since = (stored.uploaded or stored.promoted) if stored else record.pending and record.pending.submitted
    last_day = stored.last_day if stored else None
    return {
        "role": role,
        "fingerprint": row["fingerprint"],
        "since": since.isoformat() if since else None,
        "last_day": row["last_day"],
        "days_left": row["days_left"],
        "renewal_due": bool(role == "current" and last_day and today >= first_renewal_day(last_day)),
        "note": row["warning"],
    }
