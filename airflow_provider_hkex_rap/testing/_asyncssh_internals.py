"""The only use of asyncssh beyond its documented API in ``testing/``.

asyncssh has no public way to hold back a handshake, to refuse a signature algorithm that the server has not
excluded in advance, or to leave out extension markers. :class:`HookedConnection` overrides private methods of
asyncssh for these. ``tests/unit/test_simulator_asyncssh.py`` fails if asyncssh changes one of them.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING

import asyncssh
from asyncssh.constants import MSG_KEXINIT, MSG_USERAUTH_REQUEST
from asyncssh.packet import SSHPacket

from airflow_provider_hkex_rap.testing.events import path_text

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Sequence


class HookedConnection(asyncssh.SSHServerConnection):
    """An SSH server connection with hooks for subclasses: :meth:`holds_back` and :meth:`accepts_signature`.

    :param loop: the event loop of the server.
    :param options: the options of asyncssh.
    :param host_key_algs: the host key algorithms to offer; asyncssh would offer all that fit the host key.
    :param server_sig_algs: send the extension ``server-sig-algs`` (RFC 8308).
    :param extension_markers: list the extension markers among the key exchange algorithms.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        options: asyncssh.SSHServerConnectionOptions,
        *,
        host_key_algs: Sequence[str],
        server_sig_algs: bool,
        extension_markers: bool,
    ) -> None:
        super().__init__(loop, options)
        self._sends_server_sig_algs = server_sig_algs
        self._sends_extension_markers = extension_markers
        self._early_data: bytes | None = None
        """Data that the client sent while the banner is held back; None if it is not."""
        names = [name.encode() for name in host_key_algs]
        self._server_host_keys = OrderedDict((name, self._server_host_keys[name]) for name in names)
        self._server_host_key_algs = names

    # The hooks.

    def holds_back(self, stage: str, resume: Callable[[], object], account: str = "") -> bool:
        """Return whether to stop the login at *stage*.

        :param stage: ``banner``, ``kex`` or ``auth``.
        :param resume: goes on with the login; pass it to :meth:`resume` later.
        :param account: the account, if the client has named it.
        """
        return False

    def accepts_signature(self, account: str, algorithm: str) -> bool:
        """Return whether *account* may sign with *algorithm*.

        :param account: the account that wants to log in.
        :param algorithm: the signature algorithm, such as ``rsa-sha2-256``.
        """
        return True

    # For subclasses to call.

    def resume(self, held_back: Callable[[], object]) -> None:
        """Go on with a login that :meth:`holds_back` has stopped."""
        result = held_back()
        if inspect.iscoroutine(result):
            # asyncssh reads the result of the task, and closes the connection if it failed.
            self.create_task(result)

    def send_disconnect(self, reason: str) -> None:
        """Send a disconnect message, without closing the connection."""
        self._send_disconnect(asyncssh.DISC_BY_APPLICATION, reason, "en")

    def cut(self) -> None:
        """Close the connection without a disconnect message, after the replies that are already written."""
        if self._transport:
            self._transport.close()

    # Overridden methods of asyncssh.

    def _send_version(self) -> None:
        if self.holds_back("banner", self._send_version_late):
            self._early_data = b""
        else:
            super()._send_version()

    def _send_version_late(self) -> None:
        early, self._early_data = self._early_data, None
        super()._send_version()
        super().data_received(early or b"")

    def data_received(self, data: bytes, datatype: asyncssh.DataType = None) -> None:
        """Handle data from the client, but only after the banner is sent: asyncssh would answer before."""
        if self._early_data is None:
            super().data_received(data, datatype)
        else:
            self._early_data += data

    def _send_kexinit(self) -> None:
        # A session id exists if this is a new key exchange of a session.
        if self._session_id or not self.holds_back("kex", super()._send_kexinit):
            super()._send_kexinit()

    def _get_extra_kex_algs(self) -> list[bytes]:
        return super()._get_extra_kex_algs() if self._sends_extension_markers else []

    def _send_ext_info(self) -> None:
        if not self._sends_server_sig_algs:
            del self._extensions_to_send[b"server-sig-algs"]
        super()._send_ext_info()

    async def _on_kexinit(self, kind: int, number: int, packet: SSHPacket) -> None:
        await super()._process_kexinit(kind, number, packet)
        if not self._sends_extension_markers:
            # asyncssh looks only at the client's markers, but both sides must send them.
            self._strict_kex = self._can_send_ext_info = False

    def _on_userauth_request(self, kind: int, number: int, packet: SSHPacket) -> Awaitable[None] | None:
        account, algorithm = _login_request(packet.get_remaining_payload())
        if algorithm and not self.accepts_signature(account, algorithm):
            self.send_userauth_failure(False)
            return None
        resume = partial(super()._process_userauth_request, kind, number, packet)
        return None if self.holds_back("auth", resume, account) else resume()

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
