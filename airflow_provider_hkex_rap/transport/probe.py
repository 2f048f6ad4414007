"""Check an address without a login: the key exchange and the host key."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import asyncssh

from airflow_provider_hkex_rap.rap import algorithms
from airflow_provider_hkex_rap.rap.errors import RapUnavailable
from airflow_provider_hkex_rap.transport.connect import (
    OFFERED,
    AddressUnavailableError,
    RapClient,
    attempt,
    check_user,
    not_permitted,
)
from airflow_provider_hkex_rap.transport.undocumented import quiet_logging

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.rap.sites import Address
    from airflow_provider_hkex_rap.transport.login import Login


class Probe(NamedTuple):
    """The result of a connection to one address that ended before any login."""

    cipher: str
    """The negotiated cipher (§2.1)."""
    mac: str
    """The negotiated MAC algorithm; a GCM cipher is its own."""
    host_key: str
    """The server's public key, in OpenSSH's one-line form."""
    host_key_fingerprint: str
    """Its SHA-256 fingerprint."""


async def probe(login: Login, address: Address) -> Probe:
    """Connect to an address, exchange keys, check the host key, and disconnect.

    The account's name and keys are not sent, so that no session of the account ends (§4.3).

    :param login: the pinned host keys and the time-out.
    :param address: one address of RAP.
    :raises RapUnavailable: if the address did not answer in time, or ended the key exchange.
    :raises RapConfigurationError: if this machine does not permit the connection.
    :raises RapAlgorithmError: if the server shares no algorithm of §2.1 with us.
    :raises RapHostKeyError: if the server showed a host key that is not pinned.
    """
    check_user()
    client = _ProbeClient(login)
    try:
        with quiet_logging():
            key = await attempt(_exchange_keys(address, client), client, address)
    except AddressUnavailableError as error:
        if error.denied:
            raise not_permitted([f"{address}: {error}"], login) from None
        raise RapUnavailable(
            f"RAP at {address} is not available: {error}.",
            why="The address is out of reach, RAP is closed, or HKEX has switched to the other site (§2.2).",
            todo="Check the route to SDNet/2 or HSN; if HKEX announced a switch, set the connection's"
            " 'site'.",
            attempts=(f"{address}: {error}",),
            account=login.account.name,
        ) from None
    return Probe(
        cipher=client.ssh.get_extra_info("send_cipher"),
        mac=client.ssh.get_extra_info("send_mac"),
        host_key=key.export_public_key("openssh").decode().strip(),
        host_key_fingerprint=key.get_fingerprint(),
    )


class _ProbeClient(RapClient):
    """Keeps the connection, which knows the negotiated algorithms."""

    ssh: asyncssh.SSHClientConnection

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        super().connection_made(conn)
        self.ssh = conn


async def _exchange_keys(address: Address, client: _ProbeClient) -> asyncssh.SSHKey:
    key = await asyncssh.get_server_host_key(
        address.host,
        address.port,
        kex_algs=algorithms.KEY_EXCHANGE,
        server_host_key_algs=algorithms.PUBLIC_KEY,
        config=None,
        options=asyncssh.SSHClientConnectionOptions(client_factory=lambda: client, **OFFERED),
    )
    if key is None or not client.validate_host_public_key(address.host, "", address.port, key):
        raise asyncssh.HostKeyNotVerifiable("Host key is not pinned")
    return key
