"""The SFTP server of the simulated RAP answers any request, also those that no client should send."""

import struct

import pendulum
import pytest
from asyncssh import constants as sftp
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_hkex_rap.rap.folders import KEY_FOLDER, Folder
from airflow_provider_hkex_rap.testing import RapSimulator
from airflow_provider_hkex_rap.testing._sftp import SftpSession

ACCOUNT = "DCXYZ001"
NOW = pendulum.datetime(2026, 11, 20, 23, 40, tz="Asia/Hong_Kong")
CONTENT = bytes(range(256))
ANSWERS = {sftp.FXP_STATUS, sftp.FXP_HANDLE, sftp.FXP_DATA, sftp.FXP_NAME, sftp.FXP_ATTRS}


class Wire:
    """Both ends of one login without a network."""

    def __init__(self) -> None:
        self.rap = RapSimulator((ACCOUNT,), NOW)
        self.rap.put(Folder.DCASS, "TP001", CONTENT)
        self.account, self.number, self.sessions, self.is_cut = ACCOUNT, 1, set(), False
        self.answers = bytearray()
        self.session = SftpSession(self.rap._facility, self)
        self.session.connection_made(self)

    def write(self, data: bytes) -> None:
        self.answers += data

    def cut(self) -> None:
        self.is_cut = True

    def packets(self) -> list[bytes]:
        found, rest = [], bytes(self.answers)
        while rest:
            length = int.from_bytes(rest[:4], "big")
            found.append(rest[4 : 4 + length])
            rest = rest[4 + length :]
        return found


def string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def packet(kind: int, number: int, body: bytes) -> bytes:
    return string(struct.pack(">BI", kind, number) + body)


PATHS = (
    st.sampled_from([b"/", b"/download/DCASS", b"/download/DCASS/TP001", KEY_FOLDER.encode() + b"/new"])
    | st.binary()
)
HANDLES = st.integers(0, 6).map(lambda number: struct.pack(">I", number)) | st.binary()
FIELDS = st.one_of(
    (PATHS | HANDLES).map(string),
    st.integers(0, 2**32 - 1).map(lambda number: struct.pack(">I", number)),
    st.integers(0, 63).map(lambda number: struct.pack(">I", number)),
    st.integers(0, 2**64 - 1).map(lambda number: struct.pack(">Q", number)),
    st.binary(max_size=20),
)
BODIES = st.lists(FIELDS, max_size=4).map(b"".join)
KINDS = st.integers(sftp.FXP_OPEN, sftp.FXP_SYMLINK) | st.integers(2, 255)
REQUESTS = st.lists(st.tuples(KINDS, BODIES), max_size=12)


@given(REQUESTS, st.data())
def test_every_request_is_answered_once_and_changes_no_report(requests, data):
    wire = Wire()
    sent = b"".join(packet(kind, number, body) for number, (kind, body) in enumerate(requests))
    while sent:
        size = data.draw(st.integers(1, len(sent)))
        wire.session.data_received(sent[:size], None)
        sent = sent[size:]
    answers = wire.packets()
    assert [int.from_bytes(answer[1:5], "big") for answer in answers] == list(range(len(requests)))
    assert {answer[0] for answer in answers} <= ANSWERS
    assert [file.content for file in wire.rap.files(Folder.DCASS)] == [CONTENT]
    assert not wire.is_cut


@given(st.binary(max_size=30))
def test_nothing_that_arrives_breaks_the_session(junk):
    wire = Wire()
    wire.session.data_received(junk, None)
    wire.session.connection_lost(None)


@given(st.lists(st.sampled_from([b"..", b".", b"", b"download", b"DCASS", b"TP001", b"x"])))
def test_paths_are_resolved_within_the_root(parts):
    wire = Wire()
    wire.session.data_received(packet(sftp.FXP_REALPATH, 7, string(b"/".join(parts))), None)
    (answer,) = wire.packets()
    length = int.from_bytes(answer[9:13], "big")
    resolved = answer[13 : 13 + length]
    expected: list[bytes] = []
    for part in parts:
        if part == b"..":
            del expected[-1:]
        elif part not in (b"", b"."):
            expected.append(part)
    assert resolved == b"/" + b"/".join(expected)


def test_init_is_answered_with_version_3():
    wire = Wire()
    wire.session.data_received(string(struct.pack(">BI", sftp.FXP_INIT, 6)), None)
    assert wire.packets() == [struct.pack(">BI", sftp.FXP_VERSION, 3)]


@pytest.mark.parametrize("length", [0, 4, 2**32 - 1])
def test_a_request_of_an_impossible_length_ends_the_connection(length):
    wire = Wire()
    wire.session.data_received(struct.pack(">I", length) + bytes(8), None)
    assert wire.is_cut
