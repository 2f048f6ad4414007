"""Read an Airflow connection of the type ``hkex_rap``."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from airflow.sdk import BaseHook
from airflow.sdk.configuration import conf

from airflow_provider_hkex_rap.hooks.clock import clock_offset
from airflow_provider_hkex_rap.hooks.masking import mask_secrets
from airflow_provider_hkex_rap.keystore.login_keys import LoginKeys
from airflow_provider_hkex_rap.keystore.opening import open_key_store
from airflow_provider_hkex_rap.rap.account import Account
from airflow_provider_hkex_rap.rap.clock import Clock, system_clock
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.key_lifecycle import parse_key_expires
from airflow_provider_hkex_rap.rap.sites import Site
from airflow_provider_hkex_rap.rap.workstations import parse_registered_addresses
from airflow_provider_hkex_rap.transport.extras import Extras
from airflow_provider_hkex_rap.transport.login import Login, read_login

if TYPE_CHECKING:
    from ipaddress import IPv4Address

    import pendulum
    from airflow.sdk import Connection

    from airflow_provider_hkex_rap.keystore.store import KeyStore


class AirflowLoginSource:
    """The settings of a login, from an Airflow connection; implements `runner.source.LoginSource`.

    Each setting is read when it is first used, so that a command can look at the key store although the key
    file exists on the workers only.

    :param conn_id: an Airflow connection of the type ``hkex_rap``.
    :param team: the team of the connection, for the API server, which reads the connections of every team;
        None for a connection of no team, and in tasks, whose team Airflow knows.
    """

    def __init__(self, conn_id: str, team: str | None = None) -> None:
        self.conn_id = conn_id
        self._team = team

    @property
    def name(self) -> str:
        """The connection in words."""
        return f"connection {self.conn_id}"

    @cached_property
    def connection(self) -> Connection:
        """The connection as Airflow gives it."""
        if self._team is None:
            return BaseHook.get_connection(self.conn_id)
        from airflow.models.connection import Connection

        return Connection.get_connection_from_secrets(self.conn_id, team_name=self._team)

    @cached_property
    def login(self) -> Login:
        """The account, the site, and the connection's own key; the key store may have others.

        :raises RapConfigurationError: if a field of the connection is missing or not of the valid form.
        """
        connection = self.connection
        for field in ("password", "schema"):
            if getattr(connection, field):
                raise RapConfigurationError(
                    f"The connection {self.conn_id} has a {field}, which would be ignored.",
                    why="RAP takes SSH keys only (guide §3.2).",
                    todo="Leave it blank; the passphrase of a key belongs in 'private_key_passphrase'.",
                    field=field,
                )
        return self._read_login(self._decoded_extra)

    def login_at(self, site: Site) -> Login:
        """Return the login as it would be if the connection named a site.

        :param site: the site.
        :raises RapConfigurationError: if the connection has no address of that site, or a field of it is not
            of the valid form.
        """
        extra = self._decoded_extra
        return self._read_login({**extra, "site": site.value} if isinstance(extra, dict) else extra)

    def _read_login(self, extra: object) -> Login:
        connection = self.connection
        return read_login(
            login=connection.login,
            host=connection.host,
            port=connection.port,
            extra=extra,
            mask=mask_secrets,
        )

    @property
    def registered_addresses(self) -> tuple[IPv4Address, ...]:
        """The connection's ``registered_addresses``: the workstations that HKEX has registered (§7).

        :returns: the addresses; none if the field is blank.
        :raises RapConfigurationError: if they cannot be registered together.
        """
        return parse_registered_addresses(self._extra("registered_addresses"))

    @property
    def account(self) -> Account:
        """The account, even if another field of the connection is not valid.

        :raises RapConfigurationError: if the login field is not a RAP user account.
        """
        return Account(self.connection.login or "")

    @property
    def site(self) -> Site:
        """The site that the connection names, even if another field of it is not valid.

        :raises RapConfigurationError: if the field names no site.
        """
        return Site.parse(self._extra("site") or Site.PRIMARY)

    @cached_property
    def clock(self) -> Clock:
        """The time, shifted by ``[hkex_rap] clock_offset`` for trials against a simulator.

        :raises RapConfigurationError: if an offset is set and an address of the connection is not on this
            machine.
        """
        offset = clock_offset()
        if offset and not self.login.is_loopback:
            raise RapConfigurationError(
                f"[hkex_rap] clock_offset is {offset:g} s, and the connection leaves this machine.",
                why="A shifted clock would judge RAP's reports and keys by a wrong date.",
                todo="Remove the offset; it is for trials against a simulator on this machine.",
                clock_offset=offset,
            )
        return system_clock(offset)

    @property
    def lock_directory(self) -> Path | None:
        """The setting ``[hkex_rap] lock_dir``; None if it is not set."""
        configured = conf.get("hkex_rap", "lock_dir", fallback="")
        return Path(configured).expanduser() if configured else None

    @cached_property
    def key_store(self) -> KeyStore:
        """The key store that the connection's ``key_store`` names.

        :raises RapConfigurationError: if the field names no key store.
        """
        return open_key_store(self._extra("key_store"))

    @property
    def key_passphrase(self) -> str | None:
        """The connection's ``private_key_passphrase``; None if it is blank."""
        return Extras(self._decoded_extra).secret("private_key_passphrase") or None

    @property
    def keys(self) -> LoginKeys:
        """The account's keys, in the connection and in the key store.

        :raises RapConfigurationError: if a field of the connection is not valid.
        """
        login = self.login
        return LoginKeys(
            self.key_store,
            login.account,
            connection_key=login.client_keys[0] if login.client_keys else None,
            key_expires=self.key_expires,
            passphrase=self.key_passphrase,
            clock=self.clock,
            mask=mask_secrets,
        )

    def check(self) -> None:
        """Read every field of the connection, so that a mistake shows before any network traffic.

        :raises RapConfigurationError: if a field of the connection is missing or not of the valid form.
        """
        _ = self.login, self.key_expires, self.registered_addresses

    def refresh(self) -> None:
        """Read the connection again: it may have been switched to the other site (§2.2).

        :raises RapConfigurationError: if a field of the connection is missing or not of the valid form.
        """
        for name in ("connection", "login", "key_store"):
            self.__dict__.pop(name, None)
        self.check()

    @property
    def key_expires(self) -> pendulum.Date | None:
        """The connection's ``key_expires``; None if it is blank.

        :raises RapConfigurationError: if it is not a date.
        """
        return parse_key_expires(self._extra("key_expires"))

    def _extra(self, name: str) -> str:
        return Extras(self._decoded_extra).text(name)

    @property
    def _decoded_extra(self) -> object:
        """The extra as JSON decodes it.

        :raises RapConfigurationError: if it is not JSON; Airflow would ignore it.
        """
        text = self.connection.extra
        try:
            return json.loads(text, object_pairs_hook=_unique) if text and text.strip() else {}
        except ValueError:
            raise RapConfigurationError(
                f"The extra of the connection {self.conn_id} is not JSON.",
                why='It must be a JSON object, such as {"host_key": "ssh-rsa AAAA…"}.',
                todo="Check its quotes and commas.",
            ) from None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return a JSON object as a mapping.

    :raises RapConfigurationError: if a name is given twice; JSON would drop the first value.
    """
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise RapConfigurationError(
            "The extra of the connection gives a field twice.",
            why="Only the last value would count.",
            todo="Give each field once.",
        )
    return fields
