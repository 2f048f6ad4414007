"""The text of a private key: read it, and say clearly why it cannot be read (§3.2.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.pem import PemError, repair_pem

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPrivateNumbers
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

KEY_SIZES = (2048, 4096)
"""The sizes, in bits, of the RSA keys that HKEX accepts (§3.2.1)."""
PASSPHRASE_BYTES = 1023
"""The longest passphrase that the cryptography library takes."""
SIZES_RULE = "RAP accepts RSA keys of 2048 or 4096 bits (guide §3.2.1)."

_WAYS_OUT = {
    "PuTTY": (
        "PuTTY and WinSCP use a format of their own.",
        "Convert it with 'puttygen <key>.ppk -O private-openssh -o <key file>'.",
    ),
    "ssh.com": (
        "A private key is PEM text: OpenSSH, PKCS#8 or PKCS#1.",
        "Convert a key of ssh.com with 'ssh-keygen -i -f <key file>'.",
    ),
    "public key": (
        "RAP has the public key. A login needs the private key of the pair.",
        "Give the file that has the same name without '.pub'.",
    ),
    "certificate": (
        "RAP takes RSA keys and no certificates (guide §3.2).",
        "Give the private key that is registered for the account.",
    ),
    "binary": (
        "A private key is PEM text: OpenSSH, PKCS#8 or PKCS#1.",
        "Convert it with 'openssl pkey -inform DER -in <key file>', or with 'openssl pkcs12'.",
    ),
}
"""Why a text is refused and what to do, by a word of the reason."""


def read_rsa_private_key(text: str, passphrase: str | None, source: str) -> RSAPrivateKey:
    """Return the RSA private key in a text.

    :param text: the key as PEM; line breaks may be lost, see :func:`pem.repair_pem`.
    :param passphrase: decrypts the key; ignored if the key is not encrypted.
    :param source: names the origin of the text in errors, such as ``extra 'private_key'``; may be empty.
    :raises RapConfigurationError: if the text is not a private key, the passphrase is missing, wrong or not
        valid, or HKEX does not accept such a key (§3.2.1). The error holds nothing of the text or the
        passphrase.
    """
    check_passphrase(passphrase)
    try:
        data = _secret_bytes(repair_pem(text))
    except PemError as error:
        raise _refused_text(source, str(error)) from None
    try:
        return require_rsa(_load(data, None, source), source)
    except _EncryptedError:
        return require_rsa(_decrypt(data, passphrase, source), source)
    except ValueError:
        raise _refused_text(source, "the text between its BEGIN and END lines is damaged") from None


def check_passphrase(passphrase: str | None) -> None:
    """Check that keys can be encrypted with a passphrase. It is used as it is, white space included.

    :param passphrase: the passphrase; None or empty if there is none.
    :raises RapConfigurationError: if it is longer than 1,023 bytes in UTF-8; or only white space, because a
        field that looks blank would encrypt the keys.
    """
    if not passphrase:
        return
    if passphrase.isspace():
        reason, todo = (
            "is only white space",
            "Leave the field blank if there is no passphrase, or correct it.",
        )
    elif len(_secret_bytes(passphrase)) > PASSPHRASE_BYTES:
        reason = f"is longer than {PASSPHRASE_BYTES:,} bytes (in UTF-8)"
        todo = "Give the key a shorter one with 'ssh-keygen -p -f <key file>', and correct the field."
    else:
        return
    raise RapConfigurationError(
        f"The passphrase of the private keys ('private_key_passphrase') {reason}.",
        why="Private keys are neither encrypted nor decrypted with it.",
        todo=todo,
        field="private_key_passphrase",
        limit=PASSPHRASE_BYTES,
    )


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
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

    load = load_ssh_private_key if b"BEGIN OPENSSH PRIVATE KEY" in data else load_pem_private_key
    try:
        # The library would also prove that the primes are primes, which takes 0.2 s with 4096 bits.
        key = load(data, passphrase, unsafe_skip_rsa_key_validation=True)
        if isinstance(key, RSAPrivateKey) and not _agrees(key.private_numbers()):
            raise ValueError("The numbers of the key do not belong together.")
        return key
    except TypeError:
        raise _EncryptedError from None
    except UnsupportedAlgorithm:
        raise _unsupported_encryption(source) from None
    except ValueError as error:
        # The messages of the library for AES-192 in PKCS#1 and for rare schemes in PKCS#8.
        if "unknown cipher" in str(error) or "Unknown key encryption" in str(error):
            raise _unsupported_encryption(source) from None
        raise


def _agrees(key: RSAPrivateNumbers) -> bool:
    """Return whether the numbers of a key belong together: none is damaged."""
    public = key.public_numbers
    return (
        min(key.p, key.q) > 1
        and key.p * key.q == public.n
        and all(public.e * key.d % (prime - 1) == 1 for prime in (key.p, key.q))
        and (key.dmp1, key.dmq1) == (key.d % (key.p - 1), key.d % (key.q - 1))
        and key.iqmp * key.q % key.p == 1
    )


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
        space = "begins or ends with white space, which counts" if passphrase != passphrase.strip() else ""
        raise _unusable(
            source,
            "the passphrase is wrong, or the key is damaged",
            why=f"The passphrase {space}." if space else "",
            todo="Check both with 'ssh-keygen -y -f <key file>', then correct 'private_key_passphrase'.",
        ) from None


def _refused_text(source: str, reason: str) -> RapConfigurationError:
    for word, (why, todo) in _WAYS_OUT.items():
        if word in reason:
            return _unusable(source, reason, why=why, todo=todo)
    return _unusable(
        source,
        reason,
        why="A private key is PEM text: OpenSSH, PKCS#8 or PKCS#1.",
        todo="Give the whole text from its BEGIN to its END line; 'ssh-keygen -y -f <key file>' checks it.",
    )


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
