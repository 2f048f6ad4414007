"""Log in: the site's addresses in turn, a pinned host key, and one authentication."""

from __future__ import annotations

import asyncio
import errno
import getpass
import logging
import os
import re
import socket
from collections.abc import Awaitable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import asyncssh

from airflow_provider_hkex_rap.rap import algorithms
from airflow_provider_hkex_rap.rap.errors import (
    RapAlgorithmError,
    RapAuthenticationError,
    RapConfigurationError,
    RapError,
    RapHostKeyError,
    RapUnavailable,
)
from airflow_provider_hkex_rap.rap.printable import printable
from airflow_provider_hkex_rap.transport.negotiation import Negotiation
from airflow_provider_hkex_rap.transport.undocumented import TRIVIAL_LOGIN, key_pair, observe, send_together

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.rap.keys import PrivateKey
    from airflow_provider_hkex_rap.rap.sites import Address
    from airflow_provider_hkex_rap.transport.login import Login

log = logging.getLogger(__name__)

# The default window of 2 MiB limits a session to 47 MB/s at 20 ms.
_WINDOW = 24 * 1024 * 1024
_PACKET = 256 * 1024

_REFUSALS = (
    asyncssh.DISC_HOST_NOT_ALLOWED_TO_CONNECT,
    asyncssh.DISC_ILLEGAL_USER_NAME,
    asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE,
)


# Neither a file in the home directory, an agent nor Kerberos may add a key, a host or an algorithm. If one of
# these were left out, asyncssh would look for its file, and fail if it cannot look into the home directory.
OFFERED: dict[str, Any] = {
    "config": None,
    "agent_path": None,
    "client_keys": None,
    "x509_trusted_certs": None,
    "x509_trusted_cert_paths": [],
    "gss_host": None,
    "encryption_algs": algorithms.CIPHERS,
    "mac_algs": algorithms.MACS,
    "signature_algs": algorithms.PUBLIC_KEY,
    "compression_algs": None,
    "login_timeout": 0,
    # A server that lets anybody in has not checked our key: it is not RAP as the guide describes it (§3.2).
    "disable_trivial_auth": True,
    # A banner in Big5 must not prevent the login.
    "utf8_decode_errors": "replace",
}
"""The options of every connection (§2.1)."""

_NOT_PERMITTED = {errno.EPERM, errno.EACCES}
_ERROR_NUMBER = re.compile(r"\[Errno (\d+)\]")

T = TypeVar("T")


class AddressUnavailableError(Exception):
    """One address gave no login for a reason that does not end the search; its text is the reason.

    :param reason: the reason.
    :param denied: whether this machine does not permit the connection, so that RAP knows nothing of it.
    """

    def __init__(self, reason: str, *, denied: bool = False) -> None:
        super().__init__(reason)
        self.denied = denied


@dataclass(frozen=True, slots=True)
class Connected:
    """An authenticated SSH connection.

    :param ssh: the connection.
    :param client: its callbacks, which record how it ended.
    :param address: the address that accepted the login.
    """

    ssh: asyncssh.SSHClientConnection
    client: RapClient
    address: Address


class RapClient(asyncssh.SSHClient):
    """Checks the host key, offers the keys, and records how the connection ended.

    :param login: the pinned host keys, and the private keys to offer.
    """

    def __init__(self, login: Login) -> None:
        self.login = login
        self._offers = self._key_pairs()
        self.host_key: asyncssh.SSHKey | None = None
        self.offered: PrivateKey | None = None
        """The key that was offered last."""
        self.fingerprints: list[str] = []
        """MD5 fingerprints of the keys that were offered (§3.2.2)."""
        self.negotiation = Negotiation()
        self.source_address = ""
        self._socket: socket.socket | None = None
        self.ended = asyncio.Event()
        self.end: Exception | None = None

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        """Record the source address that the server sees (§4.3), and what it says from now on."""
        observe(conn, self.negotiation.received)
        send_together(conn)
        self._socket = conn.get_extra_info("socket")
        self.source_address = conn.get_extra_info("sockname", ("an unknown address",))[0]

    def connection_lost(self, exc: Exception | None) -> None:
        """End the connection for every process, and record how it ended."""
        # A forked process has a copy of the socket, and closing ours alone would leave the account logged in.
        # Airflow's OpenLineage listener forks when a task fails or is killed.
        if self._socket:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        self.end = exc
        self.ended.set()

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Return whether *key* is pinned."""
        self.host_key = key
        pinned = self.login.host_keys
        return pinned is None or any(key.public_data == known.public_data for known in pinned)

    def public_key_auth_requested(self) -> asyncssh.SSHKeyPair | None:
        """Return the next key to offer; None if all were refused."""
        for key, pair in self._offers:
            self.offered = key
            if key.fingerprint not in self.fingerprints:
                self.fingerprints.append(key.fingerprint)
            return pair
        return None

    def _key_pairs(self) -> Iterator[tuple[PrivateKey, asyncssh.SSHKeyPair]]:
        """Yield each key with each signature algorithm of §2.1, all for the one connection.

        asyncssh alone would sign with SHA-1 only if the server does not announce its algorithms, and an
        account need not take all that the server announces. Each key comes with the announced algorithm
        first, since servers count the attempts.
        """
        keys = [(key, _ssh_key(key)) for key in self.login.client_keys]
        announced = [(key, ssh_key, key_pair(ssh_key)) for key, ssh_key in keys]
        for key, _, pair in announced:
            yield key, pair
        for key, ssh_key, tried in announced:
            for algorithm in algorithms.PUBLIC_KEY:
                if algorithm != tried.get_algorithm():
                    yield key, key_pair(ssh_key, algorithm)


def _ssh_key(key: PrivateKey) -> asyncssh.SSHKey:
    # The numbers of the key were validated when it was read; with 4096 bits that takes 0.2 s.
    return asyncssh.import_private_key(key.to_der(), unsafe_skip_rsa_key_validation=True)


async def connect(login: Login) -> Connected:
    """Log in at the first address of the site that accepts the login.

    Another address is tried only if one fails before a key was offered, and never one of the other site
    (§2.2): a refused key is not offered twice.

    :raises RapUnavailable: if no address answered in time.
    :raises RapConfigurationError: if this machine permits no connection to any address.
    :raises RapAuthenticationError: if the login was refused, or asked for more than a key, or for none.
    :raises RapHostKeyError: if a server showed a host key that is not pinned.
    :raises RapAlgorithmError: if a server shares no algorithm of §2.1 with us.
    """
    check_user()
    if login.host_keys is None:
        log.warning(
            "Host key verification is disabled; the connection to RAP can be intercepted. Pin 'host_key'."
        )
    attempts: list[str] = []
    denied = True
    why = "The addresses are out of reach, RAP is closed, or HKEX has switched to the other site (§2.2)."
    todo = "Check the route to SDNet/2 or HSN; if HKEX announced a switch, set the connection's 'site'."
    for address in login.addresses:
        client = RapClient(login)
        try:
            return Connected(await attempt(_log_in(address, login, client), client, address), client, address)
        except AddressUnavailableError as error:
            attempts.append(f"{address}: {error}")
            denied = denied and error.denied
            log.warning("RAP at %s is not available: %s.", address, error)
        if client.offered is not None:
            why = (
                f"The login with key {', '.join(client.fingerprints)} from {client.source_address} broke off:"
                " RAP is closed or failing, or the key or the address is not registered (§4.3, §7)."
            )
            todo = "Try again later; if it persists, compare key and address with HKEX's registration."
            break
    if denied:
        raise not_permitted(attempts, login)
    raise RapUnavailable(
        f"No login as {login.account} at the {login.site} site of RAP ({'; '.join(attempts)}).",
        why=why,
        todo=todo,
        attempts=tuple(attempts),
        account=login.account.name,
    )


def not_permitted(attempts: list[str], login: Login) -> RapConfigurationError:
    """Return the error of a connection that this machine does not permit.

    :param attempts: one ``host:port: reason`` for each address tried.
    :param login: the account.
    """
    return RapConfigurationError(
        f"This machine does not permit the connection to RAP ({'; '.join(attempts)}).",
        why="A local firewall, or a rule of SELinux or of the container, denies it. RAP was not reached.",
        todo="Allow this user's outgoing connections to these addresses.",
        attempts=tuple(attempts),
        account=login.account.name,
    )


def check_user() -> None:
    """Check that the user has a name and a home directory: asyncssh asks for both, but uses neither.

    :raises RapConfigurationError: if not, as in a container whose user id is not in its user database.
    """
    try:
        getpass.getuser()
        Path.home()
    except (KeyError, OSError, ImportError, RuntimeError):
        raise RapConfigurationError(
            "The user of this process has no name or no home directory.",
            why="The SSH library asks for both, although neither is used.",
            todo="Set the environment variables LOGNAME and HOME, or add the user id to the user database.",
        ) from None


async def _log_in(address: Address, login: Login, client: RapClient) -> asyncssh.SSHClientConnection:
    return await asyncssh.connect(
        address.host,
        address.port,
        client_factory=lambda: client,
        username=login.account.name,
        # Without a trusted key asyncssh asks the client about each; an empty value would read known_hosts.
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
    :param address: the address.
    :returns: the result of *work*.
    :raises AddressUnavailableError: if another address may be tried.
    :raises RapAuthenticationError: if the login was refused, or asked for more than a key, or for none.
    :raises RapHostKeyError: if the server showed a host key that is not pinned.
    :raises RapAlgorithmError: if the server shares no algorithm of §2.1 with us.
    """
    try:
        async with asyncio.timeout(client.login.connect_timeout):
            return await work
    except TimeoutError as error:
        silence = AddressUnavailableError(f"no answer within {client.login.connect_timeout:g} s")
        raise (_final_error(error, client, address) or silence) from None
    except Exception as error:
        # asyncssh also raises what went wrong in reading a packet, such as a decoding error.
        raise (_final_error(error, client, address) or _address_error(error, address)) from None


def _address_error(error: Exception, address: Address) -> AddressUnavailableError:
    reason = reason_of(error)
    if not isinstance(error, OSError | asyncssh.Error):
        reason = f"its answer cannot be read ({type(error).__name__}: {reason})"
    numbers = set(_error_numbers(error))
    # Over IPv6, a router that denies the way gives EACCES; no answer of a server gives one of these numbers.
    is_local = errno.EACCES not in numbers or ":" not in address.host
    if numbers and numbers <= _NOT_PERMITTED and is_local:
        denial = " or ".join(sorted(map(os.strerror, numbers)))
        return AddressUnavailableError(f"{reason}: {denial} by this machine", denied=True)
    return AddressUnavailableError(reason)


def _error_numbers(error: Exception) -> list[int]:
    if not isinstance(error, OSError):
        return []
    # If a name has several addresses, asyncio puts their errors into one text.
    return [error.errno] if error.errno else [int(it) for it in _ERROR_NUMBER.findall(str(error))]


def _final_error(error: Exception, client: RapClient, address: Address) -> RapError | None:
    """Return the error that ends the search for an address; None if the next one may be tried."""
    # What the server said before counts more than the error: either side may close the connection first.
    if client.negotiation.mismatches:
        return _algorithm_error(client, address)
    if client.negotiation.second_factor is not None:
        return _second_factor_error(client, address)
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return _host_key_error(client, address)
    if isinstance(error, asyncssh.KeyExchangeFailed):
        return _key_exchange_error(error, address)
    if isinstance(error, asyncssh.PermissionDenied) and error.reason == TRIVIAL_LOGIN:
        return _no_key_error(client, address)
    if _is_refusal(error):
        if client.negotiation.other_methods is not None and not client.fingerprints:
            return _other_methods_error(client, address)
        return _authentication_error(client, address)
    return None


def _is_refusal(error: Exception) -> bool:
    return isinstance(error, asyncssh.PermissionDenied) or (
        isinstance(error, asyncssh.DisconnectError)
        and (error.code in _REFUSALS or "authentication failures" in error.reason)
    )


def _algorithm_error(client: RapClient, address: Address) -> RapAlgorithmError:
    found = client.negotiation.mismatches
    return RapAlgorithmError(
        f"RAP at {address} shares no algorithm with us; {'; '.join(map(str, found))}.",
        why="Only the algorithms of guide §2.1 are offered.",
        todo="Ask HKEX whether the guide has changed, and check for a proxy or another server in between.",
        address=str(address),
        mismatches=tuple((it.kind, it.offered) for it in found),
    )


def _key_exchange_error(error: asyncssh.KeyExchangeFailed, address: Address) -> RapAlgorithmError:
    return RapAlgorithmError(
        f"The key exchange with RAP at {address} failed: {reason_of(error)}.",
        why="Both sides name common algorithms of guide §2.1, but could not use them.",
        todo="Ask HKEX whether the guide has changed, and check for a proxy or another server in between.",
        address=str(address),
        mismatches=(),
    )


def _host_key_error(client: RapClient, address: Address) -> RapHostKeyError:
    expected = tuple(key.get_fingerprint() for key in client.login.host_keys or ())
    received = client.host_key.get_fingerprint() if client.host_key else "no usable key"
    return RapHostKeyError(
        f"RAP at {address} showed host key {received}; pinned is {', '.join(expected)}.",
        why="Either HKEX changed its host key or another server answers at that address.",
        todo="Confirm the new fingerprint with HKEX over another channel, then pin it in 'host_key'.",
        address=str(address),
        expected=expected,
        received=received,
    )


def _authentication_error(client: RapClient, address: Address) -> RapAuthenticationError:
    offered = (
        f"with key {', '.join(client.fingerprints)}" if client.fingerprints else "before any key was offered"
    )
    return _login_error(
        client,
        address,
        f"refused the login of {client.login.account} from {client.source_address} {offered}{_said(client)}.",
        why="The key is not registered for this account or has expired (§3.2, §6.1), the source address"
        f" {client.source_address} is not registered (§4.3, §7), or the account does not exist (§3.1).",
        todo="Compare fingerprint and address with HKEX's registration; else register again (§5).",
        keys_refused=True,
    )


def _second_factor_error(client: RapClient, address: Address) -> RapAuthenticationError:
    key = client.offered.fingerprint if client.offered else "no key"
    return _login_error(
        client,
        address,
        f"accepted key {key} of {client.login.account} from {client.source_address}, but asks for a second"
        f" factor ({client.negotiation.second_factor}).",
        why="RAP authenticates an account by its key alone (§3.2), so something about this account or this"
        " source address is set up differently, or another server answers.",
        todo="Check the account and its addresses with HKEX (§4.3, §7); the key itself is registered.",
        keys_refused=False,
    )


def _no_key_error(client: RapClient, address: Address) -> RapAuthenticationError:
    return _login_error(
        client,
        address,
        f"let {client.login.account} in from {client.source_address} without asking for its key.",
        why="RAP authenticates an account by its key (§3.2); no key was proven here, so this may be another"
        " server. Its login was not used.",
        todo="Check the addresses and the pinned 'host_key' of the connection, and ask HKEX.",
        keys_refused=False,
    )


def _other_methods_error(client: RapClient, address: Address) -> RapAuthenticationError:
    return _login_error(
        client,
        address,
        f"takes no key from {client.login.account} at {client.source_address}; for a login it offers"
        f" {client.negotiation.other_methods}{_said(client)}.",
        why="RAP authenticates an account by its key (§3.2), so this may be another server. No key was"
        " offered.",
        todo="Check the addresses and the pinned 'host_key' of the connection, and ask HKEX.",
        keys_refused=False,
    )


def _said(client: RapClient) -> str:
    """Return the text of the server's disconnect message, after a colon; an empty text if there is none."""
    text = client.negotiation.disconnect
    return f": {text}" if text else ""


def _login_error(
    client: RapClient, address: Address, what: str, *, why: str, todo: str, keys_refused: bool
) -> RapAuthenticationError:
    return RapAuthenticationError(
        f"RAP at {address} {what}",
        why=why,
        todo=todo,
        account=client.login.account.name,
        address=str(address),
        source_address=client.source_address,
        fingerprints=tuple(client.fingerprints),
        keys_refused=keys_refused,
    )


def reason_of(error: Exception) -> str:
    """Return the reason that an error of asyncssh or of the network gives, printable and short.

    The reason may be a text of the server, such as that of a disconnect or of an SFTP status.
    """
    reason = error.reason if isinstance(error, asyncssh.Error) else getattr(error, "strerror", None)
    return printable(str(reason or error)) or type(error).__name__
