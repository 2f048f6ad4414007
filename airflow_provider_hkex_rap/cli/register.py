"""``airflow hkex-rap register``: what a registration with HKEX takes, in one zip (§5)."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from airflow.utils.cli import action_cli

from airflow_provider_hkex_rap.cli.command import command, command_clock
from airflow_provider_hkex_rap.cli.keygen import (
    make_key,
    new_file,
    open_account_keys,
    read_passphrase,
    write_new,
)
from airflow_provider_hkex_rap.rap.account import Account
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.keys import PrivateKey, PublicKey, public_key_file_name

if TYPE_CHECKING:
    from argparse import Namespace

    import pendulum

    from airflow_provider_hkex_rap.keystore.record import StoredKey
    from airflow_provider_hkex_rap.keystore.store import AccountKeys

FORM = "fingerprints.txt"
"""The file of the kit with what is typed into the form."""
MAX_WORKSTATIONS = 4
"""RAP client workstations that a participant may register (§7)."""

_SUBNET_RULE = "RAP client workstations are in one subnet: their first three octets are the same (guide §7)."


@action_cli  # type: ignore[untyped-decorator]
@command
def register(args: Namespace) -> int:
    """Make a key for each account, and pack what HKEX's form asks for; the private keys stay here."""
    accounts = _parse_accounts(args.account)
    workstations = parse_workstations(args.ip)
    path = new_file(Path(args.output))
    # Every store is readable before any key is made.
    stores = [open_account_keys(account, args) for account in accounts]
    now = command_clock()()
    kit = RegistrationKit({keys.account: _key_to_register(keys, args, now) for keys in stores}, workstations)
    write_new(path, kit.pack(now))
    print(kit.form)
    print(
        f"{path} holds the public keys and this text. Send it to HKEX by Client Connect, form TechS 8 (§5)."
        " The private keys are in the key store; a key becomes current by its first login."
    )
    return 0


@dataclass(frozen=True, slots=True)
class RegistrationKit:
    """What a customer sends to HKEX (§5). It takes public keys, so it cannot hold a private one.

    :param keys: the public key of each account.
    :param workstations: the addresses of the RAP client workstations (§7).
    """

    keys: Mapping[Account, PublicKey]
    workstations: Sequence[IPv4Address]

    @property
    def form(self) -> str:
        """What the form asks for as text: accounts, fingerprints as in §3.2.2, addresses; ASCII."""
        lines = [
            "RAP user account  Public key file  Public key fingerprint (MD5)",
            *(
                f"{account.name:<16}  {public_key_file_name(account):<15}  {key.fingerprint}"
                for account, key in self.keys.items()
            ),
            "",
            "IP addresses of the RAP client workstations",
            *map(str, self.workstations),
            "",
        ]
        return "\n".join(lines)

    @property
    def files(self) -> dict[str, str]:
        """The text of each file, by name (§3.2.1)."""
        public = {public_key_file_name(it): key.to_rfc4716(it.name) for it, key in self.keys.items()}
        return {**public, FORM: self.form}

    def pack(self, now: pendulum.DateTime) -> bytes:
        """Return the kit as a zip.

        :param now: the time that its files show.
        """
        packed = io.BytesIO()
        with ZipFile(packed, "w") as archive:
            for name, text in self.files.items():
                entry = ZipInfo(name, (now.year, now.month, now.day, now.hour, now.minute, now.second))
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, text.encode("ascii"), ZIP_DEFLATED)
        return packed.getvalue()


def parse_workstations(texts: Sequence[str]) -> tuple[IPv4Address, ...]:
    """Return the addresses of the RAP client workstations (§7).

    :param texts: one to four IPv4 addresses, the first three octets of all the same.
    :raises RapConfigurationError: one is not such an address or given twice, or they are too many or of
        several subnets.
    """
    addresses = tuple(map(_parse_workstation, texts))
    if not 1 <= len(addresses) <= MAX_WORKSTATIONS or len(set(addresses)) < len(addresses):
        raise RapConfigurationError(
            f"The addresses {', '.join(texts)} cannot be registered.",
            why=f"At most {MAX_WORKSTATIONS} RAP client workstations are registered (guide §7), each once.",
            todo=f"Give 1 to {MAX_WORKSTATIONS} different addresses.",
            addresses=tuple(texts),
        )
    if len(set(map(_subnet, addresses))) > 1:
        raise RapConfigurationError(
            f"The addresses {', '.join(texts)} are of several subnets.",
            why=_SUBNET_RULE,
            todo="Give those by which the workstations reach SDNet/2 or HSN.",
            addresses=tuple(texts),
        )
    return addresses


def _parse_workstation(text: str) -> IPv4Address:
    try:
        address = IPv4Address(text)
    except AddressValueError:
        address = None
    if address is None or not _is_a_host(address):
        raise RapConfigurationError(
            f"{text!r} is not the address of a workstation.",
            why=f"It is an IPv4 address that other hosts can see. {_SUBNET_RULE}",
            todo="Give it as four octets, such as 10.1.1.1, without a mask or a port.",
            address=text,
        )
    return address


def _is_a_host(address: IPv4Address) -> bool:
    edges = (_subnet(address).network_address, _subnet(address).broadcast_address)
    nowhere = address.is_loopback or address.is_link_local or address.is_unspecified
    return not (nowhere or address.is_multicast or address.is_reserved or address in edges)


def _subnet(address: IPv4Address) -> IPv4Network:
    return IPv4Network((address, 24), strict=False)


def _parse_accounts(names: Sequence[str]) -> tuple[Account, ...]:
    accounts = tuple(map(Account, names))
    if len(set(accounts)) < len(accounts) or len({account.customer for account in accounts}) > 1:
        raise RapConfigurationError(
            f"The accounts {', '.join(names)} cannot be registered together.",
            why="A registration is of one clearing participant, and each of its accounts has one key (§3.1,"
            " §3.2).",
            todo="Give each account once, all of the same DCASS customer code.",
            accounts=tuple(names),
        )
    return tuple(sorted(accounts, key=str))


def _key_to_register(keys: AccountKeys, args: Namespace, now: pendulum.DateTime) -> PublicKey:
    """Return the public key that waits for its registration, or that of a new key.

    So a command that was interrupted can be run again, and a kit that was lost be packed again.
    """
    waiting = keys.record.unregistered
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
