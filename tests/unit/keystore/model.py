"""A model of RAP's keys in memory, and a key store that can fail, for tests of renewals."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import TYPE_CHECKING

import pendulum

from airflow_provider_hkex_rap.keystore.offers import (
    MOST_OFFERS,
    keys_to_offer,
    record_after_login,
    record_after_refusal,
    with_known_expiry,
)
from airflow_provider_hkex_rap.keystore.record import KeyRecord, PendingKey, StoredKey
from airflow_provider_hkex_rap.keystore.renewal import Renewal
from airflow_provider_hkex_rap.keystore.store import AccountKeys, conflict
from airflow_provider_hkex_rap.rap.account import Account
from airflow_provider_hkex_rap.rap.errors import RapAuthenticationError, RapPermissionDenied
from airflow_provider_hkex_rap.rap.key_folder import KeyFile
from airflow_provider_hkex_rap.rap.keys import PrivateKey, PublicKey

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.keystore.renewal_outcome import RenewalOutcome

ACCOUNT = Account("DCXYZ001")
NOW = pendulum.datetime(2026, 11, 20, 9, 0, tz="Asia/Hong_Kong")


class Crash(BaseException):
    """The process is gone."""


@cache
def key(number: int) -> PrivateKey:
    """Return one of a few keys, the same one every time."""
    return PrivateKey.generate(2048)


def stored(number: int, last_day: pendulum.Date | None = None) -> StoredKey:
    return StoredKey(
        fingerprint=key(number).fingerprint, private_key=key(number).to_openssh(), last_day=last_day
    )


class Clock:
    """Shows a time until it is moved on."""

    def __init__(self, now: pendulum.DateTime = NOW) -> None:
        self.now = now

    def __call__(self) -> pendulum.DateTime:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now = self.now.add(seconds=seconds)


class MemoryStore:
    """A key store in memory; *step* is called before and after every write."""

    def __init__(self, step: Callable[[str], None] = lambda name: None) -> None:
        self.texts: dict[str, str] = {}
        self.step = step

    def read(self, account: str) -> str | None:
        return self.texts.get(account)

    def write(self, account: str, text: str, *, replacing: str | None) -> None:
        self.step("before a write")
        if self.texts.get(account) != replacing:
            raise conflict(account, "memory")
        self.texts[account] = text
        self.step("after a write")


class ModelRap:
    """The keys of one account at RAP (§6), its key folder, and the logins of a renewal."""

    def __init__(self, clock: Clock, *registered: StoredKey) -> None:
        self.clock = clock
        self.store = MemoryStore(self.step)
        self.keys = {it.fingerprint: it.last_day or clock().date().add(years=1) for it in registered}
        self.files: dict[str, tuple[bytes, pendulum.DateTime]] = {}
        self.uploads: list[str] = []
        self.refusals: list[str] = []
        self.own: StoredKey | None = registered[0] if registered else None
        self.key_expires: pendulum.Date | None = None
        self.answer = "rcvd"
        self.denies = False
        self.asks_for_no_key = False
        self.sends_times = True
        self.denials = 0
        self.keeps_key_file = False
        self.opened: list[str] = []
        self.replaced: list[str] = []
        """Keys that were valid until another one replaced them (§6.3)."""
        self.written: list[int] = []
        """How many bytes of a result file are there when it is read, the next time first; then all are."""
        self.logged_in = 0
        self.steps: list[str] = []
        self.crash_at: int | None = None
        self.checks = True
        """Whether a key in the record must be valid at each step."""
        self.made = 100

    def step(self, name: str) -> None:
        """Note a step; the process may be gone by it, and then every key that is needed is still there."""
        self.steps.append(name)
        if self.checks and self.store.texts:
            assert any(self.lets_in(it.fingerprint) for it in self.account_keys().record.keys), name
        if self.crash_at is not None and len(self.steps) > self.crash_at:
            raise Crash

    def account_keys(self) -> AccountKeys:
        return AccountKeys(self.store, ACCOUNT, mask=lambda secret: None)

    def lets_in(self, fingerprint: str) -> bool:
        return self.keys.get(fingerprint, pendulum.Date.min) >= self.clock().date()

    async def renew(self, **options: object) -> RenewalOutcome:
        def generate(bits: int) -> PrivateKey:
            self.made += 1
            return key(self.made)

        arguments = {"sleep": self.clock.sleep, "generate": generate, **options}
        return await Renewal(self.account_keys(), self, self.clock, **arguments).run()  # type: ignore[arg-type]

    # The logins of a renewal.

    def with_known_expiry(self, record: KeyRecord) -> KeyRecord:
        return with_known_expiry(record, self.own, self.key_expires, self.clock().date())

    @asynccontextmanager
    async def registered(self) -> AsyncIterator[ModelFolder]:
        keys = self.account_keys()
        offers = keys_to_offer(keys.record, self.own, self.clock().date())[:MOST_OFFERS]
        names = [offer.key.fingerprint for offer in offers]
        if not any(map(self.lets_in, names)):
            keys.save(record_after_refusal(keys.record, names, self.clock().date()))
        async with self._login([offer.key for offer in offers]) as folder:
            found = folder.client_key_fingerprint
            keys.save(record_after_login(keys.record, offers, found, self.clock()))
            yield folder

    @asynccontextmanager
    async def only(self, key: PendingKey) -> AsyncIterator[ModelFolder]:
        async with self._login([key]) as folder:
            yield folder

    @asynccontextmanager
    async def _login(self, keys: Sequence[StoredKey | PendingKey]) -> AsyncIterator[ModelFolder]:
        assert not self.logged_in, "One login at a time (§4.3)."
        self.step("before a login")
        names = [it.fingerprint for it in keys]
        accepted = next(filter(self.lets_in, names), "" if self.asks_for_no_key else None)
        self.refusals += names[: names.index(accepted)] if accepted else names
        if accepted is None:
            raise RapAuthenticationError("Refused.")
        self.logged_in += 1
        try:
            self.step("after a login")
            yield ModelFolder(self, accepted)
        finally:
            self.logged_in -= 1

    # What RAP does.

    def put(self, name: str, content: str) -> None:
        self.files[name] = (content.encode(), self.clock())

    def receive(self, content: bytes) -> None:
        found = PublicKey.parse(content.decode()).fingerprint
        self.uploads.append(found)
        now = f"{self.clock():HHmmss}"
        # RAP numbers answers of the same second; the same name can return on another day (§6).
        at = f"{now}.{len(self.files)}" if any(now in name for name in self.files) else now
        answer = self.answer
        if answer == "rej":
            self.put(f"{ACCOUNT}.pub.{at}.rej", "4007 File name contains invalid characters\n|\n")
            return
        if answer in ("lost", "late"):
            return
        if answer == "registered already":
            self.register(found)
            self.put(f"{ACCOUNT}.pub.{at}.rej", "4011 The key is registered already")
            return
        self.register(found)
        named = key(99).fingerprint if answer == "another" else found
        if answer not in ("silent", "refused"):
            self.put(
                f"{ACCOUNT}.{at}.rcvd" if answer == "bare" else f"{ACCOUNT}.pub.{at}.rcvd",
                f"{named}  {ACCOUNT}.pub\n",
            )
        if answer in ("refused", "accepted but refused"):
            del self.keys[found]

    def register(self, fingerprint: str) -> None:
        """Take a key by the two-key rule (§6.3), with the days of §6.1's example."""
        today = self.clock().date()
        valid = [it for it in self.keys if self.lets_in(it) and it != fingerprint]
        old = valid[:1]
        if len(valid) == 1:
            self.keys[old[0]] = min(self.keys[old[0]], today.add(days=13))
        self.replaced += valid[1:]
        days = {it: self.keys[it] for it in old}
        self.keys = {**days, fingerprint: today.add(years=2).subtract(days=1)}


class ModelFolder:
    """One login."""

    def __init__(self, rap: ModelRap, fingerprint: str) -> None:
        self._rap = rap
        self.client_key_fingerprint = fingerprint

    async def list_key_folder(self) -> list[KeyFile]:
        since = self._rap.clock().subtract(hours=24)
        self._rap.files = {
            name: file
            for name, file in self._rap.files.items()
            if file[1] > since or not name.endswith((".rcvd", ".rej"))
        }
        return [
            KeyFile(name, at.int_timestamp if self._rap.sends_times else None)
            for name, (_, at) in self._rap.files.items()
        ]

    async def read_key_file(self, name: str) -> bytes:
        self._rap.opened.append(name)
        content, written = self._rap.files[name][0], self._rap.written
        return content[: written.pop(0)] if written else content

    async def upload_key(self, content: bytes) -> None:
        self._rap.step("before an upload")
        is_waiting = f"{ACCOUNT}.pub" in self._rap.files and self._rap.answer == "lost"
        if self._rap.denies or is_waiting:
            self._rap.denials += 1
            raise RapPermissionDenied("RAP denied the upload.")
        if self._rap.keeps_key_file:
            self._rap.put(f"{ACCOUNT}.pub", content.decode())
        self._rap.receive(content)
        self._rap.step("after an upload")
