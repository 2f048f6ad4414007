"""The SSH side of the simulated RAP: only the guide's algorithms, keys and logins (§2.1, §3, §4.3)."""

from __future__ import annotations

import asyncio
import inspect
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING

import asyncssh
from asyncssh.constants import MSG_KEXINIT, MSG_USERAUTH_REQUEST
from asyncssh.packet import SSHPacket

from airflow_provider_hkex_rap.rap import algorithms
from airflow_provider_hkex_rap.testing._sftp import SftpSession
from airflow_provider_hkex_rap.testing.events import EventKind, path_text
from airflow_provider_hkex_rap.testing.key_management import fingerprint_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from airflow_provider_hkex_rap.testing._facility import Facility
    from airflow_provider_hkex_rap.testing.faults import Fault


class RapServer:
    """Listens, and knows which connections are alive.

    :param facility: what RAP holds and allows.
    :param host_key: the key that the server shows.
    """

    def __init__(self, facility: Facility, host_key: asyncssh.SSHKey) -> None:
        self.facility = facility
        self.connections: set[RapConnection] = set()
        self._host_key = host_key
        self._last_number = 0

    async def listen(self, host: str, port: int) -> int:
        """Start to accept connections; return the port.

        :param host: the address to listen on.
        :param port: the port; 0 for a free one.
        """
        loop = asyncio.get_running_loop()
        options = asyncssh.SSHServerConnectionOptions(
            config=[],
            server_factory=_Login,
            server_host_keys=[self._host_key],
            kex_algs=algorithms.KEY_EXCHANGE,
            encryption_algs=algorithms.CIPHERS,
            mac_algs=algorithms.MACS,
            signature_algs=self.facility.server.client_signatures or algorithms.PUBLIC_KEY,
            compression_algs=["none"],
            password_auth=False,
            kbdint_auth=False,
            host_based_auth=False,
            gss_host=None,
            allow_pty=False,
            x11_forwarding=False,
            agent_forwarding=False,
            send_server_host_keys=False,
            # None, so that a login stalled by a fault stays stalled.
            login_timeout=0,
            encoding=None,
            server_version="RAP",
        )
        self._listener = await loop.create_server(lambda: RapConnection(self, loop, options), host, port)
        return int(self._listener.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """End every connection and stop listening."""
        self._listener.close()
        for connection in list(self.connections):
            connection.abort()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        while self.connections:
            await asyncio.sleep(0)

    def wake(self) -> None:
        """Go on with what faults have stalled, as far as they are released."""
        for connection in list(self.connections):
            connection.wake()

    def next_number(self) -> int:
        """Return the number of a new connection, from 1."""
        self._last_number += 1
        return self._last_number

    def supersede(self, newest: RapConnection) -> None:
        """End the other sessions of the account: concurrent login is not allowed, the newest wins (§4.3)."""
        for connection in list(self.connections):
            if connection is not newest and connection.account == newest.account and not connection.is_over:
                connection.end_superseded()


class RapConnection(asyncssh.SSHServerConnection):
    """One connection, from its banner on.

    :param server: the server that accepted it.
    :param loop: the server's event loop.
    :param options: the algorithms and keys of the server.
    """

    def __init__(
        self,
        server: RapServer,
        loop: asyncio.AbstractEventLoop,
        options: asyncssh.SSHServerConnectionOptions,
    ) -> None:
        super().__init__(loop, options)
        self.number = server.next_number()
        self.account = ""
        """The account that has logged in; empty until one has."""
        self.sessions: set[SftpSession] = set()
        self._rap = server
        self.facility = server.facility
        self._behaviour = server.facility.server
        self._early: bytes | None = None
        self._fingerprint = ""
        self._held: tuple[Fault, Callable[[], object]] | None = None
        self.is_over = False
        """Whether its session has been ended by the server."""
        # asyncssh would sign with algorithms that the guide does not have.
        allowed = [algorithm.encode() for algorithm in algorithms.PUBLIC_KEY]
        self._server_host_keys = OrderedDict((name, self._server_host_keys[name]) for name in allowed)
        self._server_host_key_algs = allowed

    @property
    def address(self) -> str:
        """The client's source address."""
        return str(self.get_extra_info("peername")[0])

    def record(self, kind: EventKind, detail: str = "", account: str = "") -> None:
        """Add an event of this connection to the log."""
        self.facility.record(kind, account or self.account, self.number, detail=detail)

    # From its beginning to its end.

    def begin(self) -> None:
        """Note that the connection is there."""
        self._rap.connections.add(self)
        self.record(EventKind.CONNECT, self.address)

    def log_in(self, account: str) -> None:
        """Make this the session of *account*, and the only one."""
        self.account = account
        self.record(EventKind.LOGIN, self._fingerprint)
        self._rap.supersede(self)

    def end_superseded(self) -> None:
        """End the session because its account has logged in again (§4.3)."""
        self.is_over = True
        self.record(EventKind.SUPERSEDED, self._behaviour.supersede)
        if self._behaviour.supersede == "disconnect":
            self._send_disconnect(asyncssh.DISC_BY_APPLICATION, f"{self.account} has logged in again", "en")
            self.cut()
        else:
            self.abort()

    def cut(self) -> None:
        """Close the connection without a word, after what has been answered."""
        if self._transport:
            self._transport.close()

    def end(self, orderly: bool) -> None:
        """Note that the connection is gone."""
        self._rap.connections.discard(self)
        if not self.is_over:
            self.record(EventKind.LOGOUT if orderly else EventKind.LOST)

    # Who may log in.

    def check_hours(self, account: str) -> None:
        """Refuse a login outside the service hours (§4.1).

        :raises asyncssh.ServiceNotAvailable: no service of the account is open.
        """
        if not self.facility.is_open(account):
            self.record(EventKind.REFUSED, "service hours", account)
            raise asyncssh.ServiceNotAvailable("Outside the service hours")

    def accepts(self, account: str, key: asyncssh.SSHKey) -> bool:
        """Return whether *key* logs *account* in from where the client is (§3, §4.3, §7)."""
        self._fingerprint = fingerprint_of(key)
        reason = self._refusal(account, key)
        if reason:
            self.record(EventKind.REFUSED, reason, account)
        return not reason

    def _refusal(self, account: str, key: asyncssh.SSHKey) -> str:
        if account not in self.facility.subscriptions:
            return "unknown account"
        if not self.facility.is_registered_address(self.address):
            return "unregistered address"
        if not self.facility.keys.opens(account, key):
            return "unregistered key"
        renewed = self.facility.keys.is_renewed(account, key)
        for moment in ("login", "renewed_login") if renewed else ("login",):
            if faults := self.facility.faults.take(moment, account=account):
                self.record(EventKind.FAULT, faults[0].kind, account)
                return "fault"
        return ""

    # The variants and faults of the wire. asyncssh has no public place for them.

    def wake(self) -> None:
        """Go on with what a fault has stalled, if it is released."""
        if self._held and self.facility.faults.is_released(self._held[0]):
            go_on, self._held = self._held[1], None
            result = go_on()
            if inspect.iscoroutine(result):
                self.create_task(result)
        for session in list(self.sessions):
            session.answer()

    def _stalls(self, stage: str, go_on: Callable[[], object], account: str = "") -> bool:
        """Return whether a fault holds *go_on* back at this stage."""
        faults = self.facility.faults.take("connect", account=account, stage=stage)
        if faults:
            self._held = faults[0], go_on
            self.record(EventKind.FAULT, f"stall_at {stage}", account)
        return bool(faults)

    def _send_version(self) -> None:
        if self._stalls("banner", self._send_late_version):
            self._early = b""
        else:
            super()._send_version()

    def _send_late_version(self) -> None:
        early, self._early = self._early, None
        super()._send_version()
        super().data_received(early or b"")

    def data_received(self, data: bytes, datatype: asyncssh.DataType = None) -> None:
        # asyncssh would answer the client's banner before it has sent its own.
        if self._early is None:
            super().data_received(data, datatype)
        else:
            self._early += data

    def _send_kexinit(self) -> None:
        if self._session_id or not self._stalls("kex", super()._send_kexinit):
            super()._send_kexinit()

    def _get_extra_kex_algs(self) -> list[bytes]:
        return super()._get_extra_kex_algs() if self._behaviour.extension_markers else []

    def _send_ext_info(self) -> None:
        if not self._behaviour.server_sig_algs:
            del self._extensions_to_send[b"server-sig-algs"]
        super()._send_ext_info()

    async def _on_kexinit(self, kind: int, number: int, packet: SSHPacket) -> None:
        await super()._process_kexinit(kind, number, packet)
        if not self._behaviour.extension_markers:
            # What one side has not offered does not hold.
            self._strict_kex = self._can_send_ext_info = False

    def _on_userauth_request(self, kind: int, number: int, packet: SSHPacket) -> Awaitable[None] | None:
        account, algorithm = _login_request(packet.get_remaining_payload())
        go_on = partial(super()._process_userauth_request, kind, number, packet)
        if algorithm and algorithm not in (self._behaviour.client_signatures or algorithms.PUBLIC_KEY):
            self.record(EventKind.REFUSED, f"signature algorithm {algorithm}", account)
            self.send_userauth_failure(False)
            return None
        return None if self._stalls("auth", go_on, account) else go_on()

    _packet_handlers = {  # noqa: RUF012
        **asyncssh.SSHServerConnection._packet_handlers,
        MSG_KEXINIT: _on_kexinit,
        MSG_USERAUTH_REQUEST: _on_userauth_request,
    }


def _login_request(payload: bytes) -> tuple[str, str]:
    """Return the account of an authentication request, and the signature algorithm if there is one."""
    packet = SSHPacket(payload)
    account, _, method = packet.get_string(), packet.get_string(), packet.get_string()
    if method != b"publickey":
        return path_text(account), ""
    packet.get_boolean()
    return path_text(account), path_text(packet.get_string())


class _Login(asyncssh.SSHServer):
    """What asyncssh asks about a connection."""

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        if not isinstance(conn, RapConnection):
            raise TypeError(conn)
        self._connection = conn
        conn.begin()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.end(orderly=exc is None)

    def begin_auth(self, username: str) -> bool:
        self._connection.check_hours(username)
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return self._connection.accepts(username, key)

    def auth_completed(self) -> None:
        self._connection.log_in(self._connection.get_extra_info("username"))

    def session_requested(self) -> SftpSession:
        session = SftpSession(self._connection.facility, self._connection)
        self._connection.sessions.add(session)
        return session

    # Nothing is forwarded.

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
        return self._refuse_forwarding(f"to {dest_host}:{dest_port}")

    def server_requested(self, listen_host: str, listen_port: int) -> bool:
        return self._refuse_forwarding(f"from {listen_host}:{listen_port}")

    def unix_connection_requested(self, dest_path: str) -> bool:
        return self._refuse_forwarding(f"to {dest_path}")

    def unix_server_requested(self, listen_path: str) -> bool:
        return self._refuse_forwarding(f"from {listen_path}")

    def _refuse_forwarding(self, where: str) -> bool:
        self._connection.record(EventKind.DENIED, f"forwarding {where}")
        return False
