"""Parse the addresses of the RAP client workstations, from which HKEX lets an account log in (§4.3, §7)."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import AddressValueError, IPv4Address, IPv4Network

from airflow_provider_hkex_rap.rap.errors import RapConfigurationError

MAX_WORKSTATIONS = 4
"""Maximum number of RAP client workstations of a participant (§7)."""

_SUBNET_RULE = "RAP client workstations must be in one subnet, with the same first three octets (guide §7)."


def parse_registered_addresses(text: str) -> tuple[IPv4Address, ...]:
    """Return the addresses in the connection's ``registered_addresses``.

    No error shows the text: it may be a secret that was typed into the wrong field.

    :param text: one to four IPv4 addresses, separated by commas; blank if they are not known.
    :returns: the addresses; none if *text* is blank.
    :raises RapConfigurationError: if they cannot be registered together.
    """
    texts = [part.strip() for part in text.split(",") if part.strip()]
    if not texts:
        return ()
    try:
        return parse_workstations(texts, loopback=True)
    except RapConfigurationError as error:
        raise RapConfigurationError(
            f"The extra 'registered_addresses' of the connection is not valid: {_fault(texts)}.",
            why=error.why,
            todo="Write them as 10.1.1.1, 10.1.1.2, or leave the field blank.",
            field="registered_addresses",
        ) from None


def _fault(texts: Sequence[str]) -> str:
    """Return which rule the addresses break, without a text that may be a secret."""
    for number, text in enumerate(texts, start=1):
        try:
            _parse_workstation(text, loopback=True)
        except RapConfigurationError:
            return f"part {number} of {len(texts)}, separated by commas, is not the IPv4 address of a host"
    if len(texts) > MAX_WORKSTATIONS:
        return f"it has {len(texts)} addresses"
    if len(set(texts)) < len(texts):
        return "it gives an address twice"
    return "its addresses are of several subnets"


def parse_workstations(texts: Sequence[str], *, loopback: bool = False) -> tuple[IPv4Address, ...]:
    """Return the addresses of the RAP client workstations (§7).

    :param texts: one to four IPv4 addresses with the same first three octets.
    :param loopback: allow addresses of this machine itself, for trials against a simulated RAP.
    :raises RapConfigurationError: if one is not the address of a host or is given twice, if there are more
        than four, or if they are of several subnets.
    """
    addresses = tuple(_parse_workstation(text, loopback=loopback) for text in texts)
    if not 1 <= len(addresses) <= MAX_WORKSTATIONS or len(set(addresses)) < len(addresses):
        raise RapConfigurationError(
            f"The addresses {', '.join(texts)} cannot be registered.",
            why=f"At most {MAX_WORKSTATIONS} RAP client workstations can be registered, each once (§7).",
            todo=f"Give 1 to {MAX_WORKSTATIONS} different addresses.",
            addresses=tuple(texts),
        )
    if len(set(map(_subnet, addresses))) > 1:
        raise RapConfigurationError(
            f"The addresses {', '.join(texts)} are of several subnets.",
            why=_SUBNET_RULE,
            todo="Give the addresses that the workstations have in SDNet/2 or HSN.",
            addresses=tuple(texts),
        )
    return addresses


def _parse_workstation(text: str, *, loopback: bool) -> IPv4Address:
    try:
        address = IPv4Address(text)
    except AddressValueError:
        address = None
    if address is None or not (_is_a_host(address) or (loopback and address.is_loopback)):
        raise RapConfigurationError(
            f"{text!r} is not the address of a workstation.",
            why=f"It must be an IPv4 address that other hosts can reach. {_SUBNET_RULE}",
            todo="Write it as four octets, such as 10.1.1.1, without a mask or a port.",
            address=text,
        )
    return address


def _is_a_host(address: IPv4Address) -> bool:
    edges = (_subnet(address).network_address, _subnet(address).broadcast_address)
    nowhere = address.is_loopback or address.is_link_local or address.is_unspecified
    return not (nowhere or address.is_multicast or address.is_reserved or address in edges)


def _subnet(address: IPv4Address) -> IPv4Network:
    return IPv4Network((address, 24), strict=False)
