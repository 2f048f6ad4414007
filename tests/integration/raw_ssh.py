"""A server that speaks the beginning of SSH byte by byte, for what no real server sends."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import asyncssh
from asyncssh.packet import Boolean, Byte, NameList, SSHPacket, UInt32

from airflow_provider_hkex_rap.rap import algorithms

from ..simulated_rap import connection_to, login_to

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.transport.login import Login

KEXINIT = 20
DISCONNECT = 1
VERSION = b"SSH-2.0-raw\r\n"
GUIDE = {
    "kex": algorithms.KEY_EXCHANGE,
    "host_key": algorithms.PUBLIC_KEY,
    "cipher_up": algorithms.CIPHERS,
    "cipher_down": algorithms.CIPHERS,
    "mac_up": algorithms.MACS,
    "mac_down": algorithms.MACS,
    "packed_up": ("none",),
    "packed_down": ("none",),
}
"""What a server of the guide offers, in the order of a KEXINIT."""

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
RSA_KEY = asyncssh.generate_private_key("ssh-rsa", key_size=2048)


def packet(payload: bytes) -> bytes:
    """Return an unencrypted packet (RFC 4253, section 6)."""
    padding = 8 - (len(payload) + 5) % 8 + 4
    return UInt32(len(payload) + padding + 1) + Byte(padding) + payload + bytes(padding)


def kexinit(**offered: tuple[str | bytes, ...]) -> bytes:
    """Return the packet of a server that offers the guide's algorithms, but for *offered*."""
    lists = [
        NameList(name if isinstance(name, bytes) else name.encode() for name in names)
        for names in {**GUIDE, **offered}.values()
    ]
    return packet(
        Byte(KEXINIT)
        + os.urandom(16)
        + b"".join([*lists, NameList([]), NameList([])])
        + Boolean(False)
        + UInt32(0)
    )


async def read_kexinit(reader: asyncio.StreamReader) -> list[list[str]]:
    """Read a client's version and its KEXINIT; return the eight lists of algorithms."""
    await reader.readline()
    length = int.from_bytes(await reader.readexactly(4), "big")
    content = await reader.readexactly(length)
    message = SSHPacket(content[1 : -content[0]])
    assert message.get_byte() == KEXINIT
    message.get_bytes(16)
    return [[name.decode() for name in message.get_namelist()] for _ in range(8)]


@asynccontextmanager
async def serving(serve: Serve, **extra: Any) -> AsyncIterator[Login]:
    """Serve connections on localhost by a function until the block ends; yield a login to it."""
    served: list[asyncio.Task[None]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        served.append(task)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await serve(reader, writer)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        yield login_to(connection_to(port, RSA_KEY, RSA_KEY), **extra)
    finally:
        server.close()
        for task in served:
            task.cancel()
        await asyncio.gather(*served, return_exceptions=True)
