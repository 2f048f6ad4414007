"""The result files with which RAP answers an uploaded public key (§6).

Their text is HKEX's to change. Nothing here raises: what can be read is returned.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_hkex_rap.rap.keys import find_fingerprints, public_key_file_name

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.rap.account import Account

_NAME = re.compile(
    r"(?P<key_file>.+?)(?:\.(?P<time>\d{6})(?:\.(?P<sequence>\d+))?)?\.(?P<outcome>rcvd|rej)",
    re.ASCII | re.DOTALL,
)
_CODE = re.compile(r"(?P<code>\d+)\b[\s:,.-]*(?P<message>.*)", re.ASCII)


class ResultName(NamedTuple):
    """What the name of a result file says: ``<keyfile>.HHMMSS[.seq].rcvd`` or ``.rej`` (§6)."""

    key_file: str
    """The uploaded file, as RAP repeats its name: ``.pub`` may have been left out."""
    time: str | None
    """``HHMMSS`` as RAP wrote it; None where the name has no such part."""
    sequence: str | None
    """The digits of ``seq``; None where the name has no such part."""
    accepted: bool
    """Whether the key was accepted (``.rcvd``) or rejected (``.rej``)."""

    @classmethod
    def parse(cls, name: str) -> ResultName | None:
        """Return what a file's name says; None where it is not the name of a result file.

        :param name: the name of a file in the key folder.
        """
        match = _NAME.fullmatch(name)
        if not match:
            return None
        return cls(match["key_file"], match["time"], match["sequence"], match["outcome"] == "rcvd")

    def is_for(self, account: Account) -> bool:
        """Return whether the uploaded file was the public key file of *account*."""
        return self.key_file in (account.name, public_key_file_name(account))


class Received(NamedTuple):
    """What a ``.rcvd`` file says (§6); None for what it does not say."""

    fingerprint: str | None
    """The MD5 fingerprint of the key that RAP took (§3.2.2)."""
    file_name: str | None
    """The name of the uploaded public key file."""

    @classmethod
    def parse(cls, content: bytes) -> Received:
        """Read ``<fingerprint>  <file name>``, on the first line that has a fingerprint.

        :param content: the file's bytes.
        """
        for line in _meaningful_lines(content):
            if fingerprints := find_fingerprints(line):
                words = [word for word in line.split() if not find_fingerprints(word)]
                return cls(fingerprints[0], " ".join(words) or None)
        return cls(None, None)


class Rejected(NamedTuple):
    """What a ``.rej`` file says (§6); empty text for what it does not say."""

    code: str
    """The error code, such as ``4007``."""
    message: str

    @classmethod
    def parse(cls, content: bytes) -> Rejected:
        """Read ``<error code> <error message>``; lines without a letter or digit, such as ``|``, are dropped.

        :param content: the file's bytes.
        """
        text = " ".join(_meaningful_lines(content))
        match = _CODE.match(text)
        return cls(match["code"], match["message"]) if match else cls("", text)


def _meaningful_lines(content: bytes) -> list[str]:
    lines = content.decode("utf-8-sig", "replace").splitlines()
    return [line.strip() for line in lines if any(char.isalnum() for char in line)]
