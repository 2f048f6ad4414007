"""Faults of a renewal: after each one a key in the store logs in, and a clean rerun converges."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncssh
import pendulum
import pytest

from airflow_provider_hkex_rap.keystore.directory import DirectoryKeyStore
from airflow_provider_hkex_rap.keystore.record import KeyRecord, StoredKey
from airflow_provider_hkex_rap.keystore.renewal import Renewal
from airflow_provider_hkex_rap.keystore.store import AccountKeys, KeyStoreError
from airflow_provider_hkex_rap.rap import algorithms
from airflow_provider_hkex_rap.rap.account import Account
from airflow_provider_hkex_rap.rap.errors import (
    RapConfigurationError,
    RapError,
    RapKeyRejected,
    RapKeyVerificationError,
    RapPermissionDenied,
    RapSessionSuperseded,
)
from airflow_provider_hkex_rap.rap.folders import KEY_FOLDER
from airflow_provider_hkex_rap.rap.keys import PrivateKey
from airflow_provider_hkex_rap.testing import Access, Fault, RapSimulator
from airflow_provider_hkex_rap.transport.login import Login, read_login

from .renewing_process import Logins, Steps

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.keystore.renewal_outcome import RenewalOutcome

ACCOUNT = Account("DCXYZ001")
NOW = pendulum.datetime(2026, 11, 20, 9, 0, tz="Asia/Hong_Kong")
EXPIRES = NOW.date().add(days=20)


class Party:
    """One account of a simulated RAP, with its keys in a directory; its renewals use the clock of RAP."""

    def __init__(self, rap: RapSimulator, keys: Path, account: Account = ACCOUNT) -> None:
        self.rap = rap
        self.account = account
        self.keys = keys
        self.store = DirectoryKeyStore(keys)
        self.connection = rap.connection(account.name)
        self.login: Login = read_login(
            **{name: self.connection[name] for name in ("login", "host", "port", "extra")},
            mask=lambda secret: None,
        )
        text = self.connection["extra"]["private_key"]
        self.first = PrivateKey.load(text).fingerprint
        keys_now = self.account_keys()
        key = StoredKey(fingerprint=self.first, private_key=text, last_day=EXPIRES)
        keys_now.save(keys_now.record.adopted(key, NOW))

    def account_keys(self) -> AccountKeys:
        return AccountKeys(self.store, self.account, mask=lambda secret: None)

    @property
    def record(self) -> KeyRecord:
        return self.account_keys().record

    def renew(self, **options: Any) -> RenewalOutcome:
        async def sleep(seconds: float) -> None:
            self.rap.clock.advance(seconds=seconds)

        keys = self.account_keys()
        logins = Logins(self.login, keys, self.rap.clock, Steps())
        renewal = Renewal(keys, logins, self.rap.clock, key_size=2048, sleep=sleep, **options)
        return asyncio.run(renewal.run())

    @property
    def uploads(self) -> list[str]:
        """The fingerprints of the keys uploaded."""
        mine = [upload for upload in self.rap.uploads if upload.account == self.account.name]
        return [_fingerprint(upload.content) for upload in mine]

    def check_a_key_logs_in(self) -> None:
        kept = [asyncssh.import_private_key(key.private_key) for key in self.record.keys]
        assert any(self.rap.keys.opens(self.account.name, key) for key in kept)

    def check_converged(self, *, uploads: int = 1) -> None:
        """Check the keys in the store and at RAP after one clean rerun."""
        record = self.record
        assert record.pending is None
        assert record.current
        assert record.previous
        assert record.previous.fingerprint == self.first
        assert self.uploads == [record.current.fingerprint] * uploads
        known = {(key.fingerprint, key.last_day) for key in self.rap.keys.valid(self.account.name)}
        assert known == {(key.fingerprint, key.last_day) for key in (record.previous, record.current)}
        assert not self.rap.events.of("superseded", account=self.account.name)


def _fingerprint(content: bytes) -> str:
    return asyncssh.import_public_key(content).get_fingerprint("md5").removeprefix("MD5:")


@pytest.fixture
def rap() -> Iterator[RapSimulator]:
    with RapSimulator((ACCOUNT.name,), NOW, access=Access(key_expires=EXPIRES)) as rap:
        yield rap


@pytest.fixture
def party(rap: RapSimulator, tmp_path: Path) -> Party:
    return Party(rap, tmp_path / "keys")


# Fault 27: the process is killed.

STEPS = 19
"""The number of steps of a renewal, plus one: before and after each write, login and upload."""


@pytest.mark.guide("6.3 two keys")
def test_killed_before_and_after_each_step_a_rerun_converges(tmp_path: Path) -> None:
    accounts = [Account(f"DC{chr(65 + number)}ZZ001") for number in range(STEPS)]
    names = [account.name for account in accounts]
    with RapSimulator(names, NOW, access=Access(key_expires=EXPIRES)) as rap:
        parties = [Party(rap, tmp_path / account.name, account) for account in accounts]
        returncodes = _renew_and_kill(parties)
        for party in parties:
            party.check_a_key_logs_in()
            assert len(party.uploads) <= 1
        for step, party in enumerate(parties):
            pending = party.record.pending
            assert party.renew().fingerprint in ({pending.fingerprint} if pending else set(party.uploads))
            party.check_converged()
            assert not rap.events.of("denied", account=party.account.name), step
        # The last process ended by itself, so the others were killed at every step that there is.
        assert returncodes == [-signal.SIGKILL] * (STEPS - 1) + [0]


def _renew_and_kill(parties: list[Party]) -> list[int]:
    """Renew each party's key in a process that is killed after 0, 1, 2 … steps; return the return codes."""
    renewals = [
        {
            "connection": party.connection,
            "keys": str(party.keys),
            "now": NOW.to_iso8601_string(),
            "last": step,
        }
        for step, party in enumerate(parties)
    ]
    script = Path(__file__).with_name("renewing_process.py")
    command = [sys.executable, script, json.dumps(renewals)]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=60, check=True)
    returncodes: list[int] = json.loads(done.stdout)
    return returncodes


# Fault 27: the answers of RAP.


@pytest.mark.guide("6 results")
def test_a_rejected_key_leaves_the_old_one(party: Party) -> None:
    party.rap.faults.add(Fault("reject", code="4003", message="Key is too short"))
    with pytest.raises(RapKeyRejected, match=r"4003 Key is too short.*old key still works") as caught:
        party.renew()
    assert (caught.value.code, caught.value.message) == ("4003", "Key is too short")
    party.check_a_key_logs_in()
    assert party.record.results[0].content.startswith("4003")
    # The rejected key file may still be in the folder.
    outcome = party.renew()
    assert party.uploads[1:] == [outcome.fingerprint]
    assert party.uploads[0] != outcome.fingerprint
    assert not party.rap.events.of("denied")


def test_without_a_result_file_a_login_with_the_new_key_decides(party: Party) -> None:
    party.rap.faults.add(Fault("no_result"))
    party.renew()
    party.check_converged()
    assert party.rap.clock() > NOW.add(minutes=9)


@pytest.mark.guide("6 results")
def test_a_late_result_file_is_awaited(party: Party) -> None:
    party.rap.faults.add(Fault("delay_result", seconds=500))
    party.renew()
    party.check_converged()
    assert len(party.record.results) == 1


def test_a_result_file_that_comes_after_the_time_out_is_found_by_the_rerun(party: Party) -> None:
    party.rap.faults.add(Fault("delay_result", seconds=3000))
    refused = party.rap.faults.add(Fault("refuse_renewed_key", times=None))
    with pytest.raises(RapKeyVerificationError, match="gave no result file"):
        party.renew()
    party.rap.faults.release(refused)
    party.rap.clock.advance(hours=1)
    party.renew()
    party.check_converged()
    assert len(party.record.results) == 1


def test_a_stale_result_file_is_ignored(party: Party) -> None:
    party.rap.put(KEY_FOLDER, f"{ACCOUNT}.pub.080000.rcvd", f"{party.first}  {ACCOUNT}.pub\n".encode())
    party.rap.put(KEY_FOLDER, f"{ACCOUNT}.pub.080001.rej", b"4007 of an upload before\n|\n")
    party.rap.faults.add(Fault("delay_result", seconds=100))
    party.renew()
    party.check_converged()
    # Each result file is kept once (§6).
    kept = {file.name: file.content for file in party.record.results}
    assert len(kept) == len(party.record.results) == 3
    assert party.uploads[0] in "".join(kept.values())


def test_a_result_with_another_fingerprint_is_an_error_and_a_rerun_is_safe(party: Party) -> None:
    party.rap.faults.add(Fault("wrong_fingerprint"))
    with pytest.raises(RapKeyVerificationError, match=r"RAP took the key.*old key still works"):
        party.renew()
    party.check_a_key_logs_in()
    assert party.record.current
    assert party.record.current.fingerprint == party.first
    party.renew()
    party.check_converged()


def test_an_accepted_key_that_does_not_log_in_is_not_promoted(party: Party) -> None:
    refused = party.rap.faults.add(Fault("refuse_renewed_key", times=None))
    for _ in range(2):
        with pytest.raises(RapKeyVerificationError, match=r"does not log in; RAP accepted it") as caught:
            party.renew()
        assert caught.value.retryable
        assert party.record.current
        assert party.record.current.fingerprint == party.first
        party.check_a_key_logs_in()
    party.rap.faults.release(refused)
    party.renew()
    party.check_converged()


def test_a_denied_upload_names_the_likely_cause(party: Party) -> None:
    party.rap.faults.add(Fault("deny_upload"))
    with pytest.raises(RapPermissionDenied, match=r"endurance.*§2\.1"):
        party.renew()
    assert not party.uploads
    party.renew()
    party.check_converged()


@pytest.mark.parametrize("kind", ["drop_upload", "drop_after_upload"])
def test_a_rerun_after_a_cut_upload_converges(party: Party, kind: str) -> None:
    party.rap.faults.add(Fault(kind))
    with pytest.raises(RapSessionSuperseded):
        party.renew()
    party.check_a_key_logs_in()
    party.renew()
    party.check_converged()


@pytest.mark.guide("4.2 key folder")
def test_a_key_file_that_is_still_in_the_folder_is_not_overwritten(party: Party) -> None:
    for kind in ("drop_after_upload", "no_result"):
        party.rap.faults.add(Fault(kind))
    # Once under each signature algorithm.
    party.rap.faults.add(Fault("refuse_renewed_key", times=len(algorithms.PUBLIC_KEY)))
    with pytest.raises(RapSessionSuperseded):
        party.renew()
    party.renew()
    party.check_converged(uploads=2)
    assert not party.rap.events.of("denied")


@pytest.mark.guide("6.3 two keys")
def test_a_key_uploaded_by_hand_is_not_replaced(party: Party) -> None:
    foreign = PrivateKey.generate(2048)

    async def upload() -> None:
        async with Logins(
            party.login, party.account_keys(), party.rap.clock, Steps()
        ).registered() as session:
            await session.upload_key(foreign.public_key.to_rfc4716("by hand").encode())

    asyncio.run(upload())
    for days in (0, 2):
        party.rap.clock.advance(days=days)
        with pytest.raises(RapConfigurationError, match="by hand"):
            party.renew()
    assert party.uploads == [foreign.fingerprint]
    party.renew(replace_second_key=True)
    assert len(party.uploads) == 2


# Fault 28: the key store fails.


class FailingStore(DirectoryKeyStore):
    """A directory of keys that fails every write after the first *writes*."""

    writes = 0

    def write(self, account: str, text: str, *, replacing: str | None) -> None:
        self.writes -= 1
        if self.writes < 0:
            raise KeyStoreError("The disk is full.")
        super().write(account, text, replacing=replacing)


@pytest.mark.parametrize("writes", range(4))
def test_a_failing_key_store_stops_the_renewal(party: Party, writes: int) -> None:
    failing = FailingStore(party.keys)
    failing.writes = writes
    party.store = failing
    with pytest.raises(KeyStoreError, match="disk is full"):
        party.renew()
    assert len(party.uploads) == (writes >= 2)
    party.store = DirectoryKeyStore(party.keys)
    party.check_a_key_logs_in()
    party.renew()
    party.check_converged()


@pytest.mark.parametrize("kind", ["reject", "wrong_fingerprint", "deny_upload", "refuse_renewed_key"])
def test_every_error_names_its_cause_and_the_next_step(party: Party, kind: str) -> None:
    party.rap.faults.add(Fault(kind, times=None))
    with pytest.raises(RapError) as caught:
        party.renew()
    error = caught.value
    assert error.what
    assert error.why
    assert error.todo
    assert "PRIVATE" not in f"{error!r} {vars(error)}"
