"""Prepare a registration with HKEX: accounts, and the files for its form (§5)."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from airflow_provider_hkex_rap.rap.account import Account
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.keys import PublicKey, public_key_file_name

if TYPE_CHECKING:
    from ipaddress import IPv4Address

    import pendulum

FORM = "fingerprints.txt"
"""Name of the text file with the values for HKEX's form."""


@dataclass(frozen=True, slots=True)
class RegistrationKit:
    """The files that a customer sends to HKEX (§5). It is made from public keys and contains no private key.

    :param keys: the public key of each account.
    :param workstations: the addresses of the RAP client workstations (§7).
    """

    keys: Mapping[Account, PublicKey]
    workstations: Sequence[IPv4Address]

    @property
    def form(self) -> str:
        """The values for HKEX's form as ASCII text: accounts, fingerprints (§3.2.2) and addresses."""
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

        :param now: the modification time of its files.
        """
        packed = io.BytesIO()
        with ZipFile(packed, "w") as archive:
            for name, text in self.files.items():
                entry = ZipInfo(name, (now.year, now.month, now.day, now.hour, now.minute, now.second))
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, text.encode("ascii"), ZIP_DEFLATED)
        return packed.getvalue()


def parse_accounts(names: Sequence[str]) -> tuple[Account, ...]:
    """Return the accounts of one registration, sorted (§3.1).

    :param names: RAP user accounts of one customer, each once.
    :raises RapConfigurationError: if a name is not an account, is given twice, or is of another customer.
    """
    accounts = tuple(map(Account, names))
    if len(set(accounts)) < len(accounts) or len({account.customer for account in accounts}) > 1:
        raise RapConfigurationError(
            f"The accounts {', '.join(names)} cannot be registered together.",
            why="All accounts must be of one clearing participant, each with one key (§3.1, §3.2).",
            todo="Give each account once, all with the same DCASS customer code.",
            accounts=tuple(names),
        )
    return tuple(sorted(accounts, key=str))
