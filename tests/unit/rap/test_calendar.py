import subprocess
import sys
from datetime import date

import pendulum
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_hkex_rap.rap.calendar import (
    Calendar,
    is_public_holiday,
    is_trading_day,
    next_trading_day,
    previous_trading_day,
    trading_days,
)

days = st.dates(date(2018, 1, 1), date(2032, 12, 31))
calendars = st.sampled_from(Calendar)


@pytest.mark.parametrize(
    ("day", "derivatives", "securities"),
    [
        ("2026-11-20", True, True),  # a Friday
        ("2026-11-21", False, False),
        ("2026-11-22", False, False),
        ("2026-01-01", False, False),  # the only holiday without derivatives
        ("2023-01-02", True, False),  # the day after a 1 January that was a Sunday
        ("2026-04-03", True, False),  # Good Friday
        ("2026-10-01", True, False),  # National Day
        ("2025-12-25", True, False),  # Christmas
        ("2026-12-24", True, True),  # half a day
        ("2026-02-16", True, True),  # half a day
        ("2023-09-08", True, False),  # a black rainstorm, all day
        ("2024-09-06", True, False),  # typhoon Yagi, all day
    ],
)
def test_trading_days_of_both_markets(day, derivatives, securities):
    day = date.fromisoformat(day)
    assert is_trading_day(day) is is_trading_day(day, Calendar.DERIVATIVES) is derivatives
    assert is_trading_day(day, Calendar.SECURITIES) is securities


@pytest.mark.parametrize(
    ("day", "holiday"),
    [
        ("2026-04-04", True),  # Easter Saturday: a general holiday, not yet a statutory one
        ("2026-09-26", True),  # a Saturday after Mid-Autumn
        ("2026-12-26", True),  # a Saturday after Christmas
        ("2026-10-19", True),
        ("2026-11-21", False),  # an ordinary Saturday
        ("2026-11-20", False),
        ("2024-09-06", False),  # a typhoon is not a holiday
    ],
)
def test_public_holidays_are_the_general_holidays(day, holiday):
    assert is_public_holiday(date.fromisoformat(day)) is holiday


def test_calendars_are_known_by_their_words():
    assert Calendar("derivatives") is Calendar.DERIVATIVES
    assert Calendar("securities") is Calendar.SECURITIES


@given(days)
def test_securities_trade_only_on_days_on_which_derivatives_do(day):
    assert is_trading_day(day) or not is_trading_day(day, Calendar.SECURITIES)


@given(days, calendars)
def test_neighbours_are_the_nearest_trading_days(day, calendar):
    before, after = previous_trading_day(day, calendar), next_trading_day(day, calendar)
    assert type(before) is type(after) is pendulum.Date
    assert before < day < after
    around = [before, day, after] if is_trading_day(day, calendar) else [before, after]
    assert list(trading_days(before, after, calendar)) == around


@given(days, st.integers(-3, 60), calendars)
def test_trading_days_include_both_ends_and_nothing_else(start, length, calendar):
    end = date.fromordinal(start.toordinal() + length)
    span = [date.fromordinal(n) for n in range(start.toordinal(), end.toordinal() + 1)]
    assert list(trading_days(start, end, calendar)) == [day for day in span if is_trading_day(day, calendar)]


def test_derivatives_need_no_library_of_holidays():
    program = (
        "import sys, datetime; from airflow_provider_hkex_rap.rap.calendar import is_trading_day;"
        "from airflow_provider_hkex_rap.rap import report_name, service_hours, trading_day;"
        "assert is_trading_day(datetime.date(2026, 11, 20)); assert 'holidays' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
