"""Private keys as forms, editors and mail programs leave them, in the field and in the file."""

from __future__ import annotations

import codecs
import itertools
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import asyncssh
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.keys import PublicKey
from airflow_provider_hkex_rap.transport.login import read_login

KEY = asyncssh.generate_private_key("ssh-rsa", key_size=2048)
OTHER = asyncssh.generate_private_key("ssh-rsa", key_size=2048)
PASSPHRASE = "correct horse"
PUBLIC = KEY.export_public_key().decode().strip()

CLEAR = {form: KEY.export_private_key(form).decode() for form in ("pkcs1-pem", "pkcs8-pem", "openssh")}
ENCRYPTED = {
    f"{form} {cipher}": KEY.export_private_key(
        form, passphrase=PASSPHRASE, cipher_name=cipher, rounds=1
    ).decode()
    for form, cipher in [
        ("pkcs1-pem", "aes128-cbc"),
        ("pkcs1-pem", "aes256-cbc"),
        ("pkcs1-pem", "des3-cbc"),
        ("pkcs8-pem", "aes256-cbc"),
        ("openssh", "aes256-ctr"),
    ]
}
FORMS = {**CLEAR, **ENCRYPTED}

BREAKS = [
    "\n", " ", "\t", "\r\n", "\r", "", "\n\n", "\\n", "\\r\\n", "\\n\\n", "\\\\n", "\\n\n", "\u00a0",
    "\u2028", "\u3000", "\u200b", "\ufeff", "\n    ", "  \n", "\\\n", "\n> ", '",\n"', "\\t",
]  # fmt: skip
DASHES = ["-", "\u2010", "\u2011", "\u2013", "\u2014", "\u2212"]
EDGES = ["{0}{1}", "{0} {1}", "{0}\u00a0{1}", "{0}\n{1}"]
QUOTES = [("", ""), ('"', '"'), ("'", "'"), ("\u201c", "\u201d"), ("`", "`"), ('\\"', '\\"'), ("['", "']")]
BEFORE = ["", "\ufeff", " ", "Dear all,\nthe key is:\n", "Bag Attributes\n    friendlyName: rap\n", "key="]
AFTER = ["", "\n", " ", "\nRegards, ops - desk", f"\n{PUBLIC}\n", "\n-----BEGIN CERTIFICATE-----\nMII="]


def read(text: str, tmp_path: Path | None = None, encoding: str = "utf-8") -> tuple[PublicKey, list[str]]:
    """Return the public half of a pasted key, and what was masked."""
    extra = {"host_key": PUBLIC, "private_key_passphrase": PASSPHRASE}
    if tmp_path is None:
        extra["private_key"] = text
    else:
        path = tmp_path / "key"
        path.write_bytes(text.encode(encoding))
        extra["key_file"] = str(path)
    masked: list[str] = []
    login = read_login(login="DCXYZ001", host="", port=None, extra=extra, mask=masked.extend)
    return login.client_keys[0].public_key, masked


def read_field(field: str, value: str, mask: Callable[[Sequence[str]], object] = len) -> object:
    """Read a connection with one field, without a passphrase."""
    extra = {"host_key": PUBLIC, field: value}
    return read_login(login="DCXYZ001", host="", port=None, extra=extra, mask=mask)


def lines_of(pem: str) -> list[str]:
    """Return the lines that are secret."""
    return [line for line in pem.splitlines() if line and "-----" not in line and ":" not in line]


def assert_masked(text: str, masked: list[str], pem: str) -> None:
    """Check that nothing of the key is left of a text in a log after masking."""
    shown = text
    for secret in sorted(filter(None, masked), key=len, reverse=True):
        if len(secret) >= 5:  # Airflow masks no shorter ones.
            shown = shown.replace(secret, "***")
    body = "".join(lines_of(pem))
    assert not [run for run in re.findall(r"[A-Za-z0-9+/]{8,}", shown) if run[:8] in body]


@st.composite
def pasted(draw: st.DrawFn) -> tuple[str, str]:
    """A private key, and the same one as it was pasted."""
    pem = FORMS[draw(st.sampled_from(sorted(FORMS)))]
    dash, edge = draw(st.sampled_from(DASHES)), draw(st.sampled_from(EDGES))
    lost = draw(st.sampled_from(["space", "none"]))
    *lines, last = pem.strip().splitlines()
    lines = [_changed(line, dash, edge, lost) for line in (*lines, last)]
    one = draw(st.sampled_from(BREAKS))
    breaks = draw(st.just([one] * len(lines)) | st.lists(st.sampled_from(BREAKS), min_size=len(lines)))
    text = "".join(line + broken for line, broken in zip(lines[:-1], breaks, strict=False)) + lines[-1]
    begin, end = draw(st.sampled_from(QUOTES))
    return pem, draw(st.sampled_from(BEFORE)) + begin + text + end + draw(st.sampled_from(AFTER))


def _changed(line: str, dash: str, edge: str, lost: str) -> str:
    if "-----" in line:
        name = line.strip("-").replace(" ", " " if lost == "space" else "")
        dashes = dash * 5
        return edge.format(dashes, name) + dashes
    return line.replace("-", dash) if ":" in line else line


@settings(max_examples=150)
@given(pasted())
def test_a_pasted_key_is_read_and_all_of_it_masked(given_text: tuple[str, str]) -> None:
    pem, text = given_text
    public, masked = read(text)
    assert public.blob == KEY.public_data
    assert_masked(text, masked, pem)


@pytest.mark.parametrize("lost", BREAKS, ids=ascii)
@pytest.mark.parametrize("form", FORMS)
def test_each_form_survives_each_line_break_in_field_and_file(form: str, lost: str, tmp_path: Path) -> None:
    text = FORMS[form].strip().replace("\n", lost)
    for public, masked in (read(text), read(text, tmp_path)):
        assert public.blob == KEY.public_data
        assert_masked(text, masked, FORMS[form])
        # The words around the key may be in every log.
        assert not {"BEGIN", "PRIVATE", "KEY", "ENCRYPTED", "Proc-Type"} & set(masked)


@pytest.mark.parametrize("mark", [codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE])
def test_a_key_file_is_read_in_the_encoding_of_its_mark(mark: bytes, tmp_path: Path) -> None:
    names = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
    text = "\ufeff" + CLEAR["openssh"].replace("\n", "\r\n")
    assert read(text, tmp_path, names[mark])[0].blob == KEY.public_data


def test_other_text_in_a_key_file_may_be_in_another_encoding(tmp_path: Path) -> None:
    text = f"Schlüssel für RAP\n{CLEAR['openssh']}"
    assert read(text, tmp_path, "latin-1")[0].blob == KEY.public_data


def test_a_key_that_was_pasted_twice_has_one_reading() -> None:
    for pem in CLEAR.values():
        for between in ("\n", "", " "):
            assert read(pem.strip() + between + pem.strip())[0].blob == KEY.public_data


# What has no reading.

PEM = CLEAR["pkcs8-pem"]
PPK = (
    "PuTTY-User-Key-File-3: ssh-rsa\nEncryption: none\nComment: rap\nPublic-Lines: 6\n"
    f"AAAAB3NzaC1yc2EAAAADAQ\nPrivate-Lines: 14\n{CLEAR['openssh'].splitlines()[9]}\nPrivate-MAC: 00\n"
)
ONE_LINE = [str.strip, lambda text: text.replace("\n", " "), lambda text: text.replace("\n", "")]
LITERAL = [lambda text: text.replace("\n", "\\n"), lambda text: text.replace("\n", "\r\n")]


def refusal(text: str, tmp_path: Path | None = None) -> str:
    with pytest.raises(RapConfigurationError) as caught:
        read(text, tmp_path)
    said = f"{caught.value} {caught.value!r} {vars(caught.value)}"
    runs = [text[at : at + 24] for at in range(0, len(text) - 24, 24)]
    assert not [run for run in runs if re.fullmatch(r"[A-Za-z0-9+/]+", run) and run in said]
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it is empty"),
        ("no key", "not a private key in PEM form"),
        (PEM.replace("-----BEGIN PRIVATE KEY-----", ""), "its BEGIN line is missing"),
        (PEM[: len(PEM) // 2], "its END line is missing"),
        ("".join(lines_of(PEM)), "its BEGIN and END lines are missing"),
        ("\n".join(lines_of(PEM)), "its BEGIN and END lines are missing"),
        (PEM + OTHER.export_private_key("pkcs8-pem").decode(), "several private keys"),
        (PEM.replace("END PRIVATE", "END RSA PRIVATE"), "do not belong to one key"),
        ("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----", "there is nothing between"),
        (PEM.replace(lines_of(PEM)[5], "..."), "it was shortened"),
        (PEM.replace(lines_of(PEM)[5], "…"), "it was shortened"),
        (PEM.replace(lines_of(PEM)[5], "***"), "it was shortened"),
        (PEM.replace(lines_of(PEM)[5], lines_of(PEM)[5][:-1]), "characters are missing in it"),
        (PEM.replace(lines_of(PEM)[5], "@" + lines_of(PEM)[5]), "characters that are not Base64"),
        (PEM.replace(lines_of(PEM)[5] + "\n", ""), "between its BEGIN and END lines is damaged"),
        (PEM.replace(lines_of(PEM)[0], "A" * 64), "between its BEGIN and END lines is damaged"),
        (PEM.replace("PRIVATE KEY", "SSH2 ENCRYPTED PRIVATE KEY"), "of another program.*ssh-keygen -i"),
        (ENCRYPTED["pkcs1-pem aes256-cbc"].replace("DEK-Info", "DEK"), "header lines .* are damaged"),
        (ENCRYPTED["pkcs1-pem aes256-cbc"].replace("AES-256-CBC", "RC4"), "of an unknown encryption"),
        ("-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----", "it is a certificate"),
    ],
    # Not the texts: each worker has keys of its own.
    ids=itertools.count(),
)
def test_what_is_wrong_is_said(text: str, reason: str, tmp_path: Path) -> None:
    if text:
        assert re.search(f"extra 'private_key' cannot be used: .*{reason}", refusal(text))
    assert re.search(f"key file '.*' cannot be used: .*{reason}", refusal(text, tmp_path))


@pytest.mark.parametrize("change", [*ONE_LINE, *LITERAL])
@pytest.mark.parametrize("before", ["", "\ufeff", '"', " \n"])
def test_a_putty_key_is_called_that(change: Callable[[str], str], before: str, tmp_path: Path) -> None:
    text = before + change(PPK)
    for said in (refusal(text), refusal(text, tmp_path)):
        assert "it is a PuTTY key (.ppk)" in said
        assert "puttygen <key>.ppk -O private-openssh" in said
    with pytest.raises(RapConfigurationError, match="is a private key, not a public key"):
        PublicKey.parse(text)


def test_a_putty_key_in_utf_16_is_called_that(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(PPK.encode("utf-16"))
    with pytest.raises(RapConfigurationError, match="puttygen"):
        read_field("key_file", str(tmp_path / "key"))


@pytest.mark.parametrize("change", [*ONE_LINE, *LITERAL])
@pytest.mark.parametrize("form", ["openssh", "rfc4716", "pkcs1-pem", "pkcs8-pem", "bare"])
def test_a_public_key_is_called_that(form: str, change: Callable[[str], str], tmp_path: Path) -> None:
    text = PUBLIC.split()[1] if form == "bare" else KEY.export_public_key(form).decode()
    for said in (refusal(change(text)), refusal("\ufeff" + change(text), tmp_path)):
        assert "it is a public key" in said
        assert "without '.pub'" in said


def test_a_binary_file_is_called_that(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(KEY.export_private_key("pkcs8-der"))
    with pytest.raises(RapConfigurationError, match=r"not text, but binary .*openssl pkey -inform DER"):
        read_field("key_file", str(tmp_path / "key"))


@pytest.mark.parametrize("lost", BREAKS, ids=ascii)
def test_a_key_in_another_field_is_found_whatever_its_line_breaks(lost: str) -> None:
    for pem in (*FORMS.values(), PPK):
        text = pem.replace("\n", lost).replace(" ", "" if lost == "" else "\u00a0")
        with pytest.raises(RapConfigurationError, match="'site' holds a private key"):
            read_field("site", text)


@pytest.mark.parametrize("cut", [str.strip, lambda text: text[:-60], lambda text: text[60:]])
@pytest.mark.parametrize("lost", BREAKS, ids=ascii)
def test_a_damaged_key_is_masked_too(lost: str, cut: Callable[[str], str]) -> None:
    for pem in FORMS.values():
        masked: list[str] = []
        text = cut(pem.strip().replace("\n", lost))
        try:
            read_field("private_key", text, masked.extend)
        except RapConfigurationError as error:
            assert_masked(str(error), [], pem)
        assert_masked(text, masked, pem)
