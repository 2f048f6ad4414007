"""The parts of asyncssh that are used beyond its documentation.

``tests/unit/transport/test_undocumented.py`` fails when one of them changes, and ``pyproject.toml`` bounds
the version of asyncssh.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar, cast

import asyncssh
from asyncssh.packet import PacketDecodeError, SSHPacket
from asyncssh.sftp import SFTPClientHandler, SFTPLimits

T = TypeVar("T")

_logger = logging.getLogger("asyncssh")
_lock = threading.Lock()
_quiet_sessions = 0


@contextmanager
def quiet_logging() -> Iterator[None]:
    """Keep asyncssh from logging each channel and file while a session is open.

    At INFO, asyncssh logs several lines for each file. A level that the user has set stays.
    """
    global _quiet_sessions
    with _lock:
        if not _quiet_sessions and _logger.level == logging.NOTSET:
            _logger.setLevel(logging.WARNING)
        _quiet_sessions += 1
    try:
        yield
    finally:
        with _lock:
            _quiet_sessions -= 1
            if not _quiet_sessions and _logger.level == logging.WARNING:
                _logger.setLevel(logging.NOTSET)


def key_pair(key: asyncssh.SSHKey, algorithm: str | None = None) -> asyncssh.SSHKeyPair:
    """Return a key pair to offer to a server.

    :param key: the private key.
    :param algorithm: the only signature algorithm to use, such as ``ssh-rsa``; None leaves the choice to
        asyncssh.
    """
    (pair,) = asyncssh.load_keypairs([key])
    if algorithm:
        pair.sig_algorithms = (algorithm.encode(),)
        pair.set_sig_algorithm(algorithm.encode())
    return pair


class _NoAttributes(asyncssh.SFTPAttrs):
    """The attributes of an OPEN for reading: none.

    asyncssh formats the attributes for its log even if it does not log them; for many small files that is a
    tenth of the work.
    """

    def __str__(self) -> str:
        return ""


NO_ATTRIBUTES = _NoAttributes()


UnreadableAnswerError = PacketDecodeError
"""Raised for an answer that ends too early, or goes on after its end; asyncssh raises it as it is."""


_END_SECONDS = 0.5
"""Seconds in which the end of a connection may follow the end of its SFTP."""


class SFTPStream(SFTPClientHandler):
    """The requests and answers of one SFTP client; records how they ended.

    asyncssh raises the same errors if the stream has ended and if a server answers a request with the status
    of that name.
    """

    has_ended = False
    end: Exception | None = None
    """The error that ended it; None if it has not ended, or if the server closed it."""

    connection: asyncssh.SSHClientConnection

    async def request_limits(self) -> None:
        """Ask the server for its limits if it announces that it tells them; asyncssh keeps two of four."""
        if self._supports_limits:
            packet = cast("SSHPacket", await self._make_request(b"limits@openssh.com"))
            told, usual = SFTPLimits.decode(packet), self.limits
            packet.check_end()
            self.limits = SFTPLimits(
                told.max_packet_len,
                told.max_read_len or usual.max_read_len,
                told.max_write_len or usual.max_write_len,
                told.max_open_handles,
            )

    async def open_directory(self, path: bytes) -> bytes:
        """Return the handle of a directory, which asyncssh keeps to itself.

        :param path: the directory.
        """
        return await self.opendir(path)

    async def next_names(self, handle: bytes) -> Sequence[asyncssh.SFTPName]:
        """Return the next names of a directory; asyncssh sends no READDIR before the last one is answered.

        :param handle: the directory.
        :raises asyncssh.SFTPEOFError: if there are no more names.
        """
        names, _ = await self.readdir(handle)
        return names

    async def close_handle(self, handle: bytes) -> None:
        """Close a directory.

        :param handle: the directory.
        """
        await self.close(handle)

    async def _cleanup(self, exc: Exception | None) -> None:
        if not self.has_ended:
            self.has_ended, self.end = True, exc
        try:
            if exc is None:
                # A server that ends the connection may close SFTP first; its message is on its way then.
                with suppress(TimeoutError):
                    async with asyncio.timeout(_END_SECONDS):
                        await self.connection.wait_closed()
        finally:
            await super()._cleanup(exc)


async def start_sftp(connection: asyncssh.SSHClientConnection) -> tuple[asyncssh.SFTPClient, SFTPStream]:
    """Start SFTP, also if the server announces ``limits@openssh.com`` but refuses the request.

    :param connection: the connection, logged in.
    :returns: the client, and its stream.
    :raises asyncssh.Error: if the server does not start SFTP.
    """
    writer, reader, _ = await connection.open_session(subsystem="sftp", encoding=None)
    stream = SFTPStream(asyncio.get_running_loop(), "replace", reader, writer, 3)
    stream.connection = connection
    await stream.start()
    connection.create_task(stream.recv_packets(), stream.logger)
    try:
        await stream.request_limits()
    except (asyncssh.SFTPError, UnreadableAnswerError):
        if stream.has_ended:
            raise
    return asyncssh.SFTPClient(stream, "utf-8", "strict"), stream


DISCONNECT = 1
"""The message that ends a connection, with a text (RFC 4253, section 11.1)."""
KEXINIT = 20
"""The message with the algorithms that the server offers (RFC 4253, section 7.1)."""
USERAUTH_FAILURE = 51
"""The message that refuses a login, or asks for a second factor (RFC 4252, section 5.1)."""
TRIVIAL_LOGIN = "Trivial auth disabled"
"""The reason that asyncssh gives if a server accepts a login without a signature of a key."""


def observe(connection: asyncssh.SSHClientConnection, received: Callable[[int, bytes], None]) -> None:
    """Call a function with some messages of the connection itself, before asyncssh processes them.

    asyncssh does not pass on which methods of a login a server offers, nor the text of some disconnects. What
    a server offers it may not have evaluated yet when it reports the end of the connection.

    :param connection: the connection.
    :param received: called with the message's number and its payload, without the number.
    """
    process = connection.process_packet

    def process_observed(kind: int, number: int, packet: SSHPacket) -> Any:
        if kind in (DISCONNECT, KEXINIT, USERAUTH_FAILURE):
            received(kind, packet.get_full_payload()[1:])
        return process(kind, number, packet)

    connection.process_packet = process_observed  # type: ignore[method-assign, assignment]


def send_together(connection: asyncssh.SSHClientConnection) -> None:
    """Send the packets of one turn of the event loop together, and no empty packets between them.

    Before each packet, asyncssh sends an empty IGNORE packet, against an attack on ciphers in CBC mode, which
    the guide does not have (§2.1); and it makes a system call for each packet. With many small files that is
    a third of the work of the event loop.

    :param connection: the connection, with its transport.
    """
    transport = cast("asyncio.Transport", connection._transport)
    send_packet = connection.send_packet
    loop = asyncio.get_running_loop()
    waiting: list[bytes] = []

    def flush() -> None:
        data = b"".join(waiting)
        waiting.clear()
        if not transport.is_closing():
            transport.write(data)

    def send(data: bytes) -> None:
        # asyncssh closes the transport by a callback too, so that the last packets are sent before.
        if not waiting:
            loop.call_soon(flush)
        waiting.append(data)

    def send_meaningful(kind: int, *arguments: bytes, **options: Any) -> None:
        if kind != asyncssh.constants.MSG_IGNORE:
            send_packet(kind, *arguments, **options)

    connection._send = send  # type: ignore[method-assign]
    connection.send_packet = send_meaningful  # type: ignore[method-assign, assignment]


def kexinit_lists(payload: bytes) -> list[tuple[str, ...]]:
    """Return the first eight name lists of a KEXINIT: the algorithms (RFC 4253, section 7.1).

    :param payload: the payload, as `observe` gives it.
    :raises ValueError: if it is too short.
    """
    return _read(payload, lambda packet: (packet.get_bytes(16), [_names(packet) for _ in range(8)])[1])


def methods_left(payload: bytes) -> tuple[tuple[str, ...], bool]:
    """Return the authentication methods that can continue, and if a part of the login has succeeded.

    :param payload: the payload of a USERAUTH_FAILURE, as `observe` gives it (RFC 4252, section 5.1).
    :raises ValueError: if it is too short.
    """
    return _read(payload, lambda packet: (_names(packet), packet.get_boolean()))


def disconnect_text(payload: bytes) -> str:
    """Return the text of a disconnect (RFC 4253, section 11.1).

    :param payload: the payload, as `observe` gives it.
    :raises ValueError: if it is too short.
    """
    return _read(payload, lambda packet: (packet.get_uint32(), packet.get_string())[1]).decode(
        errors="replace"
    )


def _read(payload: bytes, read: Callable[[SSHPacket], T]) -> T:
    try:
        return read(SSHPacket(payload))
    except PacketDecodeError as error:
        raise ValueError(str(error)) from None


def _names(packet: SSHPacket) -> tuple[str, ...]:
    return tuple(name.decode("latin-1") for name in packet.get_namelist())
