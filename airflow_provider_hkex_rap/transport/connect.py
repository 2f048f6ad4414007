"""Getting in: the site's addresses in turn, a pinned host key, and one authentication."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import asyncssh

from airflow_provider_hkex_rap.rap import algorithms
from airflow_provider_hkex_rap.rap.errors import (
    RapAlgorithmError,
    RapAuthenticationError,
    RapError,
    RapHostKeyError,
    RapUnavailable,
)

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.rap.sites import Address
    from airflow_provider_hkex_rap.transport.login import Login

log = logging.getLogger(__name__)

# At INFO asyncssh tells of every channel; a task's log is for people. A level that is set stays.
if logging.getLogger("asyncssh").level == logging.NOTSET:
    logging.getLogger("asyncssh").setLevel(logging.WARNING)

# The default window of 2 MiB holds a session to 47 MB/s at 20 ms.
_WINDOW = 16 * 1024 * 1024
_PACKET = 256 * 1024

_REFUSALS = (
    asyncssh.DISC_HOST_NOT_ALLOWED_TO_CONNECT,
    asyncssh.DISC_ILLEGAL_USER_NAME,
    asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE,
)


# Neither ~/.ssh/config nor an agent may add a key, a host or an algorithm of its own.
OFFERED: dict[str, Any] = {
    "config": None,
    "agent_path": None,
    "client_keys": None,
    "encryption_algs": algorithms.CIPHERS,
    "mac_algs": algorithms.MACS,
    "signature_algs": algorithms.PUBLIC_KEY,
    "compression_algs": None,
    "login_timeout": 0,
    # A notice in Big5 is no reason to stay out.
    "utf8_decode_errors": "replace",
}
"""What every connection offers and sets alike (§2.1)."""

T = TypeVar("T")


class AddressUnavailableError(Exception):
    """One address gave no login, and said nothing that ends the search; its text says why."""


@dataclass(frozen=True, slots=True)
class Connected:
    """An authenticated SSH connection, and who is at its two ends.

    :param ssh: the connection.
    :param client: its callbacks; they know how it ended.
    :param address: the address that let us in.
    """

    ssh: asyncssh.SSHClientConnection
    client: RapClient
    address: Address


class RapClient(asyncssh.SSHClient):
    """Checks the host key, offers the keys, and remembers how the connection ended."""

    def __init__(self, login: Login) -> None:
        self.login = login
        self._client_keys = [asyncssh.import_private_key(key.to_der()) for key in login.client_keys]
        self._offers = self._key_pairs()
        self.host_key: asyncssh.SSHKey | None = None
        self.offered: asyncssh.SSHKeyPair | None = None
        self.offers: set[bytes] = set()
        self.source_address = ""
        self.ended = asyncio.Event()
        self.end: Exception | None = None

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        """Note the address that the server sees us come from (§4.3)."""
        self.source_address = conn.get_extra_info("sockname", ("an unknown address",))[0]

    def connection_lost(self, exc: Exception | None) -> None:
        """Note how the connection ended."""
        self.end = exc
        self.ended.set()

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Return whether *key* is pinned."""
        self.host_key = key
        pinned = self.login.host_keys
        return pinned is None or any(key.public_data == known.public_data for known in pinned)

    def public_key_auth_requested(self) -> asyncssh.SSHKeyPair | None:
        """Return the next key to offer, or None where all were refused."""
        pair = next(self._offers, None)
        if pair:
            self.offered = pair
            self.offers.add(pair.public_data)
        return pair

    def _key_pairs(self) -> Iterator[asyncssh.SSHKeyPair]:
        """Offer each key under every signature algorithm of §2.1, within the one connection.

        asyncssh alone would sign with SHA-1 only where the server does not announce what it takes, and what
        a server announces an account need not take. First every key as announced: servers count the tries.
        """
        announced = asyncssh.load_keypairs(self._client_keys)
        yield from announced
        for key, tried in zip(self._client_keys, announced, strict=True):
            for algorithm in algorithms.PUBLIC_KEY:
                if algorithm != tried.get_algorithm():
                    (pair,) = asyncssh.load_keypairs([key])
                    pair.sig_algorithms = (algorithm.encode(),)
                    pair.set_sig_algorithm(algorithm.encode())
                    yield pair


async def connect(login: Login) -> Connected:
    """Log in at the first address of the site that lets us authenticate.

    Another address is tried only where one fails before a key was offered, and never one of the other
    site (§2.2): a refused key is not offered twice.

    :raises RapUnavailable: no address answered in time.
    :raises RapAuthenticationError: the login was refused.
    :raises RapHostKeyError: a server showed a host key that is not pinned.
    :raises RapAlgorithmError: a server shares no algorithm of §2.1 with us.
    """
    if login.host_keys is None:
        log.warning("Host keys are not checked: whoever answers for RAP is believed. Pin 'host_key' instead.")
    attempts: list[str] = []
    why = "The addresses are out of reach, RAP is shut, or HKEX has switched to the other site (§2.2)."
    todo = "Check the route to SDNet/2 or HSN; where HKEX announced a switch, set the connection's 'site'."
    for address in login.addresses:
        client = RapClient(login)
        try:
            return Connected(await attempt(_log_in(address, login, client), client, address), client, address)
        except AddressUnavailableError as error:
            attempts.append(f"{address}: {error}")
            log.warning("RAP at %s is not available: %s.", address, error)
        if client.offered is not None:
            why = (
                f"The login with key {', '.join(_offered(client))} from {client.source_address} broke off:"
                " RAP is shut or failing, or key or address are not registered (§4.3, §7)."
            )
            todo = "A later try may get in; else compare key and address with what HKEX has registered."
            break
    raise RapUnavailable(
        f"No login as {login.account} at the {login.site} site of RAP ({'; '.join(attempts)}).",
        why=why,
        todo=todo,
        attempts=tuple(attempts),
        account=login.account.name,
    )


async def _log_in(address: Address, login: Login, client: RapClient) -> asyncssh.SSHClientConnection:
    return await asyncssh.connect(
        address.host,
        address.port,
        client_factory=lambda: client,
        username=login.account.name,
        # Without any trusted key asyncssh asks the client about each; an empty value would read known_hosts.
        known_hosts=([], [], []),
        preferred_auth=("publickey",),
        kex_algs=algorithms.KEY_EXCHANGE,
        server_host_key_algs=algorithms.PUBLIC_KEY,
        window=_WINDOW,
        max_pktsize=_PACKET,
        **OFFERED,
    )


async def attempt(work: Awaitable[T], client: RapClient, address: Address) -> T:
    """Await an attempt at one address, no longer than the login allows.

    :param work: the attempt.
    :param client: its callbacks.
    :param address: where.
    :returns: what *work* gives.
    :raises AddressUnavailableError: another address may be tried.
    :raises RapAuthenticationError: the login was refused.
    :raises RapHostKeyError: the server showed a host key that is not pinned.
    :raises RapAlgorithmError: the server shares no algorithm of §2.1 with us.
    """
    try:
        async with asyncio.timeout(client.login.connect_timeout):
            return await work
    except TimeoutError:
        raise AddressUnavailableError(f"no answer within {client.login.connect_timeout:g} s") from None
    except (OSError, asyncssh.Error) as error:
        raise (_refusal(error, client, address) or AddressUnavailableError(reason_of(error))) from None


def _refusal(error: Exception, client: RapClient, address: Address) -> RapError | None:
    """Return the error that ends the search for an address, or None where the next may be tried."""
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return _host_key_error(client, address)
    if isinstance(error, asyncssh.KeyExchangeFailed):
        return RapAlgorithmError(
            f"RAP at {address} shares no algorithm with us: {error.reason}.",
            why="Only the algorithms of guide §2.1 are offered.",
            todo="Ask HKEX whether the guide has changed, and check that no proxy stands in between.",
            address=str(address),
        )
    if isinstance(error, asyncssh.PermissionDenied) or (
        isinstance(error, asyncssh.DisconnectError)
        and (error.code in _REFUSALS or "authentication failures" in error.reason)
    ):
        return _authentication_error(client, address)
    return None


def _host_key_error(client: RapClient, address: Address) -> RapHostKeyError:
    expected = tuple(key.get_fingerprint() for key in client.login.host_keys or ())
    received = client.host_key.get_fingerprint() if client.host_key else "no usable key"
    return RapHostKeyError(
        f"RAP at {address} showed host key {received}; pinned is {', '.join(expected)}.",
        why="Either HKEX changed its host key or somebody else answers at that address.",
        todo="Confirm the new fingerprint with HKEX over another channel, then pin it in 'host_key'.",
        address=str(address),
        expected=expected,
        received=received,
    )


def _authentication_error(client: RapClient, address: Address) -> RapAuthenticationError:
    login = client.login
    fingerprints = _offered(client)
    offered = f"with key {', '.join(fingerprints)}" if fingerprints else "before any key was offered"
    return RapAuthenticationError(
        f"RAP at {address} refused the login of {login.account} from {client.source_address} {offered}.",
        why="The key is not registered for this account or has expired (§3.2, §6.1), the source address"
        f" {client.source_address} is not registered (§4.3, §7), or the account does not exist (§3.1).",
        todo="Compare fingerprint and address with what HKEX has registered; else register again (§5).",
        account=login.account.name,
        address=str(address),
        source_address=client.source_address,
        fingerprints=fingerprints,
    )


def _offered(client: RapClient) -> tuple[str, ...]:
    """Return the fingerprints of the keys that were offered."""
    keys = client.login.client_keys
    return tuple(key.fingerprint for key in keys if key.public_key.blob in client.offers)


def reason_of(error: Exception) -> str:
    """Return what an error of asyncssh or of the network says, in its own words."""
    said = error.reason if isinstance(error, asyncssh.Error) else getattr(error, "strerror", None)
    return str(said or error) or type(error).__name__
