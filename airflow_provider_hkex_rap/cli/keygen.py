"""``airflow hkex-rap keygen``: make a key for one account, to register it with HKEX (§3.2, §5)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from airflow.utils.cli import action_cli

from airflow_provider_hkex_rap.cli.command import command, command_account, command_clock
from airflow_provider_hkex_rap.keystore.opening import open_key_store
from airflow_provider_hkex_rap.keystore.store import AccountKeys
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.keys import PrivateKey, PublicKey, public_key_file_name
from airflow_provider_hkex_rap.rap.private_key_text import check_passphrase

if TYPE_CHECKING:
    from argparse import Namespace

    import pendulum

    from airflow_provider_hkex_rap.rap.account import Account

DEFAULT_BITS = 4096
_TRIAL_BYTES = 64 * 1024
"""More than any kit has, to find a disk that is nearly full."""


@action_cli  # type: ignore[untyped-decorator]
@command
def keygen(args: Namespace) -> int:
    """Make a key, keep it in the key store as unregistered, and write its public half to a file."""
    account = command_account(args.account)
    keys = open_account_keys(account, args)
    if not args.replace:
        keys.check_none_waits()
    path = new_file(Path(args.output) / public_key_file_name(account))
    public_key = make_key(keys, args, command_clock()())
    write_new(path, public_key.to_rfc4716(account.name).encode("ascii"))
    print(f"{account}: {public_key.fingerprint} ({public_key.bits} bits), public key in {path}.")
    print(
        "The private key is in the key store. Register the public key and its fingerprint with HKEX (§5)."
        " To pack them for its form, run"
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
    from airflow_provider_hkex_rap.hooks.masking import mask_secrets

    passphrase = read_passphrase(args)
    return AccountKeys(open_key_store(args.key_store), account, mask=mask_secrets, passphrase=passphrase)


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
    """Return a path at which a file can be made; a trial proves it, and leaves no file.

    Call it before a key is made, so that no command ends with a key and without its public half.

    :raises RapConfigurationError: if the file exists, or cannot be made or written there.
    """
    try:
        # The directory's mode would prove nothing: root ignores it, and a disk may be read-only or full.
        _make(path, b"\0" * _TRIAL_BYTES)
        path.unlink()
    except OSError as error:
        raise RapConfigurationError(
            f"{path} cannot be made.",
            why=_reason(path, error),
            todo="Give another place in --output; nothing is overwritten.",
            path=str(path),
        ) from None
    return path


def write_new(path: Path, content: bytes) -> None:
    """Make a file, whole or not at all.

    :raises RapConfigurationError: if it exists or cannot be written.
    """
    try:
        _make(path, content)
    except OSError as error:
        raise RapConfigurationError(
            f"{path} cannot be made.",
            why=_reason(path, error),
            todo="The new keys are in the key store. 'airflow hkex-rap register' packs them: give it the same"
            " accounts and key store, and another --output.",
            path=str(path),
        ) from None


def _make(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            path.unlink()
            raise


def _reason(path: Path, error: OSError) -> str:
    if isinstance(error, FileExistsError):
        return "It is a directory." if os.path.isdir(path) else "The file exists."
    if not os.path.isdir(path.parent):
        return f"There is no directory {path.parent}."
    return f"{error.strerror or error}."


def read_passphrase(args: Namespace) -> str | None:
    """Return the first line of ``passphrase_file``, masked in logs; None if no file is given.

    :raises RapConfigurationError: if the file cannot be read, or the line is empty, not UTF-8, or no valid
        passphrase.
    """
    from airflow_provider_hkex_rap.hooks.masking import mask_secrets

    path: str | None = args.passphrase_file
    if path is None:
        return None
    try:
        passphrase = Path(path).read_text("utf-8-sig").partition("\n")[0].rstrip("\r")
    except OSError as error:
        raise RapConfigurationError(
            f"The passphrase file {path} cannot be read: {error.strerror or error}.",
            todo="Give the path of a text file in --passphrase-file.",
            path=path,
        ) from None
    except UnicodeDecodeError:
        passphrase = ""
    if not passphrase:
        raise RapConfigurationError(
            f"{path} holds no passphrase.",
            why="The file's first line, in UTF-8, is the passphrase that encrypts the private keys.",
            todo="Write the connection's 'private_key_passphrase' into it.",
            path=path,
        )
    mask_secrets([passphrase])
    check_passphrase(passphrase)
    return passphrase
