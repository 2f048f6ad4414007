"""Text of a server that a terminal or a log would act on: it reaches neither of them as it is."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from airflow_provider_hkex_rap.hooks.rap import RapHook
from airflow_provider_hkex_rap.rap.errors import RapError
from airflow_provider_hkex_rap.rap.files import RemoteFile
from airflow_provider_hkex_rap.rap.folders import Folder
from airflow_provider_hkex_rap.transport.session import RapSession, open_session

from ..simulated_rap import MTIME, download, login_to, use
from .test_other_servers import Notice, serving

CONTROLS = "\x1b]0;owned\x07\x1b[2J\u202egpj.exe\u2066\r\n2026-11-20 INFO forged\u2028\x00\x9b31m"
HOSTILE = CONTROLS + "x" * 180_000
NAME = b"\x1b[2J\xe2\x80\xaegpj\r\nINFO forged\xff.csv"


class Failing(asyncssh.SFTPServer):
    """A server that fails everything, with a hostile text."""

    def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> Any:
        raise asyncssh.SFTPFailure(HOSTILE)

    def stat(self, path: bytes) -> Any:
        raise asyncssh.SFTPFailure(HOSTILE)

    def scandir(self, path: bytes) -> Any:
        raise asyncssh.SFTPPermissionDenied(HOSTILE)


class Rude(Notice):
    """A server that sends a hostile banner."""

    def begin_auth(self, username: str) -> bool:
        self._conn.send_auth_banner(CONTROLS)
        return True


class Disconnecting(asyncssh.SFTPServer):
    """A server that ends the session with a hostile reason as soon as it is used."""

    def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> Any:
        self._end()

    def scandir(self, path: bytes) -> Any:
        self._end()

    def stat(self, path: bytes) -> Any:
        self._end()

    def _end(self) -> None:
        self.channel.get_connection().disconnect(asyncssh.DISC_SERVICE_NOT_AVAILABLE, HOSTILE[:9_000], "en")
        raise asyncssh.SFTPFailure("gone")


async def listing(session: RapSession) -> None:
    await session.list_folder(Folder.DCASS)


async def reading(session: RapSession) -> None:
    await session.read(RemoteFile(Folder.DCASS, NAME, 1, 1), lambda block: None)


async def key_listing(session: RapSession) -> None:
    await session.list_key_folder()


async def key_reading(session: RapSession) -> None:
    await session.read_key_file(NAME.decode(errors="replace"))


async def uploading(session: RapSession) -> None:
    await session.upload_key(b"key")


def assert_clean(text: str) -> None:
    assert text.isprintable(), text[:500]
    assert len(text) < 3000


@pytest.mark.parametrize("sftp", [Failing, Disconnecting])
@pytest.mark.parametrize("call", [listing, reading, key_listing, key_reading, uploading])
def test_an_error_of_a_session_is_printable_and_short(
    sftp: Any,
    call: Callable[[RapSession], Coroutine[Any, Any, None]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)

    async def run(connection: dict[str, Any]) -> RapError:
        with pytest.raises(RapError) as caught:
            async with open_session(login_to(connection)) as session:
                await call(session)
        return caught.value

    with serving(tmp_path, sftp, Rude) as connection:
        error = asyncio.run(run(connection))
    for text in (str(error), error.what, error.why, error.todo):
        assert_clean(text)
    assert "owned" in str(error)
    for record in caplog.records:
        assert_clean(record.getMessage())


def test_the_statuses_that_the_hooks_methods_pass_on_are_printable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(tmp_path, Failing, Rude) as connection:
        use(monkeypatch, connection)
        with pytest.raises(asyncssh.SFTPFailure, match="owned") as caught:
            asyncio.run(RapHook().path_exists("/download/DCASS/x"))
        assert_clean(str(caught.value))
        assert_clean(caught.value.reason)


def test_names_of_files_are_printable_in_errors(tmp_path: Path) -> None:
    folder = tmp_path / "download/DCASS"
    folder.mkdir(parents=True)
    Path(os.fsdecode(bytes(folder) + b"/" + NAME)).write_bytes(b"1")

    class Unreadable(asyncssh.SFTPServer):
        def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> Any:
            raise asyncssh.SFTPFailure("no")

    async def run(connection: dict[str, Any]) -> RapError:
        async with open_session(login_to(connection)) as session:
            (file,) = await session.list_folder(Folder.DCASS)
            assert file.name == NAME
            with pytest.raises(RapError) as caught:
                await session.read(file, lambda block: None)
        return caught.value

    with serving(tmp_path, Unreadable) as connection:
        error = asyncio.run(run(connection))
    assert_clean(str(error))
    assert_clean(error.what)
    assert "forged%FF.csv" in str(error)


def test_a_download_logs_and_returns_hostile_names_in_printable_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "root/download/DCASS"
    folder.mkdir(parents=True)
    names = [NAME, "TP\u202e001\u2028_20261120.csv".encode(), b"TP001_20261120.csv"]

    class Listing(asyncssh.SFTPServer):
        """A server that lists names besides, which no directory can have."""

        async def scandir(self, path: bytes) -> Any:
            async for entry in super().scandir(path):
                yield entry
            for part in (b"1_", b"1", b"N", b"(1)"):
                yield asyncssh.SFTPName(part * 50_000, b"", asyncssh.SFTPAttrs(size=1, mtime=1))

    for name in names:
        path = os.fsdecode(bytes(folder) + b"/" + name)
        Path(path).write_bytes(b"1")
        os.utime(path, (MTIME.int_timestamp, MTIME.int_timestamp))
    caplog.set_level(logging.INFO, "airflow_provider_hkex_rap")
    with serving(tmp_path / "root", Listing) as connection:
        use(monkeypatch, connection)
        summary = download(tmp_path / "lake", folders="DCASS")
    assert (summary["landed"], summary["quarantined"]) == (2, 5)
    assert summary["by_report"] == {"DCASS": {"TP001": 1, "TP\\u202e001\\u2028": 1}}
    assert "forged" in caplog.text
    for record in caplog.records:
        assert_clean(record.getMessage())
