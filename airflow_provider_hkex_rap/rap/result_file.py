"""Read the result files by which RAP answers the upload of a public key (§6).

HKEX may change their text, so it is read leniently: nothing here raises an error. What is kept of it is
printable and short, since it goes into logs and errors.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_hkex_rap.rap.keys import find_fingerprints, public_key_file_name
from airflow_provider_hkex_rap.rap.printable import printable

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.rap.account import Account

_NAME = re.compile(
    r"(?P<key_file>.+?)(?:\.(?P<time>\d{6})(?:\.(?P<sequence>\d+))?)?\.(?P<outcome>rcvd|rej)",
    re.ASCII | re.DOTALL,
)
_CODE = re.compile(r"(?P<code>\d{1,20})\b[\s:,.-]*(?P<message>.*)", re.ASCII)


class ResultName(NamedTuple):
    """The parts of a result file's name: ``<keyfile>.HHMMSS[.seq].rcvd`` or ``.rej`` (§6)."""

    key_file: str
    """The name of the uploaded file, with or without ``.pub``."""
    time: str | None
    """``HHMMSS``; None if the name has no such part."""
    sequence: str | None
    """The digits of ``seq``; None if the name has no such part."""
    accepted: bool
    """True for ``.rcvd``, False for ``.rej``."""

    @classmethod
    def parse(cls, name: str) -> ResultName | None:
        """Return the parts of a file's name; None if it is not the name of a result file.

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
    """The content of a ``.rcvd`` file (§6); a part that is missing is None."""

    fingerprint: str | None
    """The MD5 fingerprint of the accepted key (§3.2.2)."""
    file_name: str | None
    """The name of the uploaded public key file."""

    @classmethod
    def parse(cls, content: bytes) -> Received:
        """Read ``<fingerprint>  <file name>`` from the first line that has a fingerprint.

        :param content: the file's bytes.
        """
        for line in _meaningful_lines(content):
            if fingerprints := find_fingerprints(line):
                words = [word for word in line.split() if not find_fingerprints(word)]
                return cls(fingerprints[0], printable(" ".join(words)) or None)
        return cls(None, None)


class Rejected(NamedTuple):
    """The content of a ``.rej`` file (§6); a part that is missing is empty."""

    code: str
    """The error code, such as ``4007``."""
    message: str

    @classmethod
    def parse(cls, content: bytes) -> Rejected:
        """Read ``<error code> <error message>``; lines without a letter or digit are ignored.

        :param content: the file's bytes.
        """
        text = " ".join(_meaningful_lines(content))
        match = _CODE.match(text)
        code, message = (match["code"], match["message"]) if match else ("", text)
        return cls(code, printable(message))


def _meaningful_lines(content: bytes) -> list[str]:
    lines = content.decode("utf-8-sig", "replace").splitlines()
    return [line.strip() for line in lines if any(char.isalnum() for char in line)]
