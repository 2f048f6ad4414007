import time
from datetime import UTC, date, datetime, timedelta

import pendulum
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_hkex_rap.rap.calendar import is_public_holiday, is_trading_day
from airflow_provider_hkex_rap.rap.folders import Service
from airflow_provider_hkex_rap.rap.service_hours import (
    KEY_WORK,
    is_near_edge,
    is_near_opening,
    is_open,
    latest_opened_trading_day,
    next_opening,
    window,
)

DCASS, CCMS = Service.DCASS, Service.CCMS

days = st.dates(date(2023, 1, 1), date(2032, 12, 31))
instants = st.datetimes(datetime(2023, 1, 1), datetime(2032, 12, 31), timezones=st.just(UTC))
services = st.sampled_from([DCASS, CCMS, KEY_WORK])
wanted = st.lists(services, min_size=1, max_size=3)


def hkt(text):
    return pendulum.parse(text, tz="Asia/Hong_Kong")


@pytest.mark.parametrize(
    ("service", "day", "opens", "closes"),
    [
        (DCASS, "2026-11-19", "2026-11-19 07:00", "2026-11-20 03:30"),
        (DCASS, "2026-11-20", "2026-11-20 07:00", "2026-11-21 03:30"),  # into Saturday
        (DCASS, "2026-10-01", "2026-10-01 07:00", "2026-10-02 03:30"),  # a public holiday with trading
        (
            DCASS,
            "2025-12-31",
            "2025-12-31 07:00",
            "2026-01-01 03:30",
        ),  # into the only holiday without trading
        (CCMS, "2026-11-20", "2026-11-20 07:15", "2026-11-21 00:00"),
        (CCMS, "2026-11-21", "2026-11-21 07:15", "2026-11-21 13:00"),
        (KEY_WORK, "2026-11-20", "2026-11-20 07:15", "2026-11-21 00:00"),
    ],
)
@pytest.mark.guide("4.1 hours")
def test_windows_of_the_guide(service, day, opens, closes):
    found = window(service, date.fromisoformat(day))
    assert (found.opens, found.closes) == (hkt(opens), hkt(closes))
    assert found.opens in found
    assert found.closes not in found
    assert found.opens.timezone_name == found.closes.timezone_name == "Asia/Hong_Kong"


@pytest.mark.parametrize(
    ("service", "day"),
    [
        (DCASS, "2026-11-21"),
        (DCASS, "2026-11-22"),
        (DCASS, "2026-01-01"),
        (CCMS, "2026-01-01"),
        (CCMS, "2026-11-22"),
        (CCMS, "2026-04-04"),  # Easter Saturday
        (KEY_WORK, "2026-11-21"),
        (KEY_WORK, "2026-01-01"),
    ],
)
def test_days_without_a_window(service, day):
    assert window(service, date.fromisoformat(day)) is None


@pytest.mark.parametrize(
    ("services", "at", "opens"),
    [
        ([DCASS], "2026-11-20 06:59:59.999999", "2026-11-20 07:00"),
        ([DCASS], "2026-11-20 07:00", "2026-11-20 07:00"),
        ([DCASS], "2026-11-21 03:29:59", "2026-11-21 03:29:59"),
        ([DCASS], "2026-11-21 03:30", "2026-11-23 07:00"),
        ([DCASS], "2025-12-31 23:00", "2025-12-31 23:00"),
        ([DCASS], "2026-01-01 03:30", "2026-01-02 07:00"),
        ([CCMS], "2026-11-20 23:59:59", "2026-11-20 23:59:59"),
        ([CCMS], "2026-11-21 00:00", "2026-11-21 07:15"),
        ([CCMS], "2026-11-21 13:00", "2026-11-23 07:15"),
        ([CCMS], "2026-04-04 00:00", "2026-04-06 07:15"),  # Easter Monday trades
        ([KEY_WORK], "2026-11-21 10:00", "2026-11-23 07:15"),
        ([DCASS, CCMS], "2026-11-20 07:00", "2026-11-20 07:15"),
        ([DCASS, CCMS], "2026-11-21 01:00", "2026-11-23 07:15"),
        ([], "2026-11-22 12:00", "2026-11-22 12:00"),
    ],
)
def test_the_next_opening(services, at, opens):
    assert next_opening(services, hkt(at)) == hkt(opens)
    assert is_open(services, hkt(at)) is (at == opens)


@given(services, instants)
def test_open_means_inside_a_window_and_windows_never_overlap(service, at):
    today = pendulum.instance(at).in_timezone("Asia/Hong_Kong").date()
    windows = [window(service, today.subtract(days=1)), window(service, today)]
    assert sum(found is not None and at in found for found in windows) == is_open([service], at)


@given(days)
@pytest.mark.guide("4.1 hours")
def test_hours_follow_from_the_kind_of_day(day):
    trading = is_trading_day(day)
    saturday = day.isoweekday() == 6 and not is_public_holiday(day)
    assert (window(DCASS, day) is not None) is trading
    assert (window(KEY_WORK, day) is not None) is trading
    assert (window(CCMS, day) is not None) is (trading or saturday)


@given(wanted, instants)
def test_the_next_opening_is_the_first(wanted, at):
    opening = next_opening(wanted, at)
    assert opening >= at
    assert all(is_open([service], opening) for service in wanted)
    assert next_opening(wanted, opening) == opening
    assert is_open(wanted, at) is (opening == at)
    # All openings and closings are on a quarter of an hour, so a step of 15 minutes sees every state.
    quarter = at
    while quarter < opening:
        assert not is_open(wanted, quarter)
        quarter += timedelta(minutes=15)
    if opening > at:
        assert not is_open(wanted, opening.subtract(microseconds=1))


@pytest.mark.parametrize(
    ("service", "at", "day"),
    [
        (DCASS, "2026-11-20 07:00", "2026-11-20"),
        (DCASS, "2026-11-20 06:59:59", "2026-11-19"),
        (DCASS, "2026-11-21 01:30", "2026-11-20"),
        (DCASS, "2026-11-22 12:00", "2026-11-20"),
        (DCASS, "2026-11-23 06:00", "2026-11-20"),
        (DCASS, "2026-01-01 12:00", "2025-12-31"),
        (DCASS, "2026-10-01 12:00", "2026-10-01"),
        (CCMS, "2026-11-20 07:14:59", "2026-11-19"),
        (CCMS, "2026-11-20 07:15", "2026-11-20"),
        (CCMS, "2026-11-21 07:00", "2026-11-20"),
        (CCMS, "2026-11-22 12:00", "2026-11-21"),
        (CCMS, "2026-04-04 12:00", "2026-04-03"),
    ],
)
def test_the_latest_day_that_had_opened(service, at, day):
    assert latest_opened_trading_day(service, hkt(at)) == date.fromisoformat(day)


@given(st.sampled_from(Service), instants)
def test_no_day_opened_between_the_latest_and_now(service, at):
    day = latest_opened_trading_day(service, at)
    assert type(day) is pendulum.Date
    assert window(service, day).opens <= at
    later = (window(service, day.add(days=n)) for n in range(1, 8))
    assert all(found is None or found.opens > at for found in later)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Hong_Kong", "America/New_York"])
def test_results_do_not_follow_the_machines_zone(zone, monkeypatch):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        for at in (hkt("2026-11-21 03:30"), hkt("2026-11-21 03:30").in_timezone("America/New_York")):
            assert next_opening([DCASS], at).isoformat() == "2026-11-23T07:00:00+08:00"
            assert latest_opened_trading_day(DCASS, at) == date(2026, 11, 20)
        assert window(DCASS, date(2026, 3, 8)) is None
        assert window(DCASS, date(2026, 3, 9)).opens.timestamp() == 1773010800
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("wanted", "at", "near"),
    [
        ([DCASS], "2026-11-20 06:54:59", False),
        ([DCASS], "2026-11-20 06:55", True),
        ([DCASS], "2026-11-20 07:04:59", True),
        ([DCASS], "2026-11-20 07:05", False),
        ([CCMS], "2026-11-20 23:56", True),
        ([CCMS], "2026-11-21 00:04", True),
        ([DCASS], "2026-11-21 00:00", False),
        ([DCASS, CCMS], "2026-11-20 07:16", True),
        ([CCMS], "2026-11-21 12:56", True),
        ([KEY_WORK], "2026-11-22 07:15", False),  # a Sunday
    ],
)
def test_clocks_may_differ_by_five_minutes_at_an_edge(wanted, at, near):
    assert is_near_edge(wanted, hkt(at)) is near


@pytest.mark.parametrize(
    ("service", "opening"),
    [
        (DCASS, "2026-11-20 07:00"),
        (CCMS, "2026-11-20 07:15"),
        (CCMS, "2026-11-21 07:15"),
        (KEY_WORK, "2026-11-23 07:15"),
    ],
)
def test_an_opening_is_near_for_five_minutes_before_and_after(service, opening):
    at = hkt(opening)
    for seconds in (-299, 0, 299):
        assert is_near_opening([service], at.add(seconds=seconds))
        assert is_near_edge([service], at.add(seconds=seconds))
    for seconds in (-301, 301):
        assert not is_near_opening([service], at.add(seconds=seconds))
        assert not is_near_edge([service], at.add(seconds=seconds))


@pytest.mark.parametrize(("service", "closing"), [(DCASS, "2026-11-20 03:30"), (CCMS, "2026-11-21 13:00")])
def test_a_closing_is_no_opening(service, closing):
    for seconds in (-299, 0, 299):
        assert is_near_edge([service], hkt(closing).add(seconds=seconds))
        assert not is_near_opening([service], hkt(closing).add(seconds=seconds))


@given(at=instants)
def test_nothing_wanted_is_always_open_and_never_near_an_opening(at):
    assert not is_near_opening([], at)
