"""What a login needs, read from the fields of a connection and checked before any network."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_hkex_rap.rap.account import Account
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.keys import KEY_SIZES, PublicKey
from airflow_provider_hkex_rap.rap.masking import mask_private_key
from airflow_provider_hkex_rap.rap.sites import GUIDE_ADDRESSES, RAP_PORT, Address, Site, parse_addresses

if TYPE_CHECKING:
    from asyncssh import SSHKey

CONNECT_TIMEOUT = 30.0
IDLE_TIMEOUT = 60.0

_RSA_PUBLIC_KEY = re.compile(r"(?:^|\s)(?:ssh-rsa\s+)?(AAAAB3NzaC1yc2E[A-Za-z0-9+/]+=*)(?=\s|,|$)")
_PEM_EDGES = re.compile(r"\n?(-----(?:BEGIN|END) [A-Z0-9 ]+-----)\n?")


@dataclass(frozen=True, slots=True)
class Login:
    """All that one login to RAP needs.

    :param account: who logs in (§3.1).
    :param site: the site that HKEX says is active (§2.2).
    :param addresses: the site's addresses, tried in this order until one lets us authenticate (§7.1).
    :param host_keys: the pinned host keys; None pins nothing.
    :param client_keys: the private keys to offer, in this order, at most two (§6.3); none where the fields
        name none, and the caller brings them from a key store.
    :param connect_timeout: seconds for one address, from the first packet to the end of the login.
    :param idle_timeout: seconds without an answer after which a session is given up.
    """

    account: Account
    site: Site
    addresses: tuple[Address, ...]
    host_keys: tuple[SSHKey, ...] | None
    client_keys: tuple[SSHKey, ...] = field(repr=False)
    connect_timeout: float = CONNECT_TIMEOUT
    idle_timeout: float = IDLE_TIMEOUT

    @property
    def is_loopback(self) -> bool:
        """Whether every address is on this machine."""
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
    :param port: the port of hosts that name none.
    :param extra: the connection's extra fields; blank ones count as left out.
    :param mask: is told each secret, the private key by line, before anything can show it.
    :raises RapConfigurationError: a field is missing or not of the valid form.
    """
    for name, value in {"login": login, "host": host, **extra}.items():
        if name != "private_key" and "PRIVATE KEY-----" in str(value):
            raise RapConfigurationError(
                f"The field {name!r} holds a private key.",
                why="Only 'private_key' is kept out of logs and messages.",
                todo="Move the key there, or give its path in 'key_file'; if others saw it, renew it.",
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
        why="The connection names hosts of its own for the primary site, and none for the secondary one.",
        todo="Fill in 'secondary_hosts', or leave 'host' blank for the guide's addresses of both (§7.1).",
        site=site,
    )


def _host_keys(extra: Mapping[str, object]) -> tuple[SSHKey, ...] | None:
    unchecked = str(extra.get("no_host_key_check", False)).lower() == "true"
    given = extra.get("host_key")
    if unchecked and given:
        raise RapConfigurationError(
            "Both 'host_key' and 'no_host_key_check' are set.",
            why="A pinned host key that is not checked protects nothing.",
            todo="Keep 'host_key' and remove 'no_host_key_check'.",
        )
    if unchecked:
        return None
    return parse_host_keys(given if isinstance(given, list | tuple) else str(given or ""))


def parse_host_keys(keys: str | Iterable[object]) -> tuple[SSHKey, ...]:
    """Return the RSA public keys in a text, as ``ssh-keyscan`` prints them or bare.

    :param keys: one or more keys, each ``ssh-rsa AAAA…`` or ``AAAA…``, on lines or in a list.
    :raises RapConfigurationError: there is none; RAP's host keys are RSA (§2.1).
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
            why="RAP shows RSA host keys (guide §2.1), and a server whose key is not pinned is not trusted.",
            todo="Set the extra 'host_key' to the key that HKEX gave you, as 'ssh-rsa AAAA…', one a line.",
        )
    return found


def _client_keys(extra: Mapping[str, object], mask: Callable[[str], object]) -> tuple[SSHKey, ...]:
    if passphrase := str(extra.get("private_key_passphrase", "")):
        mask(passphrase)
    text, source = _private_key(extra)
    if not text:
        return ()
    mask_private_key(text, mask)
    return (parse_private_key(text, passphrase or None, source),)


def _private_key(extra: Mapping[str, object]) -> tuple[str, str]:
    if text := extra.get("private_key"):
        # A one-line field loses a PEM's line ends, or keeps them as backslash and n.
        lines = str(text).lstrip("\ufeff").replace("\\r", "\r").replace("\\n", "\n").splitlines()
        return _PEM_EDGES.sub(r"\n\1\n", "\n".join(lines)).strip(), "extra 'private_key'"
    if path := extra.get("key_file"):
        try:
            return Path(str(path)).expanduser().read_text("utf-8-sig"), f"key file {str(path)!r}"
        except (OSError, UnicodeDecodeError) as error:
            raise RapConfigurationError(
                f"The key file {str(path)!r} cannot be read: {getattr(error, 'strerror', 'it is not text')}.",
                todo="Set the extra 'key_file' to a private key that the Airflow worker may read.",
                path=str(path),
            ) from None
    return "", ""


def parse_private_key(text: str, passphrase: str | None, source: str) -> SSHKey:
    """Return the RSA private key in a text.

    :param text: the key in PEM form.
    :param passphrase: what decrypts it, where it is encrypted.
    :param source: where the text comes from, for the error.
    :raises RapConfigurationError: it is not such a key, or cannot be decrypted (§3.2.1).
    """
    from asyncssh import KeyEncryptionError, KeyImportError, import_private_key

    try:
        key = import_private_key(text, passphrase)
    except (KeyImportError, KeyEncryptionError, UnicodeEncodeError):
        raise RapConfigurationError(
            f"The private key in {source} cannot be used.",
            why="It is not a private key in PEM form, or its passphrase is missing or wrong.",
            todo="Set 'private_key_passphrase' to that of this key, where it is encrypted; give a key"
            " in the connection as the whole text from BEGIN to END.",
        ) from None
    bits = PublicKey(key.public_data).bits if key.get_algorithm() == "ssh-rsa" else 0
    if bits not in KEY_SIZES:
        kind = f"RSA of {bits} bits" if bits else key.get_algorithm()
        raise RapConfigurationError(
            f"The private key in {source} is {kind}.",
            why="RAP accepts RSA keys of 2048 and 4096 bits only (guide §3.2.1).",
            todo="Use the RSA key that is registered for the account.",
        )
    return key


def _seconds(extra: Mapping[str, object], name: str, default: float) -> float:
    value = extra.get(name, default)
    try:
        seconds = float(str(value))
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise RapConfigurationError(
            f"{value!r} in the extra {name!r} is not a number of seconds above zero.",
            todo=f"Set it to seconds, or leave it blank for {default:g}.",
        )
    return seconds
