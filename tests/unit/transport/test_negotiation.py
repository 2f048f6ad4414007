"""What a server's offer and its refusal say, before any error is looked at."""

from __future__ import annotations

import pytest
from asyncssh.packet import Boolean, NameList, SSHPacket, String, UInt32
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_hkex_rap.transport.negotiation import Negotiation, mismatches
from airflow_provider_hkex_rap.transport.undocumented import DISCONNECT, KEXINIT, USERAUTH_FAILURE

KEX = ("ecdh-sha2-nistp256",)
RSA = ("rsa-sha2-512",)
CTR = ("aes128-ctr",)
GCM = ("aes256-gcm@openssh.com",)
MAC = ("hmac-sha2-256",)
NONE = ("none",)


def offer(**changed: tuple[str, ...]) -> list[tuple[str, ...]]:
    lists = {"kex": KEX, "key": RSA, "up": CTR, "down": CTR, "mac_up": MAC, "mac_down": MAC}
    return list({**lists, "packed_up": NONE, "packed_down": NONE, **changed}.values())


def payload(lists: list[tuple[str, ...]]) -> bytes:
    return bytes(16) + b"".join(NameList(name.encode() for name in names) for names in lists)


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({}, []),
        ({"kex": ("sntrup761x25519-sha512@openssh.com", *KEX)}, []),
        ({"kex": ("curve25519-sha256",)}, ["key exchange: it offers curve25519-sha256"]),
        ({"kex": ("ext-info-s", "kex-strict-s-v00@openssh.com")}, ["key exchange: it offers none"]),
        ({"key": ("ssh-ed25519", "rsa")}, ["host key: it offers ssh-ed25519, rsa"]),
        ({"up": ("3des-cbc",)}, ["cipher (client to server): it offers 3des-cbc"]),
        ({"down": ()}, ["cipher (server to client): it offers none"]),
        ({"mac_up": ("hmac-sha1",)}, ["MAC (client to server): it offers hmac-sha1"]),
        ({"mac_down": ("hmac-sha1",)}, ["MAC (server to client): it offers hmac-sha1"]),
        ({"up": GCM, "down": (*CTR, *GCM), "mac_up": (), "mac_down": ()}, []),
        ({"packed_up": ("zlib",)}, ["compression (client to server): it offers zlib"]),
        ({"packed_down": ("zlib",)}, ["compression (server to client): it offers zlib"]),
    ],
)
def test_what_is_not_shared_is_named(changed: dict[str, tuple[str, ...]], found: list[str]) -> None:
    assert [str(it) for it in mismatches(offer(**changed))] == found
    negotiation = Negotiation()
    negotiation.received(KEXINIT, payload(offer(**changed)))
    assert [str(it) for it in negotiation.mismatches] == found


def test_each_kind_that_is_not_shared_is_named() -> None:
    assert len(mismatches([("x",)] * 8)) == 6  # without a common cipher, nothing is known of MACs


@pytest.mark.parametrize("methods", [("password",), ("keyboard-interactive", "\x1b[2J"), ()])
def test_a_partial_success_names_the_methods(methods: tuple[str, ...]) -> None:
    negotiation = Negotiation()
    names = NameList(name.encode() for name in methods)
    negotiation.received(USERAUTH_FAILURE, names + Boolean(False))
    assert negotiation.second_factor is None
    negotiation.received(USERAUTH_FAILURE, names + Boolean(True))
    assert negotiation.second_factor == (", ".join(methods).replace("\x1b", "\\x1b") or "none")


def test_the_methods_of_a_server_that_takes_no_key_are_named() -> None:
    negotiation = Negotiation()
    negotiation.received(USERAUTH_FAILURE, NameList([b"password", b"\x1b"]) + Boolean(False))
    assert negotiation.other_methods == "password, \\x1b"
    negotiation.received(USERAUTH_FAILURE, NameList([b"password", b"publickey"]) + Boolean(False))
    assert negotiation.other_methods is None


def test_the_text_of_a_disconnect_is_kept_whatever_its_code() -> None:
    negotiation = Negotiation()
    assert negotiation.disconnect is None
    negotiation.received(DISCONNECT, UInt32(11) + String("bye\x1b") + String("en"))
    assert negotiation.disconnect == "bye\\x1b"
    negotiation.received(DISCONNECT, b"\0")
    assert negotiation.disconnect == ""


@given(st.sampled_from([DISCONNECT, KEXINIT, USERAUTH_FAILURE]), st.binary())
def test_no_bytes_raise_and_what_is_kept_is_printable_and_short(kind: int, content: bytes) -> None:
    for sent in (content, payload([(content.hex(),)] * 8), payload([("\x1b",)] * 8) + content):
        negotiation = Negotiation()
        negotiation.received(kind, sent)
        texts = (negotiation.second_factor, negotiation.other_methods, negotiation.disconnect)
        for text in (*map(str, negotiation.mismatches), *(text or "" for text in texts)):
            assert text.isprintable()
            assert len(text) < 500


def test_a_packet_is_read_as_asyncssh_gives_it() -> None:
    assert SSHPacket(b"\x14abc").get_full_payload() == b"\x14abc"
