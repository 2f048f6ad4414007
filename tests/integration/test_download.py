"""The download operator: what lands, what is said, and what the server saw."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pendulum
import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowRescheduleException

from airflow_provider_hkex_rap.operators.download import RapDownloadOperator
from airflow_provider_hkex_rap.rap.errors import (
    LakeError,
    RapClosed,
    RapConfigurationError,
    RapError,
    RapPermissionDenied,
    RapReportMissing,
    RapRetentionExpired,
    RapUnavailable,
)
from airflow_provider_hkex_rap.rap.folders import Folder, Service
from airflow_provider_hkex_rap.testing import Access, Fault, RapSimulator

from ..simulated_rap import FOLDERS, MTIME, NOW, by_name, download, entries, in_a_run, landed, published, use
from .openssh import missing, openssh


@pytest.mark.guide("4.1 once")
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


@pytest.mark.guide("4.1 once")
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
    rap.put(Folder.DCASS, "NIGHT_20261109.csv", b"x", NOW.subtract(days=10))
    what = {"business_date": "2026-11-09", "expect": ["TP001*", "NIGHT*"]}
    # Some of that day is still listed, and lands.
    with pytest.raises(RapRetentionExpired, match=r"None of TP001\* of 2026-11-09 is in") as caught:
        download(lake, **what)
    assert not caught.value.retryable
    assert by_name(lake) == published(rap)


def test_a_business_date_lands_alone(rap: RapSimulator, lake: Path) -> None:
    rap.put(Folder.DCASS, "TP001_20261119.csv", b"x", MTIME.subtract(days=1))
    rap.put(Folder.DCASS, "TP001_20261120.csv", b"y", MTIME)
    download(lake, business_date="2026-11-19")
    assert list(landed(lake)) == [
        "reports/customer=CXYZ/folder=DCASS/report=TP001/business_date=2026-11-19/TP001_20261119.csv"
    ]


@pytest.mark.guide("4.1 ten days")
def test_a_business_date_past_the_ten_days_fails_without_retries(rap: RapSimulator, lake: Path) -> None:
    with pytest.raises(RapRetentionExpired, match="left RAP on 2026-11-20") as caught:
        download(lake, business_date="2026-11-09", expect=["usual"])
    assert not caught.value.retryable
    with pytest.raises(RapReportMissing) as missing_day:
        download(lake, business_date="2026-11-11", expect=["usual"])
    assert missing_day.value.retryable


@pytest.mark.guide("4.2 subscription")
def test_a_folder_out_of_reach_fails_after_the_others_have_landed(
    lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RapSimulator(now=NOW, access=Access(subscriptions={"DCXYZ001": (Service.DCASS,)})) as rap:
        use(monkeypatch, rap.connection("DCXYZ001"))
        rap.put(Folder.DCASS, "TP001_20261120.csv", b"x", MTIME)
        with pytest.raises(RapPermissionDenied, match="HKCC_SEOCH_CCMS_GLOB"):
            download(lake)
        assert by_name(lake) == published(rap)


def test_a_folder_that_is_denied_while_it_opens_is_asked_for_again(
    lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening = pendulum.datetime(2026, 11, 23, 7, 15, tz="Asia/Hong_Kong")
    with RapSimulator(now=opening.subtract(seconds=20), access=Access(enforce_hours=True)) as rap:
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
    with RapSimulator(now=opening.subtract(seconds=20), access=Access(enforce_hours=True)) as rap:
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
    assert not caught.value.retryable
    assert not rap.events


def test_one_pattern_may_stand_for_itself(rap: RapSimulator, lake: Path) -> None:
    for name in ("TP001_20261120.csv", "RPI03_20261120.csv", "x_20261120.tmp"):
        rap.put(Folder.DCASS, name, b"x", MTIME)
    download(lake, include="TP001*", expect="TP001*")
    assert set(by_name(lake)) == {("DCASS", "TP001_20261120.csv")}
    download(lake, exclude="*.tmp")
    assert ("DCASS", "x_20261120.tmp") not in by_name(lake)
    assert ("DCASS", "RPI03_20261120.csv") in by_name(lake)


def test_on_a_public_holiday_a_denied_folder_is_a_closed_one(
    lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    christmas = pendulum.datetime(2026, 12, 25, 23, 30, tz="Asia/Hong_Kong")
    with RapSimulator(now=christmas, access=Access(subscriptions={"DCXYZ001": (Service.DCASS,)})) as rap:
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
    assert not caught.value.retryable
    assert not rap.events


@pytest.mark.parametrize("login", ["dcxyz001", "DCXYZ005", "DXYZ001", "", "DCXYZ001 "])
@pytest.mark.guide("3.1 accounts")
def test_a_login_that_is_no_account_is_refused_before_any_network(
    rap: RapSimulator, lake: Path, monkeypatch: pytest.MonkeyPatch, login: str
) -> None:
    use(monkeypatch, {**rap.connection("DCXYZ001"), "login": login})
    with pytest.raises(RapConfigurationError, match="DCXYZ001"):
        download(lake)
    assert not rap.events


@pytest.mark.parametrize(
    ("now", "opening"),
    [
        ("2026-11-20 03:30", "2026-11-20 07:15"),
        ("2026-11-21 03:29", "2026-11-23 07:15"),
        ("2026-11-22 12:00", "2026-11-23 07:15"),
        ("2027-01-01 12:00", "2027-01-04 07:15"),
    ],
)
@pytest.mark.guide("4.1 hours")
def test_while_rap_is_shut_the_task_waits_for_the_opening_without_a_login(
    rap: RapSimulator, lake: Path, monkeypatch: pytest.MonkeyPatch, now: str, opening: str
) -> None:
    time = pendulum.parse(now, tz="Asia/Hong_Kong")
    assert isinstance(time, pendulum.DateTime)
    use(monkeypatch, rap.connection("DCXYZ001"), time)
    with pytest.raises(RapClosed):
        download(lake)
    with pytest.raises(AirflowRescheduleException) as caught:
        download(lake, in_a_run() | {"dag_run": SimpleNamespace(conf={}, run_after=pendulum.now())})
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
        download(lake, exclude=blank, naming="")
    for blank in ("", None, [""]):
        with pytest.raises(RapReportMissing, match="DCASS_OTHERS"):
            download(lake, expect=blank)
    for blank in ("", None):
        for field in ("folders", "include"):
            with pytest.raises(RapConfigurationError):
                download(lake, **{field: blank})
    assert by_name(lake) == published(rap)


def test_two_customers_share_a_lake_and_nothing_else(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RapSimulator(accounts=("DCXYZ001", "DCABC001"), now=NOW) as rap:
        use(monkeypatch, rap.connection("DCXYZ001"))
        monkeypatch.setenv("AIRFLOW_CONN_ABC", rap.connection_json("DCABC001"))
        rap.put(Folder.DCASS, "R_20261120.csv", b"xyz", MTIME, account="DCXYZ001")
        rap.put(Folder.DCASS, "R_20261120.csv", b"abc", MTIME, account="DCABC001")
        download(lake, folders="DCASS")
        download(lake, folders="DCASS", rap_conn_id="abc")
    for customer, content in (("CXYZ", b"xyz"), ("CABC", b"abc")):
        (path,) = (lake / f"reports/customer={customer}").rglob("R_*")
        assert path.read_bytes() == content


@pytest.mark.guide("2.2 sites")
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


@pytest.mark.guide("3.2.2 private keys")
def test_no_secret_shows_in_anything_that_the_task_says(
    rap: RapSimulator, lake: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    rap.faults.add(Fault("refuse_login", times=None))
    operator = RapDownloadOperator(task_id="land", folders="DCASS", lake=lake.as_uri(), expect=[])
    with caplog.at_level("DEBUG"), pytest.raises(RapError) as caught:
        operator.execute({})
    said = f"{caught.value!r} {caught.value} {caught.value.__dict__} {caplog.text} {capfd.readouterr()}"
    secret = [line for line in rap.private_key("DCXYZ001").splitlines() if not line.startswith("-----")]
    assert not [line for line in secret if line in said]


def test_a_lake_that_cannot_be_used_is_refused_before_the_login(rap: RapSimulator, lake: Path) -> None:
    lake.write_text("a file")
    with pytest.raises(LakeError, match="A part of its path is a file") as caught:
        download(lake)
    assert (caught.value.uri, caught.value.retryable) == (lake.as_uri(), False)
    with pytest.raises(AirflowFailException, match="LakeError: The lake"):
        download(lake, context=in_a_run())
    assert not rap.events.of("login")


def test_a_refusal_that_lasts_is_logged_once_and_not_retried_and_the_rest_lands(
    rap: RapSimulator, lake: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(20):
        rap.put(Folder.DCASS, f"TP001_{number:03}_20261120.csv", 100, MTIME)
        rap.put(Folder.DCASS, f"TP002_{number:03}_20261120.csv", 100, MTIME)
    reports = lake / "reports/customer=CXYZ/folder=DCASS"
    reports.mkdir(parents=True)
    (reports / "report=TP001").write_text("not a directory")
    with pytest.raises(LakeError, match="report=TP001") as caught:
        download(lake)
    assert not caught.value.retryable
    assert len(landed(lake)) == 20 + 1
    assert len([r for r in caplog.records if "did not land" in r.message]) == 1


def test_a_template_that_was_not_rendered_is_named(rap: RapSimulator, tmp_path: Path) -> None:
    task = RapDownloadOperator(task_id="land", folders="DCASS", lake="{{ var.value.hkex_rap_lake }}")
    with pytest.raises(RapConfigurationError, match=r"rap_lake }}' in 'lake' was not rendered") as caught:
        task.execute({})
    assert "Set task.lake" in str(caught.value)
    assert not rap.events
    task.lake = str(tmp_path / "lake")
    task.expect = []
    assert task.execute({})["landed"] == 0


def test_a_future_day_names_the_shift_of_the_clock(rap: RapSimulator, lake: Path) -> None:
    with pytest.raises(RapConfigurationError, match=r"in the future.*shifted by -?\d+ s"):
        download(lake, business_date="2026-11-23")
