"""Downloads from servers that take few requests at once, misstate sizes, or answer without an end."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import asyncssh
import pytest

from airflow_provider_hkex_rap.rap.errors import RapError, RapTransferError
from airflow_provider_hkex_rap.transport import reading, session

from ..simulated_rap import MTIME, by_name, download, entries, use
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
    _reading = 0

    async def read(self, file_obj: Any, offset: int, size: int) -> Any:
        if self._reading >= self.most:
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


@pytest.mark.parametrize("most", [1, 8])
def test_a_server_that_takes_few_reads_gives_every_file_in_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    contents = REPORTS | {"LARGE_20261120.zip": os.urandom(3_000_000)}
    publish(tmp_path / "root", contents)
    with serving(tmp_path / "root", type("Few", (FewReads,), {"most": most})) as connection:
        use(monkeypatch, connection)
        assert download(tmp_path / "lake", folders="DCASS")["landed"] == 61
    assert landed(tmp_path / "lake") == contents


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


def test_a_listing_without_an_end_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_MOST_ENTRIES", 5_000)
    publish(tmp_path / "root", {})
    with serving(tmp_path / "root", EndlessListing) as connection:
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
