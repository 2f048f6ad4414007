"""The text of a private key: repair it, read it, and say clearly why it cannot be read (§3.2.1)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NoReturn

from airflow_provider_hkex_rap.rap.errors import RapConfigurationError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

KEY_SIZES = (2048, 4096)
"""The sizes, in bits, of the RSA keys that HKEX accepts (§3.2.1)."""
SIZES_RULE = "RAP accepts RSA keys of 2048 or 4096 bits (guide §3.2.1)."

_PEM = re.compile(
    r"-----BEGIN (?P<label>[A-Z0-9 ]*PRIVATE KEY)-----(?P<body>.*?)-----END (?P=label)-----", re.DOTALL
)
# The headers of an encrypted PKCS#1 key. The cipher fixes the length of the IV, so that the Base64 text after
# it is found even if no line break is left between them.
_HEADERS = re.compile(
    r"\s*Proc-Type:\s*4,ENCRYPTED\s*DEK-Info:\s*"
    r"(?P<cipher>AES-\d{3}-CBC,[0-9A-Fa-f]{32}|DES(?:-EDE3)?-CBC,[0-9A-Fa-f]{16})"
)
_LINE_CHARACTERS = 64


def read_rsa_private_key(text: str, passphrase: str | None, source: str) -> RSAPrivateKey:
    """Return the RSA private key in a text.

    :param text: the key as PEM; line breaks may be lost, see :func:`repair_pem`.
    :param passphrase: decrypts the key; ignored if the key is not encrypted.
    :param source: names the origin of the text in errors, such as ``extra 'private_key'``; may be empty.
    :raises RapConfigurationError: if the text is not a private key, the passphrase is missing or wrong, or
        HKEX does not accept such a key (§3.2.1). The error holds nothing of the text or the passphrase.
    """
    data = _secret_bytes(repair_pem(text))
    try:
        return require_rsa(_load(data, None, source), source)
    except _EncryptedError:
        return require_rsa(_decrypt(data, passphrase, source), source)
    except ValueError:
        _refuse_text(text, source)


def repair_pem(text: str) -> str:
    r"""Put the line breaks of a PEM text back.

    A one-line input field loses them, an environment variable keeps them as ``\n``, and an editor may indent
    the lines.

    :param text: a private key whose line breaks are whole, or became spaces, literal ``\n``, or nothing.
    :returns: the PEM with a line break after every 64 characters; a text without PEM edges only stripped.
    """
    text = text.replace("\\r", "\r").replace("\\n", "\n").strip("\ufeff \t\r\n")
    found = _PEM.search(text)
    if not found:
        return text
    label, body = found["label"], found["body"]
    lines = [f"-----BEGIN {label}-----"]
    if headers := _HEADERS.match(body):
        lines += ["Proc-Type: 4,ENCRYPTED", f"DEK-Info: {headers['cipher']}", ""]
        body = body[headers.end() :]
    body = "".join(body.split())
    lines += [body[at : at + _LINE_CHARACTERS] for at in range(0, len(body), _LINE_CHARACTERS)]
    return "\n".join((*lines, f"-----END {label}-----", ""))


def require_rsa(key: PrivateKeyTypes, source: str = "") -> RSAPrivateKey:
    """Return the key if HKEX accepts its type and size (§3.2.1).

    :param key: a private key.
    :param source: names the origin of the key in the error; may be empty.
    :raises RapConfigurationError: if the key is not an RSA key of 2048 or 4096 bits.
    """
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    todo = "Use the RSA key that is registered for the account, or make one with 'airflow hkex-rap register'."
    if not isinstance(key, RSAPrivateKey):
        raise _unusable(source, "it is not an RSA key", why=SIZES_RULE, todo=todo)
    if key.key_size not in KEY_SIZES:
        reason = f"an RSA key of {key.key_size} bits is not accepted"
        raise _unusable(source, reason, why=SIZES_RULE, todo=todo, bits=key.key_size)
    return key


class _EncryptedError(Exception):
    """The private key is encrypted, and no passphrase was given."""


def _secret_bytes(text: str) -> bytes:
    # A UnicodeEncodeError would carry the secret in its attributes.
    return text.encode("utf-8", "surrogatepass")


def _load(data: bytes, passphrase: bytes | None, source: str) -> PrivateKeyTypes:
    """Return the key.

    :raises _EncryptedError: if it is encrypted and *passphrase* is None.
    :raises RapConfigurationError: if its encryption is not supported.
    :raises ValueError: if it cannot be read or decrypted.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

    is_openssh = b"BEGIN OPENSSH PRIVATE KEY" in data
    try:
        return (load_ssh_private_key if is_openssh else load_pem_private_key)(data, passphrase)
    except TypeError:
        raise _EncryptedError from None
    except UnsupportedAlgorithm:
        raise _unsupported_encryption(source) from None
    except ValueError as error:
        # The messages of the library for AES-192 in PKCS#1 and for rare schemes in PKCS#8.
        if "unknown cipher" in str(error) or "Unknown key encryption" in str(error):
            raise _unsupported_encryption(source) from None
        raise


def _decrypt(data: bytes, passphrase: str | None, source: str) -> PrivateKeyTypes:
    if not passphrase:
        raise _unusable(
            source,
            "it is encrypted and no passphrase is given",
            todo="Set the connection's extra 'private_key_passphrase'.",
        )
    try:
        return _load(data, _secret_bytes(passphrase), source)
    except ValueError:
        raise _unusable(
            source,
            "the passphrase is wrong, or the key is damaged",
            todo="Check both with 'ssh-keygen -y -f <key file>', then correct 'private_key_passphrase'.",
        ) from None


def _refuse_text(text: str, source: str) -> NoReturn:
    if text.lstrip("\ufeff \t\r\n").startswith("PuTTY-User-Key-File"):
        raise _unusable(
            source,
            "it is a PuTTY key (.ppk)",
            why="PuTTY and WinSCP use a format of their own.",
            todo="Convert it with 'puttygen <key>.ppk -O private-openssh -o <key file>'.",
        ) from None
    raise _unusable(
        source,
        "it is not a private key in PEM form",
        why="A private key is PEM text: OpenSSH, PKCS#8 or PKCS#1.",
        todo="Give the whole text from its BEGIN to its END line; 'ssh-keygen -y -f <key file>' checks it.",
    ) from None


def _unsupported_encryption(source: str) -> RapConfigurationError:
    return _unusable(
        source,
        "its encryption is not supported",
        why="Supported are AES-256 (CBC, CTR, GCM) in OpenSSH keys, and AES and triple DES in most PEM keys.",
        todo="Encrypt it again with 'ssh-keygen -p -Z aes256-ctr -f <key file>'.",
    )


def _unusable(
    source: str, reason: str, *, why: str = "", todo: str, **facts: object
) -> RapConfigurationError:
    origin = f" in {source}" if source else ""
    return RapConfigurationError(
        f"The private key{origin} cannot be used: {reason}.", why=why, todo=todo, source=source, **facts
    )
