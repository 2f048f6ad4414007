"""Bound each wait for RAP's answers, and name the error that ended it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import asyncssh

from airflow_provider_hkex_rap.rap.errors import (
    RapError,
    RapSessionSuperseded,
    RapTransferError,
    RapUnavailable,
)
from airflow_provider_hkex_rap.rap.printable import printable
from airflow_provider_hkex_rap.transport.connect import Connected, reason_of
from airflow_provider_hkex_rap.transport.undocumented import SFTPStream, UnreadableAnswerError

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.transport.login import Login

_BROKEN_STREAM = (
    asyncssh.DISC_PROTOCOL_ERROR,
    asyncssh.DISC_MAC_ERROR,
    asyncssh.DISC_COMPRESSION_ERROR,
    asyncssh.DISC_KEY_EXCHANGE_FAILED,
)


class AnswerWatch:
    """Ends a session that gets no answer for ``idle_timeout`` seconds, and translates asyncssh's errors.

    :param login: whose ``idle_timeout`` counts.
    :param connected: the connection to watch.
    """

    def __init__(self, login: Login, connected: Connected) -> None:
        self._login = login
        self._connected = connected
        self._loop = asyncio.get_running_loop()
        self._since = self._last_answer = self._loop.time()
        self._waiting = 0
        self._timer: asyncio.TimerHandle | None = None
        self._stalled = False
        self.stream: SFTPStream | None = None
        """The stream of SFTP; set by the session once it has started."""
        self.closed = False
        """Set by the session before it closes the connection itself."""

    @property
    def has_ended(self) -> bool:
        """Whether the session is of no more use.

        If not, an `asyncssh.SFTPError` is the answer to one request, even if its name says more.
        """
        return self.stream is None or self.stream.has_ended or self._connected.client.ended.is_set()

    def answered(self) -> None:
        """Record that RAP has answered just now."""
        self._last_answer = self._loop.time()

    @contextmanager
    def waiting_for(self, subject: str, *, statuses_pass: bool = False) -> Iterator[None]:
        """Bound the waits of a block.

        :param subject: the path or the operation, for the error's fact; made printable in its text.
        :param statuses_pass: let asyncssh's errors for SFTP statuses through as they are.
        :raises RapTransferError: if RAP answered with an error status.
        :raises RapUnavailable: if RAP gave no answer for ``idle_timeout`` seconds.
        :raises RapSessionSuperseded: if RAP ended the session.
        """
        if not self._waiting:
            self.answered()
            self._timer = self._loop.call_later(self._login.idle_timeout, self._check)
        self._waiting += 1
        try:
            yield
        except Exception as error:
            if not self._is_of_connection(error):
                raise
            if statuses_pass and not self._ends(error):
                _make_printable(error)
                raise
            raise self._translated(error, subject) from None
        finally:
            self._waiting -= 1
            if not self._waiting and self._timer:
                self._timer.cancel()

    def _check(self) -> None:
        left = self._last_answer + self._login.idle_timeout - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._check)
        else:
            self._stalled = True
            self._connected.ssh.abort()

    def _is_of_connection(self, error: Exception) -> bool:
        # asyncssh may end a connection by what went wrong in reading a packet, such as a decoding error.
        kinds = asyncssh.Error | ConnectionError | UnreadableAnswerError
        return isinstance(error, kinds) or error is self._connected.client.end

    def _ends(self, error: Exception) -> bool:
        return self.has_ended or not isinstance(error, asyncssh.SFTPError)

    def _translated(self, error: Exception, subject: str) -> RapError:
        if not self._ends(error):
            return RapTransferError(
                f"RAP refused {printable(subject)}: {reason_of(error)}.",
                why="The file may have left RAP, or RAP may still be writing it.",
                todo="The next run tries it again; if it persists, ask HKEX about this file.",
                path=subject,
            )
        if self._stalled or self.closed or self._stream_broke(error):
            return self._unavailable(error, subject)
        return self._superseded(subject)

    def _stream_broke(self, error: Exception) -> bool:
        # What ended the stream of SFTP counts, and not what its requests end with afterwards.
        first = self.stream.end if self.stream and self.stream.has_ended else error
        # A server may accept a key, and then say by a disconnect that the account is in use.
        said = self._connected.client.negotiation.disconnect is not None
        refuses_channel = isinstance(first, asyncssh.ChannelOpenError) and not said
        return (
            refuses_channel
            or isinstance(first, asyncssh.SFTPBadMessage)
            or any(
                end.code in _BROKEN_STREAM
                if isinstance(end, asyncssh.DisconnectError)
                else not isinstance(end, asyncssh.Error | OSError | None)
                for end in (error, first, self._connected.client.end)
            )
        )

    def _unavailable(self, error: Exception, subject: str) -> RapUnavailable:
        address = self._connected.address
        if self._stalled:
            reason = f"no answer for {self._login.idle_timeout:g} s"
        elif self.closed:
            reason = "the session was closed from our side"
        else:
            reason = reason_of((self.stream and self.stream.end) or error)
        return RapUnavailable(
            f"RAP at {address} stopped answering during {printable(subject)}: {reason}.",
            why="The network or the server failed after the login.",
            todo="Try again: what has landed is kept. If it persists, check the line to HKEX.",
            attempts=(f"{address}: {reason}",),
            account=self._login.account.name,
        )

    def _superseded(self, subject: str) -> RapSessionSuperseded:
        client = self._connected.client
        text = client.negotiation.disconnect
        lasted = self._loop.time() - self._since
        if text is not None:
            how = f"sent a disconnect message{text and ': '}{text}"
        elif client.ended.is_set():
            how = "cut the connection without a message"
        else:
            how = "ended SFTP without a message"
        return RapSessionSuperseded(
            f"RAP at {self._connected.address} ended the session of {self._login.account} after"
            f" {lasted:.0f} s, during {printable(subject)}: it {how}.",
            why="Most likely somebody logged in with the same account, and the newest login wins (§4.3);"
            " a lost line looks the same.",
            todo="Find the other login (another host, a person with an SFTP client). What has landed is kept,"
            " and a later try goes on from there.",
            account=self._login.account.name,
            address=str(self._connected.address),
            announced=text is not None,
        )


def _make_printable(error: Exception) -> None:
    """Make the text of the server in an error printable and short."""
    if isinstance(error, asyncssh.Error):
        error.reason = reason_of(error)
        error.args = (error.reason,)
