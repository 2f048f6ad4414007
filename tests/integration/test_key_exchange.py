"""The key exchange: what this client offers, and servers that share no algorithm with it (fault 13)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncssh
import pytest

from airflow_provider_hkex_rap.rap.errors import RapAlgorithmError, RapError, RapUnavailable
from airflow_provider_hkex_rap.transport.probe import probe
from airflow_provider_hkex_rap.transport.session import open_session

from ..simulated_rap import login_to
from .openssh import missing, openssh
from .raw_ssh import RSA_KEY, VERSION, kexinit, read_kexinit, serving

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.transport.login import Login

DISJOINT: dict[str, dict[str, tuple[str, ...]]] = {
    "key exchange": {"kex": ("diffie-hellman-group14-sha256", "ext-info-s", "kex-strict-s-v00@openssh.com")},
    "host key": {"host_key": ("ssh-ed25519", "ecdsa-sha2-nistp256")},
    "cipher (client to server)": {"cipher_up": ("chacha20-poly1305@openssh.com",)},
    "cipher (server to client)": {"cipher_down": ("3des-cbc",)},
    "MAC (client to server)": {"cipher_up": ("aes256-ctr",), "mac_up": ("hmac-sha1",)},
    "MAC (server to client)": {"cipher_down": ("aes128-ctr",), "mac_down": ("hmac-md5",)},
    "compression (client to server)": {"packed_up": ("zlib",)},
    "compression (server to client)": {"packed_down": ("zlib@openssh.com",)},
}


async def log_in(login: Login) -> None:
    async with open_session(login):
        raise AssertionError("logged in")


async def look(login: Login) -> None:
    await probe(login, login.addresses[0])


async def close_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Close the connection with everything of the client unread, so that it is reset."""
    writer.transport.close()


async def close_after_the_clients_offer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_kexinit(reader)


async def stay_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(-1)


@pytest.mark.parametrize("connect", [log_in, look])
@pytest.mark.parametrize("ending", [close_at_once, close_after_the_clients_offer, stay_silent])
@pytest.mark.parametrize("kind", DISJOINT)
def test_no_common_algorithm_is_named_whoever_ends_the_connection(
    kind: str, ending: Any, connect: Any
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(VERSION + kexinit(**DISJOINT[kind]))
        await ending(reader, writer)

    async def run() -> RapAlgorithmError:
        async with serving(serve, connect_timeout=0.5) as login:
            with pytest.raises(RapAlgorithmError) as caught:
                await connect(login)
        return caught.value

    error = asyncio.run(run())
    ((found, offered),) = error.mismatches
    assert found == kind
    expected = [name for name in [*DISJOINT[kind].values()][-1] if not name.startswith(("ext", "kex"))]
    assert offered == ", ".join(expected)
    assert f"{kind}: it offers {offered}" in str(error)
    assert not error.retryable


@pytest.mark.parametrize("cipher", ["aes256-gcm@openssh.com", "aes128-gcm@openssh.com"])
def test_a_gcm_cipher_needs_no_mac(cipher: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        offered = {
            "cipher_up": (cipher, "aes128-ctr"),
            "cipher_down": (cipher,),
            "mac_up": (),
            "mac_down": (),
        }
        writer.write(VERSION + kexinit(**offered))
        await read_kexinit(reader)

    async def run() -> None:
        async with serving(serve) as login:
            with pytest.raises(RapUnavailable):
                await log_in(login)

    asyncio.run(run())


def test_a_hostile_offer_is_shown_printable_and_short() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        names = (b"\x1b[2J", "\u202e".encode(), b"a\nb", b"\xff\xfe", *[b"x" * 60] * 500)
        writer.write(VERSION + kexinit(kex=names))
        await stay_silent(reader, writer)

    async def run() -> RapAlgorithmError:
        async with serving(serve) as login:
            with pytest.raises(RapAlgorithmError) as caught:
                await log_in(login)
        return caught.value

    error = asyncio.run(run())
    assert str(error).isprintable()
    assert len(str(error)) < 1000
    assert "\\x1b[2J" in str(error)


@pytest.mark.parametrize(
    "sent",
    [
        b"SSH-2.0-caf\xe9\r\n",
        VERSION + b"\xff" * 64,
        VERSION + b"\0\0\0\x0c\x0a\x14" + b"\0" * 10,
        b"\xff\n" * 5000,
    ],
    ids=["version", "length", "short", "banner"],
)
def test_bytes_that_are_no_ssh_are_a_typed_error(sent: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        await stay_silent(reader, writer)

    async def run() -> None:
        async with serving(serve, connect_timeout=2) as login:
            for connect in (log_in, look):
                with pytest.raises(RapError):
                    await connect(login)

    asyncio.run(run())


@pytest.mark.guide("2.1 algorithms")
def test_this_client_offers_the_guides_algorithms_and_no_others() -> None:
    offered: list[list[str]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(VERSION)
        offered.extend(await read_kexinit(reader))

    async def run() -> None:
        async with serving(serve) as login:
            for connect in (log_in, look):
                with pytest.raises(RapUnavailable):
                    await connect(login)

    asyncio.run(run())
    assert len(offered) == 16
    for lists in (offered[:8], offered[8:]):
        key_exchange, host_key, cipher_up, cipher_down, mac_up, mac_down, *compression = lists
        markers = {"ext-info-c", "kex-strict-c-v00@openssh.com"}
        # Copied from §2.1 of the guide.
        assert sorted(set(key_exchange) - markers) == [
            "curve25519-sha256@libssh.org",
            "diffie-hellman-group-exchange-sha256",
            "ecdh-sha2-nistp256",
            "ecdh-sha2-nistp384",
            "ecdh-sha2-nistp521",
        ]
        assert sorted(host_key) == ["rsa-sha2-256", "rsa-sha2-512", "ssh-rsa"]
        for ciphers in (cipher_up, cipher_down):
            assert sorted(ciphers) == [
                "aes128-ctr",
                "aes128-gcm@openssh.com",
                "aes192-ctr",
                "aes256-ctr",
                "aes256-gcm@openssh.com",
            ]
        for macs in (mac_up, mac_down):
            assert sorted(macs) == ["hmac-sha2-256", "hmac-sha2-512-96"]
        assert compression == [["none"], ["none"]]


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("key exchange", "KexAlgorithms diffie-hellman-group14-sha256"),
        ("cipher", "Ciphers chacha20-poly1305@openssh.com"),
        ("MAC", "Ciphers aes128-ctr\nMACs hmac-sha1"),
        ("host key", "HostKeyAlgorithms ssh-ed25519"),
    ],
)
def test_no_common_algorithm_is_named_against_openssh_each_time(kind: str, settings: str) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519") if kind == "host key" else None
    with openssh(settings=settings, host_key=key) as server:
        login = login_to(server.connection(host_key=RSA_KEY.export_public_key().decode()))
        for connect in [log_in, look] * 5:
            with pytest.raises(RapAlgorithmError, match=rf"{kind}.*: it offers"):
                asyncio.run(connect(login))
