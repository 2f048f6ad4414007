"""SFTP version 3 as RAP speaks it: listing and reading, one kind of upload, and nothing else (§2.1, §4.2)."""

from __future__ import annotations

import posixpath
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, NoReturn, TypeVar

import asyncssh
from asyncssh import constants as sftp

from airflow_provider_hkex_rap.rap.files import Kind
from airflow_provider_hkex_rap.rap.folders import KEY_FOLDER
from airflow_provider_hkex_rap.testing.events import EventKind, path_text

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.testing._facility import Facility
    from airflow_provider_hkex_rap.testing._server import RapConnection
    from airflow_provider_hkex_rap.testing._tree import ServedFile
    from airflow_provider_hkex_rap.testing.behaviour import Attributes
    from airflow_provider_hkex_rap.testing.faults import Fault

_VERSION = 3
_SHORTEST, _PACKET_LIMIT = 5, 1 << 20
"""Bytes of the shortest and of the longest request."""
_READ_LIMIT = 4 << 20
"""Bytes of the longest answer to one READ, where no variant sets a lower one."""
_WRITE_LIMIT = 255 << 10
_NAMES_PER_REPLY = 128
_OWNER = 1000
_LIMITS = b"limits@openssh.com"
_UPLOAD_FLAGS = sftp.FXF_WRITE | sftp.FXF_CREAT | sftp.FXF_TRUNC | sftp.FXF_EXCL
_DENIED = {
    sftp.FXP_SETSTAT: "setstat",
    sftp.FXP_REMOVE: "remove",
    sftp.FXP_MKDIR: "mkdir",
    sftp.FXP_RMDIR: "rmdir",
    sftp.FXP_RENAME: "rename",
    sftp.FXP_SYMLINK: "symlink",
    sftp.FXP_READLINK: "readlink",
}
"""Operations on a path that RAP denies outright (§4.2)."""
_REFUSALS = {
    "deny": (sftp.FX_PERMISSION_DENIED, "Permission Denied"),
    "deny_listing": (sftp.FX_PERMISSION_DENIED, "Permission Denied"),
    "deny_upload": (sftp.FX_PERMISSION_DENIED, "Permission Denied"),
    "vanish": (sftp.FX_NO_SUCH_FILE, "No such file"),
}
"""Faults by which a file or a folder cannot be opened, and the answer then."""
_CUTS = frozenset({"drop", "listing_cut", "drop_upload", "drop_after_upload"})
"""Faults that cut the connection."""


class _StatusError(Exception):
    """A request is answered by a status other than OK."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class _UnansweredError(Exception):
    """A request is not answered until its fault is released; never where the connection is being cut."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault


class _Request:
    """The fields of a request, read in order."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def _unpack(self, form: struct.Struct) -> int:
        if self._at + form.size > len(self._data):
            raise _StatusError(sftp.FX_BAD_MESSAGE, "Request is too short")
        (value,) = form.unpack_from(self._data, self._at)
        self._at += form.size
        return int(value)

    def byte(self) -> int:
        return self._unpack(_BYTE)

    def uint32(self) -> int:
        return self._unpack(_UINT32)

    def uint64(self) -> int:
        return self._unpack(_UINT64)

    def string(self) -> bytes:
        length = self.uint32()
        start, self._at = self._at, self._at + length
        if self._at > len(self._data):
            raise _StatusError(sftp.FX_BAD_MESSAGE, "String is longer than its request")
        return self._data[start : self._at]


_BYTE = struct.Struct(">B")
_UINT32 = struct.Struct(">I")
_UINT64 = struct.Struct(">Q")


def _string(data: bytes) -> bytes:
    return _UINT32.pack(len(data)) + data


@dataclass(slots=True)
class _Reading:
    """A file opened for reading."""

    file: ServedFile
    faults: list[Fault]
    sent: int = 0

    @property
    def path(self) -> bytes:
        return self.file.path


@dataclass(slots=True)
class _Uploading:
    """A new file, until it is closed."""

    path: bytes
    faults: list[Fault]
    content: bytearray = field(default_factory=bytearray)


@dataclass(slots=True)
class _Listing:
    """A folder opened for listing."""

    path: bytes
    entries: list[tuple[bytes, ServedFile]]
    faults: list[Fault]
    sent: int = 0


_Opened = _Reading | _Uploading | _Listing
_Kind = TypeVar("_Kind", _Reading, _Uploading, _Listing)


class SftpSession(asyncssh.SSHServerSession[bytes]):
    """One SFTP channel of a login; every request is answered in order.

    :param facility: what RAP holds and allows.
    :param connection: the login.
    """

    def __init__(self, facility: Facility, connection: RapConnection) -> None:
        self._facility = facility
        self._behaviour = facility.server
        self._connection = connection
        self._buffer = bytearray()
        self._handles: dict[bytes, _Opened] = {}
        self._last_handle = 0
        self._stalled: Fault | None = None

    # What a login may ask for: the SFTP subsystem, and nothing else.

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._channel = chan

    def pty_requested(self, term_type: str, term_size: object, term_modes: object) -> bool:
        return self._refuse("pty")

    def shell_requested(self) -> bool:
        return self._refuse("shell")

    def exec_requested(self, command: str) -> bool:
        return self._refuse("exec")

    def subsystem_requested(self, subsystem: str) -> bool:
        return subsystem == "sftp" or self._refuse(f"subsystem {subsystem}")

    def _refuse(self, what: str) -> bool:
        self._record(EventKind.DENIED, detail=what)
        return False

    # Requests come in as bytes.

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        self._buffer += data
        self.answer()

    def eof_received(self) -> bool:
        self._channel.exit(0)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        # An upload that was not closed is no upload.
        self._handles.clear()
        self._buffer.clear()
        self._connection.sessions.discard(self)

    def answer(self) -> None:
        """Answer every request that is complete, as far as no fault stalls it."""
        if self._stalled is not None and not self._facility.faults.is_released(self._stalled):
            return
        self._stalled = None
        while len(self._buffer) >= 4:
            (length,) = _UINT32.unpack_from(self._buffer)
            if not _SHORTEST <= length <= _PACKET_LIMIT:
                self._connection.cut()
                return
            if len(self._buffer) < 4 + length:
                return
            packet = bytes(self._buffer[4 : 4 + length])
            try:
                reply = self._reply(packet)
            except _UnansweredError as unanswered:
                self._stalled = unanswered.fault
                return
            del self._buffer[: 4 + length]
            self._channel.write(_string(reply))

    def _reply(self, packet: bytes) -> bytes:
        request = _Request(packet)
        kind = request.byte()
        if kind == sftp.FXP_INIT:
            return self._version()
        request_id = _UINT32.pack(request.uint32())
        try:
            if kind in _DENIED:
                raise self._deny(self._path(request), _DENIED[kind])
            handler = self._HANDLERS.get(kind)
            if handler is None:
                raise _StatusError(sftp.FX_OP_UNSUPPORTED, "Operation unsupported")
            answer_kind, body = handler(self, request)
        except _StatusError as failed:
            answer_kind, body = sftp.FXP_STATUS, _status(failed.code, failed.message)
        return _BYTE.pack(answer_kind) + request_id + body

    def _version(self) -> bytes:
        extensions = _string(_LIMITS) + _string(b"1") if self._behaviour.announce_limits else b""
        return _BYTE.pack(sftp.FXP_VERSION) + _UINT32.pack(_VERSION) + extensions

    # Reading.

    def _open(self, request: _Request) -> tuple[int, bytes]:
        path, flags = self._path(request), request.uint32()
        if flags != sftp.FXF_READ:
            return self._open_upload(path, flags)
        faults = self._take_faults("open", path)
        for fault in faults:
            self._refuse_by(fault, path)
        file = self._find(path)
        if file.kind is not Kind.FILE:
            raise self._deny(path, f"open a {file.kind}")
        self._record(EventKind.OPEN, path)
        return self._new_handle(_Reading(file, faults))

    def _read(self, request: _Request) -> tuple[int, bytes]:
        handle, offset, length = self._handle(request, _Reading), request.uint64(), request.uint32()
        length = min(length, self._behaviour.read_limit or _READ_LIMIT)
        for fault in handle.faults.copy():
            if offset < fault.at_byte:
                length = min(length, fault.at_byte - offset)
            else:
                length = self._apply(fault, handle, length)
        data = handle.file.body.read(offset, length)
        if not data:
            raise _StatusError(sftp.FX_EOF, "End of file")
        handle.sent += len(data)
        return sftp.FXP_DATA, _string(data)

    def _apply(self, fault: Fault, handle: _Reading, length: int) -> int:
        """Let *fault* take effect on a file; return how many bytes may be sent."""
        self._record(EventKind.FAULT, handle.file.path, fault.kind)
        if fault.kind == "truncate":
            return 0
        handle.faults.remove(fault)
        now = self._facility.clock().int_timestamp
        if fault.kind == "grow":
            handle.file.grow(fault.by, now)
        elif fault.kind == "rewrite":
            handle.file.rewrite(now)
        else:
            self._stop_answering(fault)
        return length

    def _stop_answering(self, fault: Fault) -> NoReturn:
        if fault.kind in _CUTS:
            self._connection.cut()
        raise _UnansweredError(fault)

    def _refuse_by(self, fault: Fault, path: bytes) -> None:
        """Refuse to open *path* where *fault* is of that kind."""
        if fault.kind in _REFUSALS:
            self._record(EventKind.FAULT, path, fault.kind)
            raise _StatusError(*_REFUSALS[fault.kind])

    # Uploading: new files in the key folder only (§4.2).

    def _open_upload(self, path: bytes, flags: int) -> tuple[int, bytes]:
        if flags & sftp.FXF_APPEND:
            raise self._deny(path, "append (endurance, §2.1)")
        if flags & ~_UPLOAD_FLAGS or not flags & sftp.FXF_WRITE or not flags & sftp.FXF_CREAT:
            raise self._deny(path, "modify")
        folder, _, name = path.rpartition(b"/")
        if folder != KEY_FOLDER.encode() or not name:
            raise self._deny(path, "upload")
        self._check_is_new(path)
        faults = self._take_faults("upload", path)
        for fault in faults:
            self._refuse_by(fault, path)
        return self._new_handle(_Uploading(path, faults))

    def _check_is_new(self, path: bytes) -> None:
        if not self._facility.may_upload(self._connection.account, path):
            raise self._deny(path, "overwrite")

    def _end_uploading(self, handle: _Uploading) -> None:
        self._break_upload(handle, "drop_upload")
        self._check_is_new(handle.path)
        self._facility.accept_upload(
            self._connection.account, self._connection.number, handle.path, bytes(handle.content)
        )
        self._break_upload(handle, "drop_after_upload")

    def _break_upload(self, handle: _Uploading, kind: str, received: float = float("inf")) -> None:
        """Cut the connection where a fault of that kind is due after so many bytes."""
        for fault in handle.faults:
            if fault.kind == kind and fault.at_byte < received:
                self._record(EventKind.FAULT, handle.path, kind)
                self._stop_answering(fault)

    def _write(self, request: _Request) -> tuple[int, bytes]:
        handle, offset, data = self._handle(request, _Uploading), request.uint64(), request.string()
        if offset != len(handle.content):
            raise self._deny(handle.path, "write elsewhere than at the end (resume)")
        handle.content += data
        self._break_upload(handle, "drop_upload", len(handle.content))
        return _OK

    def _close(self, request: _Request) -> tuple[int, bytes]:
        handle = self._opened(key := request.string())
        del self._handles[key]
        if isinstance(handle, _Reading):
            self._end_reading(handle)
        elif isinstance(handle, _Uploading):
            self._end_uploading(handle)
        return _OK

    def _end_reading(self, handle: _Reading) -> None:
        for fault in handle.faults:
            # A client that knows the size need not read at the end.
            if fault.kind == "drop" and fault.at_byte >= handle.file.size:
                self._apply(fault, handle, 0)
        self._record(EventKind.CLOSE, handle.file.path, f"{handle.sent} bytes")

    # Listing.

    def _open_folder(self, request: _Request) -> tuple[int, bytes]:
        path = self._path(request)
        faults = self._take_faults("list", path)
        for fault in faults:
            self._refuse_by(fault, path)
        folder = self._find(path)
        if folder.kind is not Kind.DIRECTORY:
            raise _StatusError(sftp.FX_NO_SUCH_FILE, "Not a folder")
        found = self._facility.listing(self._connection.account, path.decode())
        if path == KEY_FOLDER.encode():
            self._facility.keys.on_listed(self._connection.account)
        entries = [(file.name, file) for file in found]
        self._record(EventKind.LIST, path, f"{len(entries)} entries")
        if self._behaviour.list_dots:
            entries = [(b".", folder), (b"..", folder), *entries]
        return self._new_handle(_Listing(path, entries, faults))

    def _read_folder(self, request: _Request) -> tuple[int, bytes]:
        handle = self._handle(request, _Listing)
        count = _NAMES_PER_REPLY
        for fault in handle.faults.copy():
            count = min(count, fault.entries - handle.sent)
            if count <= 0:
                handle.faults.remove(fault)
                self._break_listing(handle, fault)
        entries = handle.entries[handle.sent : handle.sent + count]
        if not entries:
            raise _StatusError(sftp.FX_EOF, "End of folder")
        handle.sent += len(entries)
        names = (self._name(name, file) for name, file in entries)
        return sftp.FXP_NAME, _UINT32.pack(len(entries)) + b"".join(names)

    def _break_listing(self, handle: _Listing, fault: Fault) -> NoReturn:
        self._record(EventKind.FAULT, handle.path, fault.kind)
        if fault.kind == "listing_error":
            raise _StatusError(sftp.FX_FAILURE, "Failure")
        self._stop_answering(fault)

    def _name(self, name: bytes, file: ServedFile) -> bytes:
        return _string(name) + _string(_long_name(name, file)) + _attributes(file, self._behaviour.attributes)

    # Attributes and paths.

    def _stat(self, request: _Request) -> tuple[int, bytes]:
        return sftp.FXP_ATTRS, _attributes(self._find(self._path(request)), self._behaviour.stat_attributes)

    def _stat_handle(self, request: _Request) -> tuple[int, bytes]:
        file = self._handle(request, _Reading).file
        return sftp.FXP_ATTRS, _attributes(file, self._behaviour.stat_attributes)

    def _real_path(self, request: _Request) -> tuple[int, bytes]:
        path = self._path(request)
        return sftp.FXP_NAME, _UINT32.pack(1) + _string(path) * 2 + _UINT32.pack(0)

    def _path(self, request: _Request) -> bytes:
        """Return the next field as an absolute path without ``.`` and ``..``; a login starts at ``/``."""
        path = posixpath.normpath(b"/" + request.string())
        return b"/" + path.lstrip(b"/")

    def _find(self, path: bytes) -> ServedFile:
        try:
            return self._facility.find(self._connection.account, path)
        except FileNotFoundError:
            self._record(EventKind.MISSING, path)
            raise _StatusError(sftp.FX_NO_SUCH_FILE, "No such file") from None
        except PermissionError as denied:
            raise self._deny(path, str(denied)) from None

    # The rest.

    def _deny_handle(self, request: _Request) -> tuple[int, bytes]:
        raise self._deny(self._opened(request.string()).path, "fsetstat")

    def _extended(self, request: _Request) -> tuple[int, bytes]:
        name = request.string()
        if name == _LIMITS and self._behaviour.announce_limits:
            read = self._behaviour.read_limit or _READ_LIMIT
            return sftp.FXP_EXTENDED_REPLY, struct.pack(">4Q", _PACKET_LIMIT, read, _WRITE_LIMIT, 0)
        self._record(EventKind.DENIED, detail=f"extension {path_text(name)}")
        raise _StatusError(sftp.FX_OP_UNSUPPORTED, "Operation unsupported")

    def _deny(self, path: bytes, operation: str) -> _StatusError:
        self._record(EventKind.DENIED, path, operation)
        return _StatusError(sftp.FX_PERMISSION_DENIED, "Permission Denied")

    def _take_faults(self, moment: str, path: bytes) -> list[Fault]:
        account = self._connection.account
        return list(self._facility.faults.take(moment, path=path_text(path), account=account))

    def _new_handle(self, opened: _Opened) -> tuple[int, bytes]:
        self._last_handle += 1
        key = _UINT32.pack(self._last_handle)
        self._handles[key] = opened
        return sftp.FXP_HANDLE, _string(key)

    def _opened(self, key: bytes) -> _Opened:
        try:
            return self._handles[key]
        except KeyError:
            raise _StatusError(sftp.FX_FAILURE, "Invalid handle") from None

    def _handle(self, request: _Request, kind: type[_Kind]) -> _Kind:
        handle = self._opened(request.string())
        if not isinstance(handle, kind):
            raise _StatusError(sftp.FX_FAILURE, "Invalid handle")
        return handle

    def _record(self, kind: EventKind, path: bytes = b"", detail: str = "") -> None:
        self._facility.record(kind, self._connection.account, self._connection.number, path, detail)

    _HANDLERS: ClassVar[dict[int, Callable[[SftpSession, _Request], tuple[int, bytes]]]] = {
        sftp.FXP_OPEN: _open,
        sftp.FXP_READ: _read,
        sftp.FXP_WRITE: _write,
        sftp.FXP_CLOSE: _close,
        sftp.FXP_OPENDIR: _open_folder,
        sftp.FXP_READDIR: _read_folder,
        sftp.FXP_STAT: _stat,
        sftp.FXP_LSTAT: _stat,
        sftp.FXP_FSTAT: _stat_handle,
        sftp.FXP_REALPATH: _real_path,
        sftp.FXP_FSETSTAT: _deny_handle,
        sftp.FXP_EXTENDED: _extended,
    }


def _status(code: int, message: str) -> bytes:
    return _UINT32.pack(code) + _string(message.encode()) + _string(b"en")


_OK = (sftp.FXP_STATUS, _status(sftp.FX_OK, ""))


def _attributes(file: ServedFile, shown: Attributes) -> bytes:
    if shown == "none":
        return _UINT32.pack(0)
    flags = sftp.FILEXFER_ATTR_UIDGID | sftp.FILEXFER_ATTR_PERMISSIONS
    values = struct.pack(">III", _OWNER, _OWNER, file.mode)
    if shown != "no_size":
        flags |= sftp.FILEXFER_ATTR_SIZE
        values = _UINT64.pack(file.size) + values
    if shown != "no_mtime":
        flags |= sftp.FILEXFER_ATTR_ACMODTIME
        values += struct.pack(">II", file.mtime, file.mtime)
    return _UINT32.pack(flags) + values


def _long_name(name: bytes, file: ServedFile) -> bytes:
    # Nobody may parse it, so it need not say more than a person wants to see.
    return f"{stat.filemode(file.mode)}    1 rap      rap      {file.size:>12d} ".encode() + name
