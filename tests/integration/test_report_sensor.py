"""The report sensor: one login and one listing a look, and what it says of what is not there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pendulum
import pytest
from airflow.sdk.exceptions import (
    AirflowRescheduleException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
)
from airflow.sdk.execution_time import supervisor, task_runner

from airflow_provider_hkex_rap.rap.errors import (
    RapAuthenticationError,
    RapClosed,
    RapConfigurationError,
    RapRetentionExpired,
    RapSessionSuperseded,
)
from airflow_provider_hkex_rap.rap.files import Kind, RemoteFile
from airflow_provider_hkex_rap.rap.folders import Folder, Service
from airflow_provider_hkex_rap.sensors.key_expiry import RapKeyExpiryWarningSensor
from airflow_provider_hkex_rap.sensors.report import RapReportSensor
from airflow_provider_hkex_rap.testing import Access, Fault, RapSimulator

NOW = pendulum.datetime(2026, 11, 20, 21, 0, tz="Asia/Hong_Kong")
MTIME = NOW.subtract(hours=2)
SENSORS = [partial(RapReportSensor, folder="DCASS"), RapKeyExpiryWarningSensor]


def set_clock(monkeypatch: pytest.MonkeyPatch, now: pendulum.DateTime) -> None:
    monkeypatch.setenv("AIRFLOW__HKEX_RAP__CLOCK_OFFSET", str((now - pendulum.now()).total_seconds()))


@pytest.fixture
def rap(monkeypatch: pytest.MonkeyPatch) -> Iterator[RapSimulator]:
    with RapSimulator(now=NOW) as rap:
        monkeypatch.setenv("AIRFLOW_CONN_HKEX_RAP_DEFAULT", json.dumps(rap.connection("DCXYZ001")))
        set_clock(monkeypatch, NOW)
        yield rap


@pytest.fixture
def keys_in_a_directory(rap: RapSimulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    connection = rap.connection("DCXYZ001")
    connection["extra"]["key_store"] = tmp_path.as_uri()
    monkeypatch.setenv("AIRFLOW_CONN_HKEX_RAP_DEFAULT", json.dumps(connection))


def look(**arguments: Any) -> Any:
    sensor = RapReportSensor(task_id="wait", **{"folder": "DCASS", "reports": ["TP001*"], **arguments})
    return sensor.execute({})


def seconds_until(error: AirflowRescheduleException) -> float:
    return (error.reschedule_date - pendulum.now("UTC")).total_seconds()


def test_a_report_that_is_there_is_found_by_one_login_and_one_listing(rap: RapSimulator) -> None:
    rap.put(Folder.DCASS, "TP001_20261120.csv", b"123", MTIME)
    rap.put(Folder.DCASS, "TP001_20261119.csv", b"1", MTIME.subtract(days=1))
    assert look() == [{"name": "TP001_20261120.csv", "size": 3, "mtime": "2026-11-20T11:00:00+00:00"}]
    assert len(rap.events.of("login")) == len(rap.events.of("list")) == 1
    assert not rap.events.of("open", "denied", "missing")


@pytest.mark.parametrize(
    ("files", "arguments"),
    [
        ([], {}),
        ([("TP001_20261119.csv", MTIME.subtract(days=1))], {}),
        ([("TP001_20261120.csv", NOW.subtract(seconds=30))], {}),
        ([("TP001_20261120.csv", MTIME)], {"min_files": 2}),
        ([("TP001_20261120.csv", MTIME)], {"reports": ["TP001*", "RPI03*"]}),
    ],
    ids=["nothing", "yesterday's", "being written", "too few", "one of two"],
)
def test_it_waits_for_what_is_not_there_yet(
    rap: RapSimulator, files: list[tuple[str, pendulum.DateTime]], arguments: dict[str, Any]
) -> None:
    for name, mtime in files:
        rap.put(Folder.DCASS, name, b"x", mtime)
    with pytest.raises(AirflowRescheduleException) as caught:
        look(**arguments)
    assert 590 < seconds_until(caught.value) <= 600


def test_a_report_that_arrives_late_is_found_by_a_later_look(rap: RapSimulator) -> None:
    with pytest.raises(AirflowRescheduleException):
        look()
    rap.put(Folder.DCASS, "TP001_20261120.csv", b"x", NOW.subtract(minutes=5))
    assert [file["name"] for file in look()] == ["TP001_20261120.csv"]


def test_when_it_times_out_it_names_what_did_not_come(rap: RapSimulator) -> None:
    rap.put(Folder.DCASS, "TP001_20261120.csv", b"x", MTIME)
    with pytest.raises(AirflowSensorTimeout, match=r"RPI03\* \(0 of 1\)"):
        look(reports=["TP001*", "RPI03*"], timeout=0)


def test_past_the_ten_days_it_fails_without_retries(rap: RapSimulator) -> None:
    with pytest.raises(RapRetentionExpired, match="2026-11-20") as caught:
        look(business_date="2026-11-09")
    assert not caught.value.retryable
    with pytest.raises(AirflowRescheduleException):
        look(business_date="2026-11-10")
    # A part of the day may still be listed.
    rap.put(Folder.DCASS, "TP001_20261109.csv", b"x", MTIME.subtract(days=9))
    with pytest.raises(RapRetentionExpired):
        look(business_date="2026-11-09")


@pytest.mark.parametrize("now", ["2026-11-20 05:00", "2026-11-22 12:00"])
@pytest.mark.guide("4.1 hours")
def test_while_rap_is_shut_nobody_logs_in_and_no_timeout_counts(
    rap: RapSimulator, monkeypatch: pytest.MonkeyPatch, now: str
) -> None:
    at = pendulum.parse(now, tz="Asia/Hong_Kong")
    assert isinstance(at, pendulum.DateTime)
    set_clock(monkeypatch, at)
    with pytest.raises(RapClosed, match="07:00 HKT"):
        look(timeout=0)
    context = {"dag_run": SimpleNamespace(conf={}, run_after=at, logical_date=None)}
    with pytest.raises(AirflowRescheduleException) as caught:
        RapReportSensor(task_id="wait", folder="DCASS", timeout=0).execute(context)
    assert not rap.events
    assert at.add(seconds=round(seconds_until(caught.value))).format("HH:mm") == "07:00"


@pytest.mark.parametrize(
    ("folder", "ours", "of_rap"),
    [
        ("HKCC_SEOCH_CCMS_GLOB", "2026-11-23 07:15:00", "2026-11-23 07:14:40"),
        ("HKCC_SEOCH_CCMS_GLOB", "2026-11-23 23:59:50", "2026-11-24 00:00:05"),
        ("DCASS", "2026-11-23 07:00:00", "2026-11-23 06:59:40"),
    ],
)
def test_where_raps_clock_goes_otherwise_it_asks_again_in_a_minute(
    monkeypatch: pytest.MonkeyPatch, folder: str, ours: str, of_rap: str
) -> None:
    now, there = (pendulum.parse(time, tz="Asia/Hong_Kong") for time in (ours, of_rap))
    assert isinstance(now, pendulum.DateTime)
    assert isinstance(there, pendulum.DateTime)
    with RapSimulator(now=there, access=Access(enforce_hours=True)) as rap:
        monkeypatch.setenv("AIRFLOW_CONN_HKEX_RAP_DEFAULT", json.dumps(rap.connection("DCXYZ001")))
        set_clock(monkeypatch, now)
        context = {"dag_run": SimpleNamespace(conf={}, run_after=now, logical_date=None)}
        sensor = RapReportSensor(task_id="wait", folder=folder, timeout=0)
        with pytest.raises(AirflowRescheduleException) as caught:
            sensor.execute(context)
        assert 50 < seconds_until(caught.value) <= 60
        assert rap.events.of("denied", "missing", "refused")


@pytest.mark.parametrize(("least", "backoff"), [(60, False), (120, True)])
def test_a_poll_oftener_than_a_minute_is_refused(least: int, backoff: bool) -> None:
    for sensor in (partial(RapReportSensor, folder="DCASS"), RapKeyExpiryWarningSensor):
        make = partial(sensor, task_id="wait", exponential_backoff=backoff)
        with pytest.raises(RapConfigurationError, match=rf"{least} s or more"):
            make(poke_interval=least - 1)
        make(poke_interval=least)
        with pytest.raises(RapConfigurationError, match="max_wait"):
            make(poke_interval=600, max_wait=59)


@pytest.mark.parametrize("arguments", [{"reports": ()}, {"min_files": 0}], ids=str)
def test_waiting_for_nothing_is_refused(rap: RapSimulator, arguments: dict[str, Any]) -> None:
    with pytest.raises(RapConfigurationError):
        look(**arguments)
    assert not rap.events


@pytest.mark.parametrize("sensor", SENSORS)
def test_holding_the_slot_between_looks_is_refused(sensor: Any) -> None:
    with pytest.raises(RapConfigurationError, match="reschedule"):
        sensor(task_id="wait", mode="poke")


def test_one_pattern_may_stand_for_itself(rap: RapSimulator) -> None:
    rap.put(Folder.DCASS, "TP001_20261120.csv", b"123", MTIME)
    assert look(reports="TP001*")


def test_who_throws_it_out_is_left_in_peace(rap: RapSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__HKEX_RAP__SUPERSEDED_WAIT", "300")
    rap.faults.add(Fault("listing_cut"))
    with pytest.raises(AirflowRescheduleException) as caught:
        look(poke_interval=60)
    assert 295 < seconds_until(caught.value) <= 360


def test_a_server_that_is_away_is_waited_for(rap: RapSimulator) -> None:
    rap.faults.add(Fault("stall_at", stage="banner"))
    connection = rap.connection("DCXYZ001")
    connection["extra"]["connect_timeout"] = 0.3
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AIRFLOW_CONN_HKEX_RAP_DEFAULT", json.dumps(connection))
        with pytest.raises(AirflowRescheduleException):
            look()
    rap.put(Folder.DCASS, "TP001_20261120.csv", b"x", MTIME)
    assert look()


def test_on_a_public_holiday_a_denied_folder_is_one_that_is_shut(monkeypatch: pytest.MonkeyPatch) -> None:
    christmas = pendulum.datetime(2026, 12, 25, 12, tz="Asia/Hong_Kong")
    with RapSimulator(now=christmas, access=Access(subscriptions={"DCXYZ001": (Service.DCASS,)})) as rap:
        monkeypatch.setenv("AIRFLOW_CONN_HKEX_RAP_DEFAULT", json.dumps(rap.connection("DCXYZ001")))
        set_clock(monkeypatch, christmas)
        with pytest.raises(AirflowRescheduleException):
            look(folder="HKCC_SEOCH_CCMS_GLOB", timeout=3600)
        assert rap.events.of("missing")


def judge(monkeypatch: pytest.MonkeyPatch, files: list[RemoteFile], **arguments: Any) -> Any:
    """Judge a listing that the simulator would not send."""

    async def listing(self: RapReportSensor) -> list[RemoteFile]:
        return files

    monkeypatch.setattr(RapReportSensor, "_listing", listing)
    return look(**arguments)


def entry(name: str, mtime: float | None, kind: Kind = Kind.FILE) -> RemoteFile:
    return RemoteFile(Folder.DCASS, name.encode(), 3, None if mtime is None else int(mtime), kind)


def test_an_entry_that_is_listed_three_times_is_one_file(
    rap: RapSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [entry("TP001_20261120.csv", MTIME.timestamp())] * 3
    with pytest.raises(AirflowSensorTimeout, match=r"TP001\* \(1 of 2\)"):
        judge(monkeypatch, files, min_files=2, timeout=0)
    assert len(judge(monkeypatch, files)) == 1


@pytest.mark.parametrize("name", ["TP001\\20261120.csv", "TP001_20261120.csv\n", "TP001" + "x" * 300])
def test_a_name_that_may_not_land_has_not_arrived(
    rap: RapSimulator, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with pytest.raises(AirflowSensorTimeout, match="does not count, since it may not land: Its name"):
        judge(monkeypatch, [entry(name, MTIME.timestamp())], timeout=0)


def test_a_name_that_is_listed_as_fresh_too_is_not_stable(
    rap: RapSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [entry("TP001_20261120.csv", at.timestamp()) for at in (MTIME, NOW.subtract(seconds=2))]
    with pytest.raises(AirflowRescheduleException):
        judge(monkeypatch, files)


def test_a_clock_that_is_behind_raps_is_named(rap: RapSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = NOW.add(minutes=20)
    with pytest.raises(
        AirflowSensorTimeout, match=r"up to 1\d\d\d s ahead of our clock.*synchronise"
    ) as caught:
        judge(monkeypatch, [entry("TP001_20261120.csv", ahead.timestamp())], timeout=0)
    assert "too fresh" not in str(caught.value)


@pytest.mark.parametrize("mtime", [2**32 - 1, None], ids=str)
def test_an_mtime_that_is_no_time_gives_no_business_date(
    rap: RapSimulator, monkeypatch: pytest.MonkeyPatch, mtime: float | None
) -> None:
    assert judge(monkeypatch, [entry("TP001.csv", mtime)], business_date="2026-11-20")


def test_a_file_from_the_future_does_not_count(rap: RapSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AirflowSensorTimeout, match="synchronise"):
        judge(monkeypatch, [entry("TP001_20261120.csv", NOW.add(hours=23).timestamp())], timeout=0)


@pytest.mark.parametrize("mtime", [NOW.add(hours=25).timestamp(), NOW.add(days=3).timestamp(), 2**32 - 1])
def test_a_file_with_an_mtime_that_the_download_takes_for_no_time_counts_at_once(
    rap: RapSimulator, monkeypatch: pytest.MonkeyPatch, mtime: float
) -> None:
    found = judge(monkeypatch, [entry("TP001_20261120.csv", mtime)])
    assert found == [{"name": "TP001_20261120.csv", "size": 3, "mtime": None}]


def test_the_name_of_an_entry_that_may_not_land_is_printable_and_short(
    rap: RapSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["TP001\r\nINFO forged\u202e_20261120.csv", "TP001" + "x" * 100_000]
    with pytest.raises(AirflowSensorTimeout, match="forged") as caught:
        judge(monkeypatch, [entry(name, MTIME.timestamp()) for name in names], timeout=0)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 2000


def test_soft_fail_skips_a_report_that_has_not_come_and_says_which(rap: RapSimulator) -> None:
    with pytest.raises(AirflowSkipException, match=r"TP001\* \(0 of 1\)"):
        look(soft_fail=True, timeout=0)


def test_soft_fail_does_not_skip_a_refused_login(rap: RapSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = rap.connection("DCXYZ001") | {"login": "DCXYZ002"}
    monkeypatch.setenv("AIRFLOW_CONN_HKEX_RAP_DEFAULT", json.dumps(connection))
    with pytest.raises(RapAuthenticationError):
        look(soft_fail=True, timeout=0)


@pytest.mark.usefixtures("keys_in_a_directory")
@pytest.mark.parametrize("soft_fail", [False, True])
@pytest.mark.parametrize("sensor", SENSORS)
def test_a_last_look_that_has_failed_is_the_error_that_airflow_retries(
    rap: RapSimulator, sensor: Any, soft_fail: bool
) -> None:
    rap.faults.add(Fault("listing_cut"))
    with pytest.raises(RapSessionSuperseded) as caught:
        sensor(task_id="wait", timeout=0, soft_fail=soft_fail).execute({})
    assert caught.value.retryable


@pytest.mark.usefixtures("keys_in_a_directory")
@pytest.mark.parametrize("sensor", SENSORS)
def test_with_never_fail_the_time_out_after_a_failed_look_stays_airflows_own(
    rap: RapSimulator, sensor: Any
) -> None:
    rap.faults.add(Fault("listing_cut"))
    with pytest.raises(AirflowSensorTimeout):
        sensor(task_id="wait", timeout=0, soft_fail=False, never_fail=True).execute({})


@pytest.mark.parametrize("sensor", SENSORS)
def test_soft_fail_does_not_skip_a_look_that_was_cut_short(
    rap: RapSimulator, monkeypatch: pytest.MonkeyPatch, sensor: Any
) -> None:
    made = sensor(task_id="wait", soft_fail=True)

    def cut_short(context: Any) -> None:
        raise AirflowTaskTimeout

    monkeypatch.setattr(made, "poke", cut_short)
    with pytest.raises(AirflowTaskTimeout):
        made.execute({})


def test_a_skip_of_the_poke_itself_stays_a_skip(rap: RapSimulator) -> None:
    class Sensor(RapReportSensor):
        def poke(self, context: Any) -> Any:
            raise AirflowSkipException("No margin day.") from KeyError("margin")

    with pytest.raises(AirflowSkipException, match="No margin day"):
        Sensor(task_id="wait", folder="DCASS", soft_fail=True).execute({})


# Test runs, and tests.


@pytest.fixture
def test_run(keys_in_a_directory: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the sensors as ``airflow dags test`` does; Variables would need a real supervisor."""
    of_tests = object.__new__(supervisor.InProcessSupervisorComms)
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", of_tests, raising=False)


@pytest.mark.usefixtures("test_run")
@pytest.mark.parametrize(
    ("soft_fail", "ending"), [(False, AirflowSensorTimeout), (True, AirflowSkipException)]
)
def test_a_test_run_does_not_wait_for_a_report(
    rap: RapSimulator, soft_fail: bool, ending: type[Exception]
) -> None:
    with pytest.raises(ending, match=r"a test run does not wait.*TP001\* \(0 of 1\)") as caught:
        look(soft_fail=soft_fail)
    assert type(caught.value) is ending
    assert len(rap.events.of("login")) == 1
    rap.put(Folder.DCASS, "TP001_20261120.csv", b"x", MTIME)
    assert look()


@pytest.mark.usefixtures("test_run")
def test_a_test_run_does_not_wait_for_a_warning(rap: RapSimulator) -> None:
    sensor = RapKeyExpiryWarningSensor(task_id="warned", timeout=3600)
    with pytest.raises(AirflowSkipException, match="a test run does not wait"):
        sensor.execute({})


def test_a_poke_works_alone(rap: RapSimulator) -> None:
    sensor = RapReportSensor(task_id="wait", folder="DCASS", reports=["TP001*"])
    assert not sensor.poke({})
    rap.put(Folder.DCASS, "TP001_20261120.csv", b"x", MTIME)
    assert sensor.poke({})
    assert not RapKeyExpiryWarningSensor(task_id="warned").poke({})


def test_a_poke_alone_ends_as_the_task_does(rap: RapSimulator) -> None:
    with pytest.raises(RapConfigurationError, match="folder"):
        RapReportSensor(task_id="wait", folder="nowhere").poke({})
