"""Search for private keys and passphrases in every file that Airflow writes."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from zipfile import ZipFile, is_zipfile

import asyncssh
from cryptography.hazmat.primitives import serialization

_WINDOW = 20
_RUN = re.compile(rb"[A-Za-z0-9+/=]{%d,}" % _WINDOW)


class Secrets:
    """Private keys and passphrases to search for, whole or in part, in every form.

    :param private_keys: the texts of private keys.
    :param passphrases: the passphrases; the first one opens the keys that are encrypted.
    """

    def __init__(self, private_keys: Iterable[str], *passphrases: str) -> None:
        self._words = [b"PRIVATE KEY-----", *(passphrase.encode() for passphrase in passphrases)]
        self._parts: set[bytes] = set()
        for text in private_keys:
            self._parts.update(*map(_parts, _forms(text, passphrases)))

    def is_in(self, data: bytes) -> bool:
        """Return whether *data* contains a passphrase, or a part of a key that is most of a line long."""
        return any(word in data for word in self._words) or any(
            run[at : at + _WINDOW] in self._parts
            for run in _RUN.findall(data)
            for at in range(len(run) - _WINDOW + 1)
        )


def _forms(text: str, passphrases: tuple[str, ...]) -> Iterator[str]:
    """Yield the secret half of a private key in every format that a program may write."""
    key = asyncssh.import_private_key(text, passphrases[0] if passphrases else None).pyca_key
    none = serialization.NoEncryption()
    pem = serialization.Encoding.PEM
    exports = [
        key.private_bytes(pem, form, none).decode()
        for form in (serialization.PrivateFormat.TraditionalOpenSSL, serialization.PrivateFormat.PKCS8)
    ]
    for export in (text, *exports):
        body = "".join(line for line in export.splitlines() if "-----" not in line)
        # The first half is the public key.
        yield body[len(body) // 2 :]
    numbers = key.private_numbers()
    for number in (numbers.d, numbers.p, numbers.q):
        yield from (f"{number}", f"{number:x}", f"{number:X}")


def _parts(text: str) -> Iterator[bytes]:
    """Yield parts of a text, so short that each line of a key contains one, however its lines are broken."""
    return (text[at : at + _WINDOW].encode() for at in range(0, len(text) - _WINDOW + 1, _WINDOW))


def contents(root: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and content of each file below *root*, database table and member of a zip archive."""
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        name, data = str(path.relative_to(root)), path.read_bytes()
        yield name, data
        if data.startswith(b"SQLite format 3"):
            yield from ((f"{name}:{table}", rows) for table, rows in _tables(path))
        elif is_zipfile(path):
            with ZipFile(path) as archive:
                yield from ((f"{name}:{member}", archive.read(member)) for member in archive.namelist())


def _tables(path: Path) -> Iterator[tuple[str, bytes]]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            rows = database.execute(f'SELECT * FROM "{table}"').fetchall()
            values = [value for row in rows for value in row if isinstance(value, str | bytes)]
            yield table, b"\n".join(it.encode() if isinstance(it, str) else it for it in values)


def leaks(secrets: Secrets, found: Iterable[tuple[str, bytes]]) -> list[str]:
    """Return the names of the contents that hold a secret."""
    return [name for name, data in found if secrets.is_in(data)]
