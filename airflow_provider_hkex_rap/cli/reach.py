"""Check that RAP can be reached: the addresses of both sites, and the address that RAP sees of us."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from airflow_provider_hkex_rap.cli.finding import FAIL, NOTE, OK, WARN, Finding
from airflow_provider_hkex_rap.rap.errors import (
    RapAlgorithmError,
    RapConfigurationError,
    RapError,
    RapHostKeyError,
    RapUnavailable,
)
from airflow_provider_hkex_rap.rap.sites import Site

if TYPE_CHECKING:
    from ipaddress import IPv4Address

    from airflow_provider_hkex_rap.hooks.login_source import AirflowLoginSource
    from airflow_provider_hkex_rap.rap.sites import Address
    from airflow_provider_hkex_rap.transport.login import Login
    from airflow_provider_hkex_rap.transport.probe import Probe

_OTHER = "other site"
_AT_A_SWITCH = "No login works today if HKEX switches to it (§2.2)."


def check_reach(source: AirflowLoginSource, login: Login) -> Iterator[Finding]:
    """Check the addresses of both sites, without a login.

    A fault of the site that is not active is a warning: it matters on the day of a switch (§2.2).

    :param source: the connection.
    :param login: the login at the active site.
    """
    site = Site.SECONDARY if login.site is Site.PRIMARY else Site.PRIMARY
    try:
        other = source.login_at(site)
    except RapConfigurationError as error:
        other = None
        missing = Finding(WARN, _OTHER, f"{error} {_AT_A_SWITCH}")
    here, there = asyncio.run(_probe_sites(login, other))
    one_works = not all(isinstance(found, RapError) for found in here)
    for address, found in zip(login.addresses, here, strict=True):
        yield from _findings(address, found, login, one_works=one_works)
    yield from _source_findings(login.addresses, source.registered_addresses)
    if not other:
        yield missing
        return
    for address, found in zip(other.addresses, there, strict=True):
        yield _finding_of_other_site(address, found, other)


async def _probe_sites(
    login: Login, other: Login | None
) -> tuple[Sequence[Probe | RapError], Sequence[Probe | RapError]]:
    """Probe all addresses at once, so that those that do not answer take one time-out together."""
    logins = [(login, address) for address in login.addresses]
    logins += [(other, address) for address in other.addresses] if other else []
    found = await asyncio.gather(*(_probe(*each) for each in logins))
    return found[: len(login.addresses)], found[len(login.addresses) :]


async def _probe(login: Login, address: Address) -> Probe | RapError:
    from airflow_provider_hkex_rap.transport.probe import probe

    try:
        return await probe(login, address)
    except RapError as error:
        return error


def _findings(
    address: Address, found: Probe | RapError, login: Login, *, one_works: bool
) -> Iterator[Finding]:
    if isinstance(found, RapHostKeyError | RapAlgorithmError):
        yield Finding(OK, "address", f"{address} answers.")
        check = "host key" if isinstance(found, RapHostKeyError) else "algorithms"
        yield Finding(FAIL, check, str(found))
    elif isinstance(found, RapError):
        # A login tries the next address, so one that is down is only a warning.
        yield Finding(WARN if one_works else FAIL, "address", str(found))
    else:
        yield Finding(OK, "address", f"{address} answers.")
        # A GCM cipher is its own MAC.
        agreed = ", ".join(dict.fromkeys((found.cipher, found.mac)))
        yield Finding(OK, "algorithms", f"{address}: {agreed} (§2.1).")
        if login.host_keys is None:
            yield Finding(
                WARN,
                "host key",
                f"{address} shows {found.host_key_fingerprint} and nothing is pinned. Confirm it with HKEX,"
                f" then set 'host_key' to {found.host_key!r} and remove 'no_host_key_check'.",
            )
        else:
            yield Finding(OK, "host key", f"{address} shows the pinned {found.host_key_fingerprint}.")


def _finding_of_other_site(address: Address, found: Probe | RapError, other: Login) -> Finding:
    if isinstance(found, RapUnavailable):
        return Finding(
            WARN,
            _OTHER,
            f"No answer at the {other.site} site ({'; '.join(found.attempts)}). HKEX may keep the site shut"
            " while it is not active; else a switch to it fails (§2.2). Ask HKEX, and check the route and"
            " the firewall before that day.",
        )
    if isinstance(found, RapError):
        return Finding(WARN, _OTHER, f"At the {other.site} site: {found} {_AT_A_SWITCH}")
    pinned = "the pinned" if other.host_keys is not None else "a host key that nothing is compared with,"
    shown = f"shows {pinned} {found.host_key_fingerprint}"
    return Finding(OK, _OTHER, f"{address} of the {other.site} site answers and {shown}.")


def _source_findings(addresses: Sequence[Address], registered: Sequence[IPv4Address]) -> Iterator[Finding]:
    """Yield a finding for each address of this machine that connections to RAP come from."""
    routes: dict[str, list[str]] = {}
    for address in addresses:
        if used := _local_address(address):
            routes.setdefault(used, []).append(str(address))
    for used, reached in routes.items():
        yield source_finding(used, registered, f"on the way to {', '.join(reached)}")


def source_finding(used: str, registered: Sequence[IPv4Address], way: str) -> Finding:
    """Compare the address that RAP sees with those that HKEX has registered (§4.3, §7).

    :param used: the address of this machine.
    :param registered: the connection's ``registered_addresses``; none if they are not known.
    :param way: the connection that *used* is the source of, in words.
    """
    if not registered:
        found = (
            f"This machine is {used} {way}. HKEX must have registered it (§4.3, §7); to compare it here, set"
            " 'registered_addresses'."
        )
        return Finding(NOTE, "source", found)
    if used in map(str, registered):
        return Finding(OK, "source", f"This machine is {used} {way}, one of 'registered_addresses'.")
    return Finding(
        WARN,
        "source",
        f"This machine is {used} {way}, and 'registered_addresses' has {', '.join(map(str, registered))}"
        " only. Unless a gateway translates it to one of these, RAP refuses the login (§4.3, §7). Run on a"
        " registered workstation, or register this one.",
    )


def _local_address(address: Address) -> str | None:
    """Return the address of this machine that a connection would come from; None if there is no route.

    The kernel chooses it when a UDP socket is connected, which sends nothing.
    """
    try:
        for family, kind, number, _, target in socket.getaddrinfo(*address, type=socket.SOCK_DGRAM):
            with socket.socket(family, kind, number) as udp:
                udp.connect(target)
                return str(udp.getsockname()[0])
    except OSError:
        # The probe of the address says why.
        return None
    return None
