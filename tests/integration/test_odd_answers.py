"""Downloads from servers that take few requests at once, misstate sizes, or answer without an end."""

from __future__ import annotations

import asyncio
import gc
import os
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import asyncssh
import pendulum
import pytest
from asyncssh.sftp import SFTPLimits, SFTPServerHandler

from airflow_provider_hkex_rap.lake import reading as lake_reading
from airflow_provider_hkex_rap.rap.errors import (
    RapError,
    RapSessionSuperseded,
    RapTransferError,
    RapUnavailable,
)
from airflow_provider_hkex_rap.rap.folders import Folder
from airflow_provider_hkex_rap.transport import listing, reading, session

from ..simulated_rap import MTIME, by_name, download, entries, in_a_run, login_to, use
from .test_other_servers import serving


class FewHandles(asyncssh.SFTPServer):
    """A server that keeps few files open, and denies one more as it would a file that may not be read."""

    most = 10
    refusal: type[asyncssh.SFTPError] = asyncssh.SFTPPermissionDenied
    opened: Counter[bytes]
    _open = 0

    def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> Any:
        type(self).opened[path] += 1
        if self._open >= self.most or path.endswith(b"denied.csv"):
            raise self.refusal("Maximum concurrent transfers exceeded")
        self._open += 1
        return super().open(path, pflags, attrs)

    def close(self, file_obj: Any) -> Any:
        self._open -= 1
        return super().close(file_obj)


class FewReads(asyncssh.SFTPServer):
    """A server that refuses a READ while others are under way."""

    most = 8
    refused = 0
    _reading = 0

    async def read(self, file_obj: Any, offset: int, size: int) -> Any:
        if self._reading >= self.most:
            type(self).refused += 1
            raise asyncssh.SFTPFailure("Too many outstanding requests")
        self._reading += 1
        try:
            # The requests that have arrived already are processed meanwhile.
            await asyncio.sleep(0)
            return super().read(file_obj, offset, size)
        finally:
            self._reading -= 1


def _less(attrs: Any, size: int) -> asyncssh.SFTPAttrs:
    attrs = attrs if isinstance(attrs, asyncssh.SFTPAttrs) else asyncssh.SFTPAttrs.from_local(attrs)
    if (attrs.permissions or 0) & 0o170000 == 0o100000:
        attrs.size = size if size >= 0 else attrs.size // 2
    return attrs


class WrongSize(asyncssh.SFTPServer):
    """A server whose listing and FSTAT give another size than the file has."""

    says = -1
    """The size; -1 for half of the true one."""

    def fstat(self, file_obj: Any) -> Any:
        return _less(super().fstat(file_obj), self.says)

    async def scandir(self, path: bytes) -> Any:
        async for entry in super().scandir(path):
            _less(entry.attrs, self.says)
            yield entry


class NoEnd(asyncssh.SFTPServer):
    """A server that does not support FSTAT, and answers an error at the end of a file."""

    def fstat(self, file_obj: Any) -> Any:
        raise asyncssh.SFTPOpUnsupported("no")

    def read(self, file_obj: Any, offset: int, size: int) -> Any:
        data = super().read(file_obj, offset, size)
        if not data:
            raise asyncssh.SFTPFailure("Read failed")
        return data


class Failing(asyncssh.SFTPServer):
    """A server that cannot read on in the middle of a file, for a while."""

    fails: bool

    def read(self, file_obj: Any, offset: int, size: int) -> Any:
        if self.fails and offset >= 65_536:
            raise asyncssh.SFTPFailure("I/O error")
        return super().read(file_obj, offset, size)


class OneByte(asyncssh.SFTPServer):
    """A server that answers each READ with one byte."""

    def read(self, file_obj: Any, offset: int, size: int) -> Any:
        return super().read(file_obj, offset, 1)


class NoSizes(asyncssh.SFTPServer):
    """A server that gives no size, neither in its listing nor by FSTAT."""

    def fstat(self, file_obj: Any) -> Any:
        raise asyncssh.SFTPOpUnsupported("no")

    async def scandir(self, path: bytes) -> Any:
        async for entry in super().scandir(path):
            entry.attrs.size = None
            yield entry


class Growing(asyncssh.SFTPServer):
    """A server on which a file grows while it is read, although FSTAT still gives its old size."""

    def fstat(self, file_obj: Any) -> Any:
        attrs = asyncssh.SFTPAttrs.from_local(super().fstat(file_obj))
        attrs.size = 1_000
        return attrs

    def read(self, file_obj: Any, offset: int, size: int) -> Any:
        if offset < 1_020:
            with open(file_obj.name, "ab") as file:
                file.write(b"more")
        return super().read(file_obj, offset, size)


def publish(root: Path, contents: dict[str, bytes]) -> None:
    folder = root / "download/DCASS"
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        os.utime(folder / name, (MTIME.int_timestamp, MTIME.int_timestamp))


def landed(lake: Path) -> dict[str, bytes]:
    return {name: next(lake.rglob(name)).read_bytes() for _, name in by_name(lake)}


REPORTS = {f"R{number:03}_20261120.csv": bytes([number]) * 70_000 for number in range(60)}


@pytest.mark.parametrize("most", [1, 10])
@pytest.mark.parametrize("refusal", [asyncssh.SFTPPermissionDenied, asyncssh.SFTPFailure])
def test_a_server_with_few_handles_gives_every_file_in_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, refusal: type[asyncssh.SFTPError]
) -> None:
    server = type("Few", (FewHandles,), {"most": most, "refusal": refusal, "opened": Counter()})
    publish(tmp_path / "root", REPORTS)
    with serving(tmp_path / "root", server) as connection:
        use(monkeypatch, connection)
        assert download(tmp_path / "lake", folders="DCASS")["landed"] == 60
    assert landed(tmp_path / "lake") == REPORTS


def test_a_denied_file_fails_alone_after_three_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = type("Denying", (FewHandles,), {"most": 1_000, "opened": Counter()})
    publish(tmp_path / "root", REPORTS | {"0_denied.csv": b"denied"})
    with serving(tmp_path / "root", server) as connection:
        use(monkeypatch, connection)
        with pytest.raises(RapTransferError, match=r"60 files landed.*1 failed.*0_denied\.csv"):
            download(tmp_path / "lake", folders="DCASS")
    assert landed(tmp_path / "lake") == REPORTS
    assert {name for name, times in server.opened.items() if times > 1} <= {b"/download/DCASS/0_denied.csv"}
    assert max(server.opened.values()) <= 3


@pytest.mark.usefixtures("side_by_side")
@pytest.mark.parametrize("most", [1, 8])
def test_a_server_that_takes_few_reads_gives_every_file_in_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    contents = REPORTS | {"LARGE_20261120.zip": os.urandom(3_000_000)}
    publish(tmp_path / "root", contents)
    server = type("Few", (FewReads,), {"most": most})
    with serving(tmp_path / "root", server) as connection:
        use(monkeypatch, connection)
        assert download(tmp_path / "lake", folders="DCASS")["landed"] == 61
    assert landed(tmp_path / "lake") == contents
    assert server.refused


@pytest.mark.parametrize("says", [-1, 0, 1])
def test_a_file_lands_whole_although_its_size_is_misstated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: int
) -> None:
    contents = {
        "SMALL_20261120.csv": os.urandom(10_000),
        "BLOCK_20261120.csv": os.urandom(65_536),
        "LARGE_20261120.csv": os.urandom(700_000),
    }
    publish(tmp_path / "root", contents)
    lake = tmp_path / "lake"
    with serving(tmp_path / "root", type("Wrong", (WrongSize,), {"says": says})) as connection:
        use(monkeypatch, connection)
        assert download(lake, folders="DCASS")["landed"] == 3
        # The next run knows them by the size that is listed.
        assert download(lake, folders="DCASS")["already"] == 3
    assert landed(lake) == contents
    listed = {name: len(content) // 2 if says < 0 else says for name, content in contents.items()}
    assert {entry["rap_path"].rpartition("/")[2]: entry["listed_size"] for entry in entries(lake)} == listed
    assert {entry["size"] for entry in entries(lake)} == {len(content) for content in contents.values()}


@pytest.mark.parametrize("says", [2**40, 2**63])
def test_a_size_far_above_the_real_one_holds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: int
) -> None:
    publish(tmp_path / "root", {"R_20261120.csv": b"x" * 100_000})
    with serving(tmp_path / "root", type("Wrong", (WrongSize,), {"says": says})) as connection:
        use(monkeypatch, connection)
        with pytest.raises(RapError, match=r"R_20261120\.csv"):
            download(tmp_path / "lake", folders="DCASS")
    assert not by_name(tmp_path / "lake")


def test_an_error_at_the_end_of_a_file_is_its_end_and_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = {f"{size}_20261120.csv": b"x" * size for size in (0, 1, 32_768, 32_769, 300_000)}
    publish(tmp_path / "root", contents)
    with serving(tmp_path / "root", NoEnd) as connection:
        use(monkeypatch, connection)
        assert download(tmp_path / "lake", folders="DCASS")["landed"] == 5
    assert landed(tmp_path / "lake") == contents
    reasons = {entry["size"]: entry["reason"] for entry in entries(tmp_path / "lake")}
    assert reasons[300_000] == "RAP answered an error at its end: Read failed."


@pytest.mark.parametrize("sizes", [NoSizes, type("Empty", (WrongSize,), {"says": 0})])
def test_an_error_is_no_end_of_a_file_if_no_size_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: type[asyncssh.SFTPServer]
) -> None:
    contents = {"SMALL_20261120.csv": os.urandom(10_000), "LARGE_20261120.csv": os.urandom(200_000)}
    publish(tmp_path / "root", contents)
    server = type("Unsized", (Failing, sizes), {"fails": True})
    with serving(tmp_path / "root", server) as connection:
        use(monkeypatch, connection)
        with pytest.raises(RapTransferError, match=r"1 files landed.*1 failed.*I/O error, after 65536 bytes"):
            download(tmp_path / "lake", folders="DCASS")
        server.fails = False  # type: ignore[attr-defined]
        assert download(tmp_path / "lake", folders="DCASS")["landed"] == 1
    assert landed(tmp_path / "lake") == contents


def test_a_server_that_answers_byte_by_byte_does_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path / "root", {"R_20261120.csv": bytes(range(256))})
    with serving(tmp_path / "root", OneByte) as connection:
        use(monkeypatch, connection)
        assert download(tmp_path / "lake", folders="DCASS")["landed"] == 1
    assert landed(tmp_path / "lake") == {"R_20261120.csv": bytes(range(256))}


def test_a_file_that_grows_is_deferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path / "root", {"R_20261120.csv": b"x" * 1_000})
    with serving(tmp_path / "root", Growing) as connection:
        use(monkeypatch, connection)
        with pytest.raises(RapTransferError, match="1 were deferred"):
            download(tmp_path / "lake", folders="DCASS")
    assert not by_name(tmp_path / "lake")


class Endless(asyncssh.SFTPServer):
    """A server that answers every READ with as many bytes as were asked for."""

    def read(self, file_obj: Any, offset: int, size: int) -> Any:
        return b"x" * size


@pytest.mark.parametrize("server", [Endless, type("Unsized", (Endless, NoSizes), {})])
def test_a_file_without_an_end_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: type[asyncssh.SFTPServer]
) -> None:
    monkeypatch.setattr(reading, "_MOST_READS_BEYOND", 16)
    publish(tmp_path / "root", {"R_20261120.csv": b"x" * 1_000})
    with serving(tmp_path / "root", server) as connection:
        use(monkeypatch, connection)
        with pytest.raises(RapTransferError, match="does not end after 5"):
            download(tmp_path / "lake", folders="DCASS")
    assert not by_name(tmp_path / "lake")


class TwiceListed(asyncssh.SFTPServer):
    """A server that lists each entry three times."""

    async def scandir(self, path: bytes) -> Any:
        for _ in range(3):
            async for entry in super().scandir(path):
                yield entry


def test_an_entry_that_is_listed_three_times_is_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path / "root", REPORTS)
    with serving(tmp_path / "root", TwiceListed) as connection:
        use(monkeypatch, connection)
        assert download(tmp_path / "lake", folders="DCASS")["landed"] == 60
    assert len(entries(tmp_path / "lake")) == 60


class EndlessListing(asyncssh.SFTPServer):
    """A server whose listing does not end."""

    async def scandir(self, path: bytes) -> Any:
        number = 0
        while True:
            number += 1
            yield asyncssh.SFTPName(b"%d" % number, attrs=asyncssh.SFTPAttrs(size=1))


class EndlessDots(asyncssh.SFTPServer):
    """A server that lists the folder itself without an end."""

    async def scandir(self, path: bytes) -> Any:
        while True:
            yield asyncssh.SFTPName(b".")


@pytest.mark.parametrize("server", [EndlessListing, EndlessDots])
def test_a_listing_without_an_end_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: type[asyncssh.SFTPServer]
) -> None:
    monkeypatch.setattr(listing, "_MOST_ENTRIES", 5_000)
    publish(tmp_path / "root", {})
    with serving(tmp_path / "root", server) as connection:
        use(monkeypatch, connection)
        with pytest.raises(RapTransferError, match="does not end"):
            download(tmp_path / "lake", folders="DCASS")


def test_few_handles_and_misstated_sizes_together_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FewAndWrong(WrongSize, FewHandles):
        most = 4
        opened: ClassVar[Counter[bytes]] = Counter()

        async def scandir(self, path: bytes) -> Any:
            if self._open >= self.most:
                raise asyncssh.SFTPFailure("Too many handles")
            self._open += 1
            try:
                async for entry in super().scandir(path):
                    yield entry
            finally:
                self._open -= 1

    publish(tmp_path / "root", REPORTS)
    with serving(tmp_path / "root", FewAndWrong) as connection:
        use(monkeypatch, connection)
        assert download(tmp_path / "lake", folders="DCASS")["landed"] == 60
    assert landed(tmp_path / "lake") == REPORTS


@pytest.mark.parametrize("most", [1_024, 20_000])
def test_no_read_asks_for_more_than_the_server_announces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    class ShortReads(asyncssh.SFTPServer):
        """A server that refuses a READ of more than it announces."""

        def read(self, file_obj: Any, offset: int, size: int) -> Any:
            if size > most:
                raise asyncssh.SFTPFailure("Too large")
            return super().read(file_obj, offset, size)

    async def announce(self: SFTPServerHandler, packet: Any) -> SFTPLimits:
        return SFTPLimits(34_000, most, most, 100)

    monkeypatch.setitem(SFTPServerHandler._packet_handlers, b"limits@openssh.com", announce)
    contents = {f"{size}_20261120.csv": os.urandom(size) for size in (0, 1_000, 1_024, 20_001, 70_000)}
    publish(tmp_path / "root", contents)
    with serving(tmp_path / "root", ShortReads) as connection:
        use(monkeypatch, connection)
        assert download(tmp_path / "lake", folders="DCASS")["landed"] == 5
    assert landed(tmp_path / "lake") == contents


class DeniedHalfWay(asyncssh.SFTPServer):
    """A server that denies a folder after it has listed some of its entries, for a while."""

    denies: bool

    async def scandir(self, path: bytes) -> Any:
        number = 0
        async for entry in super().scandir(path):
            number += 1
            # The entries come in answers of 128, with . and .. among them.
            if number > 128 and self.denies:
                raise asyncssh.SFTPPermissionDenied("no")
            yield entry


def test_a_folder_that_is_denied_half_way_is_no_closed_one_on_a_public_holiday(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = {f"R{number:03}_20261120.csv": b"%d" % number for number in range(200)}
    publish(tmp_path / "root", contents)
    server = type("Denying", (DeniedHalfWay,), {"denies": True})
    with serving(tmp_path / "root", server) as connection:
        use(monkeypatch, connection, pendulum.datetime(2026, 12, 25, 23, 30, tz="Asia/Hong_Kong"))
        with pytest.raises(RapTransferError, match="DCASS broke off after 126 entries: no"):
            download(tmp_path / "lake", folders="DCASS")
        server.denies = False  # type: ignore[attr-defined]
        assert download(tmp_path / "lake", folders="DCASS")["landed"] == 200
    assert landed(tmp_path / "lake") == contents


class InParts(asyncssh.SFTPServer):
    """A server that answers each READ with few bytes."""

    most = 1_000

    def read(self, file_obj: Any, offset: int, size: int) -> Any:
        return super().read(file_obj, offset, min(size, self.most))


@pytest.mark.parametrize("most", [500, 1_000, 16_384])
@pytest.mark.parametrize("sizes", [NoSizes, WrongSize])
def test_answers_in_parts_cut_no_file_although_its_size_is_missing_or_misstated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: type[asyncssh.SFTPServer], most: int
) -> None:
    contents = {f"{size}_20261120.csv": os.urandom(size) for size in (0, 1, 1_000, 32_768, 32_769, 70_000)}
    publish(tmp_path / "root", contents)
    with serving(tmp_path / "root", type("Parts", (InParts, sizes), {"most": most})) as connection:
        use(monkeypatch, connection)
        assert download(tmp_path / "lake", folders="DCASS")["landed"] == 6
    assert landed(tmp_path / "lake") == contents


class Counting(asyncssh.SFTPServer):
    """A server that counts the READs."""

    reads = 0

    def read(self, file_obj: Any, offset: int, size: int) -> Any:
        type(self).reads += 1
        return super().read(file_obj, offset, size)


def test_a_small_file_takes_one_read_once_the_server_has_answered_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = {f"{number:03}_20261120.csv": b"%d" % number for number in range(100)}
    publish(tmp_path / "root", contents | {"LARGE_20261120.csv": b"x" * 40_000})
    early = MTIME.int_timestamp - 1
    # The oldest is read first.
    os.utime(tmp_path / "root/download/DCASS/LARGE_20261120.csv", (early, early))
    monkeypatch.setattr(lake_reading, "FILES_IN_FLIGHT", 1)
    server = type("Fresh", (Counting,), {"reads": 0})
    with serving(tmp_path / "root", server) as connection:
        use(monkeypatch, connection)
        assert download(tmp_path / "lake", folders="DCASS")["landed"] == 101
    assert server.reads <= 103


class Rewritten(asyncssh.SFTPServer):
    """A server on which a file is rewritten, with the same size, once its first bytes were read."""

    done: bool

    def read(self, file_obj: Any, offset: int, size: int) -> Any:
        data = super().read(file_obj, offset, min(size, 32_768))
        if not self.done and len(data) > 4:
            type(self).done = True
            Path(os.fsdecode(file_obj.name)).write_bytes(b"new!" * 25_000)
            os.utime(file_obj.name, (MTIME.int_timestamp + 100, MTIME.int_timestamp + 100))
        return data


class NoFstat(asyncssh.SFTPServer):
    """A server that does not support FSTAT."""

    def fstat(self, file_obj: Any) -> Any:
        raise asyncssh.SFTPOpUnsupported("no")


class NoTimes(asyncssh.SFTPServer):
    """A server whose FSTAT gives the size alone."""

    def fstat(self, file_obj: Any) -> Any:
        return asyncssh.SFTPAttrs(size=os.fstat(file_obj.fileno()).st_size)


class NoListedTimes(asyncssh.SFTPServer):
    """A server whose listing gives the sizes alone."""

    async def scandir(self, path: bytes) -> Any:
        async for entry in super().scandir(path):
            entry.attrs.mtime = entry.attrs.atime = None
            yield entry


@pytest.mark.parametrize("attributes", [NoFstat, NoTimes, NoListedTimes])
def test_a_file_that_was_rewritten_with_the_same_size_is_deferred(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attributes: type[asyncssh.SFTPServer]
) -> None:
    publish(tmp_path / "root", {"R_20261120.csv": b"old!" * 25_000, "S_20261120.csv": b"same"})
    server = type("Rewriting", (Rewritten, attributes), {"done": False})
    with serving(tmp_path / "root", server) as connection:
        use(monkeypatch, connection)
        with pytest.raises(RapTransferError, match=r"1 were deferred.*R_20261120"):
            download(tmp_path / "lake", folders="DCASS")
        assert landed(tmp_path / "lake") == {"S_20261120.csv": b"same"}
        assert download(tmp_path / "lake", folders="DCASS")["landed"] == 1
    assert landed(tmp_path / "lake") == {"R_20261120.csv": b"new!" * 25_000, "S_20261120.csv": b"same"}


@pytest.mark.parametrize(("right", "says"), [("fstat", -1), ("fstat", 0), ("scandir", -1), ("scandir", 0)])
def test_a_file_lands_if_its_listing_and_fstat_differ_steadily(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, right: str, says: int
) -> None:
    contents = {f"{size}_20261120.csv": os.urandom(size) for size in (0, 1, 20_000, 65_536, 700_000)}
    publish(tmp_path / "root", contents)
    server = type("Wrong", (WrongSize,), {"says": says, right: getattr(asyncssh.SFTPServer, right)})
    with serving(tmp_path / "root", server) as connection:
        use(monkeypatch, connection)
        assert download(tmp_path / "lake", folders="DCASS")["landed"] == 5
        assert download(tmp_path / "lake", folders="DCASS")["already"] == 5
    assert landed(tmp_path / "lake") == contents


@pytest.mark.parametrize(
    "status", [asyncssh.SFTPBadMessage, asyncssh.SFTPNoConnection, asyncssh.SFTPConnectionLost]
)
@pytest.mark.parametrize("refused", ["open", "read", "fstat", "close"])
def test_a_status_for_one_file_concerns_that_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: type[asyncssh.SFTPError], refused: str
) -> None:
    def answer(self: asyncssh.SFTPServer, file: Any, *arguments: Any) -> Any:
        if b"R001" in (file if isinstance(file, bytes) else os.fsencode(file.name)):
            raise status("no")
        return getattr(asyncssh.SFTPServer, refused)(self, file, *arguments)

    publish(tmp_path / "root", REPORTS)
    with serving(tmp_path / "root", type("Odd", (asyncssh.SFTPServer,), {refused: answer})) as connection:
        use(monkeypatch, connection)
        if refused in ("open", "read"):
            with pytest.raises(RapTransferError, match=r"59 files landed.*1 failed.*R001_20261120\.csv"):
                download(tmp_path / "lake", folders="DCASS")
        else:
            assert download(tmp_path / "lake", folders="DCASS")["landed"] == 60


class HalfStatus(asyncssh.SFTPFailure):
    """A status that the server sends without its end."""

    def encode(self, version: int) -> bytes:
        return super().encode(version)[:-1]


class CutsClose(asyncssh.SFTPServer):
    """A server that answers CLOSE with half a status."""

    def close(self, file_obj: Any) -> Any:
        super().close(file_obj)
        raise HalfStatus("no")


def test_an_answer_to_close_that_cannot_be_read_harms_no_file(tmp_path: Path) -> None:
    reported: list[dict[str, Any]] = []

    async def read_all(connection: dict[str, Any]) -> set[bytes]:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))
        contents: set[bytes] = set()
        async with session.open_session(login_to(connection)) as under_way:
            for file in await under_way.list_folder(Folder.DCASS):
                await under_way.read(file, contents.add)
        # An error that nobody has retrieved is reported when its task is deleted.
        gc.collect()
        return contents

    publish(tmp_path, REPORTS)
    with serving(tmp_path, CutsClose) as connection:
        assert asyncio.run(read_all(connection)) == set(REPORTS.values())
    assert not reported


class Late(asyncssh.SFTPServer):
    """Answers a READ past the end once FSTAT has come, and CLOSE once the next file is opened."""

    def __init__(self, chan: asyncssh.SSHServerChannel, chroot: str) -> None:
        super().__init__(chan, chroot)
        self._opened = 0
        self._second, self._stat = asyncio.Event(), asyncio.Event()

    def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> Any:
        self._opened += 1
        if self._opened == 2:
            self._second.set()
        return super().open(path, pflags, attrs)

    async def read(self, file_obj: Any, offset: int, size: int) -> Any:
        data = super().read(file_obj, offset, size)
        if not data:
            await self._stat.wait()
        return data

    def fstat(self, file_obj: Any) -> Any:
        self._stat.set()
        return super().fstat(file_obj)

    async def close(self, file_obj: Any) -> Any:
        await self._second.wait()
        return super().close(file_obj)


@pytest.mark.usefixtures("side_by_side")
def test_close_is_not_awaited_and_the_end_of_a_file_is_asked_for_with_its_attributes(tmp_path: Path) -> None:
    content = os.urandom(64 * 1024)

    async def read_all(connection: dict[str, Any]) -> list[bytes]:
        contents: list[bytes] = []
        async with session.open_session(login_to(connection)) as under_way, asyncio.timeout(10):
            for file in await under_way.list_folder(Folder.DCASS):
                await under_way.read(file, contents.append)
        return contents

    publish(tmp_path, {"R001_20261120.csv": content, "R002_20261120.csv": content})
    with serving(tmp_path, Late) as connection:
        assert b"".join(asyncio.run(read_all(connection))) == 2 * content


class Cutting(asyncssh.SFTPServer):
    """A server that answers the first READDIR, the third request of a session, with half a packet."""

    packet = b"\0\0\0\x0a\x68\0\0\0\2\0\0\0\1x"

    async def scandir(self, path: bytes) -> Any:
        self.channel.write(self.packet)
        async for entry in super().scandir(path):
            yield entry


class Unasked(Cutting):
    """A server that sends an answer to a request that was not sent."""

    packet = b"\0\0\0\x09\x65\0\0\xff\xff\0\0\0\4"


@pytest.mark.parametrize(
    ("server", "text"), [(Cutting, "Incomplete packet|Invalid response id"), (Unasked, "Invalid response id")]
)
def test_answers_that_cannot_be_read_are_those_of_a_failing_server(
    tmp_path: Path, server: type[asyncssh.SFTPServer], text: str
) -> None:
    async def list_twice(connection: dict[str, Any]) -> None:
        async with session.open_session(login_to(connection)) as under_way:
            with pytest.raises(RapUnavailable, match=text):
                await under_way.list_folder(Folder.DCASS)
            with pytest.raises(RapUnavailable, match="Invalid response id"):
                await under_way.list_folder(Folder.DCASS)

    publish(tmp_path, REPORTS)
    with serving(tmp_path, server) as connection:
        asyncio.run(list_twice(connection))


class Leaving(asyncssh.SFTPServer):
    """A server that ends SFTP, and not the connection."""

    def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> Any:
        self.channel.close()
        return super().open(path, pflags, attrs)


def test_a_disconnect_message_is_reported_only_if_one_came(tmp_path: Path) -> None:
    async def read(connection: dict[str, Any]) -> None:
        async with session.open_session(login_to(connection)) as under_way:
            (file,) = await under_way.list_folder(Folder.DCASS)
            await under_way.read(file, lambda block: None)

    publish(tmp_path, {"R_20261120.csv": b"x"})
    with (
        serving(tmp_path, Leaving) as connection,
        pytest.raises(RapSessionSuperseded, match="without a message") as caught,
    ):
        asyncio.run(read(connection))
    assert not caught.value.announced


class FewOfAnyKind(FewHandles):
    """A server that counts directories among its open files."""

    async def scandir(self, path: bytes) -> Any:
        if self._open >= self.most:
            raise self.refusal("Too many handles")
        self._open += 1
        try:
            async for entry in super().scandir(path):
                # Other requests are processed meanwhile.
                await asyncio.sleep(0)
                yield entry
        finally:
            self._open -= 1


@pytest.mark.parametrize("most", [1, 2])
@pytest.mark.parametrize(
    "refusal", [asyncssh.SFTPFailure, asyncssh.SFTPPermissionDenied, asyncssh.SFTPNoSuchFile]
)
def test_several_folders_land_in_one_run_from_a_server_with_few_handles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, refusal: type[asyncssh.SFTPError]
) -> None:
    server = type(
        "Few",
        (FewOfAnyKind,),
        {"most": most, "refusal": refusal, "opened": Counter()},
    )
    publish(tmp_path / "root", REPORTS)
    for folder in ("DCASS_OTHERS", "HKCC_SEOCH_CCMS_GLOB"):
        (tmp_path / "root/download" / folder).mkdir()
        for number in range(20):
            path = tmp_path / "root/download" / folder / f"{folder}{number}_20261120.csv"
            path.write_bytes(b"%d" % number)
            os.utime(path, (MTIME.int_timestamp, MTIME.int_timestamp))
    with serving(tmp_path / "root", server) as connection:
        use(monkeypatch, connection)
        result = download(tmp_path / "lake")
    assert (result["landed"], result["already"]) == (100, 0)


class Ending(asyncssh.SFTPServer):
    """A server that ends a session with more than three open files."""

    _open = 0

    def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> Any:
        self._open += 1
        if self._open > 3:
            self.connection.disconnect(asyncssh.DISC_BY_APPLICATION, "Resource limit exceeded")
        return super().open(path, pflags, attrs)

    def close(self, file_obj: Any) -> Any:
        self._open -= 1
        return super().close(file_obj)


def test_a_server_that_ends_sessions_with_many_open_files_gives_every_file_in_one_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path / "root", REPORTS)
    with serving(tmp_path / "root", Ending) as connection:
        use(monkeypatch, connection)
        download(tmp_path / "lake", in_a_run(), folders="DCASS")
    assert landed(tmp_path / "lake") == REPORTS


class FewRequests(asyncssh.SFTPServer):
    """A server that refuses a request on a file, but CLOSE, while others are under way."""

    most = 1
    opened = closed = refused = 0
    _under_way = 0

    async def _limited(self, request: Any, *arguments: Any) -> Any:
        if self._under_way >= self.most:
            type(self).refused += 1
            raise asyncssh.SFTPFailure("Too many outstanding requests")
        self._under_way += 1
        try:
            # The requests that have arrived already are processed meanwhile.
            await asyncio.sleep(0)
            return request(*arguments)
        finally:
            self._under_way -= 1

    async def open(self, *arguments: Any) -> Any:
        file = await self._limited(super().open, *arguments)
        type(self).opened += 1
        return file

    async def read(self, *arguments: Any) -> Any:
        return await self._limited(super().read, *arguments)

    async def fstat(self, *arguments: Any) -> Any:
        return await self._limited(super().fstat, *arguments)

    def close(self, *arguments: Any) -> Any:
        # Never refused, since asyncssh has forgotten the handle by now.
        type(self).closed += 1
        return super().close(*arguments)


@pytest.mark.usefixtures("side_by_side")
@pytest.mark.parametrize("most", [1, 4])
def test_a_server_that_takes_few_requests_of_any_kind_gives_every_file_in_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    publish(tmp_path / "root", REPORTS)
    server = type("Few", (FewRequests,), {"most": most})
    with serving(tmp_path / "root", server) as connection:
        use(monkeypatch, connection)
        assert download(tmp_path / "lake", folders="DCASS")["landed"] == 60
    assert landed(tmp_path / "lake") == REPORTS
    assert server.opened == server.closed == 60
    assert server.refused


class ErrorsBeyond(asyncssh.SFTPServer):
    """A server that answers an error to a READ of more bytes than a file has."""

    refused = 0

    def read(self, file_obj: Any, offset: int, size: int) -> Any:
        if offset + size > os.fstat(file_obj.fileno()).st_size:
            type(self).refused += 1
            raise asyncssh.SFTPFailure("Beyond the end")
        return super().read(file_obj, offset, size)


def test_errors_at_the_end_of_files_are_asked_twice_only_until_they_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = {f"R{number:03}_20261120.csv": bytes([number]) * 100 * number for number in range(200)}
    publish(tmp_path / "root", contents)
    monkeypatch.setattr(lake_reading, "FILES_IN_FLIGHT", 10)
    server = type("Fresh", (ErrorsBeyond,), {"refused": 0})
    with serving(tmp_path / "root", server) as connection:
        use(monkeypatch, connection)
        assert download(tmp_path / "lake", folders="DCASS")["landed"] == 200
    assert landed(tmp_path / "lake") == contents
    # One READ at the end of each file; those of the first ten files that were too large; a few once more.
    assert server.refused < 240
