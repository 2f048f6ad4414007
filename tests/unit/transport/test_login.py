"""What a connection's fields say, and which of them are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from airflow_provider_hkex_rap.keystore.opening import open_key_store
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.key_lifecycle import parse_key_expires
from airflow_provider_hkex_rap.rap.keys import PrivateKey
from airflow_provider_hkex_rap.rap.sites import GUIDE_ADDRESSES, Address, Site
from airflow_provider_hkex_rap.transport.login import Login, read_login

KEY = asyncssh.generate_private_key("ssh-rsa", key_size=2048)
OTHER = asyncssh.generate_private_key("ssh-rsa", key_size=2048)
PEM = KEY.export_private_key("openssh").decode()
PUBLIC = OTHER.export_public_key().decode().strip()


def read(extra: dict[str, Any] | None = None, **fields: Any) -> Login:
    arguments = {"login": "DCXYZ001", "host": "", "port": None, "mask": lambda secret: None, **fields}
    return read_login(**arguments, extra={"host_key": PUBLIC, "private_key": PEM, **(extra or {})})


@pytest.mark.guide("2.2 sites", "7.1 addresses")
def test_blank_fields_mean_the_guides_addresses_of_the_primary_site() -> None:
    login = read()
    assert login.site is Site.PRIMARY
    assert (
        login.addresses
        == GUIDE_ADDRESSES[Site.PRIMARY]
        == (
            Address("10.151.14.141", 18801),
            Address("10.151.14.142", 18801),
        )
    )
    assert (login.connect_timeout, login.idle_timeout) == (30, 60)


@pytest.mark.guide("2.2 sites")
def test_one_field_switches_the_site() -> None:
    assert read({"site": "secondary"}).addresses == (
        Address("10.152.14.141", 18801),
        Address("10.152.14.142", 18801),
    )


@pytest.mark.parametrize(
    ("host", "port", "addresses"),
    [
        ("rap", None, [("rap", 18801)]),
        ("rap", 22, [("rap", 22)]),
        ("rap:2022, 10.0.0.1 ,", 22, [("rap", 2022), ("10.0.0.1", 22)]),
        ("::1", None, [("::1", 18801)]),
        ("[::1]:22", None, [("::1", 22)]),
    ],
)
def test_hosts_of_ones_own(host: str, port: int | None, addresses: list[tuple[str, int]]) -> None:
    assert list(read(host=host, port=port).addresses) == addresses


@pytest.mark.parametrize(
    ("fields", "extra", "names"),
    [
        ({"login": None}, {}, "DCXYZ001"),
        ({"login": 1}, {}, "DCXYZ001"),
        ({"host": 5}, {}, "host:port"),
        ({"host": "rap", "port": 0}, {}, "host:port"),
        ({}, {"connect_timeout": 10**400}, "seconds"),
        ({"host": "rap:0"}, {}, "host:port"),
        ({"host": "rap:ssh"}, {}, "host:port"),
        ({"host": "sftp://rap"}, {}, "host:port"),
        ({"host": "[::1"}, {}, "host:port"),
        ({}, {"site": "tertiary"}, "primary and secondary"),
        ({"host": "rap"}, {"site": "secondary"}, "secondary_hosts"),
        ({}, {"host_key": ""}, "ssh-rsa AAAA"),
        ({}, {"host_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHKe"}, "ssh-rsa AAAA"),
        ({}, {"no_host_key_check": True}, "host_key"),
        ({}, {"connect_timeout": "soon"}, "seconds"),
        ({}, {"idle_timeout": -1}, "seconds"),
        ({}, {"private_key": "not a key"}, "BEGIN"),
        ({}, {"private_key": "", "key_file": "/no/such/file"}, "/no/such/file"),
    ],
)
def test_what_is_not_of_the_valid_form_is_refused_with_that_form(
    fields: dict[str, Any], extra: dict[str, Any], names: str
) -> None:
    with pytest.raises(RapConfigurationError, match=names):
        read(extra, **fields)


@pytest.mark.parametrize(
    "text",
    [
        PUBLIC,
        PUBLIC.split()[1],
        f"[rap]:18801 {PUBLIC} comment",
        f"# RAP\nrap {PUBLIC}\n",
        [PUBLIC],
    ],
    ids=["OpenSSH", "bare", "known_hosts", "ssh-keyscan", "list"],
)
def test_a_host_key_in_every_form_that_people_have_it_in(text: Any) -> None:
    login = read({"host_key": text})
    assert login.host_keys is not None
    assert [key.public_data for key in login.host_keys] == [OTHER.public_data]


def test_several_host_keys_are_pinned() -> None:
    login = read({"host_key": f"{PUBLIC}\n{KEY.export_public_key().decode()}"})
    assert login.host_keys is not None
    assert {key.public_data for key in login.host_keys} == {OTHER.public_data, KEY.public_data}


@pytest.mark.parametrize(
    "text",
    [
        PEM,
        PEM.replace("\n", "\\n"),
        PEM.replace("\n", ""),
        PEM.replace("\n", " "),
        PEM.replace("\n", "\n   "),
    ],
    ids=["whole", "literal", "joined", "spaces", "indented"],
)
def test_a_field_and_a_file_are_repaired_alike(text: str, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(text)
    for extra in ({"private_key": text}, {"private_key": "", "key_file": str(path)}):
        masked: list[str] = []
        (key,) = read(extra, mask=masked.extend).client_keys
        assert key.public_key.blob == KEY.public_data
        assert "".join(masked) == "".join(PEM.splitlines()[1:-1])


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\\n", "\\r\\n"])
@pytest.mark.parametrize("form", ["pkcs1-pem", "pkcs8-pem", "openssh"])
def test_an_encrypted_private_key_survives_whatever_its_line_ends(form: str, line_end: str) -> None:
    # Few rounds of bcrypt, which take most of the time of this test and do not change the lines of the key.
    pem = KEY.export_private_key(form, passphrase="secret", rounds=4, ignore_few_rounds=True).decode()
    text = "\ufeff" + pem.replace("\n", line_end)
    (key,) = read({"private_key": text, "private_key_passphrase": "secret"}).client_keys
    assert key.public_key.blob == KEY.public_data


def test_an_encrypted_key_needs_its_passphrase(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(KEY.export_private_key("pkcs8-pem", passphrase="secret"))
    extra = {"private_key": "", "key_file": str(path)}
    (key,) = read({**extra, "private_key_passphrase": "secret"}).client_keys
    assert key.public_key.blob == KEY.public_data
    for wrong, reason in (({}, "no passphrase is given"), ({"private_key_passphrase": "wrong"}, "is wrong")):
        with pytest.raises(RapConfigurationError, match=f"key file '{path}' cannot be used: .*{reason}"):
            read({**extra, **wrong})


# Passphrases.


@pytest.mark.parametrize("form", ["pkcs1-pem", "pkcs8-pem", "openssh", "in the clear", "no key"])
@pytest.mark.parametrize("passphrase", ["x" * 1024, "é" * 512, "x" * 5000])
def test_a_passphrase_that_is_too_long_is_called_that(form: str, passphrase: str) -> None:
    private_key = "" if form == "no key" else PEM
    if form in ("pkcs1-pem", "pkcs8-pem", "openssh"):
        private_key = KEY.export_private_key(form, passphrase="another").decode()
    with pytest.raises(RapConfigurationError, match=r"longer than 1,023 bytes") as caught:
        read({"private_key": private_key, "private_key_passphrase": passphrase})
    facts = vars(caught.value)
    assert (facts["field"], facts["limit"]) == ("private_key_passphrase", 1023)
    assert passphrase not in f"{caught.value} {facts}"


def test_the_longest_passphrase_encrypts_and_decrypts() -> None:
    longest = "é" * 511 + "x"
    text = PrivateKey.load(PEM).to_openssh(longest)
    (key,) = read({"private_key": text, "private_key_passphrase": longest}).client_keys
    assert key.public_key.blob == KEY.public_data
    for wrong in (longest + "x", " ", "\n\t"):
        with pytest.raises(RapConfigurationError, match=r"longer than 1,023 bytes|only white space"):
            PrivateKey.load(PEM).to_openssh(wrong)


@pytest.mark.parametrize("passphrase", [12345678, 0, 1.5, True, False, ["secret"], {"secret": 1}])
def test_a_passphrase_that_is_no_text_is_refused(passphrase: object) -> None:
    text = KEY.export_private_key("pkcs8-pem", passphrase=str(passphrase)).decode()
    with pytest.raises(RapConfigurationError, match=r"'private_key_passphrase' .* in quotes") as caught:
        read({"private_key": text, "private_key_passphrase": passphrase})
    assert str(passphrase) not in str(caught.value)


@pytest.mark.parametrize("passphrase", ["secret\n", " secret", "two words", "secret\r\n", "\u00a0secret"])
def test_a_passphrase_is_used_with_its_white_space(passphrase: str) -> None:
    text = PrivateKey.load(PEM).to_openssh(passphrase)
    extra = {"private_key": text, "private_key_passphrase": passphrase}
    (key,) = read(extra).client_keys
    assert key.public_key.blob == KEY.public_data
    if passphrase != passphrase.strip():
        with pytest.raises(RapConfigurationError, match="passphrase is wrong"):
            read({**extra, "private_key_passphrase": passphrase.strip()})


def test_white_space_around_a_wrong_passphrase_is_named() -> None:
    text = PrivateKey.load(PEM).to_openssh("secret")
    for wrong in ("secret\n", " secret"):
        with pytest.raises(RapConfigurationError, match=r"is wrong.*begins or ends with white space"):
            read({"private_key": text, "private_key_passphrase": wrong})
    with pytest.raises(RapConfigurationError) as caught:
        read({"private_key": text, "private_key_passphrase": "wrong"})
    assert "white space" not in str(caught.value)


@pytest.mark.parametrize("passphrase", [" ", "\n", "\t ", "\u00a0"])
@pytest.mark.parametrize("private_key", [PEM, ""], ids=["with a key", "without"])
def test_a_passphrase_that_only_looks_blank_is_refused(passphrase: str, private_key: str) -> None:
    """It would encrypt the keys in the key store, and be gone as soon as somebody clears the field."""
    with pytest.raises(RapConfigurationError, match="is only white space"):
        read({"private_key": private_key, "private_key_passphrase": passphrase})


@pytest.mark.guide("3.2.1 key sizes")
def test_a_key_that_is_not_rsa_is_refused_with_the_rule() -> None:
    pem = asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode()
    with pytest.raises(RapConfigurationError, match="2048 or 4096"):
        read({"private_key": pem})


@pytest.mark.parametrize("field", ["key_file", "site", "connect_timeout", "host_key", "key_store"])
def test_a_key_in_the_wrong_field_is_refused_without_showing_it(field: str) -> None:
    with pytest.raises(RapConfigurationError, match=f"'{field}' holds a private key") as caught:
        read({"private_key": "", field: PEM})
    said = f"{caught.value!r} {caught.value} {caught.value.__dict__}"
    assert not [line for line in PEM.splitlines()[1:-1] if line in said]


def test_every_line_of_a_key_and_its_passphrase_are_masked() -> None:
    masked: list[str] = []
    read({"private_key_passphrase": "unused"}, mask=masked.extend)
    assert set(PEM.splitlines()[1:-1]) < set(masked)
    assert "unused" in masked
    login = read()
    assert not [line for line in masked if line in repr(login) or line in str(login)]


def in_login(secret: str) -> object:
    return read_login(login=secret, host=None, port=None, extra={"host_key": "x"}, mask=lambda text: None)


def in_key_file(secret: str) -> object:
    return read({"key_file": secret, "private_key": ""})


def in_host(secret: str) -> object:
    return read(host=f"rap, {secret}:port")


def in_site(secret: str) -> object:
    return read({"site": secret})


def in_a_name(secret: str) -> object:
    return read({f"{secret} ": "value"})


@pytest.mark.parametrize(
    "field", [in_login, in_key_file, in_host, in_site, in_a_name, parse_key_expires, open_key_store]
)
@pytest.mark.parametrize(
    "secret", ["correct horse battery", "Tr0ub4dor.and.3", "AAAAB3NzaC1yc2EAAAADAQABAAAB"]
)
def test_a_secret_in_the_wrong_field_is_never_shown(field: Callable[[str], object], secret: str) -> None:
    with pytest.raises(RapConfigurationError) as caught:
        field(secret)
    assert secret not in f"{caught.value!r} {caught.value} {caught.value.__dict__}"
