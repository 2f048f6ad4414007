"""The event log of the simulated RAP, for tests to assert on."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, overload

from airflow_provider_hkex_rap.rap.files import name_text

if TYPE_CHECKING:
    import pendulum


class EventKind(StrEnum):
    """The kinds of events."""

    CONNECT = "connect"
    """A TCP connection was accepted."""
    LOGIN = "login"
    """A login succeeded; the detail is the MD5 fingerprint of its key (§3.2.2)."""
    REFUSED = "refused"
    """A login was refused; the detail is the reason."""
    LIST = "list"
    """A folder was opened for listing."""
    OPEN = "open"
    """A file was opened for reading."""
    CLOSE = "close"
    """A file that was opened for reading was closed; the detail is the number of bytes sent."""
    UPLOAD = "upload"
    """A new file was uploaded completely; the detail is its size in bytes."""
    RESULT = "result"
    """An uploaded key got the result file of this path, which may be listed later; the detail is its content
    (§6)."""
    DENIED = "denied"
    """An operation was denied because the guide does not allow it; the detail names the operation."""
    MISSING = "missing"
    """A file or folder was asked for that does not exist, or that the account cannot see."""
    FAULT = "fault"
    """An injected fault took effect; the detail is its kind."""
    SUPERSEDED = "superseded"
    """The server ended a session because its account has logged in again (§4.3)."""
    LOGOUT = "logout"
    """The client ended the connection in an orderly way."""
    LOST = "lost"
    """The connection ended in any other way."""


def path_text(path: str | bytes) -> str:
    """Return a path on RAP as text; bytes that are not UTF-8 become ``%XX``."""
    return path if isinstance(path, str) else name_text(path)


_ENDS = frozenset({EventKind.LOGOUT, EventKind.LOST, EventKind.SUPERSEDED})


@dataclass(frozen=True, slots=True)
class Event:
    """One event.

    :param kind: the kind.
    :param account: the account; empty if the client has not named one yet.
    :param session: the number of the connection, from 1.
    :param path: the path on RAP, as text; empty if the event has no path.
    :param at: the time, by the simulator's clock.
    :param detail: more about the event; see :class:`EventKind`.
    """

    kind: EventKind
    account: str
    session: int
    path: str
    at: pendulum.DateTime
    detail: str = ""


class EventLog(Sequence[Event]):
    """The events so far, oldest first; safe to use from any thread.

    A test that one file was read, by one login, and nothing was denied::

        assert len(rap.events.of("login")) == 1
        assert [event.path for event in rap.events.of("open")] == ["/download/DCASS/TP001_CXYZ_20261120.csv"]
        assert not rap.events.of("denied")
    """

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._changed = threading.Condition()

    def record(self, event: Event) -> None:
        """Add *event*, and wake every thread in :meth:`wait_for`."""
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()

    def clear(self) -> None:
        """Remove every event; :meth:`peak_sessions` no longer counts sessions that began before."""
        with self._changed:
            self._events.clear()

    def of(
        self,
        *kinds: str,
        account: str | None = None,
        session: int | None = None,
        path: str | bytes | None = None,
        detail: str | None = None,
    ) -> list[Event]:
        """Return the events of these kinds that equal every given value.

        :param kinds: the kinds (:class:`EventKind`); none for all kinds.
        :param account: the account.
        :param session: the number of the connection.
        :param path: the path on RAP, as text or in bytes.
        :param detail: the whole detail.
        :raises ValueError: if there is no such kind.
        """
        wanted = {EventKind(kind) for kind in kinds} or set(EventKind)
        values = {"account": account, "session": session, "path": path and path_text(path), "detail": detail}
        given = {name: value for name, value in values.items() if value is not None}
        with self._changed:
            return [
                event
                for event in self._events
                if event.kind in wanted
                and all(getattr(event, name) == value for name, value in given.items())
            ]

    def wait_for(
        self,
        kind: str,
        count: int = 1,
        timeout: float = 10,
        *,
        account: str | None = None,
        path: str | bytes | None = None,
    ) -> list[Event]:
        """Block until the log has *count* such events; return them.

        :param kind: the kind (:class:`EventKind`).
        :param count: number of events, including those that are already in the log.
        :param timeout: seconds to wait at most.
        :param account: count only events of this account.
        :param path: count only events with this path.
        :raises TimeoutError: if the events do not happen in time; the message lists the events in the log.
        :raises ValueError: if there is no such kind.
        """

        def found() -> list[Event]:
            return self.of(kind, account=account, path=path)

        with self._changed:
            if not self._changed.wait_for(lambda: len(found()) >= count, timeout):
                seen = ", ".join(event.kind for event in self._events) or "nothing"
                raise TimeoutError(
                    f"Fewer than {count} {kind!r} events within {timeout} s; the log has: {seen}."
                )
            return found()

    def peak_sessions(self, account: str) -> int:
        """Return the largest number of sessions that *account* had at the same time.

        A login that supersedes a session counts as an overlap (§4.3), so the result is 2 or more then.

        :param account: the account.
        """
        alive: set[int] = set()
        peak = 0
        for event in self.of(account=account):
            if event.kind is EventKind.LOGIN:
                alive.add(event.session)
                peak = max(peak, len(alive))
            elif event.kind in _ENDS:
                alive.discard(event.session)
        return peak

    @overload
    def __getitem__(self, index: int) -> Event: ...

    @overload
    def __getitem__(self, index: slice) -> list[Event]: ...

    def __getitem__(self, index: int | slice) -> Event | list[Event]:
        with self._changed:
            return self._events[index]

    def __len__(self) -> int:
        with self._changed:
            return len(self._events)

    def __iter__(self) -> Iterator[Event]:
        with self._changed:
            return iter(self._events.copy())

    def __repr__(self) -> str:
        return "\n".join(
            f"{event.at:%F %T} #{event.session} {event.account} {event.kind} {event.path} {event.detail}"
            for event in self
        )
