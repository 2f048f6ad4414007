"""Read and check the fields of a connection before any network traffic."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_hkex_rap.rap.account import Account
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.keys import PrivateKey
from airflow_provider_hkex_rap.rap.masking import mask_private_key
from airflow_provider_hkex_rap.rap.pem import holds_private_key
from airflow_provider_hkex_rap.rap.private_key_text import check_passphrase
from airflow_provider_hkex_rap.rap.sites import GUIDE_ADDRESSES, RAP_PORT, Address, Site, parse_addresses
from airflow_provider_hkex_rap.transport.extras import Extras
from airflow_provider_hkex_rap.transport.host_keys import parse_host_keys

if TYPE_CHECKING:
    from asyncssh import SSHKey

CONNECT_TIMEOUT = 30.0
IDLE_TIMEOUT = 60.0


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
    extra: object,
    mask: Callable[[Sequence[str]], object],
) -> Login:
    """Return the login that a connection's fields describe.

    :param login: the RAP user account.
    :param host: ``host[:port]``, several separated by commas; blank for the guide's addresses (§7.1).
    :param port: the port of hosts that are given without one.
    :param extra: the connection's extra fields, a mapping; blank values are ignored.
    :param mask: called with secrets, such as the lines of the private key, before anything else uses them.
    :raises RapConfigurationError: if a field is missing or not valid.
    """
    _check_for_private_key({"login": login, "host": host, **(extra if isinstance(extra, Mapping) else {})})
    fields = Extras(extra)
    account = Account(login or "")
    if host is not None and not isinstance(host, str):
        raise RapConfigurationError(
            "The field 'host' of the connection is not a text.",
            todo="Give addresses as 'host' or 'host:port', separated by commas, or leave it blank.",
            field="host",
        )
    site = Site.parse(fields.text("site") or Site.PRIMARY)
    return Login(
        account=account,
        site=site,
        addresses=_addresses(site, host, port, fields),
        host_keys=_host_keys(fields),
        client_keys=_client_keys(fields, mask),
        connect_timeout=fields.seconds("connect_timeout", CONNECT_TIMEOUT),
        idle_timeout=fields.seconds("idle_timeout", IDLE_TIMEOUT),
    )


def _check_for_private_key(fields: Mapping[str, object]) -> None:
    """Check that a private key was not typed into another field, which logs and messages may show.

    :raises RapConfigurationError: if one was.
    """
    for name, value in fields.items():
        text = str(value)
        if name != "private_key" and ("PRIVATE KEY" in text or holds_private_key(text)):
            raise RapConfigurationError(
                f"The field {name!r} holds a private key.",
                why="Only 'private_key' is kept out of logs and messages.",
                todo="Move the key to 'private_key', or give its path in 'key_file'. Renew the key if others"
                " may have seen it.",
            )


def _addresses(site: Site, host: str | None, port: int | None, fields: Extras) -> tuple[Address, ...]:
    hosts = {
        Site.PRIMARY: ("host", host or ""),
        Site.SECONDARY: ("secondary_hosts", fields.text("secondary_hosts")),
    }
    name, text = hosts[site]
    if text.strip() or not (host or "").strip():
        return (
            parse_addresses(text, default_port=RAP_PORT if port is None else port, field=name)
            or GUIDE_ADDRESSES[site]
        )
    raise RapConfigurationError(
        "The secondary site has no address.",
        why="The connection has its own addresses for the primary site, but none for the secondary site.",
        todo="Set 'secondary_hosts', or leave 'host' blank for the guide's addresses of both sites (§7.1).",
        site=site,
    )


def _host_keys(fields: Extras) -> tuple[SSHKey, ...] | None:
    unchecked = fields.flag("no_host_key_check")
    if unchecked and "host_key" in fields:
        raise RapConfigurationError(
            "Both 'host_key' and 'no_host_key_check' are set.",
            why="A pinned host key protects nothing if it is not checked.",
            todo="Keep 'host_key' and remove 'no_host_key_check'.",
        )
    return None if unchecked else parse_host_keys(fields.lines("host_key"))


def _client_keys(fields: Extras, mask: Callable[[Sequence[str]], object]) -> tuple[PrivateKey, ...]:
    if passphrase := fields.secret("private_key_passphrase"):
        mask([passphrase])
    # It encrypts the keys in the key store too, so it is checked even if the connection has no key.
    check_passphrase(passphrase)
    text, source = _private_key(fields)
    if not source:
        return ()
    mask_private_key(text, mask)
    return (PrivateKey.load(text, passphrase or None, source=source),)


def _private_key(fields: Extras) -> tuple[str, str]:
    """Return the text of the connection's private key and its source; both empty if it has none."""
    if text := fields.secret("private_key"):
        return text, "extra 'private_key'"
    path = fields.text("key_file")
    if not path:
        return "", ""
    # A passphrase or a key that was typed into this field must not be shown.
    shown = f" {path!r}" if path.startswith(("/", "~", "./", "../")) else ""
    try:
        data = Path(path).expanduser().read_bytes()
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a path"
        raise RapConfigurationError(
            f"The key file{shown} cannot be read: {reason}.",
            todo="Set the extra 'key_file' to the path of a private key that the Airflow worker may read.",
            path=path if shown else "",
        ) from None
    # Notepad saves UTF-16 with a mark. Other bytes than the key's may be in any encoding.
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if utf16 else "utf-8-sig", "replace"), f"key file{shown}"
