"""How the simulated RAP checks an uploaded public key, and the text of its answers (§3.2, §6)."""

from __future__ import annotations

import re
from enum import Enum
from typing import TYPE_CHECKING

from airflow_provider_hkex_rap.rap.account import Account
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.keys import PublicKey, public_key_file_name

if TYPE_CHECKING:
    import pendulum

_NAME = re.compile(rb"[A-Za-z0-9_.-]+")
_SSH2_MARKER = b"---- BEGIN SSH2 PUBLIC KEY ----"
_LINE_BYTES = 72
_LINE_END = re.compile(rb"\r\n|\r|\n")
_COLUMN = 53
"""The column of the file name in a ``.rcvd``: six spaces after the fingerprint, as in the guide."""


class Rejection(Enum):
    """Reasons to reject an uploaded key: error code and message of the ``.rej`` (§6).

    The guide gives 4007 only. The other codes and messages are the simulator's own.
    """

    FILE_NAME = "4001", "File name is not that of the public key of the account"
    FILE_FORMAT = "4002", "File is not an SSH2 public key file"
    KEY_TYPE = "4003", "Key is not an RSA key of 2048 or 4096 bits"
    KEY_IN_USE = "4004", "Key is already in use by this account"
    KEY_OF_ANOTHER = "4005", "Key is registered for another account"
    CHARACTERS = "4007", "File name contains invalid characters"


class KeyRejectedError(Exception):
    """The uploaded key is rejected.

    :param code: error code of the ``.rej``.
    :param message: error message of the ``.rej``.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code} {message}")
        self.code = code
        self.message = message

    @classmethod
    def of(cls, reason: Rejection) -> KeyRejectedError:
        """Return the error for *reason*."""
        return cls(*reason.value)


def check_key_file(account: str, name: bytes, content: bytes) -> PublicKey:
    """Return the key in an uploaded file (§3.2.1, §6).

    :param account: the account that uploaded the file; it may renew only its own key.
    :param name: the file's name.
    :param content: the file's content.
    :raises KeyRejectedError: if the name, the format or the type of the key is not as the guide asks for.
    """
    if not _NAME.fullmatch(name):
        raise KeyRejectedError.of(Rejection.CHARACTERS)
    if name.decode() != public_key_file_name(Account(account)):
        raise KeyRejectedError.of(Rejection.FILE_NAME)
    lines = _LINE_END.split(content)
    if lines[0] != _SSH2_MARKER or max(map(len, lines)) > _LINE_BYTES:
        raise KeyRejectedError.of(Rejection.FILE_FORMAT)
    try:
        return PublicKey.parse(content.decode())
    except RapConfigurationError as error:
        wrong_type = hasattr(error, "algorithm") or hasattr(error, "bits")
        raise KeyRejectedError.of(Rejection.KEY_TYPE if wrong_type else Rejection.FILE_FORMAT) from None
    except UnicodeDecodeError:
        raise KeyRejectedError.of(Rejection.FILE_FORMAT) from None


def received_text(fingerprint: str, name: str) -> str:
    """Return the content of a ``.rcvd`` file, spaced as in the guide's example (§6)."""
    return f"{fingerprint:<{_COLUMN}}{name}\n"


def result_name(key_file: bytes, at: pendulum.DateTime, sequence: int, accepted: bool) -> bytes:
    """Return ``<keyfile>.HHMMSS[.seq].rcvd`` or ``.rej`` (§6).

    :param key_file: the first part of the name.
    :param at: the time at which the file is generated, in Hong Kong.
    :param sequence: ``seq``; 0 leaves it out.
    :param accepted: whether the key was accepted.
    """
    parts = [f"{at:HHmmss}", *([f"{sequence}"] if sequence else []), "rcvd" if accepted else "rej"]
    return key_file + "".join(f".{part}" for part in parts).encode()
