"""The packets of SFTP version 3: their numbers, reading the fields of a request, writing replies.

Section numbers of these constants are those of draft-ietf-secsh-filexfer-02.
"""

from __future__ import annotations

import stat
import struct
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.testing._tree import ServedFile
    from airflow_provider_hkex_rap.testing.behaviour import Attributes

VERSION = 3
_BYTE = struct.Struct(">B")
_UINT32 = struct.Struct(">I")
_UINT64 = struct.Struct(">Q")
_OWNER = 1000
"""User id and group id of every file."""


class PacketType(IntEnum):
    """Types of packets (§3)."""

    INIT = 1
    VERSION = 2
    OPEN = 3
    CLOSE = 4
    READ = 5
    WRITE = 6
    LSTAT = 7
    FSTAT = 8
    SETSTAT = 9
    FSETSTAT = 10
    OPENDIR = 11
    READDIR = 12
    REMOVE = 13
    MKDIR = 14
    RMDIR = 15
    REALPATH = 16
    STAT = 17
    RENAME = 18
    READLINK = 19
    SYMLINK = 20
    STATUS = 101
    HANDLE = 102
    DATA = 103
    NAME = 104
    ATTRS = 105
    EXTENDED = 200
    EXTENDED_REPLY = 201


class Status(IntEnum):
    """Status codes (§7)."""

    OK = 0
    EOF = 1
    NO_SUCH_FILE = 2
    PERMISSION_DENIED = 3
    FAILURE = 4
    BAD_MESSAGE = 5
    OP_UNSUPPORTED = 8


class OpenFlag(IntFlag):
    """Flags of OPEN (§6.3)."""

    READ = 0x01
    WRITE = 0x02
    APPEND = 0x04
    CREATE = 0x08
    TRUNCATE = 0x10
    EXCLUSIVE = 0x20


class AttributeFlag(IntFlag):
    """Which attributes follow (§5)."""

    SIZE = 0x01
    UIDGID = 0x02
    PERMISSIONS = 0x04
    ACMODTIME = 0x08


Reply = tuple[PacketType, bytes]
"""The type of a reply and the fields after its request id."""


class StatusError(Exception):
    """The request gets a STATUS reply that is not OK.

    :param code: the status code.
    :param message: the error message for a person.
    """

    def __init__(self, code: Status, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class RequestReader:
    """Reads the fields of a request in their order.

    :param data: the request, without its length.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def _unpack(self, form: struct.Struct) -> int:
        if self._at + form.size > len(self._data):
            raise StatusError(Status.BAD_MESSAGE, "Request is too short")
        (value,) = form.unpack_from(self._data, self._at)
        self._at += form.size
        return int(value)

    def byte(self) -> int:
        """Read one byte.

        :raises StatusError: if the request ends before.
        """
        return self._unpack(_BYTE)

    def uint32(self) -> int:
        """Read a 32-bit number.

        :raises StatusError: if the request ends before.
        """
        return self._unpack(_UINT32)

    def uint64(self) -> int:
        """Read a 64-bit number.

        :raises StatusError: if the request ends before.
        """
        return self._unpack(_UINT64)

    def string(self) -> bytes:
        """Read a string.

        :raises StatusError: if the request ends before.
        """
        length = self.uint32()
        start, self._at = self._at, self._at + length
        if self._at > len(self._data):
            raise StatusError(Status.BAD_MESSAGE, "String is longer than its request")
        return self._data[start : self._at]


def pack_uint32(value: int) -> bytes:
    """Return a 32-bit number as it is sent."""
    return _UINT32.pack(value)


def pack_string(data: bytes) -> bytes:
    """Return a string as it is sent: its length, then its bytes. A packet has the same form."""
    return _UINT32.pack(len(data)) + data


def pack_reply(reply: Reply, request_id: int) -> bytes:
    """Return a reply without its length."""
    packet_type, body = reply
    return _BYTE.pack(packet_type) + _UINT32.pack(request_id) + body


def pack_version(*extensions: bytes) -> bytes:
    """Return the reply to INIT, which has no request id.

    :param extensions: the names of the extensions offered, each in version 1.
    """
    offered = b"".join(pack_string(name) + pack_string(b"1") for name in extensions)
    return _BYTE.pack(PacketType.VERSION) + _UINT32.pack(VERSION) + offered


def status_reply(code: Status, message: str = "") -> Reply:
    """Return a STATUS reply."""
    return PacketType.STATUS, _UINT32.pack(code) + pack_string(message.encode()) + pack_string(b"en")


def limits_reply(packet: int, read: int, write: int) -> Reply:
    """Return the reply to ``limits@openssh.com``: the most bytes of a packet, a READ and a WRITE.

    It announces no limit of open handles.
    """
    return PacketType.EXTENDED_REPLY, struct.pack(">4Q", packet, read, write, 0)


def pack_attributes(file: ServedFile, shown: Attributes) -> bytes:
    """Return the attributes of *file*.

    :param shown: the attributes that are not left out.
    """
    if shown == "none":
        return _UINT32.pack(0)
    flags = AttributeFlag.UIDGID | AttributeFlag.PERMISSIONS
    values = struct.pack(">III", _OWNER, _OWNER, file.mode)
    if shown != "no_size":
        flags |= AttributeFlag.SIZE
        values = _UINT64.pack(file.size) + values
    if shown != "no_mtime":
        flags |= AttributeFlag.ACMODTIME
        values += struct.pack(">II", file.mtime, file.mtime)
    return _UINT32.pack(flags) + values


def pack_name(name: bytes, file: ServedFile, shown: Attributes) -> bytes:
    """Return one entry of a listing.

    :param name: the name in the listing.
    :param file: the file, for its attributes.
    :param shown: the attributes that are not left out.
    """
    return pack_string(name) + pack_string(_long_name(name, file)) + pack_attributes(file, shown)


def _long_name(name: bytes, file: ServedFile) -> bytes:
    # For people only; the draft forbids clients to parse it.
    return f"{stat.filemode(file.mode)}    1 rap      rap      {file.size:>12d} ".encode() + name
