"""Parse RAP user accounts (§3.1)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from airflow_provider_hkex_rap.rap.errors import RapConfigurationError

_FORM = re.compile(r"D(C[A-Z0-9]{3})00[1-4]")
_SIMILAR = re.compile(r"\s*d?c?[a-z0-9]{2,3}[0-9]{0,3}\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Account:
    """A RAP user account (§3.1).

    ::

        Account("DCXYZ001").customer  # "CXYZ"

    :param name: ``DC``, three capital letters or digits, and ``001`` to ``004``. RAP is case sensitive.
    :raises RapConfigurationError: if the name does not have this form.
    """

    name: str

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _FORM.fullmatch(self.name):
            # A key or a passphrase that was typed into this field must not be shown.
            shown = repr(self.name) if _SIMILAR.fullmatch(str(self.name)) else "The login"
            raise RapConfigurationError(
                f"{shown} is not a RAP user account.",
                why="An account is DC, three of A-Z and 0-9, and 001 to 004, in capitals (guide §3.1).",
                todo="Set the connection's login to the account as HKEX assigned it, such as DCXYZ001.",
                account=self.name if shown != "The login" else "",
            )

    @property
    def customer(self) -> str:
        """The DCASS customer code, such as ``CXYZ``."""
        return self.name[1:5]

    def __str__(self) -> str:
        return self.name


def parse_customer(text: str) -> str:
    """Return the DCASS customer code in a text (§3.1).

    :param text: ``C`` and three capital letters or digits.
    :raises RapConfigurationError: if it has another form.
    """
    try:
        return Account(f"D{text}001").customer
    except RapConfigurationError:
        raise RapConfigurationError(
            f"{text!r} is not a DCASS customer code.",
            why="A code is C and three of A-Z and 0-9, in capital letters (guide §3.1).",
            todo="Give the middle of your RAP user accounts: CXYZ if they are DCXYZ001 and so on.",
            customer=text,
        ) from None
