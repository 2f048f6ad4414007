"""The key stores against the contract, and the errors of each."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from airflow_provider_hkex_rap.keystore import variable
from airflow_provider_hkex_rap.keystore.directory import DirectoryKeyStore
from airflow_provider_hkex_rap.keystore.opening import open_key_store
from airflow_provider_hkex_rap.keystore.store import (
    AccountKeys,
    KeyStore,
    KeyStoreConflict,
    KeyStoreError,
)
from airflow_provider_hkex_rap.keystore.variable import VariableKeyStore
from airflow_provider_hkex_rap.rap.account import Account
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.testing.key_store_contract import KeyStoreContract

from .model import ACCOUNT, NOW, MemoryStore, key, stored


class TestDirectoryKeyStore(KeyStoreContract):
    """The contract, and errors of the file system."""

    @pytest.fixture(autouse=True)
    def directory(self, tmp_path: Path) -> None:
        self.path = tmp_path / "of its own" / "keys"

    def open(self) -> KeyStore:
        return DirectoryKeyStore(self.path)

    def test_only_the_owner_can_read(self) -> None:
        previous = os.umask(0)
        try:
            self.open().write("DCXYZ001", "secret", replacing=None)
        finally:
            os.umask(previous)
        assert stat.S_IMODE(self.path.stat().st_mode) == 0o700
        assert [stat.S_IMODE(path.stat().st_mode) for path in self.path.iterdir()] == [0o600] * 2

    def test_a_failed_write_leaves_the_old_text_and_no_other(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open().write("DCXYZ001", "old", replacing=None)

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(KeyStoreError, match="No space left"):
            self.open().write("DCXYZ001", "new", replacing="old")
        assert self.open().read("DCXYZ001") == "old"
        assert sorted(path.name for path in self.path.iterdir()) == [".DCXYZ001.lock", "DCXYZ001.json"]

    def test_a_directory_in_place_of_the_file_is_an_error(self) -> None:
        (self.path / "DCXYZ001.json").mkdir(parents=True)
        with pytest.raises(KeyStoreError, match=r"Cannot read .*DCXYZ001\.json"):
            self.open().read("DCXYZ001")

    def test_a_name_cannot_leave_the_directory(self) -> None:
        with pytest.raises(RapConfigurationError):
            self.open().read("../DCXYZ001")


class TestVariableKeyStore(KeyStoreContract):
    """The contract, outside a task: as the CLI and the api-server use it."""

    @pytest.fixture(autouse=True)
    def table(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        from airflow.models import Variable
        from airflow.models.crypto import get_fernet
        from airflow.utils.session import create_session

        monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", Fernet.generate_key().decode())
        get_fernet.cache_clear()
        # A variable may belong to a team, by a foreign key.
        tables = [Variable.metadata.tables[name] for name in ("team", "variable")]
        with create_session() as session:
            Variable.metadata.create_all(session.connection(), tables)
        yield
        with create_session() as session:
            Variable.metadata.drop_all(session.connection(), tables)
        get_fernet.cache_clear()

    def open(self) -> KeyStore:
        return VariableKeyStore()

    def test_the_database_does_not_show_it(self) -> None:
        from airflow.models import Variable
        from airflow.utils.session import create_session

        self.open().write("DCXYZ001", "secret", replacing=None)
        with create_session() as session:
            (row,) = session.execute(Variable.__table__.select()).mappings()
        assert row["key"] == "hkex_rap_private_key_DCXYZ001"
        assert row["is_encrypted"]
        assert "secret" not in row["val"]

    def test_a_backend_that_has_another_value_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AIRFLOW_VAR_HKEX_RAP_PRIVATE_KEY_DCXYZ001", "of the environment")
        with pytest.raises(KeyStoreError, match="Airflow reads another text"):
            self.open().write("DCXYZ001", "ours", replacing="of the environment")

    def test_a_variable_that_another_task_sets_at_the_same_time_is_read(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        exists = variable._exists

        def set_meanwhile(name: str) -> bool:
            variable._set(name, "of another task")
            return exists(name)

        monkeypatch.setattr(variable, "_exists", set_meanwhile)
        assert self.open().read("DCXYZ001") == "of another task"

    def test_a_value_that_cannot_be_decrypted_is_not_taken_for_none(self) -> None:
        from airflow.models import Variable
        from airflow.utils.session import create_session

        self.open().write("DCXYZ001", "secret", replacing=None)
        with create_session() as session:
            session.execute(Variable.__table__.update().values(val="damaged"))
        with pytest.raises(KeyStoreError, match="it exists, but Airflow does not return it"):
            self.open().read("DCXYZ001")


def test_without_a_database_there_is_no_variable() -> None:
    store = VariableKeyStore()
    assert store.read("DCXYZ001") is None
    with pytest.raises(KeyStoreError, match="has no database here"):
        store.write("DCXYZ001", "secret", replacing=None)


class TestMemoryStore(KeyStoreContract):
    """A class of somebody's own."""

    @pytest.fixture(autouse=True)
    def store(self) -> None:
        self.kept = MemoryStore()

    def open(self) -> KeyStore:
        return self.kept


class OwnStore(MemoryStore):
    """A store that is found by its dotted path."""


def test_a_store_is_opened_by_its_name(tmp_path: Path) -> None:
    assert isinstance(open_key_store(None), VariableKeyStore)
    assert isinstance(open_key_store(" variable "), VariableKeyStore)
    opened = open_key_store((tmp_path / "a b").as_uri())
    opened.write("DCXYZ001", "text", replacing=None)
    assert (tmp_path / "a b" / "DCXYZ001.json").read_text() == "text"
    assert isinstance(open_key_store(f"{OwnStore.__module__}.OwnStore"), OwnStore)


@pytest.mark.parametrize(
    "text", ["vault", "file:///", "file://host/keys", "no.such.module", "os.path.join", "pathlib.Path"]
)
def test_any_other_name_is_refused(text: str) -> None:
    with pytest.raises(RapConfigurationError, match=r"is not a key store.*'variable', 'file:///directory'"):
        open_key_store(text)


# The keys of an account in a store.


def opened(store: KeyStore, account: Account = ACCOUNT, passphrase: str | None = None) -> AccountKeys:
    return AccountKeys(store, account, mask=masked.extend, passphrase=passphrase)


masked: list[str] = []


def test_a_key_is_masked_when_it_is_made_read_or_kept() -> None:
    store = MemoryStore()
    keys = opened(store)
    masked.clear()
    text = keys.exported(key(1))
    begin, body, end = text.splitlines()
    assert masked == [body]
    assert begin.startswith("-----BEGIN")
    assert end.startswith("-----END")
    keys.save(keys.record.adopted(replace(stored(1), private_key=text), NOW))
    opened(store)
    assert masked == [body] * 3


def test_a_key_is_encrypted_where_a_passphrase_is_set() -> None:
    text = opened(MemoryStore(), passphrase="correct horse").exported(key(1))
    assert masked[-1] in text
    assert key(1).load(text, "correct horse").fingerprint == key(1).fingerprint
    with pytest.raises(RapConfigurationError, match="no passphrase"):
        key(1).load(text)


def test_who_has_read_an_older_record_cannot_write() -> None:
    store = MemoryStore()
    one, another = opened(store), opened(store)
    one.save(one.record.adopted(stored(1), NOW))
    with pytest.raises(KeyStoreConflict):
        another.save(another.record.adopted(stored(2), NOW))
    another.reload()
    assert another.record == one.record


def test_a_key_of_another_account_of_the_customer_is_refused() -> None:
    store = MemoryStore()
    other = opened(store, Account("DCXYZ003"))
    other.save(other.record.adopted(stored(1), NOW))
    with pytest.raises(RapConfigurationError, match="is a key of DCXYZ003 too"):
        opened(store).check_not_shared(key(1).fingerprint)
    opened(store).check_not_shared(key(2).fingerprint)
    opened(store, Account("DCABC001")).check_not_shared(key(1).fingerprint)


def test_a_key_that_waits_for_its_registration_is_not_lost() -> None:
    keys = opened(MemoryStore())
    keys.keep_unregistered(key(1), NOW)
    with pytest.raises(RapConfigurationError, match=key(1).fingerprint):
        keys.keep_unregistered(key(2), NOW)
    assert keys.record.unregistered
    assert keys.record.unregistered.fingerprint == key(1).fingerprint
    keys.keep_unregistered(key(2), NOW, replace_other=True)
    assert keys.record.unregistered.fingerprint == key(2).fingerprint
    assert [entry.fingerprint for entry in keys.record.history] == [key(1).fingerprint, key(2).fingerprint]
