"""What a run judges at its end: which reports are missing, and when a task says so."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pendulum
import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowRescheduleException

from airflow_provider_hkex_rap.lake.landing import Landing
from airflow_provider_hkex_rap.rap.errors import (
    RapConfigurationError,
    RapError,
    RapReportMissing,
    RapRetentionExpired,
    RapTransferError,
)
from airflow_provider_hkex_rap.rap.files import Kind
from airflow_provider_hkex_rap.rap.folders import Folder
from airflow_provider_hkex_rap.testing import Fault, RapSimulator, ServerBehaviour

from ..simulated_rap import download, in_a_run, use

# The nine trading days before Friday 20 November 2026, and that day.
DAYS = [pendulum.date(2026, 11, day) for day in (10, 11, 12, 13, 16, 17, 18, 19, 20)]
FRIDAY = DAYS[-1]


def put(rap: RapSimulator, report: str, day: pendulum.Date, hour: int = 19, minute: int = 30) -> None:
    at = pendulum.datetime(day.year, day.month, day.day, hour, minute, tz="Asia/Hong_Kong")
    rap.put(Folder.DCASS, f"{report}_CXYZ_{day:%Y%m%d}.csv", 500, at)


@pytest.fixture
def listed(rap: RapSimulator) -> RapSimulator:
    """RAP lists TP001 of every day, and RPI03 of every day but the last."""
    for day in DAYS:
        put(rap, "TP001", day)
        if day != FRIDAY:
            put(rap, "RPI03", day, 21, 5)
    return rap


def judge(lake: Path, context: Any = None, **arguments: Any) -> dict[str, Any]:
    """Download the folder DCASS, with the default of ``expect``."""
    judgement: dict[str, Any] = download(
        lake, context, **{"folders": ["DCASS"], "expect": ["usual"], **arguments}
    )["judgement"]
    return judgement


def run_of(run_id: str, **conf: str) -> Any:
    context = in_a_run()
    context["ti"].run_id = run_id
    context["dag_run"].conf.update(conf)
    return context


def marks(lake: Path) -> list[dict[str, Any]]:
    paths: Iterable[Path] = sorted(lake.glob("manifest/CXYZ/DCASS/_marks/judged/*/*.json"))
    return [json.loads(path.read_text()) for path in paths]


def at(monkeypatch: pytest.MonkeyPatch, rap: RapSimulator, moment: str) -> None:
    """Let the clocks of RAP and of the task show a time in Hong Kong."""
    now = pendulum.parse(moment, tz="Asia/Hong_Kong")
    assert isinstance(now, pendulum.DateTime)
    rap.clock.set(now)
    use(monkeypatch, rap.connection("DCXYZ001"), now)


def test_a_usual_report_that_may_not_land_is_missing_and_a_sub_folder_is_not(
    rap: RapSimulator, lake: Path
) -> None:
    for day in DAYS:
        put(rap, "TP001", day)
        evening = pendulum.datetime(day.year, day.month, day.day, 19, tz="Asia/Hong_Kong")
        rap.put(Folder.DCASS, f"RPI03_{day:%Y%m%d}.csv", b"", evening, kind=Kind.SYMLINK)
        rap.put(Folder.DCASS, f"older_{day:%Y%m%d}", b"", evening, kind=Kind.DIRECTORY)
    with pytest.raises(RapReportMissing, match=r"RPI03 in DCASS.*/RPI03_[0-9]+\.csv: It is a symbolic link"):
        judge(lake)
    assert judge(lake, exclude=["RPI03_*"])["missing"] == []


def test_a_usual_report_that_is_not_there_is_an_error_until_it_comes(
    listed: RapSimulator, lake: Path
) -> None:
    with pytest.raises(RapReportMissing) as caught:
        judge(lake)
    assert caught.value.missing == ("RPI03 in DCASS",)
    assert caught.value.business_date == "2026-11-20"
    assert caught.value.retryable
    assert "there on 2026-11-19, 2026-11-18, 2026-11-17, 2026-11-16, 2026-11-13" in str(caught.value)
    assert "usually at 21:05 HKT" in str(caught.value)
    put(listed, "RPI03", FRIDAY, 23, 30)
    assert judge(lake) == {"judged": True, "expected": 2, "missing": [], "warnings": []}


def test_a_day_of_which_there_is_nothing_is_an_error(rap: RapSimulator, lake: Path) -> None:
    with pytest.raises(RapReportMissing, match="/download/DCASS") as caught:
        judge(lake)
    assert caught.value.missing == ("/download/DCASS",)


def test_with_too_few_days_the_run_says_that_it_has_not_judged(rap: RapSimulator, lake: Path) -> None:
    for day in DAYS[-3:]:
        put(rap, "TP001", day)
    judgement = judge(lake)
    assert not judgement["judged"]
    (warning,) = judgement["warnings"]
    assert warning.startswith("2026-11-20 is not judged: 2 ordinary days before it are known")


def test_names_that_were_seen_once_are_listed(
    listed: RapSimulator, lake: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(listed, "RPI03", FRIDAY)
    put(listed, "X8713Y", FRIDAY)
    judge(lake)
    assert "X8713Y in DCASS" in caplog.text
    assert "set 'naming'" in caplog.text


def test_on_a_public_holiday_a_missing_report_is_a_warning(
    rap: RapSimulator, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 25 December 2026 is a Friday and a public holiday, on which derivatives are traded.
    for day in (18, 21, 22, 23, 24):
        put(rap, "TP001", pendulum.date(2026, 12, day))
        put(rap, "RPI03", pendulum.date(2026, 12, day))
    put(rap, "TP001", pendulum.date(2026, 12, 25))
    at(monkeypatch, rap, "2026-12-25 23:40")
    judgement = judge(lake)
    assert not judgement["missing"]
    assert any("on a public holiday: RPI03 in DCASS" in warning for warning in judgement["warnings"])


@pytest.mark.parametrize("arguments", [{"business_date": "2026-11-15"}, {}])
def test_a_date_that_is_no_service_day_is_refused_before_the_login(
    listed: RapSimulator, lake: Path, arguments: dict[str, str]
) -> None:
    context = None if arguments else run_of("sunday", business_date="2026-11-15")
    with pytest.raises((RapConfigurationError, AirflowFailException), match="Sunday, is no service day"):
        judge(lake, context, **arguments)
    assert not listed.events.of("login")


def test_an_unknown_key_of_the_conf_is_refused_before_the_login(listed: RapSimulator, lake: Path) -> None:
    with pytest.raises(AirflowFailException, match="unknown key: 'buisness_date'"):
        judge(lake, run_of("typo", buisness_date="2026-11-19"))
    assert not listed.events.of("login")


def test_an_include_that_matches_nothing_is_an_error(listed: RapSimulator, lake: Path) -> None:
    for expect in (["usual"], []):
        with pytest.raises(RapReportMissing, match=r"'include' matches no file: tp001\*"):
            judge(lake, include=["tp001*"], expect=expect)
    put(listed, "RPI03", FRIDAY)
    judge(lake, include=["TP001*", "nothing*"])


def test_excluded_reports_are_not_judged(listed: RapSimulator, lake: Path) -> None:
    assert judge(lake, exclude=["RPI03*"])["expected"] == 1


def test_a_day_that_is_no_longer_listed_whole_has_left_rap(
    listed: RapSimulator, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(listed, "RPI03", FRIDAY)
    at(monkeypatch, listed, "2026-12-01 20:00")
    listed.put(Folder.DCASS, "NIGHT_20261120.csv", b"x", pendulum.datetime(2026, 11, 21, 1))
    with pytest.raises(RapRetentionExpired, match="2026-11-20") as caught:
        judge(lake, business_date="2026-11-20")
    assert not caught.value.retryable


def test_a_day_whose_usual_reports_have_landed_stays_complete(
    listed: RapSimulator, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(listed, "RPI03", FRIDAY)
    judge(lake)
    at(monkeypatch, listed, "2026-12-14 20:00")
    assert judge(lake, business_date="2026-11-20")["judged"]


def test_the_alert_does_not_wait_for_the_opening(
    listed: RapSimulator, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    friday = {"business_date": "2026-11-20"}
    at(monkeypatch, listed, "2026-11-21 03:20")
    with pytest.raises(RapReportMissing):
        judge(lake, run_of("friday", **friday))
    logins = len(listed.events.of("login"))
    # RAP is shut from Saturday 03:30 until Monday 07:00.
    at(monkeypatch, listed, "2026-11-21 03:35")
    with pytest.raises(AirflowFailException, match="RPI03 in DCASS") as caught:
        judge(lake, run_of("friday", **friday))
    assert "RAP is shut" in str(caught.value)
    assert len(listed.events.of("login")) == logins
    # A run that has never listed has to wait.
    with pytest.raises(AirflowRescheduleException):
        judge(lake, run_of("another", **friday))


def test_a_complete_day_is_green_although_the_last_try_finds_rap_shut(
    listed: RapSimulator, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    friday = {"business_date": "2026-11-20"}
    at(monkeypatch, listed, "2026-11-21 03:20")
    with pytest.raises(RapReportMissing):
        judge(lake, run_of("friday", **friday))
    put(listed, "RPI03", FRIDAY)
    # Another task lands the report.
    download(lake, folders=["DCASS"])
    at(monkeypatch, listed, "2026-11-21 03:35")
    assert judge(lake, run_of("friday", **friday))["judged"]


def test_a_file_that_the_last_try_left_is_not_forgotten_when_rap_shuts(
    listed: RapSimulator, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(listed, "RPI03", FRIDAY)
    put(listed, "NEW", FRIDAY)
    friday = {"business_date": "2026-11-20"}
    at(monkeypatch, listed, "2026-11-21 03:20")
    listed.faults.add(Fault("deny", path="*/NEW*", times=None))
    with pytest.raises(RapTransferError):
        judge(lake, run_of("friday", **friday))
    at(monkeypatch, listed, "2026-11-21 03:35")
    with pytest.raises(AirflowFailException, match=r"NEW_CXYZ_20261120\.csv"):
        judge(lake, run_of("friday", **friday))


@pytest.fixture(params=["full", "no_size", "no_mtime", "none"])
def any_listing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[RapSimulator]:
    """Run a RAP whose listing may lack sizes and times."""
    with RapSimulator(server=ServerBehaviour(attributes=request.param)) as rap:
        at(monkeypatch, rap, "2026-11-21 03:20")
        yield rap


@pytest.mark.parametrize("fault", ["truncate", "grow"])
def test_a_file_that_another_run_lands_after_the_last_try_is_not_missed(
    any_listing: RapSimulator, lake: Path, monkeypatch: pytest.MonkeyPatch, fault: Any
) -> None:
    put(any_listing, "TP001", FRIDAY)
    friday = {"folders": ["DCASS"], "expect": ["TP001_*"]}
    any_listing.faults.add(Fault(fault, path="*/TP001*", at_byte=250, times=1))
    with pytest.raises(RapTransferError):
        download(lake, run_of("friday", business_date="2026-11-20"), **friday)
    assert download(lake, **friday)["landed"] == 1
    at(monkeypatch, any_listing, "2026-11-21 03:35")
    assert not judge(lake, run_of("friday", business_date="2026-11-20"), **friday)["missing"]


def test_an_older_content_does_not_count_for_a_republished_file_when_rap_shuts(
    any_listing: RapSimulator, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(any_listing, "TP001", FRIDAY)
    friday = {"folders": ["DCASS"], "expect": ["TP001_*"]}
    assert download(lake, **friday)["landed"] == 1
    put(any_listing, "TP001", FRIDAY, 23)
    any_listing.faults.add(Fault("deny", path="*/TP001*", times=None))
    with pytest.raises(RapTransferError):
        download(lake, run_of("friday", business_date="2026-11-20"), **friday)
    at(monkeypatch, any_listing, "2026-11-21 03:35")
    with pytest.raises(AirflowFailException, match=r"TP001_CXYZ_20261120\.csv"):
        judge(lake, run_of("friday", business_date="2026-11-20"), **friday)


def test_the_days_of_an_outage_are_judged_once(
    listed: RapSimulator, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # RPI03 of Wednesday never comes, and no run judges Wednesday and Thursday.
    listed.remove(Folder.DCASS, "RPI03_CXYZ_20261118.csv")
    at(monkeypatch, listed, "2026-11-17 23:40")
    judge(lake, run_of("tuesday", business_date="2026-11-17"))
    put(listed, "RPI03", FRIDAY)
    at(monkeypatch, listed, "2026-11-20 23:40")
    friday = {"business_date": "2026-11-20"}
    with pytest.raises(RapReportMissing, match=r"for 2026-11-18 \(which no run had judged\): RPI03"):
        judge(lake, run_of("friday", **friday))
    with pytest.raises(RapReportMissing):
        judge(lake, run_of("friday", **friday))
    assert judge(lake, run_of("later", **friday))["missing"] == []
    lacks = [mark["lacks"]["2026-11-18"] for mark in marks(lake) if "2026-11-18" in mark["lacks"]]
    # The try that landed files has two marks: before and after.
    assert [[item["description"] for item in items] for items in lacks] == [["RPI03 in DCASS"]] * 3


def test_a_retry_after_the_closing_knows_what_the_first_listing_showed(
    listed: RapSimulator, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The ledger has that day only, so it could not tell which reports are usual.
    day = {"business_date": "2026-11-20"}
    at(monkeypatch, listed, "2026-11-21 03:20")
    with pytest.raises(RapReportMissing):
        judge(lake, run_of("first"), **day)
    at(monkeypatch, listed, "2026-11-21 03:35")
    with pytest.raises(AirflowFailException, match="RPI03 in DCASS"):
        judge(lake, run_of("first"), **day)
    # Another task of the same run, and another day of a mapped task, have never listed.
    other_task = run_of("first")
    other_task["ti"].task_id = "another"
    for context, business_date in ((other_task, "2026-11-20"), (run_of("first"), "2026-11-19")):
        with pytest.raises(AirflowRescheduleException):
            judge(lake, context, business_date=business_date)


def test_a_mapped_task_is_not_judged_by_the_mark_of_another_index(
    listed: RapSimulator, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    friday = {"business_date": "2026-11-20"}
    lacking, complete = run_of("friday", **friday), run_of("friday", **friday)
    complete["ti"].map_index, lacking["ti"].map_index = 1, 0
    at(monkeypatch, listed, "2026-11-21 03:20")
    with pytest.raises(RapReportMissing):
        judge(lake, lacking, include=["RPI*"])
    at(monkeypatch, listed, "2026-11-21 03:21")
    assert judge(lake, complete, include=["TP*"])["judged"]
    at(monkeypatch, listed, "2026-11-21 03:35")
    with pytest.raises(AirflowFailException, match="RPI03 in DCASS"):
        judge(lake, lacking, include=["RPI*"])
    assert judge(lake, complete, include=["TP*"])["judged"]


def test_the_days_that_a_mapped_task_has_judged_are_judged_for_another_index(
    listed: RapSimulator, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judge_mapped(index: int, day: str, include: str) -> None:
        context = run_of(f"{index} of {day}", business_date=day)
        context["ti"].map_index = index
        judge(lake, context, include=[include])

    listed.remove(Folder.DCASS, "RPI03_CXYZ_20261118.csv")
    at(monkeypatch, listed, "2026-11-17 23:40")
    judge_mapped(0, "2026-11-17", "RPI*")
    judge_mapped(1, "2026-11-17", "TP*")
    put(listed, "RPI03", FRIDAY)
    at(monkeypatch, listed, "2026-11-20 23:40")
    judge_mapped(1, "2026-11-20", "TP*")
    with pytest.raises(RapReportMissing, match=r"2026-11-18 \(which no run had judged\): .*RPI03 in DCASS"):
        judge_mapped(0, "2026-11-20", "RPI*")


@pytest.mark.parametrize("days", [5, [5], ["Friday"], "2026-11-20"])
def test_a_mark_without_valid_days_is_left_out(
    listed: RapSimulator, lake: Path, caplog: pytest.LogCaptureFixture, days: object
) -> None:
    judge(lake, run_of("first", business_date="2026-11-19"))
    for path in lake.glob("manifest/CXYZ/DCASS/_marks/judged/*/*.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "days": days}))
    put(listed, "RPI03", FRIDAY)
    assert judge(lake, run_of("second", business_date="2026-11-20"))["judged"]
    assert path.stem in caplog.text


def test_a_try_that_was_cut_off_has_listed(
    listed: RapSimulator, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(listed, "RPI03", FRIDAY)
    friday = {"business_date": "2026-11-20"}
    at(monkeypatch, listed, "2026-11-21 03:20")
    listed.faults.add(Fault("drop", path="*/RPI03*20261120*", at_byte=5, times=None))
    with pytest.raises(RapError):
        judge(lake, run_of("friday", **friday))
    at(monkeypatch, listed, "2026-11-21 03:35")
    with pytest.raises(AirflowFailException, match="RPI03"):
        judge(lake, run_of("friday", **friday))


def kill_before_reading(monkeypatch: pytest.MonkeyPatch, lake: Path, context: Any) -> None:
    """Let a try end after its listing, as a killed process does."""
    with monkeypatch.context() as killed:
        killed.setattr(Landing, "read", Mock(side_effect=SystemExit))
        with pytest.raises(SystemExit):
            judge(lake, context)


def test_a_try_that_was_killed_before_it_read_a_file_has_listed(
    listed: RapSimulator, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(listed, "RPI03", FRIDAY)
    friday = {"business_date": "2026-11-20"}
    at(monkeypatch, listed, "2026-11-21 03:20")
    kill_before_reading(monkeypatch, lake, run_of("friday", **friday))
    at(monkeypatch, listed, "2026-11-21 03:35")
    with pytest.raises(AirflowFailException, match="RPI03"):
        judge(lake, run_of("friday", **friday))


def test_files_that_a_killed_try_has_landed_are_not_missed(
    listed: RapSimulator, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(listed, "RPI03", FRIDAY)
    friday = {"business_date": "2026-11-20"}
    at(monkeypatch, listed, "2026-11-21 03:20")
    kill_before_reading(monkeypatch, lake, run_of("friday", **friday))
    # Another task lands the files.
    download(lake, folders=["DCASS"])
    at(monkeypatch, listed, "2026-11-21 03:35")
    assert judge(lake, run_of("friday", **friday))["judged"]


def test_a_day_that_rap_lists_in_part_tells_nothing_of_what_is_usual(rap: RapSimulator, lake: Path) -> None:
    for day in DAYS[:3]:
        put(rap, "TP001", day)
        put(rap, "NIGHT", day)
        put(rap, "RPI03", day)
    rap.remove(Folder.DCASS, "RPI03_CXYZ_20261112.csv")
    # Of Monday 9 November only the report of the night is left.
    rap.put(
        Folder.DCASS, "NIGHT_CXYZ_20261109.csv", b"x", pendulum.datetime(2026, 11, 10, 1, tz="Asia/Hong_Kong")
    )
    assert not judge(lake, business_date="2026-11-12")["judged"]


def test_a_day_of_the_future_is_refused(listed: RapSimulator, lake: Path) -> None:
    with pytest.raises(RapConfigurationError, match="in the future"):
        judge(lake, business_date="2026-12-25")


def test_a_public_holiday_that_has_left_rap_is_not_green(
    rap: RapSimulator, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RapRetentionExpired):
        judge(lake, business_date="2026-10-19")


def test_the_conf_is_checked_also_if_the_task_has_a_date(listed: RapSimulator, lake: Path) -> None:
    for conf in ({"buisness_date": "2026-11-19"}, {"business_date": "2026-11-19"}):
        with pytest.raises(AirflowFailException, match=r"unknown key|asks for 2026-11-19"):
            judge(lake, run_of("typo", **conf), business_date="2026-11-20")
    assert not listed.events.of("login")


@pytest.mark.parametrize("expect", [0, False, {}, {"TP*": 1}, "{'TP*'}", "None", " TP* ", ["TP*\nRP*"]])
def test_what_is_no_list_of_patterns_is_refused(listed: RapSimulator, lake: Path, expect: Any) -> None:
    with pytest.raises(RapConfigurationError, match="'expect'"):
        judge(lake, expect=expect)


@pytest.mark.parametrize(
    "arguments", [{"folders": 5}, {"naming": 5}, {"business_date": "9999-12-31"}], ids=str
)
def test_a_value_of_another_type_is_refused_before_the_login(
    listed: RapSimulator, lake: Path, arguments: dict[str, Any]
) -> None:
    with pytest.raises(RapConfigurationError):
        judge(lake, **arguments)
    assert not listed.events.of("login")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"password": "a secret"}, "has a password"),
        ({"schema": "a secret"}, "has a schema"),
        ({"extra": '{"site": "primary", "site": "secondary"}'}, "a field twice"),
    ],
)
def test_a_field_that_would_be_ignored_is_refused(
    listed: RapSimulator, lake: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, str], says: str
) -> None:
    use(monkeypatch, {**listed.connection("DCXYZ001"), **fields})
    with pytest.raises(RapConfigurationError, match=says) as caught:
        judge(lake)
    assert "a secret" not in str(caught.value)
    assert not listed.events.of("login")


def test_a_folder_that_was_not_listed_leaves_no_mark(listed: RapSimulator, lake: Path) -> None:
    listed.faults.add(Fault("deny_listing", path=Folder.DCASS.path))
    with pytest.raises((RapError, AirflowFailException)):
        judge(lake, run_of("friday", business_date="2026-11-20"))
    assert marks(lake) == []


def test_the_log_says_what_was_expected_and_what_came(
    listed: RapSimulator, lake: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with pytest.raises(RapReportMissing):
        judge(lake)
    key = listed.events.of("login")[0]
    assert "as DCXYZ001 with key" in caplog.text, key
    assert f"RAP at 127.0.0.1:{listed.port} (primary site)" in caplog.text
    assert "/download/DCASS lists 17 entries, the newest of 2026-11-20 19:30:00 HKT" in caplog.text
    assert "Files per report: RPI03 8, TP001 9." in caplog.text
    assert "our clock says 2026-11-20 23:4" in caplog.text
    assert "shifted by" in caplog.text
    assert "Of the 2 reports that came on 2026-11-19, 2026-11-18, 2026-11-17, 2026-11-16, 2026-11-13," in (
        caplog.text
    )
    assert "the lake has 1 for 2026-11-20; it has 1 files of that day" in caplog.text


def test_a_run_without_a_judgement_is_unchanged(rap: RapSimulator, lake: Path) -> None:
    assert judge(lake, expect=[]) == {"judged": False, "expected": 0, "missing": [], "warnings": []}
    assert marks(lake) == []
