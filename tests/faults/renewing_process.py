"""A process that renews a key and kills itself at a given step, for the tests of the renewal's faults.

Its argument is JSON: the connection's fields, the directory of keys, RAP's time, and the number of steps
after which the process kills itself; null if it must live.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pendulum

from airflow_provider_hkex_rap.keystore.directory import DirectoryKeyStore
from airflow_provider_hkex_rap.keystore.offers import keys_to_offer, record_after_login
from airflow_provider_hkex_rap.keystore.renewal import Renewal
from airflow_provider_hkex_rap.keystore.store import AccountKeys
from airflow_provider_hkex_rap.rap.keys import PrivateKey
from airflow_provider_hkex_rap.transport.login import Login, read_login
from airflow_provider_hkex_rap.transport.session import RapSession, open_session

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.keystore.record import KeyRecord, PendingKey
    from airflow_provider_hkex_rap.rap.clock import Clock


class Steps:
    """Count the steps of the process, and kill it.

    :param last: number of steps before the kill; None for no kill.
    """

    def __init__(self, last: int | None = None) -> None:
        self._left = last

    def __call__(self) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                os.kill(os.getpid(), signal.SIGKILL)


class SteppingStore(DirectoryKeyStore):
    """Store keys in a directory, with a step before and after each write."""

    step: Steps

    def write(self, account: str, text: str, *, replacing: str | None) -> None:
        self.step()
        super().write(account, text, replacing=replacing)
        self.step()


class Logins:
    """Log in as the hook does, with a step before and after each login and upload."""

    def __init__(self, login: Login, keys: AccountKeys, clock: Clock, step: Steps) -> None:
        self._login = login
        self._keys = keys
        self._clock = clock
        self._step = step

    def with_known_expiry(self, record: KeyRecord) -> KeyRecord:
        return record

    @asynccontextmanager
    async def registered(self) -> AsyncIterator[RapSession]:
        offers = keys_to_offer(self._keys.record, None, self._clock().date())
        async with self._session([offer.key.private_key for offer in offers]) as session:
            found = session.client_key_fingerprint
            self._keys.save(record_after_login(self._keys.record, offers, found, self._clock()))
            yield session

    @asynccontextmanager
    async def only(self, key: PendingKey) -> AsyncIterator[RapSession]:
        async with self._session([key.private_key]) as session:
            yield session

    @asynccontextmanager
    async def _session(self, texts: list[str]) -> AsyncIterator[RapSession]:
        keys = tuple(PrivateKey.load(text, source="the test") for text in texts)
        self._step()
        async with open_session(replace(self._login, client_keys=keys)) as session:
            self._step()
            upload = session.upload_key

            async def stepping_upload(content: bytes) -> None:
                self._step()
                await upload(content)
                self._step()

            session.upload_key = stepping_upload  # type: ignore[method-assign]
            yield session
        self._step()


def main(connection: dict[str, Any], keys: str, now: str, last: int | None) -> None:
    at = pendulum.parse(now)
    assert isinstance(at, pendulum.DateTime)
    fields = {name: connection[name] for name in ("login", "host", "port", "extra")}
    login = read_login(**fields, mask=lambda secret: None)
    store = SteppingStore(Path(keys))
    store.step = Steps(last)
    account_keys = AccountKeys(store, login.account, mask=lambda secret: None)
    logins = Logins(login, account_keys, lambda: at, store.step)
    renewal = Renewal(account_keys, logins, lambda: at, key_size=2048)
    print(json.dumps(asyncio.run(renewal.run()).as_dict()))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
