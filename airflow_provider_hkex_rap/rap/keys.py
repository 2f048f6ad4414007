"""The SSH keys that log in to RAP: RSA pairs, their SSH2 public key files and their fingerprints (§3.2)."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from airflow_provider_hkex_rap.rap.errors import RapConfigurationError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

    from airflow_provider_hkex_rap.rap.account import Account

KEY_SIZES = (2048, 4096)
"""The sizes, in bits, of the RSA keys that HKEX accepts (§3.2.1)."""

_BEGIN = "---- BEGIN SSH2 PUBLIC KEY ----"
_END = "---- END SSH2 PUBLIC KEY ----"
_LINE_BYTES = 72
"""The longest line of an SSH2 public key file (RFC 4716, section 3.1)."""
_BODY_BYTES = 70
_PRIVATE_KEY = re.compile(r"-- ?BEGIN [A-Z0-9 ]*PRIVATE KEY|\A\s*PuTTY-User-Key-File")
_LINE_END = re.compile(r"\r\n|\r|\n")
_PRINTABLE_ASCII = re.compile(r"[ -~]*")
_ALGORITHM_NAME = re.compile(rb"[a-z0-9@.-]{1,64}")
_FINGERPRINT = re.compile(
    r"(?<![0-9a-f])(?<!\b[0-9a-f]{2}:)[0-9a-f]{2}(?::[0-9a-f]{2}){15}(?![0-9a-f])(?!:[0-9a-f]{2}\b)",
    re.IGNORECASE,
)

_SIZES_RULE = "RAP accepts RSA keys of 2048 or 4096 bits (guide §3.2.1)."
_GENERATE = "Generate one with 'ssh-keygen -t rsa -b 4096'."


def public_key_file_name(account: Account) -> str:
    """Return the name of an account's public key file, such as ``DCXYZ001.pub`` (§3.2.1, §5)."""
    return f"{account}.pub"


def find_fingerprints(text: str) -> tuple[str, ...]:
    """Return the MD5 fingerprints in a text, in lower case and in its order (§3.2.2).

    :param text: any text; a prefix such as ``MD5:`` is left out.
    """
    text = re.sub("md5:", " ", text, flags=re.IGNORECASE)
    return tuple(match.group().lower() for match in _FINGERPRINT.finditer(text))


@dataclass(frozen=True, slots=True, repr=False)
class PublicKey:
    """An RSA public key of a size that HKEX accepts (§3.2.1).

    :param blob: the key as RFC 4253 (section 6.6) encodes it: ``ssh-rsa``, exponent, modulus.
    :raises RapConfigurationError: it is not such a key, not RSA, or of another size.
    """

    blob: bytes

    def __post_init__(self) -> None:
        bits = _modulus(self.blob).bit_length()
        if bits not in KEY_SIZES:
            raise _wrong_size(bits)

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """Read a public key.

        :param text: an SSH2 public key file (RFC 4716, the form that HKEX takes), its lines ending in LF,
            CRLF or CR; or the one line of an OpenSSH public key file. Headers and comments are skipped.
        :raises RapConfigurationError: it is neither, or not a key that HKEX accepts (§3.2.1).
        """
        text = text.removeprefix("\ufeff").strip()
        if _PRIVATE_KEY.search(text):
            raise RapConfigurationError(
                "A private key stands where a public key belongs.",
                why="A private key is never handed to anybody (guide §3.2.2, §5).",
                todo="Give the public key, the file that ends in .pub.",
            )
        encoded = _ssh2_body(text) if text.startswith(_BEGIN) else _openssh_body(text)
        try:
            return cls(base64.b64decode(encoded, validate=True))
        except ValueError:
            raise _not_a_public_key() from None

    @property
    def bits(self) -> int:
        """The size in bits."""
        return _modulus(self.blob).bit_length()

    @property
    def fingerprint(self) -> str:
        """The MD5 fingerprint: 16 octets in lower-case hexadecimal, separated by colons (§3.2.2)."""
        return hashlib.md5(self.blob, usedforsecurity=False).digest().hex(":")

    @property
    def sha256_fingerprint(self) -> str:
        """The fingerprint as OpenSSH prints it: ``SHA256:`` and Base64 without padding."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")

    def to_rfc4716(self, comment: str) -> str:
        """Return the SSH2 public key file to register or to upload (§3.2.1, §6).

        The header stays on one line: continuation lines are valid, but not every server reads them well.

        :param comment: printable ASCII for the ``Comment`` header, such as the account; up to 61 characters.
        :raises RapConfigurationError: the comment does not fit.
        """
        header = f'Comment: "{comment}"'
        if len(header) > _LINE_BYTES or not _PRINTABLE_ASCII.fullmatch(comment):
            raise RapConfigurationError(
                f"{comment!r} is no comment for a public key file.",
                why=f"The header is one line of at most {_LINE_BYTES} bytes of printable ASCII (RFC 4716).",
                todo="Use the name of the RAP user account.",
                comment=comment,
            )
        body = base64.b64encode(self.blob).decode()
        lines = (body[at : at + _BODY_BYTES] for at in range(0, len(body), _BODY_BYTES))
        return "\n".join((_BEGIN, header, *lines, _END, ""))

    def to_openssh(self) -> str:
        """Return the key as the one line of an OpenSSH public key file, without a comment."""
        return f"ssh-rsa {base64.b64encode(self.blob).decode()}"

    def __repr__(self) -> str:
        return f"PublicKey({self.bits} bits, {self.fingerprint})"


class PrivateKey:
    """An RSA private key of a size that HKEX accepts; what it prints is its public side (§3.2).

    Make one with :meth:`generate` or :meth:`load`.

    :param rsa: the key, as ``cryptography`` holds it.
    :raises RapConfigurationError: it is not RSA, or of another size (§3.2.1).
    """

    __slots__ = ("_rsa", "public_key")

    public_key: Final[PublicKey]
    """The public half: what is registered with HKEX."""

    def __init__(self, rsa: PrivateKeyTypes) -> None:
        self._rsa: RSAPrivateKey = _require_rsa(rsa)
        self.public_key = _public_half(self._rsa)

    @classmethod
    def generate(cls, bits: int = 4096) -> PrivateKey:
        """Generate an RSA pair (§3.2.1).

        :param bits: 2048 or 4096.
        :raises RapConfigurationError: another size.
        """
        if bits not in KEY_SIZES:
            raise _wrong_size(bits)

        from cryptography.hazmat.primitives.asymmetric import rsa

        return cls(rsa.generate_private_key(public_exponent=65537, key_size=bits))

    @classmethod
    def load(cls, text: str, passphrase: str | None = None) -> PrivateKey:
        """Read a private key.

        :param text: the key in PEM form, line breaks included: OpenSSH, PKCS#8 or PKCS#1.
        :param passphrase: what decrypts it; not used where the key is not encrypted.
        :raises RapConfigurationError: it is not of that form, the passphrase is missing or wrong, or HKEX
            does not accept such a key (§3.2.1). The error holds nothing of the text or the passphrase.
        """
        data = _secret_bytes(text.removeprefix("\ufeff").strip())
        try:
            return cls(_load_pem(data, None))
        except _EncryptedKeyError:
            return cls(_decrypt_pem(data, passphrase))
        except ValueError:
            raise _not_a_private_key(text) from None

    @property
    def bits(self) -> int:
        """The size in bits."""
        return self.public_key.bits

    @property
    def fingerprint(self) -> str:
        """The MD5 fingerprint of the public half, by which HKEX names the key (§3.2.2)."""
        return self.public_key.fingerprint

    def to_openssh(self, passphrase: str | None = None) -> str:
        """Return the private key as OpenSSH PEM text: a secret, for a key store or a login only.

        :param passphrase: what to encrypt it with; None or empty leaves it in the clear.
        """
        from cryptography.hazmat.primitives import serialization

        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if passphrase:
            encryption = serialization.BestAvailableEncryption(_secret_bytes(passphrase))
        pem = self._rsa.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, encryption
        )
        return pem.decode()

    def __repr__(self) -> str:
        return f"PrivateKey({self.bits} bits, {self.fingerprint})"

    def __reduce__(self) -> str:
        # A pickle would carry the key into an XCom or a cache.
        raise TypeError("A private key cannot be pickled; a key store holds it.")


def _ssh2_body(text: str) -> str:
    """Return the Base64 text of an SSH2 public key file (RFC 4716, section 3)."""
    begin, *lines = (line.strip() for line in _LINE_END.split(text))
    if begin != _BEGIN or not lines or lines.pop() != _END:
        raise _not_a_public_key()
    return "".join(_without_headers(lines))


def _without_headers(lines: list[str]) -> Iterator[str]:
    continued = False
    for line in lines:
        if continued or ":" in line:  # Base64 has no colon
            continued = line.endswith("\\")
        else:
            yield line


def _openssh_body(text: str) -> str:
    """Return the Base64 text of an OpenSSH public key line: ``algorithm base64 [comment]``."""
    words = text.split()
    if len(words) < 2 or len(_LINE_END.split(text)) > 1:
        raise _not_a_public_key()
    return words[1]


def _modulus(blob: bytes) -> int:
    """Return the modulus of an RSA public key in its one canonical encoding (RFC 4253, section 6.6)."""
    algorithm, *numbers = _ssh_strings(blob)
    if algorithm != b"ssh-rsa":
        name = algorithm.decode("ascii") if _ALGORITHM_NAME.fullmatch(algorithm) else "unknown"
        raise RapConfigurationError(
            f"A key of the algorithm {name} is not accepted.", why=_SIZES_RULE, todo=_GENERATE, algorithm=name
        )
    if len(numbers) != 2 or any(number != _mpint(int.from_bytes(number)) for number in numbers):
        # Another encoding of the same key would have another fingerprint.
        raise _not_a_public_key()
    exponent, modulus = map(int.from_bytes, numbers)
    if exponent < 3 or exponent % 2 == 0 or modulus % 2 == 0:
        raise _not_a_public_key()
    return modulus


def _ssh_strings(blob: bytes) -> list[bytes]:
    strings, at = [], 0
    while at < len(blob):
        start = at + 4
        at = start + int.from_bytes(blob[at:start])
        strings.append(blob[start:at])
    if not strings or at > len(blob):
        raise _not_a_public_key()
    return strings


def _mpint(number: int) -> bytes:
    """Return a positive number as RFC 4251 (section 5) encodes it, without its length."""
    return number.to_bytes(number.bit_length() // 8 + 1)


class _EncryptedKeyError(Exception):
    """The private key is encrypted and no passphrase is given."""


def _secret_bytes(text: str) -> bytes:
    # A UnicodeEncodeError would carry the secret in its attributes.
    return text.encode("utf-8", "surrogatepass")


def _load_pem(data: bytes, passphrase: bytes | None) -> PrivateKeyTypes:
    """Return the key.

    :raises _EncryptedKeyError: it is encrypted and no passphrase is given.
    :raises ValueError: it cannot be read or decrypted.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

    load = load_ssh_private_key if b"BEGIN OPENSSH PRIVATE KEY" in data else load_pem_private_key
    try:
        return load(data, passphrase)
    except TypeError:
        raise _EncryptedKeyError from None
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from None


def _decrypt_pem(data: bytes, passphrase: str | None) -> PrivateKeyTypes:
    if not passphrase:
        raise RapConfigurationError(
            "The private key is encrypted and no passphrase is given.",
            todo="Set the connection's extra 'private_key_passphrase'.",
        )
    try:
        return _load_pem(data, _secret_bytes(passphrase))
    except ValueError:
        raise RapConfigurationError(
            "The private key cannot be decrypted.",
            why="The passphrase is wrong, or the key is damaged.",
            todo="Check both with 'ssh-keygen -y -f <key file>', then set 'private_key_passphrase' to match.",
        ) from None


def _require_rsa(key: PrivateKeyTypes) -> RSAPrivateKey:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    if not isinstance(key, RSAPrivateKey):
        raise RapConfigurationError("The private key is not an RSA key.", why=_SIZES_RULE, todo=_GENERATE)
    return key


def _public_half(key: RSAPrivateKey) -> PublicKey:
    numbers = key.public_key().public_numbers()
    fields = (b"ssh-rsa", _mpint(numbers.e), _mpint(numbers.n))
    return PublicKey(b"".join(len(field).to_bytes(4) + field for field in fields))


def _wrong_size(bits: int) -> RapConfigurationError:
    return RapConfigurationError(
        f"An RSA key of {bits!r} bits is not accepted.", why=_SIZES_RULE, todo=_GENERATE, bits=bits
    )


def _not_a_public_key() -> RapConfigurationError:
    return RapConfigurationError(
        "The text is not a public key.",
        why="A public key is an SSH2 public key file (RFC 4716), whole from its BEGIN to its END line, "
        "or an OpenSSH line 'ssh-rsa <base64>'.",
        todo="Export it with 'ssh-keygen -e -m RFC4716 -f <key file>'.",
    )


def _not_a_private_key(text: str) -> RapConfigurationError:
    putty = text.lstrip().startswith("PuTTY-User-Key-File")
    return RapConfigurationError(
        "A PuTTY key (.ppk) is not read." if putty else "The text is not a private key that can be read.",
        why="A private key is PEM text with its line breaks: OpenSSH, PKCS#8 or PKCS#1.",
        todo="Convert it with 'puttygen <key>.ppk -O private-openssh -o <key file>'."
        if putty
        else "Give the whole file, from its BEGIN to its END line; 'ssh-keygen -y -f <key file>' checks it.",
    )
