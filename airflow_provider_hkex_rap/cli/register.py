"""``airflow hkex-rap register``: pack the kit for a registration with HKEX (§5)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from airflow.utils.cli import action_cli

from airflow_provider_hkex_rap.cli.command import command, command_account, command_clock
from airflow_provider_hkex_rap.cli.keygen import (
    make_key,
    new_file,
    open_account_keys,
    read_passphrase,
    write_new,
)
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.keys import PrivateKey
from airflow_provider_hkex_rap.rap.registration import RegistrationKit, parse_accounts
from airflow_provider_hkex_rap.rap.workstations import parse_workstations

if TYPE_CHECKING:
    from argparse import Namespace

    import pendulum

    from airflow_provider_hkex_rap.keystore.record import StoredKey
    from airflow_provider_hkex_rap.keystore.store import AccountKeys
    from airflow_provider_hkex_rap.rap.account import Account
    from airflow_provider_hkex_rap.rap.keys import PublicKey


@action_cli  # type: ignore[untyped-decorator]
@command
def register(args: Namespace) -> int:
    """Make a key for each account and pack the kit; the private keys stay in the key store."""
    accounts = parse_accounts([command_account(name).name for name in args.account])
    workstations = parse_workstations(args.ip)
    path = new_file(Path(args.output))
    # Before any key is made, so that a store that cannot be read leaves nothing half-done.
    stores = [open_account_keys(account, args) for account in accounts]
    now = command_clock()()
    kit = RegistrationKit({keys.account: _key_to_register(keys, args, now) for keys in stores}, workstations)
    write_new(path, kit.pack(now))
    print(kit.form)
    key_store = f" --key-store {args.key_store}" if args.key_store else ""
    print(
        f"{path} holds the public keys and this text. Send it to HKEX by Client Connect, form TechS 8 (§5)."
        " The private keys are in the key store; a key becomes current by its first login. 'airflow hkex-rap"
        f" status --account {accounts[0]}{key_store}' shows it."
    )
    return 0


def _key_to_register(keys: AccountKeys, args: Namespace, now: pendulum.DateTime) -> PublicKey:
    """Return the public key that waits for its registration, or that of a new key.

    An interrupted command can be run again, and a lost kit be packed again.
    """
    waiting, current = keys.record.unregistered, keys.record.current
    if current:
        print(
            f"{keys.account} has a current key, {current.fingerprint}. While it logs in, 'airflow hkex-rap"
            " renew' gives it another without HKEX's form (§6); register a new one if it was compromised."
        )
    if waiting is None or args.replace:
        return make_key(keys, args, now)
    found = _public_half(keys.account, waiting, read_passphrase(args))
    if args.key_size not in (None, found.bits):
        raise RapConfigurationError(
            f"{keys.account} has a key of {found.bits} bits that waits for its registration.",
            why=f"--key-size asks for {args.key_size}.",
            todo="Leave --key-size out to register that one, or give --replace to forget it.",
            account=keys.account.name,
            fingerprint=found.fingerprint,
        )
    print(f"{keys.account}: this key was made before and waits for its registration.")
    return found


def _public_half(account: Account, waiting: StoredKey, passphrase: str | None) -> PublicKey:
    try:
        return PrivateKey.load(waiting.private_key, passphrase).public_key
    except RapConfigurationError as error:
        raise RapConfigurationError(
            f"The key {waiting.fingerprint} of {account}, which waits for its registration, cannot be read.",
            why=error.what,
            todo="Give the --passphrase-file with which it was made, or --replace to forget it.",
            account=account.name,
            fingerprint=waiting.fingerprint,
        ) from None
