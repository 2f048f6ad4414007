"""Store private keys in a directory, one file per account."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from airflow_provider_hkex_rap.keystore.store import KeyStoreError, conflict
from airflow_provider_hkex_rap.rap.account import Account

_OWNER_ONLY = 0o600
_OWNER_ONLY_DIRECTORY = 0o700


class DirectoryKeyStore:
    """Store each account's record in ``<directory>/<ACCOUNT>.json``, readable by its owner only (0600).

    Every worker must see the same directory. Each write replaces the file atomically and syncs it to disk.

    :param directory: the directory of the files; created if it does not exist.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def read(self, account: str) -> str | None:
        """Return the text of an account; None if there is no file.

        :param account: the RAP user account.
        :raises KeyStoreError: if the file exists but cannot be read.
        """
        try:
            return self._path(account).read_text("ascii")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise self._error("read", account, error) from None

    def write(self, account: str, text: str, *, replacing: str | None) -> None:
        """Replace the account's file atomically and sync it to disk.

        :param account: the RAP user account.
        :param text: the new text.
        :param replacing: the text that the file must have now; None if there must be no file.
        :raises KeyStoreConflict: if the file has another text.
        :raises KeyStoreError: if the file cannot be written.
        """
        try:
            with self._locked(account):
                if self.read(account) != replacing:
                    raise conflict(account, str(self._path(account)))
                self._replace(self._path(account), text)
        except OSError as error:
            raise self._error("write", account, error) from None

    def _path(self, account: str) -> Path:
        return self._directory / f"{Account(account)}.json"

    @contextmanager
    def _locked(self, account: str) -> Iterator[None]:
        self._directory.mkdir(mode=_OWNER_ONLY_DIRECTORY, parents=True, exist_ok=True)
        # Lock a file of its own: the record's file is replaced, so a lock on it would not be seen by others.
        lock = os.open(self._directory / f".{account}.lock", os.O_CREAT | os.O_RDWR, _OWNER_ONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _replace(self, path: Path, text: str) -> None:
        # mkstemp creates a file that only its owner can read.
        handle, temporary = tempfile.mkstemp(dir=self._directory, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        directory = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _error(self, verb: str, account: str, error: Exception) -> KeyStoreError:
        reason = getattr(error, "strerror", None) or "it is not ASCII text"
        return KeyStoreError(
            f"Cannot {verb} the keys of {account} at {self._path(account)}: {reason}.",
            why="The directory does not exist, is full, or does not allow this user.",
            todo="Repair the directory. A later try continues from the last step that was stored.",
            account=account,
        )
