"""Fault 24: landings that are killed at any time, while RAP republishes files, on a local disk and on S3."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pytest

from airflow_provider_hkex_rap.lake.entry import Entry, from_lines
from airflow_provider_hkex_rap.lake.store import Lake
from airflow_provider_hkex_rap.lake.verify import verify

from ..in_memory_rap import CUSTOMER, NOW, InMemoryRap, manifest_files

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

KILLS = {"file": 100, "s3": 15}
LANDINGS_UNTIL_A_CLEAN_ONE = 5
ROOT = Path(__file__).parents[2]
NAMES = (
    *(f"TP{number:03}_20261120.csv" for number in range(12)),
    "MARGIN.csv",
    "SUMMARY_CXYZ.csv.gz",
    ".hidden_20261120.csv",
    "x" * 251 + ".csv",
)


class Landings:
    """Runs landings in processes of their own.

    :param process: the process that forks them.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def land(self, rap: InMemoryRap, *, kill_after: float | None = None) -> tuple[bool, float]:
        """Land what RAP lists; return whether the process was killed, and its seconds."""
        files = {name.decode(): (content.decode(), mtime) for name, (content, mtime) in rap.files.items()}
        landing = {"files": files, "kill_after": kill_after}
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(landing) + "\n")
        self._process.stdin.flush()
        killed, seconds = self._process.stdout.readline().split()
        return killed != "0", float(seconds)


@contextmanager
def landings(protocol: str, options: dict[str, Any], root: str) -> Iterator[Landings]:
    command = [sys.executable, "-m", "tests.faults.landing_process", protocol, json.dumps(options), root]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Landings(process)
        assert process.stdin
        process.stdin.close()
        assert process.wait(30) == 0


@pytest.fixture(params=["file", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Return protocol and options of a file system, and the root of a lake on it."""
    if request.param == "file":
        yield "file", {}, str(tmp_path / "lake")
        return
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = {
        "key": "k",
        "secret": "s",
        "endpoint_url": f"http://{host}:{port}",
        "client_kwargs": {"region_name": "ap-east-1"},
    }
    fsspec.filesystem("s3", **options).mkdir("reports", region_name="ap-east-1")
    yield "s3", options, "reports/rap"
    server.stop()


def entries(lake: Lake) -> list[Entry]:
    return [entry for path in manifest_files(lake) for entry in from_lines(lake.read(path)).entries]


def listed(rap: InMemoryRap) -> set[tuple[bytes, str]]:
    """Return name and SHA-256 of each file on RAP."""
    return {(name, hashlib.sha256(content).hexdigest()) for name, (content, _) in rap.files.items()}


def test_nothing_stays_unclaimed(storage: tuple[str, dict[str, Any], str]) -> None:
    protocol, options, root = storage
    chance = random.Random(24)
    rap = InMemoryRap()
    mtime = NOW.subtract(days=1).int_timestamp
    with landings(protocol, options, root) as processes:
        lake = Lake(fsspec.filesystem(protocol, **options), root)
        _, typical = processes.land(rap)
        kills = 0
        for number in range(10 * KILLS[protocol]):
            mtime += chance.randrange(1, 900)
            for name in chance.sample(NAMES, 3):
                rap.put(name, b"content %d" % chance.randrange(10**6), mtime)
            if chance.random() < 0.1:
                # RAP withdraws a file.
                rap.files.pop(chance.choice(NAMES).encode(), None)
            killed, seconds = processes.land(rap, kill_after=chance.uniform(0.0, 1.3) * typical)
            kills += killed
            if not killed:
                typical = seconds
            if number % LANDINGS_UNTIL_A_CLEAN_ONE == 0:
                _, typical = processes.land(rap)
                assert asyncio.run(verify(lake, CUSTOMER)).problems == []
                assert listed(rap) <= {(entry.name, entry.sha256) for entry in entries(lake)}
            if kills >= KILLS[protocol]:
                break
        assert kills >= KILLS[protocol]
        processes.land(rap)
    found = entries(lake)
    assert set(Counter(e.uri for e in found if e.disposition == "landed").values()) == {1}
    assert listed(rap) <= {(entry.name, entry.sha256) for entry in found}
    superseded = {entry.supersedes for entry in found}
    current = Counter(
        (e.text, e.business_date) for e in {e.uri: e for e in found}.values() if e.uri not in superseded
    )
    assert set(current.values()) == {1}, current
    assert asyncio.run(verify(lake, CUSTOMER)).problems == []
