"""Keys, checked both ways against OpenSSH's own ssh-keygen."""

from __future__ import annotations

import base64
import copy
import pickle
import re
import subprocess
import traceback
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_hkex_rap.rap.account import Account
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.keys import (
    KEY_SIZES,
    PrivateKey,
    PublicKey,
    find_fingerprints,
    public_key_file_name,
)

PASSPHRASE = "correct horse"
WRONG = "another horse"

GUIDE_EXAMPLE = """\
---- BEGIN SSH2 PUBLIC KEY ----
Comment: SSH KEY
AAAAB3NzaC1kc3MAAACBAPY8ZOHY2yF5JA6XYC9HRwNHxaehvx5wOJ0rzZdzoSOXxbET
W6ToHv8D1UJ/z+zHo9Fiko5XybZnDIaBDHtblQ+Yp7StxyltHnXF1YLfKD1G4T6JYrdH
YI14Om1eg9e4NnCRleaQoZPF3UGfZia6bXrGTQf3gJq2e7Yisk/gF+1VAAAAFQDb8D5c
vwHWTZDPfX0D2s9Rd7NBvQAAAIEA1N92+Bb7D4KLYk3IwRbXblwXdkPggA4pfdtW9vGf
J0/RHd+NjB4eo1D+0dix6tXwYGN7PKS5R/FXPNwxHPapcj9uL1Jn2AWQ2dsknf+i/FAA
vioUPkmdMc0zuWoSOEsSNhVDtX3WdvVcGcBq9cetzrtOKWOocJmJ80qadxTRHtUAAACB
AN7CY+KKv1gHpRzFwdQm7HK9bb1LAo2KwaoXnadFgeptNBQeSXG1vO+JsvphVMBJc9HS
n24VYtYtsMu74qXviYjziVucWKjjKEb11juqnF0GD1B3VVMxHLmxnAz643WK42Z7dLM5
sY29ouezv4Xz2PuMch5VGPP+CDqzCM41oWgV
---- END SSH2 PUBLIC KEY ----
"""


def ssh_keygen(*arguments: object) -> str:
    command = ["ssh-keygen", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


@pytest.fixture(scope="module", params=KEY_SIZES)
def key(request: pytest.FixtureRequest) -> PrivateKey:
    return PrivateKey.generate(request.param)


@pytest.fixture(scope="module")
def small() -> PrivateKey:
    return PrivateKey.generate(2048)


@pytest.fixture(scope="module")
def openssh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of a key pair that ssh-keygen made."""
    path = tmp_path_factory.mktemp("ssh-keygen") / "id"
    ssh_keygen("-q", "-t", "rsa", "-b", 2048, "-N", "", "-C", "ops@example: desk", "-f", path)
    return path


def private_file(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


# What we write, OpenSSH reads.


@pytest.mark.guide("2.1 key files")
def test_ssh_keygen_imports_our_public_key_file(key: PrivateKey, tmp_path: Path) -> None:
    file = tmp_path / "DCXYZ001.pub"
    file.write_text(key.public_key.to_rfc4716(comment="DCXYZ001"))
    assert ssh_keygen("-i", "-m", "RFC4716", "-f", file).strip() == key.public_key.to_openssh()


def test_ssh_keygen_reads_our_private_key(key: PrivateKey, tmp_path: Path) -> None:
    file = private_file(tmp_path / "id", key.to_openssh())
    assert ssh_keygen("-y", "-f", file).strip() == key.public_key.to_openssh()


def test_ssh_keygen_reads_our_encrypted_private_key_with_its_passphrase_only(
    small: PrivateKey, tmp_path: Path
) -> None:
    file = private_file(tmp_path / "id", small.to_openssh(PASSPHRASE))
    assert ssh_keygen("-y", "-P", PASSPHRASE, "-f", file).strip() == small.public_key.to_openssh()
    with pytest.raises(subprocess.CalledProcessError):
        ssh_keygen("-y", "-P", PASSPHRASE[:-1], "-f", file)


@pytest.mark.guide("3.2.2 fingerprints")
def test_the_fingerprints_are_those_that_ssh_keygen_prints(key: PrivateKey, tmp_path: Path) -> None:
    file = tmp_path / "id.pub"
    file.write_text(key.public_key.to_openssh())
    bits, md5, *_ = ssh_keygen("-l", "-E", "md5", "-f", file).split()
    assert (bits, md5) == (str(key.bits), f"MD5:{key.fingerprint}")
    assert ssh_keygen("-l", "-E", "sha256", "-f", file).split()[1] == key.public_key.sha256_fingerprint


# What OpenSSH writes, we read.


def test_we_read_what_ssh_keygen_exports(openssh: Path) -> None:
    line = openssh.with_suffix(".pub").read_text()
    key = PublicKey.parse(ssh_keygen("-e", "-m", "RFC4716", "-f", openssh))
    assert key == PublicKey.parse(line) == PrivateKey.load(openssh.read_text()).public_key
    assert key.to_openssh() == " ".join(line.split()[:2])


@pytest.mark.parametrize("form", ["RFC4716", "PKCS8", "PEM"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_we_read_the_private_keys_that_ssh_keygen_writes(
    openssh: Path, tmp_path: Path, form: str, line_end: str
) -> None:
    file = private_file(tmp_path / "id", openssh.read_text())
    ssh_keygen("-p", "-q", "-m", form, "-P", "", "-N", PASSPHRASE, "-f", file)
    text = file.read_text().replace("\n", line_end)

    key = PrivateKey.load(text, PASSPHRASE)
    assert key.public_key == PublicKey.parse(openssh.with_suffix(".pub").read_text())

    with pytest.raises(RapConfigurationError, match="passphrase is wrong") as wrong:
        PrivateKey.load(text, WRONG)
    for nothing in (None, ""):
        with pytest.raises(RapConfigurationError, match="no passphrase is given") as missing:
            PrivateKey.load(text, nothing)
    for error in (wrong, missing):
        assert_says_nothing_of(error.value, text, PASSPHRASE, WRONG)


# The form of the files.


@pytest.mark.guide("2.1 key files")
def test_a_public_key_file_has_the_form_of_rfc_4716(key: PrivateKey) -> None:
    text = key.public_key.to_rfc4716(comment="DCXYZ001")
    assert max(len(line.encode()) for line in text.splitlines()) <= 72
    first, comment, *body, last, nothing = text.split("\n")
    assert (first, last) == ("---- BEGIN SSH2 PUBLIC KEY ----", "---- END SSH2 PUBLIC KEY ----")
    assert (comment, nothing) == ('Comment: "DCXYZ001"', "")
    assert base64.b64decode("".join(body)) == key.public_key.blob


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_headers_continuation_lines_and_any_line_end_are_read(small: PrivateKey, line_end: str) -> None:
    begin, comment, *rest = small.public_key.to_rfc4716(comment="DCXYZ001").splitlines()
    continued = ["x-note: a long \\", "AAAAB3NzaC1yc2E\\", "the end: of it"]
    text = line_end.join(["\ufeff" + begin, "Subject: ops", *continued, comment, *rest, "", ""])
    assert PublicKey.parse(text) == small.public_key


printable = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=61)


@given(comment=printable)
def test_any_comment_that_fits_comes_back_as_the_same_key(small: PrivateKey, comment: str) -> None:
    text = small.public_key.to_rfc4716(comment)
    assert all(len(line) <= 72 for line in text.splitlines())
    assert PublicKey.parse(text) == small.public_key


@pytest.mark.parametrize("comment", ["x" * 62, "two\nlines", "鑰匙", "tab\t"])
def test_a_comment_that_does_not_fit_is_refused(small: PrivateKey, comment: str) -> None:
    with pytest.raises(RapConfigurationError, match="72 bytes of printable ASCII"):
        small.public_key.to_rfc4716(comment)


@pytest.mark.guide("3.2.1 names")
def test_the_file_is_named_after_the_account() -> None:
    assert public_key_file_name(Account("DCXYZ001")) == "DCXYZ001.pub"


# What HKEX does not take.


@pytest.mark.parametrize("bits", [1024, 3072, 4097, 0, -1])
@pytest.mark.guide("3.2.1 key sizes")
def test_no_key_of_another_size_is_generated(bits: int) -> None:
    with pytest.raises(RapConfigurationError, match="2048 or 4096 bits") as refused:
        PrivateKey.generate(bits)
    assert vars(refused.value)["bits"] == bits


@pytest.mark.parametrize("bits", [1024, 3072])
@pytest.mark.guide("3.2.1 key sizes")
def test_no_key_of_another_size_is_read(bits: int, tmp_path: Path) -> None:
    other = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    text = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    with pytest.raises(RapConfigurationError, match=f"{bits} bits is not accepted.*2048 or 4096") as refused:
        PrivateKey.load(text)
    assert_says_nothing_of(refused.value, text)
    with pytest.raises(RapConfigurationError, match="2048 or 4096 bits"):
        PublicKey.parse(ssh_keygen("-y", "-f", private_file(tmp_path / "id", text)))


@pytest.mark.parametrize("algorithm", ["ed25519", "ecdsa"])
@pytest.mark.guide("3.2.1 key sizes")
def test_only_rsa_keys_are_read(algorithm: str, tmp_path: Path) -> None:
    ssh_keygen("-q", "-t", algorithm, "-N", "", "-f", tmp_path / "id")
    text = (tmp_path / "id").read_text()
    with pytest.raises(RapConfigurationError, match="not an RSA key") as refused:
        PrivateKey.load(text)
    assert_says_nothing_of(refused.value, text)
    for public in (
        (tmp_path / "id.pub").read_text(),
        ssh_keygen("-e", "-m", "RFC4716", "-f", tmp_path / "id"),
    ):
        with pytest.raises(RapConfigurationError, match=rf"algorithm \S*{algorithm}.*RSA"):
            PublicKey.parse(public)


def test_the_example_in_the_guide_is_a_dsa_key_that_hkex_does_not_take() -> None:
    with pytest.raises(RapConfigurationError) as refused:
        PublicKey.parse(GUIDE_EXAMPLE)
    assert vars(refused.value)["algorithm"] == "ssh-dss"


@pytest.mark.parametrize("encoded", ["e", "n", "both", "trailing"])
def test_only_the_canonical_encoding_is_a_public_key(encoded: str) -> None:
    """Another encoding of the same numbers would show another fingerprint than HKEX computes."""
    numbers = rsa.generate_private_key(65537, 2048).public_key().public_numbers()
    e, n = (number.to_bytes(number.bit_length() // 8 + 1, "big") for number in (numbers.e, numbers.n))
    e, n = (b"\0" + e if encoded in ("e", "both") else e), (b"\0" + n if encoded in ("n", "both") else n)
    fields = (b"ssh-rsa", e, n, *([b"x"] if encoded == "trailing" else []))
    with pytest.raises(RapConfigurationError, match="not a public key"):
        PublicKey(b"".join(len(field).to_bytes(4, "big") + field for field in fields))


@pytest.mark.parametrize("cut", [1, 3, 4, 20, 200])
def test_a_cut_public_key_is_refused(small: PrivateKey, cut: int) -> None:
    with pytest.raises(RapConfigurationError):
        PublicKey(small.public_key.blob[:-cut])
    with pytest.raises(RapConfigurationError):
        PublicKey.parse(small.public_key.to_rfc4716("DCXYZ001").strip()[:-cut])


@given(text=st.text() | st.text(alphabet="-: BEGINSH2PULCKYD\n\\ssh-raA=").map(lambda t: f"ssh-rsa {t}"))
def test_text_that_is_no_key_is_refused_and_nothing_else(text: str) -> None:
    with pytest.raises(RapConfigurationError):
        PublicKey.parse(text)
    with pytest.raises(RapConfigurationError):
        PrivateKey.load(text, "x")


@given(body=st.lists(st.text(alphabet="AB=+/:\\ -ENDssh2\u00e9"), max_size=5), ended=st.booleans())
def test_a_damaged_public_key_file_is_refused_and_nothing_else(body: list[str], ended: bool) -> None:
    end = ["---- END SSH2 PUBLIC KEY ----"] if ended else []
    with pytest.raises(RapConfigurationError):
        PublicKey.parse("\n".join(["---- BEGIN SSH2 PUBLIC KEY ----", *body, *end]))


def test_a_private_key_in_place_of_a_public_one_is_named_and_not_shown(small: PrivateKey) -> None:
    for text in (small.to_openssh(), small.to_openssh(PASSPHRASE), "PuTTY-User-Key-File-3: ssh-rsa\nEncry"):
        with pytest.raises(RapConfigurationError, match="is a private key, not a public key") as refused:
            PublicKey.parse(text)
        assert_says_nothing_of(refused.value, text)


def test_a_putty_key_is_told_how_to_convert_itself() -> None:
    with pytest.raises(RapConfigurationError, match="puttygen"):
        PrivateKey.load("PuTTY-User-Key-File-3: ssh-rsa\nEncryption: none\n")


def test_a_damaged_private_key_is_refused_and_not_shown(small: PrivateKey) -> None:
    text = small.to_openssh()
    damaged = [
        text[:-200],
        "\ud800" + text[:-200],
        text.replace("OPENSSH", "RSA"),
    ]
    for broken in damaged:
        with pytest.raises(RapConfigurationError) as refused:
            PrivateKey.load(broken)
        assert_says_nothing_of(refused.value, text)


@pytest.mark.parametrize("line_break", [" ", "", "\\n", "\\r\\n", "\n    "])
@pytest.mark.parametrize("form", ["RFC4716", "PKCS8", "PEM"])
@pytest.mark.parametrize("passphrase", ["", PASSPHRASE])
def test_a_key_whose_line_breaks_were_lost_is_read(
    openssh: Path, tmp_path: Path, form: str, line_break: str, passphrase: str
) -> None:
    file = private_file(tmp_path / "id", openssh.read_text())
    ssh_keygen("-p", "-q", "-m", form, "-P", "", "-N", passphrase, "-f", file)
    text = f"\ufeff {file.read_text()}".replace("\n", line_break)
    assert PrivateKey.load(text, passphrase).public_key == PrivateKey.load(openssh.read_text()).public_key


@pytest.mark.parametrize("cipher", ["aes256-ctr", "aes256-cbc", "aes256-gcm@openssh.com"])
def test_the_usual_encryptions_of_openssh_are_read(openssh: Path, tmp_path: Path, cipher: str) -> None:
    file = private_file(tmp_path / "id", openssh.read_text())
    ssh_keygen("-p", "-q", "-Z", cipher, "-P", "", "-N", PASSPHRASE, "-f", file)
    assert PrivateKey.load(file.read_text(), PASSPHRASE).bits == 2048


@pytest.mark.parametrize("cipher", ["aes128-ctr", "3des-cbc", "chacha20-poly1305@openssh.com"])
def test_an_encryption_that_is_not_supported_is_named_as_the_cause(
    openssh: Path, tmp_path: Path, cipher: str
) -> None:
    file = private_file(tmp_path / "id", openssh.read_text())
    ssh_keygen("-p", "-q", "-Z", cipher, "-P", "", "-N", PASSPHRASE, "-f", file)
    text = file.read_text()
    with pytest.raises(RapConfigurationError, match=r"encryption is not supported.*ssh-keygen -p") as refused:
        PrivateKey.load(text, PASSPHRASE)
    assert_says_nothing_of(refused.value, text, PASSPHRASE)


@pytest.mark.parametrize("text", ["", "no key", "PuTTY-User-Key-File-3: ssh-rsa\n"])
def test_the_error_names_the_source_of_the_text(text: str) -> None:
    with pytest.raises(RapConfigurationError, match=r"private key in key file '/x' cannot be used"):
        PrivateKey.load(text, source="key file '/x'")


# Secrets.


def assert_says_nothing_of(error: BaseException, text: str, *secrets: str) -> None:
    """Nothing of a private key's body, or of a passphrase, in an error, its attributes or its causes."""
    lines = [line for line in re.split(r"\s+|\\n", text) if len(line) > 30]
    shown = "".join(traceback.format_exception(error))
    cause: BaseException | None = error
    while cause is not None:
        shown += repr(cause) + repr(vars(cause)) + repr(cause.args) + repr(getattr(cause, "object", ""))
        cause = cause.__cause__ or cause.__context__
    assert not [secret for secret in (*lines, *secrets) if secret in shown]


@pytest.mark.guide("3.2.2 private keys")
def test_a_private_key_shows_its_public_side_only(small: PrivateKey) -> None:
    shown = f"{small} {small!r} {[small]} {small.public_key}"
    assert shown.count(small.fingerprint) == 4
    body = [line for line in small.to_openssh().splitlines() if not line.startswith("-")]
    assert not [line for line in body if line in shown]


def test_a_private_key_cannot_be_pickled(small: PrivateKey) -> None:
    for leak in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled"):
            leak(small)


def test_a_passphrase_for_a_key_in_the_clear_is_not_needed(small: PrivateKey) -> None:
    assert PrivateKey.load(small.to_openssh(), PASSPHRASE).public_key == small.public_key


@given(data=st.data())
def test_a_key_of_which_a_bit_is_damaged_is_refused_unless_it_is_the_same_key(
    small: PrivateKey, data: st.DataObject
) -> None:
    der = bytearray(small.to_der())
    at = data.draw(st.integers(0, len(der) * 8 - 1))
    der[at // 8] ^= 1 << at % 8
    text = f"-----BEGIN PRIVATE KEY-----\n{base64.encodebytes(der).decode()}-----END PRIVATE KEY-----\n"
    with suppress(RapConfigurationError):
        assert PrivateKey.load(text).to_der() == small.to_der()


@pytest.mark.parametrize("number", ["d", "dmp1", "dmq1", "iqmp", "e"])
def test_a_key_whose_numbers_do_not_belong_together_is_refused(small: PrivateKey, number: str) -> None:
    key = load_der_private_key(small.to_der(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    numbers = key.private_numbers()
    names = ("p", "q", "d", "dmp1", "dmq1", "iqmp")
    parts = {name: getattr(numbers, name) + 2 * (name == number) for name in names}
    public = rsa.RSAPublicNumbers(65537 + 2 * (number == "e"), numbers.public_numbers.n)
    damaged = rsa.RSAPrivateNumbers(**parts, public_numbers=public).private_key(
        unsafe_skip_rsa_key_validation=True
    )
    text = damaged.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    with pytest.raises(RapConfigurationError, match="is damaged"):
        PrivateKey.load(text)


# Fingerprints in a text.


@given(
    blobs=st.lists(st.binary(min_size=16, max_size=16), max_size=3),
    between=st.sampled_from(["  ", "\n", " MD5:", '", "', "\t|", " Fingerprint:", ":\n", " expired:"]),
    upper=st.booleans(),
)
def test_fingerprints_are_found_in_order(blobs: list[bytes], between: str, upper: bool) -> None:
    fingerprints = tuple(blob.hex(":") for blob in blobs)
    text = between + between.join(fingerprints) + between
    assert find_fingerprints(text.upper() if upper else text) == fingerprints


@given(octets=st.integers(1, 40).filter(lambda count: count not in (16, 32)))
def test_other_rows_of_octets_are_not_fingerprints(octets: int) -> None:
    assert find_fingerprints(bytes(octets).hex(":")) == ()
