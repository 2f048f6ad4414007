"""Store private keys in a directory, one file per account."""

from __future__ import annotations

import codecs
import fcntl
import logging
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from airflow_provider_hkex_rap.keystore.store import KeyStoreError, conflict
from airflow_provider_hkex_rap.rap.account import Account

log = logging.getLogger(__name__)

_OWNER_ONLY = 0o600
_OWNER_ONLY_DIRECTORY = 0o700
_BYTE_ORDER_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
_RANDOM = "[a-z0-9_]{8}"
"""What mkstemp appends to a name. It does not match ``.DCXYZ001.json.swp``, which is vim's."""


class DirectoryKeyStore:
    """Store each account's record in ``<directory>/<ACCOUNT>.json``, readable by its owner only (0600).

    Every worker must see the same directory. Each write replaces the file atomically and syncs it to disk.
    If a write is killed, its temporary file has a private key; the next read or write removes it.

    :param directory: the directory of the files; created if it does not exist.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def read(self, account: str) -> str | None:
        """Return the text of an account; None if there is no file.

        :param account: the RAP user account.
        :raises KeyStoreError: if the file exists but cannot be read.
        """
        path = self._path(account)
        self._sweep_unless_locked(account)
        try:
            data = path.read_bytes()
            if data.startswith(_BYTE_ORDER_MARKS):
                raise self._not_plain_text(path, "it begins with a byte order mark (BOM)", account)
            return data.decode("ascii")
        except FileNotFoundError as error:
            if self._is_link(path, account):
                raise self._error("read", account, error) from None
            return None
        except OSError as error:
            raise self._error("read", account, error) from None
        except UnicodeDecodeError:
            raise self._not_plain_text(path, "it is not ASCII text", account) from None

    def write(self, account: str, text: str, *, replacing: str | None) -> None:
        """Replace the account's file atomically and sync it to disk.

        :param account: the RAP user account.
        :param text: the new text.
        :param replacing: the text that the file must have now; None if there must be no file.
        :raises KeyStoreConflict: if the file has another text.
        :raises KeyStoreError: if the file cannot be written.
        """
        try:
            self.directory.mkdir(mode=_OWNER_ONLY_DIRECTORY, parents=True, exist_ok=True)
            with self._locked(account):
                if self.read(account) != replacing:
                    raise conflict(account, str(self._path(account)))
                self._sweep(account)
                self._replace(self._path(account), text)
        except OSError as error:
            raise self._error("write", account, error) from None

    def _path(self, account: str) -> Path:
        return self.directory / f"{Account(account)}.json"

    def _is_link(self, path: Path, account: str) -> bool:
        """Return whether a link is there. Its target may be on a disk that is not mounted."""
        try:
            return stat.S_ISLNK(os.lstat(path).st_mode)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._error("read", account, error) from None

    @contextmanager
    def _locked(self, account: str, flags: int = 0) -> Iterator[None]:
        # Lock a file of its own: the record's file is replaced, so a lock on it would not be seen by others.
        lock = os.open(self.directory / f".{account}.lock", os.O_CREAT | os.O_RDWR, _OWNER_ONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | flags)
            yield
        finally:
            os.close(lock)

    def _sweep_unless_locked(self, account: str) -> None:
        """Remove what killed writes have left, if no write is in progress.

        Does nothing if the directory cannot be listed or written: that must not prevent a read.
        """
        with suppress(OSError):
            if self._leftovers(account):
                with self._locked(account, fcntl.LOCK_NB):
                    self._sweep(account)

    def _sweep(self, account: str) -> None:
        """Remove what killed writes have left; call it under the lock, which a write in progress holds."""
        with suppress(OSError):
            for path in self._leftovers(account):
                os.unlink(path)
                log.warning("Removed %s, the temporary file of a write that was killed.", path)

    def _leftovers(self, account: str) -> list[str]:
        pattern = re.compile(rf"\.{Account(account)}\.json\.{_RANDOM}")
        with os.scandir(self.directory) as entries:
            return [entry.path for entry in entries if pattern.fullmatch(entry.name)]

    def _replace(self, path: Path, text: str) -> None:
        # mkstemp creates a file that only its owner can read.
        handle, temporary = tempfile.mkstemp(dir=self.directory, prefix=f".{path.name}.")
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
        directory = os.open(self.directory, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _error(self, verb: str, account: str, error: OSError) -> KeyStoreError:
        return KeyStoreError(
            f"Cannot {verb} the keys of {account} at {self._path(account)}: {error.strerror or error}.",
            why="The directory does not exist, is full, or does not allow this user.",
            todo="Repair the directory. A later try continues from the last step that was stored.",
            account=account,
        )

    def _not_plain_text(self, path: Path, reason: str, account: str) -> KeyStoreError:
        return KeyStoreError(
            f"Cannot read the keys of {account} at {path}: {reason}.",
            why="The file is ASCII text. An editor has probably saved it in another encoding.",
            todo="Save it without a byte order mark, as ASCII or UTF-8, or restore it from a backup.",
            account=account,
        )
