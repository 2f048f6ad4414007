"""The parts of asyncssh beyond its documentation: these tests fail when one of them changes."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import asyncssh
import pytest
from asyncssh.connection import SSHClientConnection, SSHConnection
from asyncssh.packet import SSHPacket
from asyncssh.sftp import SFTPLimits, SFTPServerHandler

from airflow_provider_hkex_rap.rap import algorithms
from airflow_provider_hkex_rap.transport.connect import OFFERED
from airflow_provider_hkex_rap.transport.undocumented import (
    DISCONNECT,
    KEXINIT,
    NO_ATTRIBUTES,
    TRIVIAL_LOGIN,
    USERAUTH_FAILURE,
    SFTPStream,
    key_pair,
    observe,
    quiet_logging,
    send_together,
    start_sftp,
)

KEY = asyncssh.generate_private_key("ssh-rsa", key_size=2048)


@pytest.mark.parametrize("algorithm", algorithms.PUBLIC_KEY)
def test_a_key_pair_can_be_bound_to_one_signature_algorithm(algorithm: str) -> None:
    pair = key_pair(KEY, algorithm)
    assert pair.sig_algorithms == (algorithm.encode(),)
    assert pair.sig_algorithm == algorithm.encode()
    assert pair.public_data == KEY.public_data


def test_a_key_pair_without_an_algorithm_is_asyncsshs_own_choice() -> None:
    assert set(algorithms.PUBLIC_KEY) <= {name.decode() for name in key_pair(KEY).sig_algorithms}


def test_open_takes_attributes_and_a_block_size() -> None:
    parameters = list(inspect.signature(asyncssh.SFTPClient.open).parameters)
    assert parameters[:4] == ["self", "path", "pflags_or_mode", "attrs"]
    assert "block_size" in parameters
    assert isinstance(NO_ATTRIBUTES, asyncssh.SFTPAttrs)
    assert NO_ATTRIBUTES.encode(3) == asyncssh.SFTPAttrs().encode(3)


def test_a_client_announces_its_servers_limits() -> None:
    assert {"max_open_handles", "max_read_len"} <= set(dir(asyncssh.SFTPLimits(0, 0, 0, 0)))


def test_asyncssh_is_quiet_while_sessions_are_open_and_its_level_comes_back() -> None:
    logger = logging.getLogger("asyncssh")
    before = logger.level
    try:
        logger.setLevel(logging.NOTSET)
        with quiet_logging():
            with quiet_logging():
                pass
            assert logging.getLogger("asyncssh.sftp").getEffectiveLevel() == logging.WARNING
        assert logger.level == logging.NOTSET
        logger.setLevel(logging.DEBUG)
        with quiet_logging():
            assert logger.level == logging.DEBUG
        assert logger.level == logging.DEBUG
    finally:
        logger.setLevel(before)


class Recorded:
    """A connection as far as it processes packets."""

    def __init__(self) -> None:
        self.processed: list[int] = []

    def process_packet(self, kind: int, number: int, packet: SSHPacket) -> bool:
        self.processed.append(kind)
        return True


def test_messages_of_a_connection_are_observed_before_they_are_processed() -> None:
    connection = Recorded()
    seen: list[tuple[int, bytes, list[int]]] = []
    observe(connection, lambda kind, payload: seen.append((kind, payload, list(connection.processed))))  # type: ignore[arg-type]
    for kind in (KEXINIT, 21, USERAUTH_FAILURE, DISCONNECT):
        packet = SSHPacket(bytes([kind]) + b"content")
        packet.get_byte()
        assert connection.process_packet(kind, 0, packet) is True
        assert packet.get_remaining_payload() == b"content"
    assert seen == [
        (KEXINIT, b"content", []),
        (USERAUTH_FAILURE, b"content", [KEXINIT, 21]),
        (DISCONNECT, b"content", [KEXINIT, 21, USERAUTH_FAILURE]),
    ]


def test_asyncssh_processes_each_packet_of_a_connection_by_that_method() -> None:
    assert list(inspect.signature(SSHClientConnection.process_packet).parameters)[1:] == [
        "pkttype",
        "pktid",
        "packet",
    ]
    source = inspect.getsource(SSHConnection._recv_packet)
    assert "handler: SSHPacketHandler = self" in source
    assert "handler.process_packet(pkttype, seq, packet)" in source
    handlers = SSHConnection._packet_handlers
    assert handlers[DISCONNECT].__name__ == "_process_disconnect"
    assert handlers[KEXINIT].__name__ == "_process_kexinit"
    assert handlers[USERAUTH_FAILURE].__name__ == "_process_userauth_failure"


def test_a_login_without_a_signature_has_a_reason_of_its_own() -> None:
    source = inspect.getsource(SSHConnection._process_userauth_success)
    assert f"raise PermissionDenied('{TRIVIAL_LOGIN}')" in source
    assert OFFERED["disable_trivial_auth"] is True


def test_packets_of_one_turn_are_sent_together_and_without_empty_ones() -> None:
    asyncio.run(send_many_requests())


async def send_many_requests() -> None:
    received: list[int] = []
    ended = asyncio.Event()

    class Server(asyncssh.SSHServer):
        def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
            process = conn.process_packet

            def record(kind: int, number: int, packet: SSHPacket) -> object:
                received.append(kind)
                return process(kind, number, packet)

            conn.process_packet = record  # type: ignore[method-assign, assignment]

        def connection_lost(self, exc: Exception | None) -> None:
            ended.set()

        def begin_auth(self, username: str) -> bool:
            return False

    class Client(asyncssh.SSHClient):
        def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
            send_together(conn)

    server = await asyncssh.create_server(Server, "127.0.0.1", 0, server_host_keys=[KEY], sftp_factory=True)
    options = {"known_hosts": None, "config": None, "agent_path": None, "client_keys": None}
    async with (
        server,
        asyncssh.connect("127.0.0.1", server.get_port(), client_factory=Client, **options) as client,
        client.start_sftp_client() as sftp,
    ):
        writes: list[bytes] = []
        transport = client._transport
        assert transport is not None
        write = transport.write
        transport.write = lambda data: (writes.append(data), write(data))  # type: ignore[method-assign]
        await asyncio.gather(*(sftp.exists("/") for _ in range(20)))
        assert len(writes) == 1
        del transport.write
    await ended.wait()
    assert asyncssh.constants.MSG_IGNORE not in received
    assert received[-1] == asyncssh.constants.MSG_DISCONNECT


class Answers(asyncssh.SFTPServer):
    """A server that answers one path with a status of each name, and leaves at another."""

    def lstat(self, path: bytes) -> Any:
        if path == b"/end":
            self.channel.close()
        if path == b"/broken":
            self.channel.write(b"\0\0\0\1\x65")
        raise {b"/5": asyncssh.SFTPBadMessage, b"/6": asyncssh.SFTPNoConnection}.get(
            path, asyncssh.SFTPConnectionLost
        )("no")

    async def scandir(self, path: bytes) -> Any:
        yield asyncssh.SFTPName(b"a.csv")


async def over_sftp(use: Callable[[asyncssh.SFTPClient, SFTPStream], Awaitable[None]]) -> None:
    class Anybody(asyncssh.SSHServer):
        def begin_auth(self, username: str) -> bool:
            return False

    options = {"known_hosts": None, "config": None, "agent_path": None, "client_keys": None}
    async with (
        await asyncssh.create_server(
            Anybody, "127.0.0.1", 0, server_host_keys=[KEY], sftp_factory=Answers
        ) as server,
        asyncssh.connect("127.0.0.1", server.get_port(), **options) as client,
    ):
        sftp, stream = await start_sftp(client)
        await use(sftp, stream)


def test_a_status_leaves_the_stream_alone_whatever_its_name() -> None:
    async def use(sftp: asyncssh.SFTPClient, stream: SFTPStream) -> None:
        for path in ("/5", "/6", "/7"):
            with pytest.raises(asyncssh.SFTPError):
                await sftp.lstat(path)
            assert not stream.has_ended
        assert sftp.limits.max_read_len > 32 * 1024

    asyncio.run(over_sftp(use))


@pytest.mark.parametrize(("path", "end"), [("/end", type(None)), ("/broken", asyncssh.SFTPBadMessage)])
def test_a_stream_records_how_it_ended(path: str, end: type) -> None:
    async def use(sftp: asyncssh.SFTPClient, stream: SFTPStream) -> None:
        with pytest.raises(asyncssh.SFTPError):
            await sftp.lstat(path)
        with pytest.raises(asyncssh.SFTPNoConnection):
            await sftp.lstat("/5")
        assert stream.has_ended
        assert type(stream.end) is end

    asyncio.run(over_sftp(use))


def test_a_directory_is_read_by_its_handle() -> None:
    async def use(sftp: asyncssh.SFTPClient, stream: SFTPStream) -> None:
        handle = await stream.open_directory(b"/")
        assert [name.filename for name in await stream.next_names(handle)] == [b"a.csv"]
        with pytest.raises(asyncssh.SFTPEOFError):
            await stream.next_names(handle)
        await stream.close_handle(handle)
        with pytest.raises(asyncssh.SFTPError):
            await stream.next_names(handle)

    asyncio.run(over_sftp(use))


@pytest.mark.parametrize("refusal", [asyncssh.SFTPFailure, asyncssh.SFTPConnectionLost])
def test_sftp_starts_if_the_limits_that_are_announced_are_refused(
    monkeypatch: pytest.MonkeyPatch, refusal: type[asyncssh.SFTPError]
) -> None:
    async def refuse(self: SFTPServerHandler, packet: SSHPacket) -> None:
        raise refusal("no")

    async def use(sftp: asyncssh.SFTPClient, stream: SFTPStream) -> None:
        assert not stream.has_ended
        assert sftp.limits.max_read_len < 32 * 1024

    assert b"limits@openssh.com" in SFTPServerHandler._packet_handlers
    monkeypatch.setitem(SFTPServerHandler._packet_handlers, b"limits@openssh.com", refuse)
    asyncio.run(over_sftp(use))


def test_all_limits_that_a_server_tells_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(self: SFTPServerHandler, packet: SSHPacket) -> SFTPLimits:
        return SFTPLimits(100_000, 50_000, 0, 7)

    async def use(sftp: asyncssh.SFTPClient, stream: SFTPStream) -> None:
        told = sftp.limits
        assert (told.max_packet_len, told.max_read_len, told.max_open_handles) == (100_000, 50_000, 7)
        assert told.max_write_len > 0

    monkeypatch.setitem(SFTPServerHandler._packet_handlers, b"limits@openssh.com", answer)
    asyncio.run(over_sftp(use))
