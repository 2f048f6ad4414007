"""The RSA keys that log in to RAP, their SSH2 public key files and their fingerprints (§3.2)."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.pem import holds_private_key
from airflow_provider_hkex_rap.rap.private_key_text import KEY_SIZES as KEY_SIZES
from airflow_provider_hkex_rap.rap.private_key_text import (
    SIZES_RULE,
    check_passphrase,
    read_rsa_private_key,
    require_rsa,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

    from airflow_provider_hkex_rap.rap.account import Account

_BEGIN = "---- BEGIN SSH2 PUBLIC KEY ----"
_END = "---- END SSH2 PUBLIC KEY ----"
_LINE_BYTES = 72
"""The longest line of an SSH2 public key file (RFC 4716, section 3.1)."""
_BODY_BYTES = 70
_MD5_BYTES = 16
_URL_SAFE = str.maketrans("+/", "-_")
_OPENSSH_MAGIC = b"openssh-key-v1\0"
_LINE_END = re.compile(r"\r\n|\r|\n")
_PRINTABLE_ASCII = re.compile(r"[ -~]*")
_ALGORITHM_NAME = re.compile(rb"[a-z0-9@.-]{1,64}")
_PAIR = "[0-9a-f]{2}"
_HEXADECIMAL = [
    re.compile(
        rf"(?<![0-9a-z])(?<!\b{_PAIR}{separator}){_PAIR}(?:{separator}{_PAIR}){{{pairs - 1}}}"
        rf"(?![0-9a-z])(?!{separator}{_PAIR}\b)",
        re.IGNORECASE,
    )
    for pairs in (16, 32)
    for separator in (":", "-", " ", "")
]
"""Fingerprints in hexadecimal: 16 octets are MD5, 32 are SHA-256."""
_BASE64 = re.compile(r"(?<![A-Za-z0-9+/_-])([A-Za-z0-9+/_-]{43})=?(?![A-Za-z0-9+/=_-])")
"""A SHA-256 fingerprint as OpenSSH prints it; its prefix is left out."""

_GENERATE = "Generate one with 'ssh-keygen -t rsa -b 4096'."


def public_key_file_name(account: Account) -> str:
    """Return the name of an account's public key file, such as ``DCXYZ001.pub`` (§3.2.1, §5)."""
    return f"{account}.pub"


def find_fingerprints(text: str) -> tuple[str, ...]:
    """Return the fingerprints of keys in a text, in the order of the text (§3.2.2).

    :param text: any text. An MD5 fingerprint may have colons, hyphens, spaces or nothing between its octets,
        and a SHA-256 one may be in Base64 too; prefixes such as ``MD5:`` and ``SHA256:`` are left out.
    :returns: MD5 fingerprints in lower case with colons, SHA-256 ones as OpenSSH prints them.
    """
    text = re.sub(r"\b(?:md5|sha-?256)\b\s*[:=]?", " ", text, flags=re.IGNORECASE)
    found = {
        match.start(): bytes.fromhex(re.sub("[^0-9a-f]", "", match[0], flags=re.IGNORECASE))
        for pattern in _HEXADECIMAL
        for match in pattern.finditer(text)
    }
    for match in filter(_is_mixed, _BASE64.finditer(text)):
        found[match.start()] = base64.urlsafe_b64decode(match[1].translate(_URL_SAFE) + "=")
    return tuple(_format_fingerprint(found[start]) for start in sorted(found))


def _is_mixed(match: re.Match[str]) -> bool:
    """Return whether a word has upper case, lower case and digits, as 43 characters of Base64 surely have."""
    return all(re.search(kind, match[1]) for kind in ("[A-Z]", "[a-z]", "[0-9]"))


def _format_fingerprint(digest: bytes) -> str:
    if len(digest) == _MD5_BYTES:
        return digest.hex(":")
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def is_encrypted(pem: str) -> bool:
    """Return whether a private key that `PrivateKey.to_openssh` has written is encrypted.

    :param pem: the key as PEM; True if it has another form.
    """
    # The cipher's name follows the magic of the format.
    begin = base64.b64encode(_OPENSSH_MAGIC + b"\0\0\0\4none")[:-4].decode()
    _, _, body = pem.partition("-----\n")
    return not body.startswith(begin)


@dataclass(frozen=True, slots=True, repr=False)
class PublicKey:
    """An RSA public key of a size that HKEX accepts (§3.2.1).

    :param blob: the key as RFC 4253 (section 6.6) encodes it: ``ssh-rsa``, exponent, modulus.
    :raises RapConfigurationError: if it is not in that encoding, or not an RSA key of 2048 or 4096 bits.
    """

    blob: bytes

    def __post_init__(self) -> None:
        bits = _modulus(self.blob).bit_length()
        if bits not in KEY_SIZES:
            raise _wrong_size(bits)

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """Read a public key.

        :param text: an SSH2 public key file (RFC 4716, the format that HKEX accepts) with LF, CRLF or CR as
            line breaks; or one line of an OpenSSH public key file. Headers and comments are skipped.
        :raises RapConfigurationError: if it is neither, or HKEX does not accept such a key (§3.2.1).
        """
        text = text.removeprefix("\ufeff").strip()
        if holds_private_key(text):
            raise RapConfigurationError(
                "The text is a private key, not a public key.",
                why="A private key is never given to anybody (guide §3.2.2, §5).",
                todo="Give the public key: the file that ends in .pub.",
            )
        encoded = _ssh2_body(text) if text.startswith(_BEGIN) else _openssh_body(text)
        try:
            return cls(base64.b64decode(encoded, validate=True))
        except ValueError:
            raise _not_a_public_key() from None

    @classmethod
    def of_private_key(cls, pem: str) -> PublicKey:
        """Return the public half of a private key that `PrivateKey.to_openssh` has written.

        It is not encrypted there, so this needs no passphrase.

        :param pem: the private key as PEM in OpenSSH form.
        :raises RapConfigurationError: if it has another form.
        """
        edges = pem.split("-----")
        try:
            data = base64.b64decode("".join(edges[2].split()), validate=True)
        except (ValueError, IndexError):
            raise _not_a_public_key() from None
        # PROTOCOL.key of OpenSSH: a magic, the cipher, the KDF and its options, the number of keys, the key.
        at = len(_OPENSSH_MAGIC)
        for _ in range(3):
            at += 4 + int.from_bytes(data[at : at + 4])
        at += 4
        length = int.from_bytes(data[at : at + 4])
        return cls(data[at + 4 : at + 4 + length])

    @property
    def bits(self) -> int:
        """The size in bits."""
        return _modulus(self.blob).bit_length()

    @property
    def fingerprint(self) -> str:
        """The MD5 fingerprint: 16 octets in lower-case hexadecimal, separated by colons (§3.2.2)."""
        return _format_fingerprint(hashlib.md5(self.blob, usedforsecurity=False).digest())

    @property
    def sha256_fingerprint(self) -> str:
        """The fingerprint as OpenSSH prints it: ``SHA256:`` and Base64 without padding."""
        return _format_fingerprint(hashlib.sha256(self.blob).digest())

    def to_rfc4716(self, comment: str) -> str:
        """Return the SSH2 public key file to register or to upload (§3.2.1, §6).

        The header is kept on one line, because some servers do not read continuation lines.

        :param comment: printable ASCII for the ``Comment`` header, such as the account; up to 61 characters.
        :raises RapConfigurationError: if the comment is longer or has other characters.
        """
        header = f'Comment: "{comment}"'
        if len(header) > _LINE_BYTES or not _PRINTABLE_ASCII.fullmatch(comment):
            raise RapConfigurationError(
                f"{comment!r} cannot be the comment of a public key file.",
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
    """An RSA private key of a size that HKEX accepts (§3.2).

    Its ``repr`` shows the size and the fingerprint only, and it cannot be pickled. Make one with
    :meth:`generate` or :meth:`load`::

        key = PrivateKey.load(Path("id_rsa").read_text(), source="key file 'id_rsa'")
        Path("DCXYZ001.pub").write_text(key.public_key.to_rfc4716("DCXYZ001"))

    :param rsa: the key as an object of the ``cryptography`` library.
    :raises RapConfigurationError: if it is not an RSA key of 2048 or 4096 bits (§3.2.1).
    """

    __slots__ = ("_rsa", "public_key")

    public_key: Final[PublicKey]
    """The public key, which is registered with HKEX."""

    def __init__(self, rsa: PrivateKeyTypes) -> None:
        self._rsa: RSAPrivateKey = require_rsa(rsa)
        self.public_key = _public_key_of(self._rsa)

    @classmethod
    def generate(cls, bits: int = 4096) -> PrivateKey:
        """Generate an RSA pair (§3.2.1).

        :param bits: 2048 or 4096.
        :raises RapConfigurationError: if *bits* is another number.
        """
        if bits not in KEY_SIZES:
            raise _wrong_size(bits)

        from cryptography.hazmat.primitives.asymmetric import rsa

        return cls(rsa.generate_private_key(public_exponent=65537, key_size=bits))

    @classmethod
    def load(cls, text: str, passphrase: str | None = None, *, source: str = "") -> PrivateKey:
        r"""Read a private key.

        :param text: the key as PEM: OpenSSH, PKCS#8 or PKCS#1. What a form or an editor does to it is
            repaired, such as line breaks that became spaces, literal ``\n``, or nothing.
        :param passphrase: decrypts the key; ignored if the key is not encrypted.
        :param source: names the origin of the text in errors, such as ``key file '/keys/id'``.
        :raises RapConfigurationError: if the text is not a private key, the passphrase is missing or wrong,
            or HKEX does not accept such a key (§3.2.1). The error shows neither text nor passphrase.
        """
        return cls(read_rsa_private_key(text, passphrase, source))

    @property
    def bits(self) -> int:
        """The size in bits."""
        return self.public_key.bits

    @property
    def fingerprint(self) -> str:
        """The MD5 fingerprint of the public key, by which HKEX identifies it (§3.2.2)."""
        return self.public_key.fingerprint

    def to_openssh(self, passphrase: str | None = None) -> str:
        """Return the private key as OpenSSH PEM text: a secret, for a key store only.

        :param passphrase: encrypts the text; None or empty leaves it in the clear.
        :raises RapConfigurationError: if the passphrase is longer than 1,023 bytes, or only white space.
        """
        check_passphrase(passphrase)
        from cryptography.hazmat.primitives import serialization

        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if passphrase:
            # A UnicodeEncodeError would carry the passphrase in its attributes.
            secret = passphrase.encode("utf-8", "surrogatepass")
            encryption = serialization.BestAvailableEncryption(secret)
        pem = self._rsa.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, encryption
        )
        return pem.decode()

    def to_der(self) -> bytes:
        """Return the private key as PKCS#8 DER, in the clear: a secret, to hand to an SSH library."""
        from cryptography.hazmat.primitives import serialization

        return self._rsa.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def __repr__(self) -> str:
        return f"PrivateKey({self.bits} bits, {self.fingerprint})"

    def __reduce__(self) -> str:
        # A pickle would carry the key into an XCom or a cache.
        raise TypeError("A private key cannot be pickled; read it from the key store instead.")


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
    """Return the modulus of an RSA public key in the canonical encoding (RFC 4253, section 6.6)."""
    algorithm, *numbers = _ssh_strings(blob)
    if algorithm != b"ssh-rsa":
        name = algorithm.decode("ascii") if _ALGORITHM_NAME.fullmatch(algorithm) else "unknown"
        raise RapConfigurationError(
            f"A key of the algorithm {name} is not accepted.", why=SIZES_RULE, todo=_GENERATE, algorithm=name
        )
    if len(numbers) != 2 or any(number != _mpint(int.from_bytes(number)) for number in numbers):
        # Another encoding of the same key has another fingerprint.
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


def _public_key_of(key: RSAPrivateKey) -> PublicKey:
    numbers = key.public_key().public_numbers()
    fields = (b"ssh-rsa", _mpint(numbers.e), _mpint(numbers.n))
    return PublicKey(b"".join(len(field).to_bytes(4) + field for field in fields))


def _wrong_size(bits: int) -> RapConfigurationError:
    return RapConfigurationError(
        f"An RSA key of {bits!r} bits is not accepted.", why=SIZES_RULE, todo=_GENERATE, bits=bits
    )


def _not_a_public_key() -> RapConfigurationError:
    return RapConfigurationError(
        "The text is not a public key.",
        why="A public key is an SSH2 public key file (RFC 4716), complete from its BEGIN to its END line,"
        " or an OpenSSH line 'ssh-rsa <base64>'.",
        todo="Export it with 'ssh-keygen -e -m RFC4716 -f <key file>'.",
    )
