"""The download operator: what lands, what is said, and what the server saw."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pendulum
import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowRescheduleException, AirflowTaskTimeout
from airflow.sdk.execution_time.timeout import timeout

from airflow_provider_hkex_rap.lake import reading
from airflow_provider_hkex_rap.operators.download import RapDownloadOperator
from airflow_provider_hkex_rap.rap.errors import (
    RapConfigurationError,
    RapError,
    RapHostKeyError,
    RapPermissionDenied,
    RapReportMissing,
    RapRetentionExpired,
    RapSessionSuperseded,
    RapTransferError,
    RapUnavailable,
)
from airflow_provider_hkex_rap.rap.files import Kind
from airflow_provider_hkex_rap.rap.folders import Folder, Service
from airflow_provider_hkex_rap.testing import Fault, RapSimulator

from .openssh import missing, openssh

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.hooks.rap import RapHook

NOW = pendulum.datetime(2026, 11, 20, 23, 40, tz="Asia/Hong_Kong")
MTIME = NOW.subtract(hours=2)
ACCOUNTS = ("DCXYZ001", "DCXYZ002")
FOLDERS = list(Folder)


def use(monkeypatch: pytest.MonkeyPatch, connection: dict[str, Any], now: pendulum.DateTime = NOW) -> None:
    """Make the default connection, and set the provider's clock to *now*."""
    monkeypatch.setenv("AIRFLOW_CONN_HKEX_RAP_DEFAULT", json.dumps(connection))
    monkeypatch.setenv("AIRFLOW__HKEX_RAP__CLOCK_OFFSET", str((now - pendulum.now()).total_seconds()))


@pytest.fixture
def rap(monkeypatch: pytest.MonkeyPatch) -> Iterator[RapSimulator]:
    with RapSimulator(accounts=ACCOUNTS, now=NOW) as rap:
        use(monkeypatch, rap.connection("DCXYZ001"))
        yield rap


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return tmp_path / "lake"


def download(lake: Path, context: Any = None, **arguments: Any) -> dict[str, Any]:
    arguments = {"folders": FOLDERS, "lake": lake.as_uri(), **arguments}
    return RapDownloadOperator(task_id="land", **arguments).execute(context or {})


def landed(lake: Path) -> dict[str, str]:
    """Return the SHA-256 of every file in the lake but the manifest's, by path."""
    return {
        str(path.relative_to(lake)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in lake.rglob("*")
        if path.is_file() and "_manifests" not in path.parts
    }


def entries(lake: Path) -> list[dict[str, Any]]:
    paths = sorted((lake / "_manifests").rglob("*.json"))
    return [entry for path in paths for entry in json.loads(path.read_bytes())["entries"]]


def published(rap: RapSimulator) -> dict[tuple[str, str], str]:
    return {
        (folder.value, file.name.decode()): file.sha256 for folder in Folder for file in rap.files(folder)
    }


def by_name(lake: Path) -> dict[tuple[str, str], str]:
    parts = {path: path.split("/") for path in landed(lake)}
    return {
        (parts[path][1].removeprefix("folder="), parts[path][-1]): digest
        for path, digest in landed(lake).items()
    }


def test_a_trading_day_lands_once(rap: RapSimulator, lake: Path) -> None:
    rap.publish_day(NOW.date(), reports=60)
    summary = download(lake)
    assert by_name(lake) == published(rap)
    assert summary["landed"] == len(published(rap))
    assert summary["bytes"] == sum(file.size for folder in Folder for file in rap.files(folder))
    assert summary["already"] == summary["deferred"] == summary["failed"] == 0
    assert {entry["sha256"] for entry in entries(lake)} == set(published(rap).values())
    assert len(rap.events.of("login")) == 1
    assert sorted(event.path for event in rap.events.of("list")) == sorted(folder.path for folder in Folder)
    assert len(rap.events.of("open")) == len(published(rap))
    assert not rap.events.of("denied", "missing")

    rap.events.clear()
    before = landed(lake)
    assert download(lake)["already"] == len(before)
    assert landed(lake) == before
    assert len(rap.events.of("login")) == 1
    assert len(rap.events.of("list")) == 3
    assert not rap.events.of("open")


def test_the_other_account_of_the_customer_fetches_nothing_again(
    rap: RapSimulator, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rap.publish_day(NOW.date())
    download(lake)
    rap.events.clear()
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", rap.connection_json("DCXYZ002"))
    summary = download(lake, rap_conn_id="other")
    assert summary["landed"] == 0
    assert [event.account for event in rap.events.of("login")] == ["DCXYZ002"]
    assert not rap.events.of("open")


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_a_trading_day_lands_from_openssh(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with openssh() as server:
        use(monkeypatch, server.connection())
        for number in range(300):
            server.put(
                Folder.DCASS, f"TP001_{number}_20261120.csv", bytes([number % 256]) * 999, MTIME.int_timestamp
            )
        assert download(lake)["landed"] == 300
        assert download(lake)["already"] == 300
    assert len(landed(lake)) == 300


@pytest.mark.parametrize("at_byte", [0, 1, 250_000, 499_999, 500_000])
def test_a_login_cut_in_the_middle_of_a_file_loses_nothing(
    rap: RapSimulator, lake: Path, at_byte: int
) -> None:
    for number in range(20):
        rap.put(Folder.DCASS, f"R{number:02}_20261120.csv", 500_000, MTIME.add(seconds=number))
    rap.faults.add(Fault("drop", path="*/R10_*", at_byte=at_byte))
    # A cut after the last byte of the last file harms nothing, and may go unnoticed.
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
def test_a_file_that_is_not_what_was_listed_is_deferred(rap: RapSimulator, lake: Path, kind: str) -> None:
    rap.put(Folder.DCASS, "changing_20261120.csv", 100_000, MTIME)
    rap.put(Folder.DCASS, "steady_20261120.csv", 100, MTIME)
    rap.faults.add(Fault(kind, path="*/changing*", at_byte=50_000))
    with pytest.raises(RapTransferError, match="changing_20261120") as caught:
        download(lake)
    assert caught.value.retryable
    assert set(by_name(lake)) == {("DCASS", "steady_20261120.csv")}
    download(lake)
    assert by_name(lake) == published(rap)


def test_names_that_would_leave_the_lake_are_quarantined(rap: RapSimulator, lake: Path) -> None:
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
    rap.put(Folder.DCASS, "TP001_20261120.csv", b"first", MTIME)
    download(lake)
    rap.put(Folder.DCASS, "TP001_20261120.csv", b"second", MTIME.add(minutes=5))
    download(lake)
    names = sorted(name for _, name in by_name(lake))
    assert names == ["TP001_20261120.csv", "TP001_20261120.csv.v2"]
    old, new = sorted(entries(lake), key=lambda entry: entry["committed"])
    assert new["supersedes"] == old["uri"]


def test_what_was_expected_and_did_not_come_is_named(rap: RapSimulator, lake: Path) -> None:
    rap.put(Folder.DCASS, "TP001_20261120.csv", b"x", MTIME)
    with pytest.raises(RapReportMissing, match="RPI03") as caught:
        download(lake, expect=("TP001*", "RPI03*"))
    assert caught.value.missing == ("RPI03*",)
    assert caught.value.retryable
    assert by_name(lake)
    rap.put(Folder.DCASS, "RPI03_20261120.csv", b"y", MTIME)
    download(lake, expect=("TP001*", "RPI03*"))


def test_what_was_expected_and_can_no_longer_come_fails_at_once(rap: RapSimulator, lake: Path) -> None:
    night = rap.put(Folder.DCASS, "NIGHT_20261109.csv", b"x", NOW.subtract(days=10))
    what = {"business_date": "2026-11-09", "expect": ["TP001*", "NIGHT*"]}
    # Some of that day is still listed.
    with pytest.raises(RapReportMissing, match=r"TP001\*"):
        download(lake, **what)
    assert by_name(lake) == published(rap)
    rap.remove(Folder.DCASS, night.text)
    with pytest.raises(RapRetentionExpired, match=r"None of TP001\* of 2026-11-09 is in") as caught:
        download(lake, **what)
    assert isinstance(caught.value, AirflowFailException)


def test_a_business_date_lands_alone(rap: RapSimulator, lake: Path) -> None:
    rap.put(Folder.DCASS, "TP001_20261119.csv", b"x", MTIME.subtract(days=1))
    rap.put(Folder.DCASS, "TP001_20261120.csv", b"y", MTIME)
    download(lake, business_date="2026-11-19")
    assert list(landed(lake)) == ["customer=CXYZ/folder=DCASS/business_date=2026-11-19/TP001_20261119.csv"]


def test_a_business_date_past_the_ten_days_fails_without_retries(rap: RapSimulator, lake: Path) -> None:
    with pytest.raises(RapRetentionExpired, match="left RAP on 2026-11-20") as caught:
        download(lake, business_date="2026-11-09")
    assert isinstance(caught.value, AirflowFailException)
    with pytest.raises(RapReportMissing) as missing_day:
        download(lake, business_date="2026-11-11")
    assert not isinstance(missing_day.value, AirflowFailException)


def test_a_folder_out_of_reach_fails_after_the_others_have_landed(
    lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RapSimulator(now=NOW, subscriptions={"DCXYZ001": (Service.DCASS,)}) as rap:
        use(monkeypatch, rap.connection("DCXYZ001"))
        rap.put(Folder.DCASS, "TP001_20261120.csv", b"x", MTIME)
        with pytest.raises(RapPermissionDenied, match="HKCC_SEOCH_CCMS_GLOB"):
            download(lake)
        assert by_name(lake) == published(rap)


@pytest.mark.parametrize("attributes", ["none", "no_size", "no_mtime"])
def test_a_file_of_which_rap_says_nothing_lands_whole(
    lake: Path, monkeypatch: pytest.MonkeyPatch, attributes: Any
) -> None:
    with RapSimulator(now=NOW, attributes=attributes, stat_attributes=attributes) as rap:
        use(monkeypatch, rap.connection("DCXYZ001"))
        for size in (0, 3_000, 32 * 1024, 1_000_000):
            rap.put(Folder.DCASS, f"R{size}_20261120.csv", size, MTIME)
        download(lake)
        assert by_name(lake) == published(rap)


def test_a_file_of_the_same_size_and_no_time_is_read_again(
    lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RapSimulator(now=NOW, attributes="no_mtime", stat_attributes="no_mtime") as rap:
        use(monkeypatch, rap.connection("DCXYZ001"))
        for content, count in ((b"first", 1), (b"again", 1), (b"again", 0)):
            rap.put(Folder.DCASS, "TP001_20261120.csv", content, MTIME)
            assert download(lake)["landed"] == count
    assert {path.read_bytes() for path in lake.rglob("TP001*.csv*")} == {b"first", b"again"}


def test_a_folder_that_is_denied_while_it_opens_is_asked_for_again(
    lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening = pendulum.datetime(2026, 11, 23, 7, 15, tz="Asia/Hong_Kong")
    with RapSimulator(now=opening.subtract(seconds=20), enforce_hours=True) as rap:
        use(monkeypatch, rap.connection("DCXYZ001"), opening)
        rap.put(Folder.DCASS, "TP001_20261120.csv", b"x", MTIME)
        with pytest.raises(RapPermissionDenied):
            download(lake, folders="HKCC_SEOCH_CCMS_GLOB")
        with pytest.raises(AirflowRescheduleException):
            download(lake, in_a_run())
        assert by_name(lake) == published(rap)
        rap.clock.advance(seconds=20)
        assert download(lake, in_a_run())["already"] == 1


def test_a_rap_that_is_not_there_while_it_opens_is_asked_for_again(
    lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening = pendulum.datetime(2026, 11, 23, 7, tz="Asia/Hong_Kong")
    with RapSimulator(now=opening.subtract(seconds=20), enforce_hours=True) as rap:
        use(monkeypatch, rap.connection("DCXYZ001"), opening)
        with pytest.raises(RapUnavailable):
            download(lake, folders="DCASS")
        with pytest.raises(AirflowRescheduleException):
            download(lake, in_a_run(), folders="DCASS")
        use(monkeypatch, rap.connection("DCXYZ001"), opening.add(minutes=5))
        with pytest.raises(RapUnavailable):
            download(lake, in_a_run(), folders="DCASS")


@pytest.mark.parametrize("uri", ["", "data/rap", "file://data/rap", "s4://bucket/rap", "nothing://rap"])
def test_what_is_no_lake_is_refused_at_once(rap: RapSimulator, uri: str) -> None:
    with pytest.raises(RapConfigurationError, match="lake") as caught:
        RapDownloadOperator(task_id="land", folders="DCASS", lake=uri).execute({})
    assert isinstance(caught.value, AirflowFailException)
    assert not rap.events


def test_one_pattern_may_stand_for_itself(rap: RapSimulator, lake: Path) -> None:
    for name in ("TP001_20261120.csv", "RPI03_20261120.csv", "x_20261120.tmp"):
        rap.put(Folder.DCASS, name, b"x", MTIME)
    download(lake, include="TP001*", expect="TP001*")
    assert set(by_name(lake)) == {("DCASS", "TP001_20261120.csv")}
    download(lake, exclude="*.tmp")
    assert ("DCASS", "x_20261120.tmp") not in by_name(lake)
    assert ("DCASS", "RPI03_20261120.csv") in by_name(lake)


def test_a_failing_listing_holds_up_no_other_folder(rap: RapSimulator, lake: Path) -> None:
    rap.put(Folder.DCASS, "TP001_20261120.csv", b"x", MTIME)
    rap.faults.add(Fault("listing_error", path="*/DCASS_OTHERS"))
    with pytest.raises(RapTransferError, match="DCASS_OTHERS"):
        download(lake)
    assert by_name(lake) == published(rap)


def test_on_a_public_holiday_a_denied_folder_is_a_closed_one(
    lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    christmas = pendulum.datetime(2026, 12, 25, 23, 30, tz="Asia/Hong_Kong")
    with RapSimulator(now=christmas, subscriptions={"DCXYZ001": (Service.DCASS,)}) as rap:
        use(monkeypatch, rap.connection("DCXYZ001"), christmas)
        assert download(lake, folders=["HKCC_SEOCH_CCMS_GLOB"])["landed"] == 0


def test_what_landed_long_ago_still_counts(
    rap: RapSimulator, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rap.put(Folder.DCASS, "TP001_20261120.csv", b"x", MTIME)
    download(lake)
    later = NOW.add(days=41)
    rap.clock.set(later)
    use(monkeypatch, rap.connection("DCXYZ001"), later)
    download(lake, business_date="2026-11-20", expect="TP001*")


def test_the_pool_of_default_args_counts(lake: Path) -> None:
    arguments = {"folders": "DCASS", "lake": lake.as_uri(), "default_args": {"pool": "account_2"}}
    assert RapDownloadOperator(task_id="land", **arguments).pool == "account_2"
    assert RapDownloadOperator(task_id="land", folders="DCASS", lake=lake.as_uri()).pool == "hkex_rap"


def test_a_wrong_connection_is_refused_while_rap_is_shut_too(
    rap: RapSimulator, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shut = pendulum.datetime(2026, 11, 22, 12, tz="Asia/Hong_Kong")
    use(monkeypatch, {**rap.connection("DCXYZ001"), "login": "dcxyz001"}, shut)
    with pytest.raises(RapConfigurationError, match="DCXYZ001"):
        download(lake)


@pytest.mark.parametrize(
    ("arguments", "form"),
    [
        ({"include": ()}, "globs"),
        ({"lake": ""}, "file:///data/rap"),
        ({"lake": "relative/path"}, "file:///data/rap"),
        ({"folders": []}, "DCASS_OTHERS"),
        ({"folders": ["DCAS"]}, "DCASS_OTHERS"),
        ({"folders": ["/submission"]}, "DCASS_OTHERS"),
        ({"business_date": "20261120"}, "YYYY-MM-DD"),
        ({"naming": "("}, "date"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused_before_any_network(
    rap: RapSimulator, lake: Path, arguments: dict[str, Any], form: str
) -> None:
    operator = RapDownloadOperator(task_id="land", **{"folders": FOLDERS, "lake": lake.as_uri(), **arguments})
    with pytest.raises(RapConfigurationError, match=form) as caught:
        operator.execute({})
    assert isinstance(caught.value, AirflowFailException)
    assert not rap.events


@pytest.mark.parametrize("login", ["dcxyz001", "DCXYZ005", "DXYZ001", "", "DCXYZ001 "])
def test_a_login_that_is_no_account_is_refused_before_any_network(
    rap: RapSimulator, lake: Path, monkeypatch: pytest.MonkeyPatch, login: str
) -> None:
    use(monkeypatch, {**rap.connection("DCXYZ001"), "login": login})
    with pytest.raises(RapConfigurationError, match="DCXYZ001"):
        download(lake)
    assert not rap.events


def test_a_wrong_host_key_fails_without_retries(
    rap: RapSimulator, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = rap.connection("DCXYZ001")
    with RapSimulator(name="another") as other:
        use(monkeypatch, {**connection, "extra": {**connection["extra"], "host_key": other.host_key}})
        with pytest.raises(RapHostKeyError) as caught:
            download(lake)
    assert isinstance(caught.value, AirflowFailException)
    assert not rap.events.of("login", "refused")


@pytest.mark.parametrize(
    ("now", "opening"),
    [
        ("2026-11-20 03:30", "2026-11-20 07:15"),
        ("2026-11-21 03:29", "2026-11-23 07:15"),
        ("2026-11-22 12:00", "2026-11-23 07:15"),
        ("2027-01-01 12:00", "2027-01-04 07:15"),
    ],
)
def test_while_rap_is_shut_the_task_waits_for_the_opening_without_a_login(
    rap: RapSimulator, lake: Path, monkeypatch: pytest.MonkeyPatch, now: str, opening: str
) -> None:
    time = pendulum.parse(now, tz="Asia/Hong_Kong")
    assert isinstance(time, pendulum.DateTime)
    use(monkeypatch, rap.connection("DCXYZ001"), time)
    with pytest.raises(AirflowRescheduleException) as caught:
        download(lake)
    assert not rap.events
    wait = caught.value.reschedule_date - pendulum.now()
    expected = pendulum.parse(opening, tz="Asia/Hong_Kong")
    assert isinstance(expected, pendulum.DateTime)
    assert abs((time + wait) - expected).total_seconds() < 5


def test_a_shifted_clock_is_refused_where_the_connection_leaves_this_machine(
    rap: RapSimulator, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, {**rap.connection("DCXYZ001"), "host": ""})
    with pytest.raises(RapConfigurationError, match="clock_offset"):
        download(lake)


def test_it_runs_where_a_loop_is_running_already(rap: RapSimulator, lake: Path) -> None:
    rap.put(Folder.DCASS, "TP001_20261120.csv", b"x", MTIME)

    async def notebook() -> dict[str, Any]:
        return download(lake)

    assert asyncio.run(notebook())["landed"] == 1


def test_being_killed_ends_the_session_at_once(rap: RapSimulator, lake: Path) -> None:
    rap.put(Folder.DCASS, "stalls_20261120.csv", 300_000, MTIME)
    fault = rap.faults.add(Fault("stall", path="*/stalls*", at_byte=100_000))
    operator = RapDownloadOperator(task_id="land", folders="DCASS", lake=lake.as_uri())

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

    async def _land(self, *arguments: Any) -> Any:
        self.on_kill()
        await asyncio.sleep(0)
        return await super()._land(*arguments)


def test_a_task_that_is_killed_before_its_login_does_not_log_in(rap: RapSimulator, lake: Path) -> None:
    operator = KilledEarly(task_id="land", folders="DCASS", lake=lake.as_uri())
    with pytest.raises(RapUnavailable, match="not logged in"):
        operator.execute({})
    assert not rap.events
    operator.on_kill()
    download(lake)


class TimedOut(RapDownloadOperator):
    """Meets its execution_timeout while its event loop is at work."""

    async def _land(self, hook: RapHook, *arguments: Any) -> Any:
        async with hook.session() as session:
            asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGALRM)
            await session.list_folder(Folder.DCASS)


def test_an_execution_timeout_ends_a_task_that_is_at_work(rap: RapSimulator, lake: Path) -> None:
    fault = rap.faults.add(Fault("listing_stall"))
    operator = TimedOut(task_id="land", folders="DCASS", lake=lake.as_uri())
    with pytest.raises(AirflowTaskTimeout), timeout(60):
        operator.execute({})
    rap.events.wait_for("lost")
    rap.faults.release(fault)
    download(lake)


@pytest.mark.parametrize("given", ["['*']", "TP*,R*", '["TP001_*"]', "[]"])
def test_a_list_that_a_template_has_made_a_text_is_refused(lake: Path, given: str) -> None:
    for field in ("include", "exclude", "expect"):
        with pytest.raises(RapConfigurationError, match=rf"{field}.*render_template_as_native_obj"):
            download(lake, **{field: given})


def test_a_set_of_characters_is_a_pattern(rap: RapSimulator, lake: Path) -> None:
    rap.put(Folder.DCASS, "T1", b"x", MTIME)
    assert download(lake, include="[ST][0-9]")["landed"] == 1


def test_what_a_template_leaves_blank_counts_as_left_out(rap: RapSimulator, lake: Path) -> None:
    rap.put(Folder.DCASS, "TP001_20261120.csv", b"x", MTIME)
    for blank in ("", None, [""], []):
        download(lake, expect=blank, exclude=blank, naming="")
    for blank in ("", None):
        for field in ("folders", "include"):
            with pytest.raises(RapConfigurationError):
                download(lake, **{field: blank})
    assert by_name(lake) == published(rap)


def in_a_run() -> Any:
    """Return the little of a task's context that tells a run from a notebook."""
    return {
        "ti": SimpleNamespace(dag_id="daily", run_id="run", task_id="land", try_number=1),
        "dag_run": SimpleNamespace(conf={}, run_after=NOW),
    }


def test_a_task_that_is_thrown_out_leaves_in_peace_and_goes_on(
    rap: RapSimulator, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__HKEX_RAP__SUPERSEDED_WAIT", "0.1")
    for number in range(5):
        rap.put(Folder.DCASS, f"R{number}_20261120.csv", 100_000, MTIME)
    # One after the other, so that each session lands something.
    monkeypatch.setattr(reading, "FILES_IN_FLIGHT", 1)
    rap.faults.add(Fault("drop", path="*/R3_*", at_byte=10, times=3))
    summary = download(lake, in_a_run(), folders="DCASS")
    assert by_name(lake) == published(rap)
    assert (summary["landed"], summary["already"], summary["bytes"]) == (5, 0, 500_000)
    assert len({event.session for event in rap.events.of("open") if "R3" not in event.path}) > 1
    assert len(rap.events.of("login")) == 4
    assert rap.events.peak_sessions("DCXYZ001") == 1


def test_a_task_that_is_thrown_out_as_rap_shuts_waits_for_the_opening(
    lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__HKEX_RAP__SUPERSEDED_WAIT", "4")
    shuts = pendulum.datetime(2026, 11, 21, 3, 30, tz="Asia/Hong_Kong")
    with RapSimulator(now=shuts.subtract(seconds=3), enforce_hours=True) as rap:
        use(monkeypatch, rap.connection("DCXYZ001"), rap.clock())
        rap.put(Folder.DCASS, "R_20261120.csv", 100_000, MTIME)
        rap.faults.add(Fault("drop", at_byte=10))
        with pytest.raises(AirflowRescheduleException):
            download(lake, in_a_run(), folders="DCASS")
        assert len(rap.events.of("connect")) == 1


def test_a_task_that_is_thrown_out_a_fourth_time_fails(
    rap: RapSimulator, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__HKEX_RAP__SUPERSEDED_WAIT", "0.1")
    rap.put(Folder.DCASS, "R_20261120.csv", 100_000, MTIME)
    rap.faults.add(Fault("drop", path="*/R_*", at_byte=10, times=None))
    with pytest.raises(RapSessionSuperseded):
        download(lake, in_a_run(), folders="DCASS")
    assert len(rap.events.of("login")) == 4


def test_two_tasks_of_one_account_take_turns(rap: RapSimulator, tmp_path: Path) -> None:
    for number in range(50):
        rap.put(Folder.DCASS, f"R{number:02}_20261120.csv", 20_000, MTIME)
    lakes = [tmp_path / f"lake{number}" for number in range(4)]
    with ThreadPoolExecutor(4) as tasks:
        summaries = list(tasks.map(lambda lake: download(lake, folders="DCASS"), lakes))
    assert [summary["landed"] for summary in summaries] == [50] * 4
    assert rap.events.peak_sessions("DCXYZ001") == 1
    assert not rap.events.of("superseded")


@contextmanager
def hearing(words: str) -> Iterator[threading.Event]:
    """Give an event that is set once a log of this package says *words*."""
    heard = threading.Event()

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if words in record.getMessage():
                heard.set()

    logger, ear = logging.getLogger("airflow_provider_hkex_rap"), Ear()
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(ear)
    yield heard
    logger.removeHandler(ear)
    logger.setLevel(level)


def test_what_landed_while_a_task_waited_for_its_turn_is_not_landed_again(
    rap: RapSimulator, lake: Path
) -> None:
    for number in range(5):
        rap.put(Folder.DCASS, f"R{number}_20261120.csv", 20_000, MTIME)
    stall = rap.faults.add(Fault("stall"))
    with ThreadPoolExecutor(2) as tasks, hearing("is in use on this host") as in_line:
        first = tasks.submit(download, lake, folders="DCASS")
        rap.events.wait_for("fault")
        second = tasks.submit(download, lake, folders="DCASS")
        assert in_line.wait(60)
        rap.faults.release(stall)
    assert (first.result()["landed"], second.result()["landed"]) == (5, 0)
    assert len(entries(lake)) == 5


def test_two_customers_share_a_lake_and_nothing_else(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RapSimulator(accounts=("DCXYZ001", "DCABC001"), now=NOW) as rap:
        use(monkeypatch, rap.connection("DCXYZ001"))
        monkeypatch.setenv("AIRFLOW_CONN_ABC", rap.connection_json("DCABC001"))
        rap.put(Folder.DCASS, "R_20261120.csv", b"xyz", MTIME, account="DCXYZ001")
        rap.put(Folder.DCASS, "R_20261120.csv", b"abc", MTIME, account="DCABC001")
        download(lake, folders="DCASS")
        download(lake, folders="DCASS", rap_conn_id="abc")
    for customer, content in (("CXYZ", b"xyz"), ("CABC", b"abc")):
        (path,) = (lake / f"customer={customer}").rglob("R_*")
        assert path.read_bytes() == content


def test_one_field_switches_the_site_and_nothing_lands_twice(
    rap: RapSimulator, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rap.put(Folder.DCASS, "R_20261120.csv", b"same", MTIME)
    download(lake, folders="DCASS")
    with RapSimulator(now=NOW, name="rap") as secondary:
        secondary.put(Folder.DCASS, "R_20261120.csv", b"same", MTIME.add(minutes=7))
        connection = rap.connection("DCXYZ001")
        connection["extra"] |= {"site": "secondary", "secondary_hosts": f"127.0.0.1:{secondary.port}"}
        use(monkeypatch, connection)
        rap.events.clear()
        assert download(lake, folders="DCASS")["landed"] == 0
        assert len(secondary.events.of("open")) == 1
        assert download(lake, folders="DCASS")["already"] == 1
        assert len(secondary.events.of("open")) == 1
    assert not rap.events
    assert set(by_name(lake)) == {("DCASS", "R_20261120.csv")}
    assert {entry["site"] for entry in entries(lake)} == {"primary", "secondary"}


def test_no_secret_shows_in_anything_that_the_task_says(
    rap: RapSimulator, lake: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    rap.faults.add(Fault("refuse_login", times=None))
    operator = RapDownloadOperator(task_id="land", folders="DCASS", lake=lake.as_uri())
    with caplog.at_level("DEBUG"), pytest.raises(RapError) as caught:
        operator.execute({})
    said = f"{caught.value!r} {caught.value} {caught.value.__dict__} {caplog.text} {capfd.readouterr()}"
    secret = [line for line in rap.private_key("DCXYZ001").splitlines() if not line.startswith("-----")]
    assert not [line for line in secret if line in said]
