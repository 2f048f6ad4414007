import time
from datetime import timedelta

import pendulum
import pytest
from airflow.sdk import DAG
from airflow.serialization.decoders import decode_timetable
from airflow.serialization.encoders import encode_timetable
from airflow.timetables.base import DataInterval, TimeRestriction
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_hkex_rap.rap.calendar import Calendar, is_trading_day
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.folders import Service
from airflow_provider_hkex_rap.rap.service_hours import window
from airflow_provider_hkex_rap.timetables import RapTradingDayTimetable

DCASS = RapTradingDayTimetable()
CCMS = RapTradingDayTimetable(at="23:30", service="CCMS")
SECURITIES = RapTradingDayTimetable(at="20:00", calendar="securities")


def utc(text):
    return pendulum.parse(text, tz="UTC")


def hkt(text):
    return pendulum.parse(text, tz="Asia/Hong_Kong")


def restriction(earliest=None, latest=None, catchup=True):
    return TimeRestriction(earliest and utc(earliest), latest and utc(latest), catchup)


def infos(timetable, earliest, latest):
    """Return all runs between two bounds, as Airflow creates them for a catch-up or a backfill."""
    found, bounds = [], TimeRestriction(earliest, latest, True)
    last = None
    while info := timetable.next_dagrun_info(last_automated_data_interval=last, restriction=bounds):
        found.append(info)
        last = info.data_interval
    return found


def days(timetable, earliest, latest):
    return [info.logical_date.format("MM-DD") for info in infos(timetable, utc(earliest), utc(latest))]


def test_a_run_is_that_of_its_day():
    (info,) = infos(DCASS, utc("2026-11-20"), utc("2026-11-20"))
    assert info.run_after == hkt("2026-11-21 01:30")
    assert info.data_interval == DataInterval(utc("2026-11-20"), utc("2026-11-21"))
    assert info.logical_date == utc("2026-11-20")


@pytest.mark.parametrize(
    ("timetable", "expected"),
    [
        # Of Christmas, Boxing Day and 1 January, only the last is not a trading day of derivatives.
        (DCASS, "12-24 12-25 12-28 12-29 12-30 12-31 01-04"),
        (CCMS, "12-24 12-25 12-28 12-29 12-30 12-31 01-02 01-04"),
        (SECURITIES, "12-24 12-28 12-29 12-30 12-31 01-04"),
    ],
    ids=lambda argument: getattr(argument, "summary", None),
)
@pytest.mark.guide("4.1 hours")
def test_the_days_of_a_range_with_holidays_and_saturdays(timetable, expected):
    assert days(timetable, "2026-12-24", "2027-01-04") == expected.split()


@pytest.mark.parametrize(
    ("timetable", "day", "at"),
    [
        (RapTradingDayTimetable(at="03:29"), "2026-11-20", "2026-11-21 03:29"),
        (RapTradingDayTimetable(at="07:00"), "2026-11-20", "2026-11-20 07:00"),
        (RapTradingDayTimetable(at="23:59", service="CCMS"), "2026-11-20", "2026-11-20 23:59"),
        (CCMS, "2026-11-21", "2026-11-21 12:30"),
        (RapTradingDayTimetable(at="12:45", service="CCMS"), "2026-11-21", "2026-11-21 12:30"),
        (RapTradingDayTimetable(at="07:15", service="CCMS"), "2026-11-21", "2026-11-21 07:15"),
    ],
)
def test_when_a_run_starts(timetable, day, at):
    (info,) = infos(timetable, utc(day), utc(day))
    assert info.run_after == hkt(at)


@given(
    st.dates(min_value=pendulum.date(2020, 1, 1), max_value=pendulum.date(2030, 1, 1)),
    st.integers(0, 20),
    st.sampled_from([DCASS, CCMS, SECURITIES]),
)
def test_catching_up_and_backfilling_make_exactly_the_days(first, length, timetable):
    last = first + timedelta(days=length)
    service = Service.CCMS if timetable is CCMS else Service.DCASS
    calendar = Calendar.SECURITIES if timetable is SECURITIES else Calendar.DERIVATIVES
    range_ = [first + timedelta(days=n) for n in range(length + 1)]
    expected = [
        day
        for day in range_
        if window(service, day) and (is_trading_day(day, calendar) or service is Service.CCMS)
    ]
    found = infos(timetable, utc(first.isoformat()), utc(last.isoformat()))
    assert [info.logical_date.date() for info in found] == expected
    assert all(info.run_after in window(service, info.logical_date.date()) for info in found)
    assert found == sorted(found, key=lambda info: info.run_after)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Hong_Kong"])
def test_bounds_are_inclusive_in_the_time_zone_of_the_user(zone):
    first, last = pendulum.datetime(2026, 11, 18, tz=zone), pendulum.datetime(2026, 11, 20, tz=zone)
    found = infos(DCASS, first.in_timezone("UTC"), last.in_timezone("UTC"))
    assert [info.logical_date for info in found] == [utc("2026-11-18"), utc("2026-11-19"), utc("2026-11-20")]


def test_no_run_before_the_start_date_for_airflow_would_give_it_no_tasks():
    (first, *_) = infos(DCASS, utc("2026-11-18T00:00:01"), utc("2026-11-20"))
    assert first.logical_date == utc("2026-11-19")


@pytest.mark.parametrize(
    ("now", "due"),
    [
        ("2026-11-24 01:29", "2026-11-20"),
        ("2026-11-24 01:30", "2026-11-23"),
        ("2026-11-22 12:00", "2026-11-20"),
        ("2027-01-02 01:29", "2026-12-31"),
    ],
)
@pytest.mark.parametrize("start", [None, "2026-01-01"])
def test_without_catch_up_only_the_last_day_due_is_run(monkeypatch, now, due, start):
    monkeypatch.setattr(pendulum, "now", lambda zone: hkt(now))
    bounds = restriction(start, catchup=False)
    info = DCASS.next_dagrun_info(last_automated_data_interval=None, restriction=bounds)
    assert info.logical_date == utc(due)
    week_ago = DataInterval(utc(due).subtract(weeks=1), utc(due).subtract(days=6))
    assert DCASS.next_dagrun_info(last_automated_data_interval=week_ago, restriction=bounds) == info
    after = DCASS.next_dagrun_info(last_automated_data_interval=info.data_interval, restriction=bounds)
    assert after.logical_date > info.logical_date
    assert after.run_after > hkt(now)


def test_without_catch_up_a_start_date_in_the_future_counts(monkeypatch):
    monkeypatch.setattr(pendulum, "now", lambda zone: hkt("2026-11-20 12:00"))
    bounds = restriction("2026-12-05", catchup=False)
    info = DCASS.next_dagrun_info(last_automated_data_interval=None, restriction=bounds)
    assert info.logical_date == utc("2026-12-07")


def test_catching_up_needs_a_start():
    assert DCASS.next_dagrun_info(last_automated_data_interval=None, restriction=restriction()) is None


@pytest.mark.parametrize(
    ("run_after", "day"),
    [
        (utc("2026-11-22"), "2026-11-22"),
        (hkt("2026-11-20 06:59"), "2026-11-19"),
        (hkt("2026-11-20 07:00"), "2026-11-20"),
        (hkt("2026-11-22 12:00"), "2026-11-20"),
    ],
)
def test_the_interval_of_a_manual_run_is_that_of_its_trading_day(run_after, day):
    assert DCASS.infer_manual_data_interval(run_after=run_after) == DataInterval(
        utc(day), utc(day).add(days=1)
    )


@pytest.mark.parametrize("zone", ["UTC", "Asia/Hong_Kong", "America/New_York"])
def test_the_machines_time_zone_plays_no_part(zone, monkeypatch):
    expected = infos(CCMS, utc("2026-12-24"), utc("2027-01-04"))
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert infos(CCMS, utc("2026-12-24"), utc("2027-01-04")) == expected
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("timetable", [DCASS, CCMS, SECURITIES], ids=lambda timetable: timetable.summary)
def test_it_survives_the_database(timetable):
    again = decode_timetable(encode_timetable(timetable))
    assert again == timetable
    assert hash(again) == hash(timetable)
    assert again.serialize() == timetable.serialize()
    assert (again.summary, again.description) == (timetable.summary, timetable.description)
    assert DAG("dag", schedule=timetable).timetable == timetable


def test_others_are_not_equal():
    assert len({DCASS, CCMS, SECURITIES, RapTradingDayTimetable(at="02:00")}) == 4
    assert DCASS != "01:30 HKT, DCASS days"


def test_what_the_ui_shows():
    assert DCASS.summary == "01:30 HKT, DCASS days"
    assert DCASS.description == (
        "At 01:30 Hong Kong time in the night after each trading day of DCASS (derivatives calendar)"
    )
    assert CCMS.description == (
        "At 23:30 Hong Kong time on each trading day of CCMS, on Saturdays at 12:30 (derivatives calendar)"
    )


@pytest.mark.parametrize(
    ("arguments", "fact", "valid"),
    [
        ({"at": "03:30"}, {"at": "03:30"}, "07:00 to 03:29"),
        ({"at": "05:00"}, {"at": "05:00"}, "07:00 to 03:29"),
        ({"at": "00:00", "service": "CCMS"}, {"service": Service.CCMS}, "07:15 to 23:59"),
        ({"at": "07:14", "service": "CCMS"}, {"at": "07:14"}, "07:15 to 23:59"),
        ({"at": "24:00"}, {"at": "24:00"}, "HH:MM"),
        ({"at": "1:30"}, {"at": "1:30"}, "HH:MM"),
        ({"at": "01:30\n"}, {"at": "01:30\n"}, "HH:MM"),
        ({"at": 130}, {"at": 130}, "HH:MM"),
        ({"service": "dcass"}, {"service": "dcass"}, "'DCASS' and 'CCMS'"),
        ({"service": "CCMS"}, {"at": "01:30"}, "07:15 to 23:59"),
        ({"calendar": "XHKG"}, {"calendar": "XHKG"}, "'derivatives' and 'securities'"),
    ],
    ids=str,
)
def test_anything_else_is_refused_with_the_valid_form(arguments, fact, valid):
    with pytest.raises(RapConfigurationError, match=valid) as caught:
        RapTradingDayTimetable(**arguments)
    assert fact.items() <= vars(caught.value).items()
