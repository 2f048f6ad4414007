"""Parse the sites of RAP and their addresses (§2.2, §7.1)."""

from __future__ import annotations

import ipaddress
from enum import StrEnum
from typing import NamedTuple

from airflow_provider_hkex_rap.rap.errors import RapConfigurationError

RAP_PORT = 18801


class Address(NamedTuple):
    """A host and a port of a site."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """True if the address is on this machine."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Site(StrEnum):
    """A data centre of HKEX. One of them is active; HKEX announces a switch to the other (§2.2)."""

    PRIMARY = "primary"
    SECONDARY = "secondary"

    @classmethod
    def parse(cls, text: str) -> Site:
        """Return the site that *text* names.

        :param text: ``primary`` or ``secondary``.
        :raises RapConfigurationError: if *text* is neither of them.
        """
        try:
            return cls(text)
        except ValueError:
            raise RapConfigurationError(
                "The extra 'site' of the connection names no site of RAP.",
                why="RAP has two sites, primary and secondary (guide §2.2).",
                todo="Set it to the site that HKEX has announced as active: primary or secondary.",
                field="site",
            ) from None


GUIDE_ADDRESSES = {
    Site.PRIMARY: (Address("10.151.14.141", RAP_PORT), Address("10.151.14.142", RAP_PORT)),
    Site.SECONDARY: (Address("10.152.14.141", RAP_PORT), Address("10.152.14.142", RAP_PORT)),
}


def parse_addresses(text: str, *, default_port: int = RAP_PORT, field: str = "host") -> tuple[Address, ...]:
    """Parse comma-separated addresses, in the given order.

    ::

        parse_addresses("10.0.0.1, [fd00::1]:18802")

    No error shows the text: it may be a secret that was typed into the wrong field.

    :param text: ``host`` or ``host:port``, separated by commas. An IPv6 address with a port needs brackets.
    :param default_port: the port of an address that names no port.
    :param field: the connection field of *text*, named in the error.
    :raises RapConfigurationError: if a part is not an address.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    return tuple(
        _parse_address(part, default_port, field, number) for number, part in enumerate(parts, start=1)
    )


def _parse_address(text: str, default_port: int, field: str, number: int) -> Address:
    host, port = text, str(default_port)
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        valid = bracket and (not rest or rest.startswith(":"))
        port = rest[1:] or port
    else:
        if text.count(":") == 1:
            host, _, port = text.partition(":")
        valid = bool(host) and "/" not in host and not any(c.isspace() for c in host)
    if not valid or not port.isdecimal() or not 0 < int(port) < 65536:
        raise RapConfigurationError(
            f"Address {number} in {field!r} is not valid.",
            why="An address is host or host:port, with a port from 1 to 65535.",
            todo="Separate addresses by commas, or leave the field blank for the guide's addresses (§7.1).",
            field=field,
            number=number,
        )
    return Address(host, int(port))
