"""Downloads from asyncssh's own SFTP server, in variants that support less than the simulator."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from airflow_provider_hkex_rap.rap import algorithms
from airflow_provider_hkex_rap.rap.errors import RapTransferError, RapUnavailable

from ..simulated_rap import MTIME, by_name, connection_to, download, use


class NoFstat(asyncssh.SFTPServer):
    """A server that does not support FSTAT."""

    def fstat(self, file_obj: object) -> Any:
        raise asyncssh.SFTPOpUnsupported("no")


class DeniedFstat(asyncssh.SFTPServer):
    """A server that denies FSTAT."""

    def fstat(self, file_obj: object) -> Any:
        raise asyncssh.SFTPPermissionDenied("no")


class FailingFstat(asyncssh.SFTPServer):
    """A server that answers FSTAT with a failure, as some do if they do not support it."""

    def fstat(self, file_obj: object) -> Any:
        raise asyncssh.SFTPFailure("no")


class BareNames(asyncssh.SFTPServer):
    """A server whose listing gives sizes, the bare name as the long name, and 0 for the times."""

    async def scandir(self, path: bytes) -> Any:
        async for entry in super().scandir(path):
            yield asyncssh.SFTPName(
                entry.filename, entry.filename, asyncssh.SFTPAttrs(size=entry.attrs.size, atime=0, mtime=0)
            )


class FewHandles(asyncssh.SFTPServer):
    """A server that keeps at most twenty files open and does not announce the limit (fault 29)."""

    _open = 0

    def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> Any:
        if self._open == 20:
            raise asyncssh.SFTPFailure("too many open files")
        self._open += 1
        return super().open(path, pflags, attrs)

    def close(self, file_obj: Any) -> Any:
        self._open -= 1
        return super().close(file_obj)


class OneBadFile(asyncssh.SFTPServer):
    """A server that answers the OPEN of one file with an error that is meant for the whole session."""

    def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> Any:
        if path.endswith(b"bad.csv"):
            raise asyncssh.SFTPBadMessage("Bad message")
        return super().open(path, pflags, attrs)


class BrokenStream(asyncssh.SFTPServer):
    """A server that answers FSTAT with a packet that is too short."""

    def fstat(self, file_obj: object) -> Any:
        self.channel.write(b"\0\0\0\1\x65")
        return super().fstat(file_obj)


class Notice(asyncssh.SSHServer):
    """A server whose login banner is Chinese text, not encoded in UTF-8."""

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._conn = conn

    def begin_auth(self, username: str) -> bool:
        self._conn.send_auth_banner("只限授權用戶".encode("big5"))  # type: ignore[arg-type]
        return True


@cache
def _host_and_client_key() -> tuple[asyncssh.SSHKey, asyncssh.SSHKey]:
    """Generate the two keys once: that takes seconds."""
    return (
        asyncssh.generate_private_key("ssh-rsa", key_size=4096),
        asyncssh.generate_private_key("ssh-rsa", key_size=2048),
    )


@contextmanager
def serving(
    root: Path, sftp: type[asyncssh.SFTPServer], server: type[asyncssh.SSHServer] = Notice
) -> Iterator[dict[str, Any]]:
    """Serve a directory with the guide's algorithms until the block ends; yield a connection to it."""
    host_key, client_key = _host_and_client_key()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def listen() -> asyncssh.SSHAcceptor:
        return await asyncssh.listen(
            "127.0.0.1",
            0,
            server_factory=server,
            server_host_keys=[host_key],
            authorized_client_keys=asyncssh.import_authorized_keys(client_key.export_public_key().decode()),
            kex_algs=algorithms.KEY_EXCHANGE,
            encryption_algs=algorithms.CIPHERS,
            mac_algs=algorithms.MACS,
            sftp_factory=lambda chan: sftp(chan, chroot=str(root)),
        )

    listener = asyncio.run_coroutine_threadsafe(listen(), loop).result(30)
    try:
        yield connection_to(listener.get_port(), host_key, client_key)
    finally:
        loop.call_soon_threadsafe(listener.close)
        asyncio.run_coroutine_threadsafe(listener.wait_closed(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


@pytest.mark.parametrize(
    "sftp",
    [asyncssh.SFTPServer, NoFstat, DeniedFstat, FailingFstat, BareNames, FewHandles],
)
def test_a_day_lands_once(sftp: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "root/download/DCASS"
    folder.mkdir(parents=True)
    for number in range(100):
        # Some names begin with the letter that marks a directory or a link in a long name.
        path = folder / f"{'Rdl'[number % 3]}{number:03}_20261120.csv"
        path.write_bytes(bytes([number]) * number * 1_000)
        os.utime(path, (MTIME.int_timestamp, MTIME.int_timestamp))
    lake = tmp_path / "lake"
    with serving(tmp_path / "root", sftp) as connection:
        use(monkeypatch, connection)
        assert download(lake, folders="DCASS")["landed"] == 100
        assert download(lake, folders="DCASS")["already"] == 100
    assert {name for _, name in by_name(lake)} == {path.name for path in folder.iterdir()}
    for path in folder.iterdir():
        landed = next(lake.rglob(path.name))
        assert landed.read_bytes() == path.read_bytes()


def test_a_file_that_cannot_be_opened_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "root/download/DCASS"
    folder.mkdir(parents=True)
    for name in ("bad.csv", *(f"{number}_20261120.csv" for number in range(20))):
        (folder / name).write_bytes(name.encode())
        os.utime(folder / name, (MTIME.int_timestamp, MTIME.int_timestamp))
    lake = tmp_path / "lake"
    with serving(tmp_path / "root", OneBadFile) as connection:
        use(monkeypatch, connection)
        with pytest.raises(RapTransferError, match=r"20 files landed.*1 failed.*bad\.csv"):
            download(lake, folders="DCASS")
    assert len(by_name(lake)) == 20


def test_a_broken_stream_is_not_reported_as_a_second_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "root/download/DCASS"
    folder.mkdir(parents=True)
    (folder / "1_20261120.csv").write_bytes(b"1")
    with serving(tmp_path / "root", BrokenStream) as connection:
        use(monkeypatch, connection)
        with pytest.raises(RapUnavailable, match="Incomplete packet"):
            download(tmp_path / "lake", folders="DCASS")
