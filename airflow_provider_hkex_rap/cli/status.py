"""``airflow hkex-rap status``: show the keys of the accounts, from their key stores (§6)."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_hkex_rap.cli.command import (
    FAILED,
    NO_CONNECTION,
    command,
    command_account,
    command_clock,
    show,
)
from airflow_provider_hkex_rap.hooks.connections import list_conn_ids
from airflow_provider_hkex_rap.hooks.masking import mask_secrets
from airflow_provider_hkex_rap.keystore.directory import DirectoryKeyStore
from airflow_provider_hkex_rap.keystore.opening import open_key_store
from airflow_provider_hkex_rap.keystore.status import AccountStatus
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError, RapError

if TYPE_CHECKING:
    from argparse import Namespace

    from airflow_provider_hkex_rap.hooks.login_source import AirflowLoginSource


@command
def status(args: Namespace) -> int:
    """Print a row for each key; fail if an account has none that logs in, or soon has none.

    It also fails if a store cannot be read.
    """
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
            failed |= not keys.logs_in or keys.record.foreign_upload is not None
    if rows:
        show(rows, args.output)
    return FAILED if failed else 0


def _of_connection(conn_id: str) -> AccountStatus:
    from airflow_provider_hkex_rap.hooks.login_source import AirflowLoginSource

    # The connection's own key may be a file that exists on the workers only; the store is read without it.
    source = AirflowLoginSource(conn_id)
    return AccountStatus(
        source.key_store,
        source.account,
        source.clock().date(),
        mask=mask_secrets,
        conn_id=conn_id,
        own=_own_fingerprint(source),
        passphrase=source.key_passphrase,
        key_expires=source.key_expires,
    )


def _of_account(name: str, key_store: str | None) -> AccountStatus:
    account, store = command_account(name), open_key_store(key_store)
    if isinstance(store, DirectoryKeyStore) and not store.directory.is_dir():
        raise RapConfigurationError(
            f"There is no directory {store.directory}.",
            why="--key-store names it, and the keys of the account would be in it.",
            todo="Correct the path, or run the command on a host that has the directory.",
        )
    return AccountStatus(store, account, command_clock()().date(), mask=mask_secrets)


def _own_fingerprint(source: AirflowLoginSource) -> str | None:
    """Return the fingerprint of the connection's own key; None if it has none, or none on this host."""
    try:
        keys = source.login.client_keys
    except RapConfigurationError:
        return None
    return keys[0].fingerprint if keys else None


def _conn_ids() -> list[str]:
    """Return the connections of the type hkex_rap.

    :raises RapConfigurationError: if there is none.
    """
    found = list_conn_ids()
    if not found:
        raise RapConfigurationError(
            "There is no connection of the type hkex_rap in Airflow's database or in the environment.",
            why="Other secrets backends do not list what they hold.",
            todo=f"Name it by --conn-id, or an account by --account. {NO_CONNECTION}",
        )
    return found
