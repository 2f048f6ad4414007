"""Work that grows: long listings, many days and accounts, years of history, and one large file."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_hkex_rap.rap.folders import Folder
from benchmarks.peers import Site, run_child
from benchmarks.work import MTIME, NOW, REPORT_CODES, listing, small
from tests.integration.openssh import openssh

if TYPE_CHECKING:
    from tests.integration.openssh import OpenSSH


@dataclass(frozen=True)
class Size:
    """How large the work is; the default is what `make bench-scale` runs.

    :param days: the days of the backfill.
    :param files: the files of a day and an account.
    :param accounts: the accounts of the backfill.
    :param entries: the entries of the long listing.
    :param years: the years of history.
    :param large: the bytes of the large file.
    """

    days: int = 10
    files: int = 1_000
    accounts: int = 4
    entries: int = 100_000
    years: int = 5
    large: int = 5 * 10**9


TINY = Size(days=2, files=20, accounts=2, entries=200, years=1, large=10_000_000)
"""Little work, with which the benchmark is tested."""


@dataclass(frozen=True)
class Step:
    """One measurement.

    :param name: what was done.
    :param amount: how much of it there was, in words.
    :param seconds: how long it took.
    :param cpu: seconds of processor time of the process.
    :param rss: peak memory above an interpreter with Airflow, in MB.
    """

    name: str
    amount: str
    seconds: float
    cpu: float
    rss: float


def measure(size: Size) -> Iterator[dict[str, Any]]:
    """Yield the fields of each step as it ends.

    :param size: how large the work is.
    """
    for steps in (_backfill, _history, _long_listing, _large_file):
        for step in steps(size):
            yield asdict(step)


@contextlib.contextmanager
def _site(server: OpenSSH) -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="rap-benchmark-") as home:
        site = Site(server, server.port, Path(home))
        site.prepare()
        yield site


def _land(site: Site, folder: Folder, lake: Path, include: str = "*") -> dict[str, Any]:
    arguments = {"folders": [folder.value], "include": [include]}
    job = {"kind": "ours", "arguments": arguments}
    return dict(run_child(site, job, [lake.as_uri()])["calls"][0])


def _step(name: str, amount: str, call: dict[str, Any]) -> Step:
    return Step(name, amount, call["seconds"], call["cpu"], call["rss"])


def _publish_days(server: OpenSSH, days: int, files: int) -> None:
    """Put reports of some days onto a server, each of 1,000 bytes."""
    for back in range(days):
        day = NOW.subtract(days=back)
        for number in range(files):
            name = f"{server.account[1:5]}_TP{number % REPORT_CODES:03}_{day:YYYYMMDD}_{number:05}.csv"
            mtime = day.subtract(hours=2).int_timestamp
            server.put(Folder.DCASS, name, os.urandom(1_000), mtime)


def _backfill(size: Size) -> Iterator[Step]:
    """One day of one account, all days of one account, and all days of all accounts side by side."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(openssh()) for _ in range(size.accounts)]
        sites = [stack.enter_context(_site(server)) for server in servers]
        for server in servers:
            _publish_days(server, size.days, size.files)
        one_day = f"*_{NOW:YYYYMMDD}_*"
        call = _land(sites[0], Folder.DCASS, sites[0].home / "day", one_day)
        yield _step("1 day, 1 account", f"{call['landed']:,} files", call)
        call = _land(sites[0], Folder.DCASS, sites[0].home / "days")
        yield _step(f"{size.days} days, 1 account", f"{call['landed']:,} files", call)
        # One lake for all accounts.
        lake = sites[0].home / "lake"
        with ThreadPoolExecutor(size.accounts) as pool:
            calls = list(pool.map(lambda site: _land(site, Folder.DCASS, lake), sites))
        slowest = max(calls, key=lambda call: call["seconds"]) | {"rss": max(call["rss"] for call in calls)}
        amount = f"{sum(call['landed'] for call in calls):,} files"
        yield _step(f"{size.days} days, {size.accounts} accounts side by side", amount, slowest)


def _history(size: Size) -> Iterator[Step]:
    """A run that lands a few files, and one that finds nothing new, with more and more history."""
    work = small(80, 2_600_000)
    with openssh() as server, _site(server) as site:
        work.publish(server)
        template = site.home / "template"
        _land(site, work.folder, template)
        for days in (0, 30, size.years * 365):
            lake = site.home / f"lake-{days}"
            entries = _write_history(template, lake, server.account[1:5], days)
            amount = f"{days} days, {entries:,} entries"
            yield _step("land 80 files after a history", amount, _land(site, work.folder, lake))
            yield _step("find nothing new after a history", amount, _land(site, work.folder, lake))


def _write_history(template: Path, lake: Path, customer: str, days: int) -> int:
    """Copy the manifest of a day to the days before it; return the number of entries."""
    entries = 0
    folder = f"manifest/{customer}/{Folder.DCASS.value}"
    manifests = {
        source.name: source.read_text().replace(str(template), str(lake))
        for source in (template / folder / f"{NOW:YYYY-MM-DD}").glob("*.jsonl")
    }
    for back in range(1, days + 1):
        day = NOW.subtract(days=back)
        target = lake / folder / f"{day:YYYY-MM-DD}"
        target.mkdir(parents=True)
        for name, lines in manifests.items():
            for form in ("YYYY-MM-DD", "YYYYMMDD"):
                old, new = NOW.format(form), day.format(form)
                name, lines = name.replace(old, new), lines.replace(old, new)
            (target / name).write_text(lines)
            entries += lines.count("\n")
    return entries


def _long_listing(size: Size) -> Iterator[Step]:
    """A listing of which one file lands, of a tenth of the entries and of all; then all of the tenth land."""
    for entries in (size.entries // 10, size.entries):
        work = listing(entries)
        with openssh() as server, _site(server) as site:
            work.publish(server)
            call = _land(site, work.folder, site.home / "lake", f"*_TP000_*_{0:04}.csv")
            yield _step("land 1 file of a long listing", f"{entries:,} entries", call)
            call = _land(site, work.folder, site.home / "all")
            yield _step("land a long listing", f"{call['landed']:,} files", call)


def _large_file(size: Size) -> Iterator[Step]:
    """One file, which takes no space on the server."""
    with openssh() as server, _site(server) as site:
        for part in (size.large // 10, size.large):
            path = server.root / f"download/DCASS/LARGE{part}_20261120.zip"
            path.touch()
            os.truncate(path, part)
            os.utime(path, (MTIME, MTIME))
            call = _land(site, Folder.DCASS, site.home / f"lake-{part}", path.name)
            yield _step("land 1 large file", f"{part / 1e9:g} GB", call)
