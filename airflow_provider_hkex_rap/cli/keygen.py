"""``airflow hkex-rap keygen``: make a key for one account, to register it with HKEX (§3.2, §5)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from airflow.utils.cli import action_cli

from airflow_provider_hkex_rap.cli.command import command, command_clock
from airflow_provider_hkex_rap.keystore.opening import open_key_store
from airflow_provider_hkex_rap.keystore.store import AccountKeys
from airflow_provider_hkex_rap.rap.account import Account
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.keys import PrivateKey, PublicKey, public_key_file_name

if TYPE_CHECKING:
    from argparse import Namespace

    import pendulum

DEFAULT_BITS = 4096


@action_cli  # type: ignore[untyped-decorator]
@command
def keygen(args: Namespace) -> int:
    """Make a key, keep it in the key store as unregistered, and write its public half to a file."""
    account = Account(args.account)
    keys = open_account_keys(account, args)
    if not args.replace:
        keys.check_none_waits()
    path = new_file(Path(args.output) / public_key_file_name(account))
    public_key = make_key(keys, args, command_clock()())
    write_new(path, public_key.to_rfc4716(account.name).encode("ascii"))
    print(f"{account}: {public_key.fingerprint} ({public_key.bits} bits), public key in {path}.")
    print(
        "The private key is in the key store. Register the public key and its fingerprint with HKEX (§5);"
        " packed for the form they are by"
        f" 'airflow hkex-rap register --account {account} --ip <address> --output <zip>'."
    )
    return 0


def open_account_keys(account: Account, args: Namespace) -> AccountKeys:
    """Read the keys of an account from its key store; a passphrase file encrypts new keys.

    :param account: the RAP user account.
    :param args: ``key_store`` and ``passphrase_file``.
    :raises RapConfigurationError: if one of them, or the account's record, is not valid.
    :raises KeyStoreError: if the store cannot be read now.
    """
    from airflow.sdk.log import mask_secret

    passphrase = read_passphrase(args)
    return AccountKeys(open_key_store(args.key_store), account, mask=mask_secret, passphrase=passphrase)


def make_key(keys: AccountKeys, args: Namespace, now: pendulum.DateTime) -> PublicKey:
    """Make a key pair, keep the private key as unregistered, and return the public one.

    :param keys: the account's keys.
    :param args: ``key_size`` and ``replace``.
    :param now: the clock's time.
    :raises RapConfigurationError: if another key waits for its registration, without ``--replace``.
    :raises KeyStoreError: if the store cannot be read or written now.
    """
    key = PrivateKey.generate(args.key_size or DEFAULT_BITS)
    keys.keep_unregistered(key, now, replace_other=args.replace)
    return key.public_key


def new_file(path: Path) -> Path:
    """Return a path at which a file can be made.

    :raises RapConfigurationError: if the file exists, or its directory does not.
    """
    there = os.path.lexists(path)
    if there or not path.parent.is_dir():
        raise RapConfigurationError(
            f"{path} cannot be made.",
            why="The file exists." if there else f"There is no directory {path.parent}.",
            todo="Give another place in --output; nothing is overwritten.",
            path=str(path),
        )
    return path


def write_new(path: Path, content: bytes) -> None:
    """Make a file, whole or not at all.

    :raises OSError: if it exists or cannot be written.
    """
    with path.open("xb") as file:
        try:
            file.write(content)
            file.flush()
        except BaseException:
            path.unlink()
            raise


def read_passphrase(args: Namespace) -> str | None:
    """Return the first line of ``passphrase_file``, masked in logs; None if no file is given.

    :raises RapConfigurationError: if the line is empty, or not UTF-8.
    :raises OSError: if the file cannot be read.
    """
    from airflow.sdk.log import mask_secret

    path: str | None = args.passphrase_file
    if path is None:
        return None
    try:
        passphrase = Path(path).read_text("utf-8").partition("\n")[0].rstrip("\r")
    except UnicodeDecodeError:
        passphrase = ""
    if not passphrase:
        raise RapConfigurationError(
            f"{path} holds no passphrase.",
            why="The file's first line, in UTF-8, is the passphrase that encrypts the private keys.",
            todo="Write the connection's 'private_key_passphrase' into it.",
            path=path,
        )
    mask_secret(passphrase)
    return passphrase
