"""The SSH server of the simulated RAP: the guide's algorithms, keys and logins only (§2.1, §3, §4.3)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncssh

from airflow_provider_hkex_rap.rap import algorithms
from airflow_provider_hkex_rap.testing._asyncssh_internals import HookedConnection
from airflow_provider_hkex_rap.testing._sftp import SftpSession
from airflow_provider_hkex_rap.testing.events import EventKind
from airflow_provider_hkex_rap.testing.key_management import fingerprint_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_hkex_rap.testing._facility import Facility
    from airflow_provider_hkex_rap.testing.faults import Fault


class RapServer:
    """The listening socket and the open connections.

    :param facility: the state of the simulated RAP.
    :param host_key: the host key.
    """

    def __init__(self, facility: Facility, host_key: asyncssh.SSHKey) -> None:
        self.facility = facility
        self.connections: set[RapConnection] = set()
        self._host_key = host_key
        self._last_number = 0

    async def listen(self, host: str, port: int) -> int:
        """Listen for connections; return the port.

        :param host: the address to listen on.
        :param port: the TCP port; 0 for a free one.
        :raises OSError: if the port is in use.
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
            # No time limit, so that a login that a fault stalls stays stalled.
            login_timeout=0,
            encoding=None,
            server_version="RAP",
        )
        self._listener = await loop.create_server(lambda: RapConnection(self, loop, options), host, port)
        return int(self._listener.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening and end every connection."""
        self._listener.close()
        for connection in list(self.connections):
            connection.abort()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        # The tasks belong to connections that were just aborted, so their errors say nothing new.
        await asyncio.gather(*tasks, return_exceptions=True)
        while self.connections:
            await asyncio.sleep(0)

    def wake(self) -> None:
        """Resume every connection whose fault has been released."""
        for connection in list(self.connections):
            connection.wake()

    def next_number(self) -> int:
        """Return the number of a new connection, from 1."""
        self._last_number += 1
        return self._last_number

    def supersede(self, newest: RapConnection) -> None:
        """End the other sessions of the account: concurrent login is not allowed (§4.3)."""
        for connection in list(self.connections):
            if connection is not newest and connection.account == newest.account and not connection.is_ended:
                connection.end_superseded()


class RapConnection(HookedConnection):
    """One connection to the simulated RAP.

    :param server: the server that accepted it.
    :param loop: the event loop of the server.
    :param options: the algorithms and keys of the server.
    """

    def __init__(
        self,
        server: RapServer,
        loop: asyncio.AbstractEventLoop,
        options: asyncssh.SSHServerConnectionOptions,
    ) -> None:
        self.facility = server.facility
        self._behaviour = server.facility.server
        super().__init__(
            loop,
            options,
            host_key_algs=algorithms.PUBLIC_KEY,
            server_sig_algs=self._behaviour.server_sig_algs,
            extension_markers=self._behaviour.extension_markers,
        )
        self.number = server.next_number()
        self.account = ""
        """The account that is logged in; empty before the login."""
        self.sessions: set[SftpSession] = set()
        self.is_ended = False
        """Whether the server has ended the session."""
        self._rap = server
        self._fingerprint = ""
        self._held_back: tuple[Fault, Callable[[], object]] | None = None

    @property
    def address(self) -> str:
        """The source address of the client."""
        return str(self.get_extra_info("peername")[0])

    def record(self, kind: EventKind, detail: str = "", account: str = "") -> None:
        """Add an event of this connection to the log."""
        self.facility.record(kind, account or self.account, self.number, detail=detail)

    # From the first byte to the last.

    def begin(self) -> None:
        """Record that the client has connected."""
        self._rap.connections.add(self)
        self.record(EventKind.CONNECT, self.address)

    def log_in(self, account: str) -> None:
        """Make this the only session of *account*."""
        self.account = account
        self.record(EventKind.LOGIN, self._fingerprint)
        self._rap.supersede(self)

    def end_superseded(self) -> None:
        """End the session because its account has logged in again (§4.3)."""
        self.is_ended = True
        self.record(EventKind.SUPERSEDED, self._behaviour.supersede)
        if self._behaviour.supersede == "disconnect":
            self.send_disconnect(f"{self.account} has logged in again")
            self.cut()
        else:
            self.abort()

    def end(self, orderly: bool) -> None:
        """Record that the connection is closed.

        :param orderly: whether the client closed it as SSH asks for.
        """
        self._rap.connections.discard(self)
        if not self.is_ended:
            self.record(EventKind.LOGOUT if orderly else EventKind.LOST)

    # Logins.

    def check_hours(self, account: str) -> None:
        """Refuse a login outside the service hours (§4.1).

        :raises asyncssh.ServiceNotAvailable: if no service of the account is open.
        """
        if not self.facility.is_open(account):
            self.record(EventKind.REFUSED, "service hours", account)
            raise asyncssh.ServiceNotAvailable("Outside the service hours")

    def accepts(self, account: str, key: asyncssh.SSHKey) -> bool:
        """Return whether *account* may log in with *key* from the client's address (§3, §4.3, §7)."""
        self._fingerprint = fingerprint_of(key)
        reason = self._refusal(account, key)
        if reason:
            self.record(EventKind.REFUSED, reason, account)
        return not reason

    def _refusal(self, account: str, key: asyncssh.SSHKey) -> str:
        """Return why the login is refused; an empty text if it is not."""
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

    def accepts_signature(self, account: str, algorithm: str) -> bool:
        """Return whether clients may sign with *algorithm* (§2.1)."""
        if algorithm in (self._behaviour.client_signatures or algorithms.PUBLIC_KEY):
            return True
        self.record(EventKind.REFUSED, f"signature algorithm {algorithm}", account)
        return False

    # Faults that stall.

    def holds_back(self, stage: str, resume: Callable[[], object], account: str = "") -> bool:
        """Return whether a fault stalls the login at *stage*; if so, keep *resume* until it is released."""
        faults = self.facility.faults.take("connect", account=account, stage=stage)
        if faults:
            self._held_back = faults[0], resume
            self.record(EventKind.FAULT, f"stall_at {stage}", account)
        return bool(faults)

    def wake(self) -> None:
        """Resume the login or the requests that a fault has stalled, if the fault is released."""
        if self._held_back and self.facility.faults.is_released(self._held_back[0]):
            resume, self._held_back = self._held_back[1], None
            self.resume(resume)
        for session in list(self.sessions):
            session.answer()


class _Login(asyncssh.SSHServer):
    """The callbacks of asyncssh for one connection."""

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

    # RAP forwards no ports.

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
        return self._refuse_forwarding(f"to {dest_host}:{dest_port}")

    def server_requested(self, listen_host: str, listen_port: int) -> bool:
        return self._refuse_forwarding(f"from {listen_host}:{listen_port}")

    def unix_connection_requested(self, dest_path: str) -> bool:
        return self._refuse_forwarding(f"to {dest_path}")

    def unix_server_requested(self, listen_path: str) -> bool:
        return self._refuse_forwarding(f"from {listen_path}")

    def _refuse_forwarding(self, destination: str) -> bool:
        self._connection.record(EventKind.DENIED, f"forwarding {destination}")
        return False
