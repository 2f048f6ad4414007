# ruff: noqa: S101 - these are tests.
"""Tests for key stores: run them against your own class.

For example, in a test module::

    from airflow_provider_hkex_rap.testing.key_store_contract import KeyStoreContract

    class TestMyStore(KeyStoreContract):
        def open(self):
            return MyStore()
"""

from __future__ import annotations

from airflow_provider_hkex_rap.keystore.store import KeyStore, KeyStoreConflict

_ACCOUNT, _OTHER = "DCZZZ001", "DCZZZ002"
# Longer than any record, with the line breaks and escapes of JSON and PEM.
_TEXT = '{"private_key": "-----BEGIN\\nAAAA", "note": "\\ud83d\\udd11"}\n' * 1000


class KeyStoreContract:
    """Tests for pytest that every key store passes.

    Make a subclass whose name begins with ``Test``, and define :meth:`open`.
    """

    def open(self) -> KeyStore:
        """Return the store, opened anew. It must be empty at the start of each test."""
        raise NotImplementedError

    def test_it_is_a_key_store(self) -> None:
        """The class has the methods of the protocol."""
        assert isinstance(self.open(), KeyStore)

    def test_nothing_is_kept_at_first(self) -> None:
        """Reading an empty store returns None."""
        assert self.open().read(_ACCOUNT) is None

    def test_what_was_written_is_read_again_by_another_process(self) -> None:
        """A new object reads the same text that another object wrote."""
        self.open().write(_ACCOUNT, _TEXT, replacing=None)
        assert self.open().read(_ACCOUNT) == _TEXT

    def test_a_text_is_replaced_by_another(self) -> None:
        """The store returns the newest text."""
        self.open().write(_ACCOUNT, _TEXT, replacing=None)
        self.open().write(_ACCOUNT, "newer", replacing=_TEXT)
        assert self.open().read(_ACCOUNT) == "newer"

    def test_the_accounts_are_kept_apart(self) -> None:
        """Each account has its own text."""
        self.open().write(_ACCOUNT, "of one", replacing=None)
        self.open().write(_OTHER, "of another", replacing=None)
        assert (self.open().read(_ACCOUNT), self.open().read(_OTHER)) == ("of one", "of another")

    def test_a_stale_write_changes_nothing(self) -> None:
        """A write that replaces an older text is refused, and the newer text stays."""
        self.open().write(_ACCOUNT, "first", replacing=None)
        self.open().write(_ACCOUNT, "second", replacing="first")
        _refuses_to_replace(self.open(), None)
        _refuses_to_replace(self.open(), "first")
        assert self.open().read(_ACCOUNT) == "second"

    def test_a_first_write_needs_to_know_that_it_is_one(self) -> None:
        """A text that the store does not have cannot be replaced."""
        _refuses_to_replace(self.open(), "never there")
        assert self.open().read(_ACCOUNT) is None


def _refuses_to_replace(store: KeyStore, stale: str | None) -> None:
    try:
        store.write(_ACCOUNT, "lost", replacing=stale)
    except KeyStoreConflict:
        return
    raise AssertionError("A stale write must raise KeyStoreConflict.")
