"""The open handles of an SFTP session: files being read, files being uploaded, folders being listed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn, Protocol

from airflow_provider_hkex_rap.testing._sftp_packets import Status, StatusError
from airflow_provider_hkex_rap.testing.events import EventKind, path_text

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.testing._facility import Facility
    from airflow_provider_hkex_rap.testing._tree import ServedFile
    from airflow_provider_hkex_rap.testing.faults import Fault

READ_LIMIT = 4 << 20
"""Bytes that one READ returns at most if :class:`ServerBehaviour` sets no ``read_limit``."""
_NAMES_PER_REPLY = 128
_REFUSALS = {
    "deny": (Status.PERMISSION_DENIED, "Permission Denied"),
    "deny_listing": (Status.PERMISSION_DENIED, "Permission Denied"),
    "deny_upload": (Status.PERMISSION_DENIED, "Permission Denied"),
    "vanish": (Status.NO_SUCH_FILE, "No such file"),
}
"""Faults that refuse to open a file or a folder, and the reply."""
_CUTS = frozenset({"drop", "listing_cut", "drop_upload", "drop_after_upload"})
"""Faults that close the connection."""


class Connection(Protocol):
    """The SSH connection under an SFTP session."""

    account: str
    """The account that is logged in."""
    number: int
    """The number of the connection, from 1."""

    def cut(self) -> None:
        """Close the connection without a disconnect message."""
        ...


class UnansweredError(Exception):
    """The request gets no reply until its fault is released, or never if the connection is closed.

    :param fault: the fault.
    """

    def __init__(self, fault: Fault) -> None:
        self.fault = fault


class Visitor:
    """One login: looks up paths, records events and applies faults for the account.

    :param facility: the state of the simulated RAP.
    :param connection: the connection of the login.
    """

    def __init__(self, facility: Facility, connection: Connection) -> None:
        self.facility = facility
        self.connection = connection

    @property
    def account(self) -> str:
        """The account that is logged in."""
        return self.connection.account

    def find(self, path: bytes) -> ServedFile:
        """Return the file or folder at *path*.

        :raises StatusError: if the account sees nothing there, or may not look there.
        """
        try:
            return self.facility.find(self.account, path)
        except FileNotFoundError:
            self.record(EventKind.MISSING, path)
            raise StatusError(Status.NO_SUCH_FILE, "No such file") from None
        except PermissionError as denied:
            raise self.denial(path, str(denied)) from None

    def denial(self, path: bytes, operation: str) -> StatusError:
        """Record a denied operation; return the error to raise."""
        self.record(EventKind.DENIED, path, operation)
        return StatusError(Status.PERMISSION_DENIED, "Permission Denied")

    def record(self, kind: EventKind, path: bytes = b"", detail: str = "") -> None:
        """Add an event to the log."""
        self.facility.record(kind, self.account, self.connection.number, path, detail)

    def take_faults(self, moment: str, path: bytes) -> list[Fault]:
        """Return the faults that affect what is opened at *path*.

        :raises StatusError: if a fault refuses to open it.
        """
        faults = self.facility.faults.take(moment, path=path_text(path), account=self.account)
        for fault in faults:
            if fault.kind in _REFUSALS:
                self.record(EventKind.FAULT, path, fault.kind)
                raise StatusError(*_REFUSALS[fault.kind])
        return list(faults)

    def stop_answering(self, fault: Fault) -> NoReturn:
        """Leave a request without a reply because of *fault*; close the connection if the fault does so."""
        if fault.kind in _CUTS:
            self.connection.cut()
        raise UnansweredError(fault)


@dataclass(slots=True)
class OpenFile:
    """A file opened for reading."""

    visitor: Visitor
    file: ServedFile
    faults: list[Fault]
    _sent: int = 0

    @property
    def path(self) -> bytes:
        """The path on RAP."""
        return self.file.path

    def read(self, offset: int, length: int) -> bytes:
        """Return at most *length* bytes from *offset*.

        :raises StatusError: at the end of the file.
        :raises UnansweredError: if a fault stalls the file or closes the connection.
        """
        length = min(length, self.visitor.facility.server.read_limit or READ_LIMIT)
        for fault in self.faults.copy():
            if offset < fault.at_byte:
                length = min(length, fault.at_byte - offset)
            else:
                length = self._apply(fault, length)
        data = self.file.body.read(offset, length)
        if not data:
            raise StatusError(Status.EOF, "End of file")
        self._sent += len(data)
        return data

    def close(self) -> None:
        """Record how many bytes were sent.

        :raises UnansweredError: if a fault closes the connection at the end of the file. A client that knows
            the size need not read past the end, so this is the last chance.
        """
        for fault in self.faults:
            if fault.kind == "drop" and fault.at_byte >= self.file.size:
                self._apply(fault, 0)
        self.visitor.record(EventKind.CLOSE, self.path, f"{self._sent} bytes")

    def _apply(self, fault: Fault, length: int) -> int:
        """Apply *fault* to the file; return how many of *length* bytes may be sent."""
        self.visitor.record(EventKind.FAULT, self.path, fault.kind)
        if fault.kind == "truncate":
            return 0
        self.faults.remove(fault)
        now = self.visitor.facility.clock().int_timestamp
        if fault.kind == "grow":
            self.file.grow(fault.by, now)
        elif fault.kind == "rewrite":
            self.file.rewrite(now)
        else:
            self.visitor.stop_answering(fault)
        return length


@dataclass(slots=True)
class NewFile:
    """A file that is being uploaded; it does not exist on RAP before it is closed."""

    visitor: Visitor
    path: bytes
    faults: list[Fault]
    _content: bytearray = field(default_factory=bytearray)

    def write(self, offset: int, data: bytes) -> None:
        """Append *data*.

        :raises StatusError: if *offset* is not the end of the file, as when a client resumes an upload.
        :raises UnansweredError: if a fault closes the connection.
        """
        if offset != len(self._content):
            raise self.visitor.denial(self.path, "write elsewhere than at the end (resume)")
        self._content += data
        self._break("drop_upload", len(self._content))

    def close(self) -> None:
        """Upload the file.

        :raises StatusError: if another file has taken the name in the meantime.
        :raises UnansweredError: if a fault closes the connection.
        """
        self._break("drop_upload")
        check_is_new(self.visitor, self.path)
        self.visitor.facility.accept_upload(
            self.visitor.account, self.visitor.connection.number, self.path, bytes(self._content)
        )
        self._break("drop_after_upload")

    def _break(self, kind: str, received: float = float("inf")) -> None:
        """Close the connection if a fault of this *kind* is due after *received* bytes."""
        for fault in self.faults:
            if fault.kind == kind and fault.at_byte < received:
                self.visitor.record(EventKind.FAULT, self.path, kind)
                self.visitor.stop_answering(fault)


@dataclass(slots=True)
class OpenFolder:
    """A folder opened for listing."""

    visitor: Visitor
    path: bytes
    entries: list[tuple[bytes, ServedFile]]
    faults: list[Fault]
    _sent: int = 0

    def read(self) -> list[tuple[bytes, ServedFile]]:
        """Return the next entries: the name in the listing, and the file.

        :raises StatusError: at the end of the listing, or if a fault ends it.
        :raises UnansweredError: if a fault stalls the listing or closes the connection.
        """
        count = _NAMES_PER_REPLY
        for fault in self.faults.copy():
            count = min(count, fault.entries - self._sent)
            if count <= 0:
                self.faults.remove(fault)
                self._break(fault)
        entries = self.entries[self._sent : self._sent + count]
        if not entries:
            raise StatusError(Status.EOF, "End of folder")
        self._sent += len(entries)
        return entries

    def close(self) -> None:
        """Close the listing, which needs no step."""

    def _break(self, fault: Fault) -> NoReturn:
        self.visitor.record(EventKind.FAULT, self.path, fault.kind)
        if fault.kind == "listing_error":
            raise StatusError(Status.FAILURE, "Failure")
        self.visitor.stop_answering(fault)


def check_is_new(visitor: Visitor, path: bytes) -> None:
    """Refuse an upload that would modify a file (§4.2).

    :raises StatusError: if it would.
    """
    if not visitor.facility.may_upload(visitor.account, path):
        raise visitor.denial(path, "overwrite")
