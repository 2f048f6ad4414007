"""Faults of a download: no file is lost, landed twice or landed in part, and a clean rerun converges.

The numbers are those of the list in ``tests/faults/__init__.py``.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pendulum
import pytest
from airflow.sdk.exceptions import AirflowRescheduleException, AirflowTaskTimeout
from airflow.sdk.execution_time.timeout import timeout

from airflow_provider_hkex_rap.lake import reading
from airflow_provider_hkex_rap.operators.download import RapDownloadOperator
from airflow_provider_hkex_rap.rap.errors import (
    RapError,
    RapHostKeyError,
    RapSessionSuperseded,
    RapTransferError,
    RapUnavailable,
)
from airflow_provider_hkex_rap.rap.files import Kind
from airflow_provider_hkex_rap.rap.folders import Folder
from airflow_provider_hkex_rap.testing import Access, Fault, RapSimulator, ServerBehaviour

from ..simulated_rap import MTIME, NOW, by_name, download, entries, in_a_run, published, use

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.runner.runner import SessionRunner


@pytest.mark.parametrize("at_byte", [0, 1, 250_000, 499_999, 500_000])
def test_a_connection_cut_in_a_file_loses_nothing(rap: RapSimulator, lake: Path, at_byte: int) -> None:
    """Fault 1: drop at a byte of a file."""
    for number in range(20):
        rap.put(Folder.DCASS, f"R{number:02}_20261120.csv", 500_000, MTIME.add(seconds=number))
    rap.faults.add(Fault("drop", path="*/R10_*", at_byte=at_byte))
    # A cut after the last byte of the last file does no harm and may go unnoticed.
    with pytest.raises(RapSessionSuperseded) if at_byte < 500_000 else suppress(RapSessionSuperseded):
        download(lake)
    source = published(rap)
    done = by_name(lake)
    assert done.items() <= source.items()
    assert len(entries(lake)) == len(done)
    assert not list(lake.rglob("*.part"))

    rap.events.clear()
    assert download(lake)["already"] == len(done)
    assert by_name(lake) == source
    assert len(rap.events.of("open")) == 20 - len(done)


@pytest.mark.parametrize("kind", ["truncate", "grow", "rewrite"])
def test_a_file_that_differs_from_its_listing_is_deferred(rap: RapSimulator, lake: Path, kind: str) -> None:
    """Faults 2, 3, 4: early EOF, growth and rewrite while the file is read."""
    rap.put(Folder.DCASS, "changing_20261120.csv", 100_000, MTIME)
    rap.put(Folder.DCASS, "steady_20261120.csv", 100, MTIME)
    rap.faults.add(Fault(kind, path="*/changing*", at_byte=50_000))
    with pytest.raises(RapTransferError, match="changing_20261120") as caught:
        download(lake)
    assert caught.value.retryable
    assert set(by_name(lake)) == {("DCASS", "steady_20261120.csv")}
    download(lake)
    assert by_name(lake) == published(rap)


@pytest.mark.guide("4.3 one login")
def test_a_superseded_task_backs_off_and_lands_the_rest(
    rap: RapSimulator, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 7: a second login closes the session of a task."""
    monkeypatch.setenv("AIRFLOW__HKEX_RAP__SUPERSEDED_WAIT", "0.1")
    for number in range(5):
        rap.put(Folder.DCASS, f"R{number}_20261120.csv", 100_000, MTIME)
    # One file at a time, so that each session lands a file.
    monkeypatch.setattr(reading, "FILES_IN_FLIGHT", 1)
    rap.faults.add(Fault("drop", path="*/R3_*", at_byte=10, times=3))
    summary = download(lake, in_a_run(), folders="DCASS")
    assert by_name(lake) == published(rap)
    assert (summary["landed"], summary["already"], summary["bytes"]) == (5, 0, 500_000)
    assert len({event.session for event in rap.events.of("open") if "R3" not in event.path}) > 1
    assert len(rap.events.of("login")) == 4
    assert rap.events.peak_sessions("DCXYZ001") == 1


@pytest.mark.parametrize("attributes", ["no_size", "no_mtime", "none"])
def test_a_file_that_a_later_session_reads_again_counts_once(
    lake: Path, monkeypatch: pytest.MonkeyPatch, attributes: Any
) -> None:
    """Fault 7, if RAP lists no sizes or times: only the bytes show that a file has landed."""
    monkeypatch.setenv("AIRFLOW__HKEX_RAP__SUPERSEDED_WAIT", "0.1")
    monkeypatch.setattr(reading, "FILES_IN_FLIGHT", 1)
    with RapSimulator(now=NOW, server=ServerBehaviour(attributes=attributes)) as rap:
        use(monkeypatch, rap.connection("DCXYZ001"))
        for number in range(5):
            rap.put(Folder.DCASS, f"R{number}_20261120.csv", 100_000, MTIME)
        download(lake, folders="DCASS", include=["R0_*"])
        rap.faults.add(Fault("drop", path="*/R3_*", at_byte=10, times=2))
        summary = download(lake, in_a_run(), folders="DCASS")
        assert len(rap.events.of("login")) == 4
    assert (summary["landed"], summary["already"]) == (4, 1)


def test_a_task_superseded_as_rap_shuts_waits_for_the_opening(
    lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 7: the service hours end during the back-off."""
    monkeypatch.setenv("AIRFLOW__HKEX_RAP__SUPERSEDED_WAIT", "4")
    shuts = pendulum.datetime(2026, 11, 21, 3, 30, tz="Asia/Hong_Kong")
    with RapSimulator(now=shuts.subtract(seconds=3), access=Access(enforce_hours=True)) as rap:
        use(monkeypatch, rap.connection("DCXYZ001"), rap.clock())
        rap.put(Folder.DCASS, "R_20261120.csv", 100_000, MTIME)
        rap.faults.add(Fault("drop", at_byte=10))
        with pytest.raises(AirflowRescheduleException):
            download(lake, in_a_run(), folders="DCASS")
        assert len(rap.events.of("connect")) == 1


def test_a_task_superseded_a_fourth_time_fails(
    rap: RapSimulator, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 7: the session is closed at each login."""
    monkeypatch.setenv("AIRFLOW__HKEX_RAP__SUPERSEDED_WAIT", "0.1")
    rap.put(Folder.DCASS, "R_20261120.csv", 100_000, MTIME)
    rap.faults.add(Fault("drop", path="*/R_*", at_byte=10, times=None))
    with pytest.raises(RapSessionSuperseded):
        download(lake, in_a_run(), folders="DCASS")
    assert len(rap.events.of("login")) == 4


@pytest.mark.guide("4.3 one login")
def test_tasks_of_one_account_log_in_one_after_another(rap: RapSimulator, tmp_path: Path) -> None:
    """Fault 8: several tasks use one account."""
    for number in range(50):
        rap.put(Folder.DCASS, f"R{number:02}_20261120.csv", 20_000, MTIME)
    lakes = [tmp_path / f"lake{number}" for number in range(4)]
    with ThreadPoolExecutor(4) as tasks:
        summaries = list(tasks.map(lambda lake: download(lake, folders="DCASS"), lakes))
    assert [summary["landed"] for summary in summaries] == [50] * 4
    assert rap.events.peak_sessions("DCXYZ001") == 1
    assert not rap.events.of("superseded")


@contextmanager
def log_line_with(words: str) -> Iterator[threading.Event]:
    """Yield an event that is set when this package logs a line with *words*."""
    logged = threading.Event()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if words in record.getMessage():
                logged.set()

    logger, listener = logging.getLogger("airflow_provider_hkex_rap"), Listener()
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(listener)
    yield logged
    logger.removeHandler(listener)
    logger.setLevel(level)


def test_files_landed_while_a_task_waited_for_the_account_do_not_land_again(
    rap: RapSimulator, lake: Path
) -> None:
    """Fault 8: two tasks use one account and one lake."""
    for number in range(5):
        rap.put(Folder.DCASS, f"R{number}_20261120.csv", 20_000, MTIME)
    stall = rap.faults.add(Fault("stall"))
    with ThreadPoolExecutor(2) as tasks, log_line_with("is in use on this host") as waiting:
        first = tasks.submit(download, lake, folders="DCASS")
        rap.events.wait_for("fault")
        second = tasks.submit(download, lake, folders="DCASS")
        assert waiting.wait(60)
        rap.faults.release(stall)
    assert (first.result()["landed"], second.result()["landed"]) == (5, 0)
    assert len(entries(lake)) == 5


def test_a_changed_host_key_fails_without_retries(
    rap: RapSimulator, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 12: the host key has changed."""
    connection = rap.connection("DCXYZ001")
    with RapSimulator(name="another") as other:
        use(monkeypatch, {**connection, "extra": {**connection["extra"], "host_key": other.host_key}})
        with pytest.raises(RapHostKeyError) as caught:
            download(lake)
    assert not caught.value.retryable
    assert not rap.events.of("login", "refused")


def test_a_failing_listing_does_not_stop_the_other_folders(rap: RapSimulator, lake: Path) -> None:
    """Fault 14: one listing fails."""
    rap.put(Folder.DCASS, "TP001_20261120.csv", b"x", MTIME)
    rap.faults.add(Fault("listing_error", path="*/DCASS_OTHERS", times=None))
    with pytest.raises(RapTransferError, match="DCASS_OTHERS"):
        download(lake)
    assert by_name(lake) == published(rap)


@pytest.mark.parametrize("attributes", ["none", "no_size", "no_mtime"])
def test_a_file_without_attributes_lands_whole(
    lake: Path, monkeypatch: pytest.MonkeyPatch, attributes: Any
) -> None:
    """Faults 15 and 19: attributes are missing; one file has no bytes."""
    with RapSimulator(
        now=NOW, server=ServerBehaviour(attributes=attributes, stat_attributes=attributes)
    ) as rap:
        use(monkeypatch, rap.connection("DCXYZ001"))
        for size in (0, 3_000, 32 * 1024, 1_000_000):
            rap.put(Folder.DCASS, f"R{size}_20261120.csv", size, MTIME)
        download(lake)
        assert by_name(lake) == published(rap)


def test_names_that_would_leave_the_lake_are_quarantined(rap: RapSimulator, lake: Path) -> None:
    r"""Fault 16: `../x`, `/abs`, `a\b`, NUL and a symlink."""
    for name in (b"../x", b"/abs", b"a\\b", b"nul\0"):
        rap.put(Folder.DCASS, name, b"bad", MTIME)
    rap.put(Folder.DCASS, "link", b"", MTIME, kind=Kind.SYMLINK)
    rap.put(Folder.DCASS, "fine_20261120.csv", b"good", MTIME)
    summary = download(lake)
    assert (summary["landed"], summary["quarantined"]) == (1, 5)
    assert set(by_name(lake)) == {("DCASS", "fine_20261120.csv")}
    assert sum(entry["disposition"] == "quarantined" for entry in entries(lake)) == 5
    assert download(lake)["quarantined"] == 5
    assert sum(entry["disposition"] == "quarantined" for entry in entries(lake)) == 5


def test_republished_content_lands_beside_the_old(rap: RapSimulator, lake: Path) -> None:
    """Fault 20: a report is published again with new content."""
    rap.put(Folder.DCASS, "TP001_20261120.csv", b"first", MTIME)
    download(lake)
    rap.put(Folder.DCASS, "TP001_20261120.csv", b"second", MTIME.add(minutes=5))
    download(lake)
    names = sorted(name for _, name in by_name(lake))
    assert names == ["TP001_20261120.csv", "TP001_20261120.v2.csv"]
    old, new = sorted(entries(lake), key=lambda entry: entry["committed"])
    assert new["supersedes"] == old["uri"]


def test_a_file_of_the_same_size_without_mtime_is_read_again(
    lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faults 15, 20 and 21: new content, then the same content, of one size and without mtime."""
    with RapSimulator(
        now=NOW, server=ServerBehaviour(attributes="no_mtime", stat_attributes="no_mtime")
    ) as rap:
        use(monkeypatch, rap.connection("DCXYZ001"))
        for content, count in ((b"first", 1), (b"again", 1), (b"again", 0)):
            rap.put(Folder.DCASS, "TP001_20261120.csv", content, MTIME)
            assert download(lake)["landed"] == count
    assert {path.read_bytes() for path in lake.rglob("TP001*.csv*")} == {b"first", b"again"}


def test_a_kill_ends_the_session_at_once(rap: RapSimulator, lake: Path) -> None:
    """Fault 24: SIGTERM while a file is read."""
    rap.put(Folder.DCASS, "stalls_20261120.csv", 300_000, MTIME)
    fault = rap.faults.add(Fault("stall", path="*/stalls*", at_byte=100_000))
    operator = RapDownloadOperator(task_id="land", folders="DCASS", lake=lake.as_uri(), expect=[])

    def kill() -> None:
        rap.events.wait_for("fault")
        operator.on_kill()

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(RapError, match="closed from our side"):
        operator.execute({})
    thread.join()
    rap.events.wait_for("lost")
    assert not by_name(lake)
    rap.faults.release(fault)
    download(lake)
    assert by_name(lake) == published(rap)


class KilledEarly(RapDownloadOperator):
    """Is killed before it logs in."""

    def session_runner(self, *arguments: Any, **options: Any) -> SessionRunner:
        self.on_kill()
        return super().session_runner(*arguments, **options)


def test_a_task_killed_before_its_login_does_not_log_in(rap: RapSimulator, lake: Path) -> None:
    """Fault 24: SIGTERM before the login."""
    operator = KilledEarly(task_id="land", folders="DCASS", lake=lake.as_uri())
    with pytest.raises(RapUnavailable, match="not logged in"):
        operator.execute({})
    assert not rap.events
    operator.on_kill()
    download(lake)


def test_an_execution_timeout_ends_a_listing(rap: RapSimulator, lake: Path) -> None:
    """Fault 24: `execution_timeout` passes while a folder is listed."""
    fault = rap.faults.add(Fault("listing_stall"))

    def pass_the_time_limit() -> None:
        rap.events.wait_for("fault")
        os.kill(os.getpid(), signal.SIGALRM)

    clock = threading.Thread(target=pass_the_time_limit)
    clock.start()
    with pytest.raises(AirflowTaskTimeout), timeout(60):
        download(lake, folders="DCASS")
    clock.join()
    rap.events.wait_for("lost")
    rap.faults.release(fault)
    download(lake)
