"""SFTP version 3 as RAP speaks it: list folders, read files, upload a new key, nothing else (§2.1, §4.2)."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar

import asyncssh

from airflow_provider_hkex_rap.rap.files import Kind
from airflow_provider_hkex_rap.rap.folders import KEY_FOLDER
from airflow_provider_hkex_rap.testing._sftp_handles import (
    READ_LIMIT,
    Connection,
    NewFile,
    OpenFile,
    OpenFolder,
    UnansweredError,
    Visitor,
    check_is_new,
)
from airflow_provider_hkex_rap.testing._sftp_packets import (
    OpenFlag,
    PacketType,
    Reply,
    RequestReader,
    Status,
    StatusError,
    limits_reply,
    pack_attributes,
    pack_name,
    pack_reply,
    pack_string,
    pack_uint32,
    pack_version,
    status_reply,
)
from airflow_provider_hkex_rap.testing.events import EventKind, path_text

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.testing._facility import Facility
    from airflow_provider_hkex_rap.testing.faults import Fault

_SHORTEST, _PACKET_LIMIT = 5, 1 << 20
"""Bytes of the shortest and of the longest request."""
_WRITE_LIMIT = 255 << 10
_LIMITS = b"limits@openssh.com"
_UPLOAD_FLAGS = OpenFlag.WRITE | OpenFlag.CREATE | OpenFlag.TRUNCATE | OpenFlag.EXCLUSIVE
_DENIED: dict[int, str] = {
    PacketType.SETSTAT: "setstat",
    PacketType.REMOVE: "remove",
    PacketType.MKDIR: "mkdir",
    PacketType.RMDIR: "rmdir",
    PacketType.RENAME: "rename",
    PacketType.SYMLINK: "symlink",
    PacketType.READLINK: "readlink",
}
"""Operations on a path that RAP always denies (§4.2)."""

_Handle = OpenFile | NewFile | OpenFolder
_HandleT = TypeVar("_HandleT", OpenFile, NewFile, OpenFolder)


class SftpConnection(Connection, Protocol):
    """The SSH connection under an SFTP session, with its sessions."""

    sessions: set[SftpSession]
    """The sessions that are open."""


class SftpSession(asyncssh.SSHServerSession[bytes]):
    """One SFTP channel of a login; it answers the requests in their order.

    :param facility: the state of the simulated RAP.
    :param connection: the connection of the login.
    """

    def __init__(self, facility: Facility, connection: SftpConnection) -> None:
        self._faults = facility.faults
        self._connection = connection
        self._visitor = Visitor(facility, connection)
        self._requests = RequestHandler(self._visitor)
        self._buffer = bytearray()
        self._stalled: Fault | None = None

    # A login may ask for the SFTP subsystem, and for nothing else.

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

    def _refuse(self, request: str) -> bool:
        self._visitor.record(EventKind.DENIED, detail=request)
        return False

    # Requests arrive as a stream of bytes.

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        self._buffer += data
        self.answer()

    def eof_received(self) -> bool:
        self._channel.exit(0)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._requests.close_all()
        self._buffer.clear()
        self._connection.sessions.discard(self)

    def answer(self) -> None:
        """Answer every complete request, up to one that a fault stalls."""
        if self._stalled is not None and not self._faults.is_released(self._stalled):
            return
        self._stalled = None
        while len(self._buffer) >= 4:
            length = int.from_bytes(self._buffer[:4], "big")
            if not _SHORTEST <= length <= _PACKET_LIMIT:
                self._connection.cut()
                return
            if len(self._buffer) < 4 + length:
                return
            request = bytes(self._buffer[4 : 4 + length])
            try:
                reply = self._requests.reply_to(request)
            except UnansweredError as unanswered:
                self._stalled = unanswered.fault
                return
            del self._buffer[: 4 + length]
            self._channel.write(pack_string(reply))


class RequestHandler:
    """Replies to the SFTP requests of one login, and keeps its open handles.

    :param visitor: the login.
    """

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        self._facility = visitor.facility
        self._server = visitor.facility.server
        self._handles: dict[bytes, _Handle] = {}
        self._last_handle = 0

    def reply_to(self, request: bytes) -> bytes:
        """Return the reply to one request; both are without their length.

        :raises UnansweredError: if a fault leaves the request without a reply.
        """
        fields = RequestReader(request)
        packet_type = fields.byte()
        if packet_type == PacketType.INIT:
            return pack_version(*([_LIMITS] if self._server.announce_limits else []))
        request_id = fields.uint32()
        try:
            if packet_type in _DENIED:
                raise self._visitor.denial(_path(fields), _DENIED[packet_type])
            handler = self._HANDLERS.get(packet_type)
            if handler is None:
                raise StatusError(Status.OP_UNSUPPORTED, "Operation unsupported")
            reply = handler(self, fields)
        except StatusError as failed:
            reply = status_reply(failed.code, failed.message)
        return pack_reply(reply, request_id)

    def close_all(self) -> None:
        """Forget the open handles; an upload that was not closed does not happen."""
        self._handles.clear()

    # Files. Only the key folder takes new files (§4.2).

    def _open(self, fields: RequestReader) -> Reply:
        path, flags = _path(fields), fields.uint32()
        if flags != OpenFlag.READ:
            return self._open_upload(path, flags)
        faults = self._visitor.take_faults("open", path)
        file = self._visitor.find(path)
        if file.kind is not Kind.FILE:
            raise self._visitor.denial(path, f"open a {file.kind}")
        self._visitor.record(EventKind.OPEN, path)
        return self._new_handle(OpenFile(self._visitor, file, faults))

    def _open_upload(self, path: bytes, flags: int) -> Reply:
        if flags & OpenFlag.APPEND:
            raise self._visitor.denial(path, "append (endurance, §2.1)")
        if flags & ~_UPLOAD_FLAGS or not flags & OpenFlag.WRITE or not flags & OpenFlag.CREATE:
            raise self._visitor.denial(path, "modify")
        folder, _, name = path.rpartition(b"/")
        if folder != KEY_FOLDER.encode() or not name:
            raise self._visitor.denial(path, "upload")
        check_is_new(self._visitor, path)
        faults = self._visitor.take_faults("upload", path)
        return self._new_handle(NewFile(self._visitor, path, faults))

    def _read(self, fields: RequestReader) -> Reply:
        file = self._handle(fields, OpenFile)
        offset, length = fields.uint64(), fields.uint32()
        return PacketType.DATA, pack_string(file.read(offset, length))

    def _write(self, fields: RequestReader) -> Reply:
        file = self._handle(fields, NewFile)
        offset, data = fields.uint64(), fields.string()
        file.write(offset, data)
        return status_reply(Status.OK)

    def _close(self, fields: RequestReader) -> Reply:
        key = fields.string()
        handle = self._find_handle(key)
        del self._handles[key]
        handle.close()
        return status_reply(Status.OK)

    # Folders.

    def _open_folder(self, fields: RequestReader) -> Reply:
        path = _path(fields)
        faults = self._visitor.take_faults("list", path)
        folder = self._visitor.find(path)
        if folder.kind is not Kind.DIRECTORY:
            raise StatusError(Status.NO_SUCH_FILE, "Not a folder")
        found = self._facility.listing(self._visitor.account, path.decode())
        if path == KEY_FOLDER.encode():
            self._facility.keys.on_listed(self._visitor.account)
        entries = [(file.name, file) for file in found]
        self._visitor.record(EventKind.LIST, path, f"{len(entries)} entries")
        if self._server.list_dots:
            entries = [(b".", folder), (b"..", folder), *entries]
        return self._new_handle(OpenFolder(self._visitor, path, entries, faults))

    def _read_folder(self, fields: RequestReader) -> Reply:
        entries = self._handle(fields, OpenFolder).read()
        names = (pack_name(name, file, self._server.attributes) for name, file in entries)
        return PacketType.NAME, pack_uint32(len(entries)) + b"".join(names)

    # Attributes, paths and extensions.

    def _stat(self, fields: RequestReader) -> Reply:
        file = self._visitor.find(_path(fields))
        return PacketType.ATTRS, pack_attributes(file, self._server.stat_attributes)

    def _stat_handle(self, fields: RequestReader) -> Reply:
        file = self._handle(fields, OpenFile).file
        return PacketType.ATTRS, pack_attributes(file, self._server.stat_attributes)

    def _deny_handle(self, fields: RequestReader) -> Reply:
        raise self._visitor.denial(self._find_handle(fields.string()).path, "fsetstat")

    def _real_path(self, fields: RequestReader) -> Reply:
        return PacketType.NAME, pack_uint32(1) + pack_string(_path(fields)) * 2 + pack_uint32(0)

    def _extended(self, fields: RequestReader) -> Reply:
        name = fields.string()
        if name == _LIMITS and self._server.announce_limits:
            return limits_reply(_PACKET_LIMIT, self._server.read_limit or READ_LIMIT, _WRITE_LIMIT)
        self._visitor.record(EventKind.DENIED, detail=f"extension {path_text(name)}")
        raise StatusError(Status.OP_UNSUPPORTED, "Operation unsupported")

    # Handles.

    def _new_handle(self, handle: _Handle) -> Reply:
        self._last_handle += 1
        key = pack_uint32(self._last_handle)
        self._handles[key] = handle
        return PacketType.HANDLE, pack_string(key)

    def _find_handle(self, key: bytes) -> _Handle:
        try:
            return self._handles[key]
        except KeyError:
            raise StatusError(Status.FAILURE, "Invalid handle") from None

    def _handle(self, fields: RequestReader, kind: type[_HandleT]) -> _HandleT:
        handle = self._find_handle(fields.string())
        if not isinstance(handle, kind):
            raise StatusError(Status.FAILURE, "Invalid handle")
        return handle

    _HANDLERS: ClassVar[dict[int, Callable[[RequestHandler, RequestReader], Reply]]] = {
        PacketType.OPEN: _open,
        PacketType.READ: _read,
        PacketType.WRITE: _write,
        PacketType.CLOSE: _close,
        PacketType.OPENDIR: _open_folder,
        PacketType.READDIR: _read_folder,
        PacketType.STAT: _stat,
        PacketType.LSTAT: _stat,
        PacketType.FSTAT: _stat_handle,
        PacketType.REALPATH: _real_path,
        PacketType.FSETSTAT: _deny_handle,
        PacketType.EXTENDED: _extended,
    }


def _path(fields: RequestReader) -> bytes:
    """Return the next field as an absolute path without ``.`` and ``..``; a login starts at ``/``."""
    path = posixpath.normpath(b"/" + fields.string())
    return b"/" + path.lstrip(b"/")
