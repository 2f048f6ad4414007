"""Trading days and public holidays of Hong Kong (§4.1)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING

import pendulum

if TYPE_CHECKING:
    from holidays import HolidayBase

_DAY = timedelta(days=1)
_SATURDAY = 5


class Calendar(StrEnum):
    """Which days are trading days."""

    DERIVATIVES = "derivatives"
    """Weekdays but 1 January: derivatives trade on the other public holidays too (since May 2022)."""
    SECURITIES = "securities"
    """The days on which the securities market (XHKG) trades, without those lost to severe weather."""


def is_trading_day(day: date, calendar: Calendar = Calendar.DERIVATIVES) -> bool:
    """Return whether *day* is a trading day (§4.1).

    :param day: a date in Hong Kong.
    :param calendar: the market whose days count.
    """
    if day.weekday() >= _SATURDAY:
        return False
    if calendar is Calendar.DERIVATIVES:
        return (day.month, day.day) != (1, 1)
    return day not in _securities_holidays()


def trading_days(
    start: date, end: date, calendar: Calendar = Calendar.DERIVATIVES
) -> Iterator[pendulum.Date]:
    """Yield the trading days from *start* to *end*, both included, in order.

    :param start: the first date; nothing is yielded where it is after *end*.
    :param end: the last date.
    :param calendar: the market whose days count.
    """
    for ordinal in range(start.toordinal(), end.toordinal() + 1):
        day = pendulum.Date.fromordinal(ordinal)
        if is_trading_day(day, calendar):
            yield day


def previous_trading_day(day: date, calendar: Calendar = Calendar.DERIVATIVES) -> pendulum.Date:
    """Return the last trading day before *day*, never *day* itself.

    :param day: a date in Hong Kong.
    :param calendar: the market whose days count.
    """
    return _nearest(day, -_DAY, calendar)


def next_trading_day(day: date, calendar: Calendar = Calendar.DERIVATIVES) -> pendulum.Date:
    """Return the first trading day after *day*, never *day* itself.

    :param day: a date in Hong Kong.
    :param calendar: the market whose days count.
    """
    return _nearest(day, _DAY, calendar)


def is_public_holiday(day: date) -> bool:
    """Return whether *day* is a public holiday of Hong Kong; Sundays as such are not counted.

    :param day: a date in Hong Kong.
    """
    return day in _public_holidays()


def _nearest(day: date, step: timedelta, calendar: Calendar) -> pendulum.Date:
    found = pendulum.Date(day.year, day.month, day.day) + step
    while not is_trading_day(found, calendar):
        found += step
    return found


@cache
def _securities_holidays() -> HolidayBase:
    # 0.25 s to import, and DAG parsing needs none of it for derivatives.
    from holidays import financial_holidays

    return financial_holidays("XHKG")


@cache
def _public_holidays() -> HolidayBase:
    from holidays import country_holidays
    from holidays.constants import OPTIONAL

    # The library's 'public' are the statutory holidays of employment law, without Easter Saturday. What Hong
    # Kong calls public holidays, the general holidays of Cap. 149, are its 'optional'.
    return country_holidays("HK", categories=OPTIONAL)
