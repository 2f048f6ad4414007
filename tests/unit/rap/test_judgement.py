"""Which reports a day should have, by the days before it."""

from __future__ import annotations

import random
from datetime import date, timedelta

import pendulum
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.folders import Folder
from airflow_provider_hkex_rap.rap.judgement import (
    History,
    Report,
    Sighting,
    check_service_day,
    format_minutes,
    format_missing,
    is_ordinary,
)

# Weekdays of two weeks without a public holiday in Hong Kong.
DAYS = [date(2026, 11, day) for day in (9, 10, 11, 12, 13, 16, 17, 18, 19, 20)]
MONDAY, FRIDAY = DAYS[5], DAYS[-1]
TP001, RPI03 = Report(Folder.DCASS, "TP001"), Report(Folder.DCASS, "RPI03")
COLLATERAL = Report(Folder.HKCC_SEOCH_CCMS_GLOB, "COLLATERAL")


def sighting(report: Report, day: date, hour: float = 19.5, number: int = 0) -> Sighting:
    midnight = pendulum.datetime(day.year, day.month, day.day, tz="Asia/Hong_Kong")
    name = f"{report.code}_{day:%Y%m%d}_{number:03}.csv"
    return Sighting(report, day, name, int(midnight.timestamp() + hour * 3600))


def daily(report: Report, days: list[date], **options: float) -> list[Sighting]:
    return [sighting(report, day, **options) for day in days]


def judge(sightings: list[Sighting], day: date = FRIDAY, landed: list[Sighting] | None = None, **options):
    """Judge a day; by default, the lake has every file of the day that was seen."""
    if landed is None:
        landed = [seen for seen in sightings if seen.business_date == day]
    return History.of(sightings).judge(day, [Folder.DCASS], landed, **options)


def test_a_day_with_every_usual_report_lacks_nothing() -> None:
    verdict = judge(daily(TP001, DAYS) + daily(RPI03, DAYS))
    assert verdict.judged
    assert verdict.expected == (RPI03, TP001)
    assert verdict.baseline == tuple(DAYS[4:9][::-1])
    assert not verdict.missing
    assert not verdict.warnings


@pytest.mark.parametrize(("known", "warnings"), [(3, 1), (4, 0)])
def test_a_folder_whose_reports_cannot_be_usual_yet_is_a_warning(known: int, warnings: int) -> None:
    other = Report(Folder.DCASS_OTHERS, "SERIES")
    sightings = daily(TP001, DAYS) + daily(other, DAYS[-1 - known :])
    landed = [seen for seen in sightings if seen.business_date == FRIDAY]
    verdict = History.of(sightings).judge(FRIDAY, [Folder.DCASS, Folder.DCASS_OTHERS], landed)
    assert len([w for w in verdict.warnings if "not judged in /download/DCASS_OTHERS" in w]) == warnings
    assert verdict.judged
    assert not verdict.missing


def test_a_missing_report_is_named_with_its_days_and_its_time() -> None:
    verdict = judge(daily(TP001, DAYS) + daily(RPI03, DAYS[:-1], hour=25.25))
    (missing,) = verdict.missing
    assert missing.report == RPI03
    assert missing.seen_on == tuple(DAYS[4:9][::-1])
    assert format_missing(verdict.missing) == (
        "RPI03 in DCASS (usually at 01:15 of the next day HKT),"
        " there on 2026-11-19, 2026-11-18, 2026-11-17, 2026-11-16, 2026-11-13"
    )


def test_reports_that_were_there_on_the_same_days_are_named_together() -> None:
    verdict = judge(daily(TP001, DAYS[:-1], hour=19) + daily(RPI03, DAYS[:-1], hour=20))
    assert format_missing(verdict.missing).count("2026-11-19") == 1


@pytest.mark.parametrize(("absent", "usual"), [(0, True), (1, True), (2, False)])
def test_a_report_is_usual_on_four_of_five_days(absent: int, usual: bool) -> None:
    days = [*DAYS[4 + absent : 9]]
    verdict = judge(daily(TP001, DAYS) + daily(RPI03, days))
    assert (RPI03 in verdict.expected) == usual
    assert bool(verdict.missing) == usual


@pytest.mark.parametrize(("known", "judged"), [(2, False), (3, True), (4, True)])
def test_with_fewer_than_three_known_days_it_is_not_judged(known: int, judged: bool) -> None:
    days = DAYS[9 - known : 9]
    verdict = judge(daily(TP001, [*days, FRIDAY]) + daily(RPI03, days))
    assert verdict.judged == judged
    assert [missing.report for missing in verdict.missing] == ([RPI03] if judged else [])
    assert any("not judged" in warning for warning in verdict.warnings) != judged


def test_of_three_or_four_known_days_a_report_must_be_there_on_all() -> None:
    days = DAYS[5:9]
    verdict = judge(daily(TP001, [*days, FRIDAY]) + daily(RPI03, days[1:]))
    assert verdict.expected == (TP001,)
    assert not verdict.missing


def test_days_of_which_nothing_is_known_are_skipped() -> None:
    outage = set(DAYS[5:8])
    days = [day for day in DAYS if day not in outage]
    verdict = judge(daily(TP001, days) + daily(RPI03, days[:-1]))
    assert verdict.baseline == (DAYS[8], DAYS[4], DAYS[3], DAYS[2], DAYS[1])
    assert [missing.report for missing in verdict.missing] == [RPI03]


def test_a_folder_without_a_file_of_the_day_is_missing_even_if_nothing_is_known() -> None:
    verdict = History.of([]).judge(FRIDAY, [Folder.DCASS, Folder.DCASS_OTHERS], [sighting(TP001, FRIDAY)])
    assert [str(missing) for missing in verdict.missing] == ["/download/DCASS_OTHERS"]


def test_a_report_in_another_folder_does_not_count() -> None:
    other = Report(Folder.DCASS_OTHERS, "TP001")
    verdict = judge(daily(TP001, DAYS[:-1]) + daily(RPI03, DAYS) + [sighting(other, FRIDAY)])
    assert [missing.report for missing in verdict.missing] == [TP001]


def test_a_report_of_which_the_lake_has_a_file_is_there_although_rap_no_longer_lists_it() -> None:
    sightings = daily(TP001, DAYS[:-1]) + daily(RPI03, DAYS)
    verdict = judge(sightings, landed=[sighting(TP001, FRIDAY), sighting(RPI03, FRIDAY)])
    assert not verdict.missing


def test_a_report_that_rap_lists_and_the_lake_lacks_is_missing() -> None:
    verdict = judge(daily(TP001, DAYS) + daily(RPI03, DAYS), landed=[sighting(TP001, FRIDAY)])
    assert [missing.report for missing in verdict.missing] == [RPI03]


@pytest.mark.parametrize("glob", ["TP001_*", "*_20261120_*"])
def test_a_glob_is_met_by_a_landed_file(glob: str) -> None:
    assert not judge(daily(TP001, DAYS), expect=(glob,)).missing


def test_a_glob_without_a_landed_file_is_missing_and_usual_reports_do_not_matter() -> None:
    verdict = judge(daily(TP001, DAYS[:-1]) + daily(RPI03, DAYS), expect=("TP001_*",))
    assert [missing.description for missing in verdict.missing] == ["TP001_*"]
    assert not verdict.expected


def test_an_empty_expectation_turns_the_judgement_off() -> None:
    verdict = History.of(daily(TP001, DAYS)).judge(FRIDAY, [Folder.DCASS], [], expect=())
    assert not verdict.judged
    assert not verdict.missing


@pytest.mark.parametrize(
    ("day", "kind"), [(date(2026, 12, 25), "a public holiday"), (date(2026, 11, 21), "a Saturday")]
)
def test_on_a_holiday_or_a_saturday_a_missing_report_is_a_warning(day: date, kind: str) -> None:
    before = [day - timedelta(days=back) for back in range(1, 12)]
    verdict = judge(daily(TP001, before), day=day, landed=[])
    assert not verdict.missing
    assert any(kind in warning and "TP001" in warning for warning in verdict.warnings)
    assert all(is_ordinary(seen) for seen in verdict.baseline)


def test_fewer_files_than_on_any_day_before_is_a_warning() -> None:
    many = [sighting(TP001, day, number=number) for day in DAYS[:-1] for number in range(3)]
    verdict = judge([*many, sighting(TP001, FRIDAY)])
    assert not verdict.missing
    assert verdict.warnings == ("2026-11-20 has 1 files; the 5 days before had 3 or more.",)


def test_a_report_that_stops_being_usual_is_a_warning_once_that_names_its_last_day() -> None:
    sightings = daily(TP001, DAYS) + daily(RPI03, DAYS[:7])
    verdicts = {day: judge(sightings, day=day) for day in DAYS[6:]}
    stopped = {
        day: [warning for warning in verdict.warnings if "no longer usual" in warning]
        for day, verdict in verdicts.items()
    }
    assert stopped[DAYS[9]] == ["RPI03 in DCASS is no longer usual: its last day was 2026-11-17."]
    assert not any(stopped[day] for day in DAYS[6:9])
    assert [bool(verdicts[day].missing) for day in DAYS[6:]] == [False, True, True, False]


def test_codes_that_were_seen_on_one_day_only_are_listed() -> None:
    varying = [sighting(Report(Folder.DCASS, f"X{number}"), day) for number, day in enumerate(DAYS)]
    history = History.of(varying + daily(TP001, DAYS))
    assert [report.code for report in history.codes_of_one_day()] == [f"X{number}" for number in range(10)]
    assert not History.of(daily(TP001, DAYS[:2])).codes_of_one_day()


def test_a_file_that_was_listed_and_landed_counts_once() -> None:
    history = History.of(daily(TP001, DAYS) + daily(TP001, DAYS))
    assert set(history.counts[TP001].values()) == {1}


@pytest.mark.parametrize(
    ("day", "folders"),
    [
        (date(2026, 11, 22), list(Folder)),
        (date(2027, 1, 1), list(Folder)),
        (date(2026, 11, 21), [Folder.DCASS]),
        # A Saturday that is a public holiday: the day after Christmas.
        (date(2026, 12, 26), [Folder.HKCC_SEOCH_CCMS_GLOB]),
    ],
)
def test_a_day_without_service_is_refused(day: date, folders: list[Folder]) -> None:
    with pytest.raises(RapConfigurationError, match="no service day"):
        check_service_day(day, folders, day)


def test_a_future_day_names_the_shift_of_the_clock() -> None:
    today, tomorrow = date(2026, 11, 20), date(2026, 11, 21)
    with pytest.raises(RapConfigurationError, match="in the future") as caught:
        check_service_day(tomorrow, [Folder.DCASS], today)
    assert "clock_offset" not in str(caught.value)
    with pytest.raises(RapConfigurationError, match=r"shifted by -86400 s \(\[hkex_rap\] clock_offset\)"):
        check_service_day(tomorrow, [Folder.DCASS], today, -86400.0)


@pytest.mark.parametrize(
    ("day", "folder"),
    [
        (date(2026, 11, 20), Folder.DCASS),
        (date(2026, 12, 25), Folder.DCASS),
        (date(2026, 11, 21), Folder.HKCC_SEOCH_CCMS_GLOB),
    ],
)
def test_a_service_day_is_accepted(day: date, folder: Folder) -> None:
    check_service_day(day, [folder], day)


def test_times_of_the_night_are_those_of_the_next_day() -> None:
    assert format_minutes(19 * 60 + 5) == "19:05"
    assert format_minutes(25 * 60 + 10) == "01:10 of the next day"


# Generated calendars.

YEAR = [date(2026, 1, 1) + timedelta(days=number) for number in range(365)]


@settings(max_examples=60)
@given(
    day=st.sampled_from([day for day in YEAR[60:] if is_ordinary(day)]),
    known=st.sets(st.integers(1, 45), min_size=3),
    count=st.integers(1, 6),
)
def test_whatever_days_are_known_exactly_the_report_that_fails_to_come_is_missing(
    day: date, known: set[int], count: int
) -> None:
    reports = [Report(Folder.DCASS, f"R{number}") for number in range(count + 1)]
    days = [day - timedelta(days=back) for back in known]
    sightings = [sighting(report, seen) for report in reports for seen in days]
    landed = [sighting(report, day) for report in reports[1:]]
    verdict = judge(sightings + landed, day=day, landed=landed)
    enough = sum(map(is_ordinary, days)) >= 3
    assert verdict.judged == enough
    assert [missing.report for missing in verdict.missing] == (reports[:1] if enough else [])


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000))
def test_a_year_with_reports_that_fail_to_come(seed: int) -> None:
    """Each missing report of an ordinary day is an error on its day, and nothing else is."""
    chance = random.Random(seed)
    daily_reports = [Report(Folder.DCASS, f"D{number}") for number in range(8)]
    weekly, monthly = Report(Folder.DCASS, "WEEKLY"), Report(Folder.DCASS, "MONTHLY")
    sightings: list[Sighting] = []
    false_alarms = missed = 0
    for day in YEAR:
        if day.isoweekday() > 5 or (day.month, day.day) == (1, 1):
            continue
        failing = {report for report in daily_reports if chance.random() < 0.002 and is_ordinary(day)}
        of_day = [sighting(report, day) for report in daily_reports if report not in failing]
        # On a public holiday some reports do not come, which is no failure.
        if not is_ordinary(day):
            of_day = of_day[: chance.randrange(1, 8)]
        if day.isoweekday() == 5:
            of_day.append(sighting(weekly, day))
        if (day + timedelta(days=1)).month != day.month:
            of_day.append(sighting(monthly, day))
        sightings += of_day
        recent = [seen for seen in sightings if (day - seen.business_date).days <= 31]
        verdict = judge(recent, day=day, landed=of_day)
        found = {missing.report for missing in verdict.missing}
        if verdict.judged:
            missed += len(failing - found)
        false_alarms += bool(found - failing)
    assert missed == 0
    assert false_alarms <= 1


def test_a_report_is_named_in_printable_form():
    assert str(Report(Folder.DCASS, "TP\u202e\n001")) == r"TP\u202e\n001 in DCASS"
