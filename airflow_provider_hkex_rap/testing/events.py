"""What happened on the simulated RAP, for tests to assert on."""

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
    """What an event tells of."""

    CONNECT = "connect"
    """A TCP connection was accepted."""
    LOGIN = "login"
    """A login succeeded; the detail is the MD5 fingerprint of its key (§3.2.2)."""
    REFUSED = "refused"
    """A login was refused; the detail says why."""
    LIST = "list"
    """A folder was opened for listing."""
    OPEN = "open"
    """A file was opened for reading."""
    CLOSE = "close"
    """A file that was read was closed; the detail gives the bytes sent."""
    UPLOAD = "upload"
    """A new file was uploaded whole; the detail gives its bytes."""
    RESULT = "result"
    """An uploaded key is answered by the result file of this path, at once or later; the detail is what is
    in it (§6)."""
    DENIED = "denied"
    """The guide does not allow the operation that the detail names."""
    MISSING = "missing"
    """There is no such file or folder, or none that the account can see."""
    FAULT = "fault"
    """An injected fault took effect; the detail is its kind."""
    SUPERSEDED = "superseded"
    """A session is being ended because its account has logged in again (§4.3)."""
    LOGOUT = "logout"
    """The client ended the connection in an orderly way."""
    LOST = "lost"
    """The connection ended in any other way."""


def path_text(path: str | bytes) -> str:
    """Return a path on RAP, given as text or in bytes, as text."""
    return path if isinstance(path, str) else name_text(path)


_ENDS = frozenset({EventKind.LOGOUT, EventKind.LOST, EventKind.SUPERSEDED})


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened.

    :param kind: what happened.
    :param account: the account that the client named; empty before it has.
    :param session: the number of the connection, counting from 1.
    :param path: the path on RAP, as text; empty where none is concerned.
    :param at: when, by the simulator's clock.
    :param detail: more about it, in words.
    """

    kind: EventKind
    account: str
    session: int
    path: str
    at: pendulum.DateTime
    detail: str = ""


class EventLog(Sequence[Event]):
    """The events so far, oldest first; safe to use from any thread."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._changed = threading.Condition()

    def record(self, event: Event) -> None:
        """Add *event* and wake who waits."""
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()

    def clear(self) -> None:
        """Forget every event; sessions that are alive are forgotten too."""
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
        """Return the events of these kinds that have every value given.

        :param kinds: one kind or several (:class:`EventKind`); none for all.
        :param account: the account.
        :param session: the number of the connection.
        :param path: the path on RAP, as text or in bytes.
        :param detail: the detail, whole.
        :raises ValueError: a kind does not exist.
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
        """Block until there are *count* such events, and return them.

        :param kind: the kind (:class:`EventKind`).
        :param count: how many, counting those already there.
        :param timeout: seconds to wait at most.
        :param account: only of this account.
        :param path: only with this path.
        :raises TimeoutError: they did not come in time; the message lists what did.
        :raises ValueError: the kind does not exist.
        """

        def found() -> list[Event]:
            return self.of(kind, account=account, path=path)

        with self._changed:
            if not self._changed.wait_for(lambda: len(found()) >= count, timeout):
                seen = ", ".join(event.kind for event in self._events) or "nothing"
                raise TimeoutError(f"No {count} event(s) {kind!r} within {timeout} s; there was: {seen}.")
            return found()

    def peak_sessions(self, account: str) -> int:
        """Return the most sessions of *account* that were alive at once.

        A login that supersedes another counts as an overlap: two clients met (§4.3).

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
