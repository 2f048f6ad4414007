"""Find a private key in a text that a form, an editor or a mail program has changed."""

from __future__ import annotations

import re
from collections.abc import Iterator

# An editor turns hyphens into dashes, which differ from each other only by length.
_DASH = "[-\u2010-\u2015\u2043\u2212\u2500\ufe58\ufe63\uff0d]"
# A one-line field keeps a line break as backslash and n, and JSON that is encoded twice as two of each.
_ESCAPE = re.compile(r"\\+[rntfv]?")
# Quotation marks, and characters that no editor shows, such as a byte order mark.
_NOISE = re.compile(
    "[\"'`\u00ab\u00b4\u00bb\u2018-\u201f\u2039\u203a\0\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]"
)
# A BEGIN or END line. The white space in it may be lost too, or be a line break.
_EDGE = re.compile(
    rf"{_DASH}\s*(?P<edge>BEGIN|END)\s*(?P<label>[A-Z0-9\s]{{0,40}}?)PRIVATE\s*KEY(?:\s*{_DASH}){{0,5}}"
)
# The headers of an encrypted PKCS#1 key. The cipher fixes the length of the IV, so that the Base64 text after
# it is found even if no line break is left between them.
_HEADERS = re.compile(
    rf"Proc{_DASH}Type\s*:\s*4\s*,\s*ENCRYPTED[\s,>]*DEK{_DASH}Info\s*:\s*"
    rf"(?P<cipher>AES{_DASH}\d{{3}}{_DASH}CBC\s*,\s*[0-9A-Fa-f]{{32}}"
    rf"|DES(?:{_DASH}EDE3)?{_DASH}CBC\s*,\s*[0-9A-Fa-f]{{16}})"
)
_SEPARATOR = re.compile(rf"[\s,>]|{_DASH}")
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_SHORTENED = re.compile(r"\.\.|…|\*\*")
_PUTTY = re.compile(r"PuTTY\W{0,3}User\W{0,3}Key\W{0,3}File")
_PUBLIC = re.compile(
    rf"{_DASH}\s*BEGIN[A-Z0-9\s]{{0,40}}?PUBLIC\s*KEY"
    rf"|(?:ssh{_DASH}(?:rsa|dss|ed25519|ed448)|ecdsa{_DASH}sha2{_DASH}nistp\d+)\s*AAAA|\A\s*AAAA[BCE]"
)
_CERTIFICATE = re.compile(rf"{_DASH}\s*BEGIN[A-Z0-9\s]{{0,40}}?CERTIFICATE")

_LABELS = ("", "RSA", "DSA", "EC", "OPENSSH", "ENCRYPTED")
_LINE_CHARACTERS = 64
_SECRET_CHARACTERS = 20
"""A run of Base64 characters that is longer than most words."""


class PemError(ValueError):
    """A text is no private key, or a damaged one; its text is the reason, and has nothing of the key."""


def repair_pem(text: str) -> str:
    r"""Return the private key in a text as well-formed PEM.

    Repairs what has one reading: line breaks that became spaces, tabs, literal ``\n``, or nothing; quotation
    marks and invisible characters; hyphens that became dashes; text before and after the key.

    :param text: a text with one private key.
    :raises PemError: if there is no private key, several, or one that is damaged.
    """
    flat = _flatten(text)
    edges = list(_EDGE.finditer(flat))
    if not edges:
        raise PemError(_kind_of_other(flat))
    found = {_assemble(label, body) for label, body in _bodies(flat, edges)}
    if len(found) > 1:
        raise PemError("it is several private keys, and only one can be meant")
    return found.pop()


def holds_private_key(text: str) -> bool:
    """Return whether a text seems to have a private key in it, whole or not.

    :param text: any text.
    """
    flat = _flatten(text)
    return bool(_EDGE.search(flat) or _PUTTY.search(flat))


def secret_parts(text: str) -> Iterator[str]:
    """Yield each part of a text that a log must not show, as it is in the text.

    :param text: a private key; its line breaks may be lost, see :func:`repair_pem`.
    """
    flat = _HEADERS.sub("\n", _flatten(text))
    edges = list(_EDGE.finditer(flat))
    if not edges:
        # It may be another secret that was typed into the wrong field.
        yield from (word for word in flat.split() if ":" not in word)
    else:
        yield from _secrets_around(flat, edges)


def _flatten(text: str) -> str:
    return _NOISE.sub(" ", _ESCAPE.sub("\n", text))


def _secrets_around(flat: str, edges: list[re.Match[str]]) -> Iterator[str]:
    end_of_last, inside = 0, edges[0]["edge"] == "END"
    for edge in (*edges, None):
        part_end = edge.start() if edge else len(flat)
        for part in _SEPARATOR.split(flat[end_of_last:part_end]):
            # The words around a key are not secret, unless they are long: they may belong to another key.
            if (inside and part and ":" not in part) or len(part) >= _SECRET_CHARACTERS:
                yield part
        if edge:
            end_of_last, inside = edge.end(), edge["edge"] == "BEGIN"


def _bodies(flat: str, edges: list[re.Match[str]]) -> Iterator[tuple[str, str]]:
    """Yield the label and the text of each private key.

    :raises PemError: if a BEGIN or END line is missing.
    """
    lines = iter(edges)
    for begin in lines:
        if begin["edge"] == "END":
            raise PemError("its BEGIN line is missing")
        end = next(lines, None)
        if end is None or end["edge"] == "BEGIN":
            raise PemError("its END line is missing: the text was cut off")
        labels = {"".join(edge["label"].split()) for edge in (begin, end)}
        if len(labels) > 1:
            raise PemError("its BEGIN and END lines do not belong to one key")
        yield labels.pop(), flat[begin.end() : end.start()]


def _assemble(label: str, body: str) -> str:
    if label not in _LABELS:
        raise PemError("it is in the format of another program (ssh.com or PGP)")
    name = f"{label} PRIVATE KEY".strip()
    lines = [f"-----BEGIN {name}-----"]
    if headers := _HEADERS.search(body):
        cipher = re.sub(_DASH, "-", "".join(headers["cipher"].split()))
        lines += ["Proc-Type: 4,ENCRYPTED", f"DEK-Info: {cipher}", ""]
        body = body[: headers.start()] + body[headers.end() :]
    encoded = _checked(_SEPARATOR.sub("", body))
    lines += [encoded[at : at + _LINE_CHARACTERS] for at in range(0, len(encoded), _LINE_CHARACTERS)]
    return "\n".join((*lines, f"-----END {name}-----", ""))


def _checked(encoded: str) -> str:
    """Return the text between BEGIN and END line if it is whole Base64.

    :raises PemError: if it is not.
    """
    if not encoded:
        raise PemError("there is nothing between its BEGIN and END lines")
    if _SHORTENED.search(encoded):
        raise PemError("it was shortened: it has dots or asterisks in place of a part")
    if ":" in encoded:
        raise PemError("its header lines (Proc-Type, DEK-Info) are damaged, or of an unknown encryption")
    if not _BASE64.fullmatch(encoded):
        raise PemError("it has characters that are not Base64")
    if len(encoded) % 4:
        raise PemError("characters are missing in it, or too many")
    return encoded


def _kind_of_other(flat: str) -> str:
    """Return what a text without BEGIN and END line of a private key is."""
    if not flat.strip():
        return "it is empty"
    if _PUTTY.search(flat):
        return "it is a PuTTY key (.ppk)"
    if _PUBLIC.search(flat):
        return "it is a public key"
    if _CERTIFICATE.search(flat):
        return "it is a certificate"
    if "\ufffd" in flat:
        return "it is not text, but binary (DER or PKCS#12)"
    encoded = _SEPARATOR.sub("", flat)
    if len(encoded) > 10 * _LINE_CHARACTERS and _BASE64.fullmatch(encoded):
        return "its BEGIN and END lines are missing"
    return "it is not a private key in PEM form"
