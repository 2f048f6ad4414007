"""Read and check the fields of a connection before any network traffic."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_hkex_rap.rap.account import Account
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.keys import PrivateKey
from airflow_provider_hkex_rap.rap.masking import mask_private_key
from airflow_provider_hkex_rap.rap.sites import GUIDE_ADDRESSES, RAP_PORT, Address, Site, parse_addresses

if TYPE_CHECKING:
    from asyncssh import SSHKey

CONNECT_TIMEOUT = 30.0
IDLE_TIMEOUT = 60.0

_RSA_PUBLIC_KEY = re.compile(r"(?:^|\s)(?:ssh-rsa\s+)?(AAAAB3NzaC1yc2E[A-Za-z0-9+/]+=*)(?=\s|,|$)")


@dataclass(frozen=True, slots=True)
class Login:
    """The account, addresses, keys and time-outs of one login to RAP.

    :param account: the RAP user account (§3.1).
    :param site: the site that is active, as announced by HKEX (§2.2).
    :param addresses: the site's addresses, tried in this order until one allows authentication (§7.1).
    :param host_keys: the pinned host keys; None disables the check.
    :param client_keys: the private keys to offer, in this order, at most two (§6.3). Empty if the connection
        has no key; then the caller takes the keys from a key store.
    :param connect_timeout: seconds for one address, from the first packet to the end of the login.
    :param idle_timeout: seconds without an answer from RAP before the session is aborted.
    """

    account: Account
    site: Site
    addresses: tuple[Address, ...]
    host_keys: tuple[SSHKey, ...] | None
    client_keys: tuple[PrivateKey, ...] = field(repr=False)
    connect_timeout: float = CONNECT_TIMEOUT
    idle_timeout: float = IDLE_TIMEOUT

    @property
    def is_loopback(self) -> bool:
        """Whether every address is a loopback address."""
        return all(address.is_loopback for address in self.addresses)


def read_login(
    *,
    login: str | None,
    host: str | None,
    port: int | None,
    extra: Mapping[str, object],
    mask: Callable[[str], object],
) -> Login:
    """Return the login that a connection's fields describe.

    :param login: the RAP user account.
    :param host: ``host[:port]``, several separated by commas; blank for the guide's addresses (§7.1).
    :param port: the port of hosts that are given without one.
    :param extra: the connection's extra fields; blank values are ignored.
    :param mask: called with each secret, the private key line by line, before anything else uses it.
    :raises RapConfigurationError: if a field is missing or not valid.
    """
    for name, value in {"login": login, "host": host, **extra}.items():
        if name != "private_key" and "PRIVATE KEY-----" in str(value):
            raise RapConfigurationError(
                f"The field {name!r} holds a private key.",
                why="Only 'private_key' is kept out of logs and messages.",
                todo="Move the key to 'private_key', or give its path in 'key_file'. Renew the key if others"
                " may have seen it.",
            )
    account = Account(login or "")
    extra = {name: value for name, value in extra.items() if value not in (None, "")}
    site = Site.parse(str(extra.get("site", Site.PRIMARY)))
    return Login(
        account=account,
        site=site,
        addresses=_addresses(site, host, port, extra),
        host_keys=_host_keys(extra),
        client_keys=_client_keys(extra, mask),
        connect_timeout=_seconds(extra, "connect_timeout", CONNECT_TIMEOUT),
        idle_timeout=_seconds(extra, "idle_timeout", IDLE_TIMEOUT),
    )


def _addresses(
    site: Site, host: str | None, port: int | None, extra: Mapping[str, object]
) -> tuple[Address, ...]:
    fields = {
        Site.PRIMARY: ("host", host or ""),
        Site.SECONDARY: ("secondary_hosts", str(extra.get("secondary_hosts", ""))),
    }
    name, text = fields[site]
    if text.strip() or not (host or "").strip():
        return parse_addresses(text, default_port=port or RAP_PORT, field=name) or GUIDE_ADDRESSES[site]
    raise RapConfigurationError(
        "The secondary site has no address.",
        why="The connection has its own addresses for the primary site, but none for the secondary site.",
        todo="Set 'secondary_hosts', or leave 'host' blank for the guide's addresses of both sites (§7.1).",
        site=site,
    )


def _host_keys(extra: Mapping[str, object]) -> tuple[SSHKey, ...] | None:
    unchecked = str(extra.get("no_host_key_check", False)).lower() == "true"
    given = extra.get("host_key")
    if unchecked and given:
        raise RapConfigurationError(
            "Both 'host_key' and 'no_host_key_check' are set.",
            why="A pinned host key protects nothing if it is not checked.",
            todo="Keep 'host_key' and remove 'no_host_key_check'.",
        )
    if unchecked:
        return None
    return parse_host_keys(given if isinstance(given, list | tuple) else str(given or ""))


def parse_host_keys(keys: str | Iterable[object]) -> tuple[SSHKey, ...]:
    """Return the RSA public keys in a text.

    :param keys: one or more keys, each ``ssh-rsa AAAA…`` or ``AAAA…``, one per line or in a list; the output
        of ``ssh-keyscan`` is accepted.
    :raises RapConfigurationError: if there is no RSA key in it; RAP's host keys are RSA (§2.1).
    """
    from asyncssh import KeyImportError, import_public_key

    text = keys if isinstance(keys, str) else "\n".join(str(key) for key in keys)
    try:
        found = tuple(import_public_key(f"ssh-rsa {blob}") for blob in _RSA_PUBLIC_KEY.findall(text))
    except KeyImportError:
        found = ()
    if not found:
        raise RapConfigurationError(
            "The connection pins no RSA host key.",
            why="RAP has RSA host keys (guide §2.1), and a server is trusted only if its key is pinned.",
            todo="Set the extra 'host_key' to the key that HKEX gave you, as 'ssh-rsa AAAA…', one per line.",
        )
    return found


def _client_keys(extra: Mapping[str, object], mask: Callable[[str], object]) -> tuple[PrivateKey, ...]:
    if passphrase := str(extra.get("private_key_passphrase", "")):
        mask(passphrase)
    text, source = _private_key(extra)
    if not text:
        return ()
    mask_private_key(text, mask)
    return (PrivateKey.load(text, passphrase or None, source=source),)


def _private_key(extra: Mapping[str, object]) -> tuple[str, str]:
    """Return the text of the connection's private key and its source; empty if it has none."""
    if text := extra.get("private_key"):
        return str(text), "extra 'private_key'"
    path = extra.get("key_file")
    if not path:
        return "", ""
    try:
        return Path(str(path)).expanduser().read_text("utf-8-sig"), f"key file {str(path)!r}"
    except (OSError, UnicodeDecodeError) as error:
        raise RapConfigurationError(
            f"The key file {str(path)!r} cannot be read: {getattr(error, 'strerror', 'it is not text')}.",
            todo="Set the extra 'key_file' to a private key that the Airflow worker may read.",
            path=str(path),
        ) from None


def _seconds(extra: Mapping[str, object], name: str, default: float) -> float:
    value = extra.get(name, default)
    try:
        seconds = float(str(value))
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise RapConfigurationError(
            f"{value!r} in the extra {name!r} is not a number of seconds above zero.",
            todo=f"Set it to a number of seconds, or leave it blank for {default:g}.",
        )
    return seconds
