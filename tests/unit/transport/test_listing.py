"""What an entry of a listing is, by its mode or by the line that a server writes for people to read."""

from __future__ import annotations

import stat

import asyncssh
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_hkex_rap.rap.files import Kind
from airflow_provider_hkex_rap.rap.folders import Folder
from airflow_provider_hkex_rap.transport.listing import remote_file

KINDS = {
    "-": Kind.FILE,
    "d": Kind.DIRECTORY,
    "l": Kind.SYMLINK,
    "s": Kind.OTHER,
    "p": Kind.OTHER,
    "b": Kind.OTHER,
    "c": Kind.OTHER,
    "D": Kind.OTHER,
}
modes = st.text("-rwxXsStTlL", min_size=8, max_size=10)
names = st.binary(min_size=1, max_size=40).filter(lambda name: b"\0" not in name and b"/" not in name)


def kind_of(name: bytes, long_name: bytes, permissions: int | None = None) -> Kind:
    attrs = asyncssh.SFTPAttrs(size=1, permissions=permissions)
    return remote_file(Folder.DCASS, asyncssh.SFTPName(name, long_name, attrs)).kind


@given(st.sampled_from(list(KINDS)), modes, st.sampled_from([" ", "+ ", ". ", "@ ", "\t", ""]), names)
def test_a_long_name_says_the_kind_if_the_attributes_do_not(
    letter: str, mode: str, separator: str, name: bytes
) -> None:
    line = f"{letter}{mode}{separator}".encode()
    if separator:
        line += b"  2 rap rap 4096 Nov 20 21:40 " + name
    if line != name:
        for permissions in (None, 0, 0o755):
            assert kind_of(name, line, permissions) is KINDS[letter]


@pytest.mark.parametrize(
    "line",
    [
        b"drwxr-xr-x    1 0        0               0 Nov 20 21:40 archive",
        b"drwxr-xr-  2 rap rap 4096 Nov 20 21:40 archive",
        b"drwxr-xr-x+ 2 rap rap 4096 Nov 20 21:40 archive",
        b"drwxrwsr-t@ 2 rap rap 4096 Nov 20 21:40 archive",
        b"drwxr-xr-x.\t2 rap rap 4096 Nov 20 21:40 archive",
        b"d--------- 1 - - 0 20-Nov-2026 archive",
        b"drwxrwxrwx",
    ],
)
def test_directories_as_servers_write_them(line: bytes) -> None:
    assert kind_of(b"archive", line) is Kind.DIRECTORY


@given(st.sampled_from(list(KINDS)), modes, names)
def test_a_bare_name_that_looks_like_a_line_is_a_file(letter: str, mode: str, rest: bytes) -> None:
    name = f"{letter}{mode} ".encode() + rest
    assert kind_of(name, name) is Kind.FILE


@given(names)
def test_a_name_that_begins_with_the_letter_of_a_kind_is_a_file(rest: bytes) -> None:
    for letter in b"dlspbcD":
        name = bytes([letter]) + rest
        assert kind_of(name, name) is Kind.FILE
        assert kind_of(name, b"") is Kind.FILE
        assert kind_of(name, b"-rw-r--r-- 1 rap rap 4096 Nov 20 21:40 " + name) is Kind.FILE


@pytest.mark.parametrize("name", [b"daily_20261120.csv", b"sx", b"login-tls.txt", b"dr-xls.csv", b"plx"])
def test_other_long_names_are_of_files(name: bytes) -> None:
    assert kind_of(name, b"1234 " + name) is Kind.FILE
    assert kind_of(name + b".gz", name) is Kind.FILE


@given(st.sampled_from([stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFBLK]))
def test_attributes_count_more_than_a_long_name(file_type: int) -> None:
    expected = {stat.S_IFREG: Kind.FILE, stat.S_IFDIR: Kind.DIRECTORY, stat.S_IFLNK: Kind.SYMLINK}
    for letter in KINDS:
        line = f"{letter}rwxr-xr-x 2 rap rap 4096 Nov 20 21:40 name".encode()
        assert kind_of(b"name", line, file_type | 0o644) is expected.get(file_type, Kind.OTHER)
