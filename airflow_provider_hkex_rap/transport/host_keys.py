"""Read the pinned host keys of a connection (§2.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from airflow_provider_hkex_rap.rap.errors import RapConfigurationError

if TYPE_CHECKING:
    from asyncssh import SSHKey

_BLOB = re.compile(r"AAAA[A-Za-z0-9+/]+=*")
_KEYS = re.compile(r"AAAA[A-Za-z0-9+/]{20}")
_TYPE = re.compile(r"(?:ssh|ecdsa|sk-ssh|sk-ecdsa|rsa)-[a-z0-9@.-]+")
_FINGERPRINT = re.compile(r"(?:SHA256|MD5):\S+|(?:[0-9a-fA-F]{2}:){15}[0-9a-fA-F]{2}")
_REVOKED = "@revoked"


def parse_host_keys(keys: str | Iterable[object]) -> tuple[SSHKey, ...]:
    """Return the RSA public keys to trust.

    :param keys: lines, or one text of lines. Each line is blank, a ``#`` comment, or a key: ``ssh-rsa
        AAAA…``, ``AAAA…``, or a line of ``ssh-keyscan`` or ``known_hosts``. A ``@revoked`` key is never
        trusted.
    :raises RapConfigurationError: if a line is none of these; it names the line. Or if no key is left.
    """
    lines = keys.replace("\\n", "\n").splitlines() if isinstance(keys, str) else [str(key) for key in keys]
    trusted: dict[bytes, SSHKey] = {}
    revoked: set[bytes] = set()
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        key = _parse_line(words, number)
        if words[0] == _REVOKED:
            revoked.add(key.public_data)
        else:
            trusted[key.public_data] = key
    left = tuple(key for data, key in trusted.items() if data not in revoked)
    if not left:
        raise RapConfigurationError(
            "The connection pins no RSA host key.",
            why="RAP has RSA host keys (guide §2.1), and a server is trusted only if its key is pinned.",
            todo="Set the extra 'host_key' to the key that HKEX gave you, as 'ssh-rsa AAAA…', one per line.",
        )
    return left


def _parse_line(words: list[str], number: int) -> SSHKey:
    """Return the key in a line.

    :raises RapConfigurationError: if the line is not a key that RAP can show.
    """
    from asyncssh import KeyImportError, import_public_key

    if words[0].startswith("@"):
        if words[0] != _REVOKED:
            raise _refused(number, f"the marker {words[0]!r} is not supported; only @revoked is")
        words = words[1:]
    if any(_FINGERPRINT.fullmatch(word) for word in words) and not any(map(_BLOB.match, words)):
        raise _refused(number, "it is a fingerprint, and the key itself is needed")
    if sum(map(bool, map(_KEYS.match, words))) > 1:
        raise _refused(number, "it has several keys")
    algorithm, blob = _algorithm_and_blob(words)
    if not blob:
        raise _refused(number, "it is neither a key, a '#' comment nor blank")
    if algorithm not in ("", "ssh-rsa"):
        raise _refused(number, f"it is a key of the type {algorithm}, and RAP has RSA host keys (§2.1)")
    try:
        key = import_public_key(f"ssh-rsa {blob}")
    except KeyImportError:
        raise _refused(number, "the key in it is damaged, or not an RSA key (§2.1)") from None
    return key


def _algorithm_and_blob(words: list[str]) -> tuple[str, str]:
    """Return the two parts of a key; the second is empty if there is none.

    The key stands alone, after its algorithm, or after host names and its algorithm; a comment may follow.
    """
    if _BLOB.fullmatch(words[0]):
        return "", words[0]
    for before in words[:2]:
        at = words.index(before)
        if _TYPE.fullmatch(before) and at + 1 < len(words) and _BLOB.fullmatch(words[at + 1]):
            return before, words[at + 1]
    return "", ""


def _refused(number: int, why: str) -> RapConfigurationError:
    # The line is not shown: it may hold a secret that was typed into the wrong field.
    return RapConfigurationError(
        f"Line {number} of the extra 'host_key' is not valid: {why}.",
        why="A line that was ignored would leave RAP's addresses unpinned without a word.",
        todo="Write one key per line, as 'ssh-rsa AAAA…'; begin a comment with '#'.",
        line=number,
    )
