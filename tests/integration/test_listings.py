"""Long listings from servers that answer READDIRs one after another, side by side, or only one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncssh
import pytest
from asyncssh.constants import FXP_CLOSE, FXP_READDIR
from asyncssh.sftp import SFTPServerHandler

from airflow_provider_hkex_rap.rap.errors import RapPermissionDenied, RapTransferError
from airflow_provider_hkex_rap.rap.folders import Folder
from airflow_provider_hkex_rap.transport.session import open_session

from ..simulated_rap import login_to
from .test_odd_answers import HalfStatus
from .test_other_servers import serving

if TYPE_CHECKING:
    from asyncssh.packet import SSHPacket

NAMES = [f"R{number:04}_20261120.csv" for number in range(1_000)]
"""Twenty answers of fifty."""


class Cursor:
    """An open directory of a server that gives fifty names at a time."""

    is_first = False
    """Whether the server has opened no directory before."""
    keeps_others_out = False
    """Whether the server refuses to open a directory while a READDIR of this one is under way."""

    def __init__(self) -> None:
        self.at = self.readdirs = self.under_way = 0

    def __aiter__(self) -> Cursor:
        return self

    async def answer(self) -> Sequence[str]:
        names = NAMES[self.at : self.at + 50]
        self.at += 50
        if not names:
            raise asyncssh.SFTPEOFError
        return names


class WaitsForMore(Cursor):
    """Answers the first READDIR once ten more have come."""

    async def answer(self) -> Sequence[str]:
        while self.readdirs <= 10:
            await asyncio.sleep(0)
        return await super().answer()


class LastFirst(Cursor):
    """Answers the READDIRs that have come in reverse, so that the end is not the last answer."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[int] = []

    async def answer(self) -> Sequence[str]:
        number = self.readdirs
        self.waiting.append(number)
        # The requests that have arrived already are processed meanwhile.
        await asyncio.sleep(0)
        while self.waiting[-1] != number:
            await asyncio.sleep(0)
        try:
            return await super().answer()
        finally:
            self.waiting.pop()


class TakesOne(Cursor):
    """Refuses a READDIR while another is under way."""

    async def answer(self) -> Sequence[str]:
        if self.under_way > 1:
            raise asyncssh.SFTPFailure("one at a time")
        await asyncio.sleep(0)
        return await super().answer()


class TakesOneInAll(Cursor):
    """Refuses a READDIR while another is under way, also if that is one of another directory."""

    busy = False

    async def answer(self) -> Sequence[str]:
        if type(self).busy:
            raise asyncssh.SFTPFailure("one at a time")
        type(self).busy = True
        try:
            await asyncio.sleep(0)
            return await super().answer()
        finally:
            type(self).busy = False


class RefusesFirst(Cursor):
    """Takes one READDIR at a time, and not the one that came first."""

    async def answer(self) -> Sequence[str]:
        if self.is_first and self.readdirs == 1:
            while self.readdirs == 1:
                await asyncio.sleep(0)
            raise asyncssh.SFTPPermissionDenied("one at a time")
        return await super().answer()


class Lingers(Cursor):
    """Refuses the second READDIR of several, and processes the third one for a while."""

    keeps_others_out = True

    async def answer(self) -> Sequence[str]:
        if self.is_first and self.readdirs == 2:
            raise asyncssh.SFTPFailure("one at a time")
        if self.is_first and self.readdirs == 3:
            # A client that does not wait for this answer opens the directory again meanwhile.
            await asyncio.sleep(0.2)
        return await super().answer()


class Skips(Cursor):
    """Moves the cursor by all READDIRs that are under way, and gives them the same names."""

    async def answer(self) -> Sequence[str]:
        at = self.at
        await asyncio.sleep(0)
        self.at = at
        names = await super().answer()
        self.at = at + 50 * self.under_way
        return names


class EndsMeanwhile(Cursor):
    """Answers an end to a READDIR that came while it was at another one, after that one's answer."""

    is_busy = False

    async def answer(self) -> Sequence[str]:
        if self.is_busy:
            while self.is_busy:
                await asyncio.sleep(0)
            raise asyncssh.SFTPEOFError
        self.is_busy = True
        try:
            # The requests that have arrived already are processed meanwhile.
            await asyncio.sleep(0)
            return await super().answer()
        finally:
            self.is_busy = False


class Hides(Cursor):
    """Answers thirty times without names before it goes on, as if it hid them."""

    async def answer(self) -> Sequence[str]:
        return [] if 3 < self.readdirs <= 33 else await super().answer()


class NeverEnds(Cursor):
    """Answers without names at the end, and after it."""

    async def answer(self) -> Sequence[str]:
        try:
            return await super().answer()
        except asyncssh.SFTPEOFError:
            return []


class Denies(Cursor):
    """Denies the directory by its first READDIR, as servers do that open it only then."""

    async def answer(self) -> Sequence[str]:
        raise asyncssh.SFTPPermissionDenied("not subscribed")


class BreaksOff(Cursor):
    """Fails after ten answers, and says then that this was all."""

    async def answer(self) -> Sequence[str]:
        if self.at == 500:
            self.at = len(NAMES)
            raise asyncssh.SFTPFailure("disk error")
        return await super().answer()


def listed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[Cursor],
    opened: list[Cursor],
    *,
    at_once: int = 512,
    together: bool = False,
) -> list[list[str]]:
    """Return what two listings in one session give, in the order of names; *opened* gets the directories."""

    class Server(asyncssh.SFTPServer):
        def scandir(self, path: bytes) -> Any:
            if any(cursor.keeps_others_out and cursor.under_way for cursor in opened):
                raise asyncssh.SFTPFailure("a READDIR is under way")
            cursor = kind()
            cursor.is_first = not opened
            opened.append(cursor)
            return cursor

    async def readdir(self: SFTPServerHandler, packet: SSHPacket) -> tuple[list[asyncssh.SFTPName], bool]:
        cursor: Any = self._dir_handles[packet.get_string()]
        cursor.readdirs += 1
        cursor.under_way += 1
        try:
            names = await cursor.answer()
        finally:
            cursor.under_way -= 1
        attrs = asyncssh.SFTPAttrs(size=1, mtime=1_763_600_000, permissions=0o100644)
        return [asyncssh.SFTPName(name.encode(), name.encode(), attrs) for name in names], False

    async def list_twice(connection: dict[str, Any]) -> list[list[str]]:
        async with open_session(login_to(connection), at_once) as session:
            if together:
                found = await asyncio.gather(*(session.list_folder(Folder.DCASS) for _ in range(2)))
            else:
                found = [await session.list_folder(Folder.DCASS) for _ in range(2)]
            return [sorted(file.text for file in files) for files in found]

    monkeypatch.setitem(SFTPServerHandler._packet_handlers, FXP_READDIR, readdir)
    (tmp_path / "download/DCASS").mkdir(parents=True)
    with serving(tmp_path, Server) as connection:
        return asyncio.run(list_twice(connection))


@pytest.fixture
def opened() -> list[Cursor]:
    """Return the list that gets the directories which a server opens."""
    return []


@pytest.mark.usefixtures("side_by_side")
@pytest.mark.parametrize("kind", [WaitsForMore, LastFirst, EndsMeanwhile])
def test_several_readdirs_are_outstanding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[Cursor], kind: type[Cursor]
) -> None:
    assert listed(tmp_path, monkeypatch, kind, opened) == [NAMES, NAMES]
    assert len(opened) == 2


@pytest.mark.usefixtures("side_by_side")
@pytest.mark.parametrize("kind", [TakesOne, RefusesFirst, Lingers, Skips])
def test_a_server_that_fails_at_several_readdirs_gets_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[Cursor], kind: type[Cursor]
) -> None:
    assert listed(tmp_path, monkeypatch, kind, opened) == [NAMES, NAMES]
    # The second listing does not try several again.
    assert [cursor.readdirs for cursor in opened[1:]] == [21, 21]


@pytest.mark.usefixtures("side_by_side")
def test_listings_of_one_readdir_at_a_time_take_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[Cursor]
) -> None:
    assert listed(tmp_path, monkeypatch, TakesOneInAll, opened, together=True) == [NAMES, NAMES]
    # Each was tried with several, and then listed at once: no refusal was taken for one of too many handles.
    assert len(opened) <= 4


@pytest.mark.usefixtures("side_by_side")
def test_a_session_of_few_requests_lists_with_one_readdir_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[Cursor]
) -> None:
    assert listed(tmp_path, monkeypatch, TakesOne, opened, at_once=16) == [NAMES, NAMES]
    assert [cursor.readdirs for cursor in opened] == [21, 21]


@pytest.mark.parametrize("at_once", [1, 16, 512])
@pytest.mark.parametrize("kind", [Cursor, Hides])
def test_every_name_is_listed_with_any_number_of_requests_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[Cursor], kind: type[Cursor], at_once: int
) -> None:
    assert listed(tmp_path, monkeypatch, kind, opened, at_once=at_once) == [NAMES, NAMES]
    assert len(opened) == 2


def test_a_folder_that_is_denied_by_its_first_readdir_is_asked_for_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[Cursor]
) -> None:
    with pytest.raises(RapPermissionDenied, match="not subscribed"):
        listed(tmp_path, monkeypatch, Denies, opened)
    assert [cursor.readdirs for cursor in opened] == [12, 1]


def test_a_listing_that_breaks_off_is_an_error_although_the_end_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[Cursor]
) -> None:
    with pytest.raises(RapTransferError, match="broke off after 500 entries: disk error"):
        listed(tmp_path, monkeypatch, BreaksOff, opened)


def test_an_answer_to_close_that_cannot_be_read_does_not_hide_why_a_listing_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[Cursor]
) -> None:
    async def close(self: SFTPServerHandler, packet: SSHPacket) -> None:
        raise HalfStatus("no")

    monkeypatch.setitem(SFTPServerHandler._packet_handlers, FXP_CLOSE, close)
    with pytest.raises(RapTransferError, match="broke off after 500 entries: disk error"):
        listed(tmp_path, monkeypatch, BreaksOff, opened)


@pytest.mark.parametrize("at_once", [16, 512])
def test_answers_without_names_are_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[Cursor], at_once: int
) -> None:
    with pytest.raises(RapTransferError, match="does not end"):
        listed(tmp_path, monkeypatch, NeverEnds, opened, at_once=at_once)
