"""The logins of a key renewal (§6)."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.keystore.record import KeyRecord, PendingKey
    from airflow_provider_hkex_rap.rap.key_folder import KeyFolder
    from airflow_provider_hkex_rap.runner.runner import SessionRunner
    from airflow_provider_hkex_rap.runner.source import LoginSource


class KeyLogins:
    """Log a renewal in through a runner; implements `keystore.renewal.Logins`.

    :param runner: opens the sessions.
    :param source: the settings of the logins.
    """

    def __init__(self, runner: SessionRunner, source: LoginSource) -> None:
        self._runner = runner
        self._source = source

    def registered(self) -> AbstractAsyncContextManager[KeyFolder]:
        """Log in with the keys that RAP should know."""
        return self._runner.session()

    def with_known_expiry(self, record: KeyRecord) -> KeyRecord:
        """Return the record with the last day that the connection's ``key_expires`` gives."""
        return self._source.keys.with_known_expiry(record)

    def only(self, key: PendingKey) -> AbstractAsyncContextManager[KeyFolder]:
        """Log in with the new key and no other."""
        return self._runner.session(only=key)
