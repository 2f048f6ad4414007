"""Find the trading days and public holidays of Hong Kong (§4.1)."""

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


class Calendar(StrEnum):
    """The market that decides if a day is a trading day."""

    DERIVATIVES = "derivatives"
    """All weekdays except 1 January. Since May 2022 derivatives also trade on the other public holidays."""
    SECURITIES = "securities"
    """The trading days of the securities market (XHKG). Past days closed by severe weather are left out."""


def is_trading_day(day: date, calendar: Calendar = Calendar.DERIVATIVES) -> bool:
    """Tell if *day* is a trading day (§4.1).

    :param day: a date in Hong Kong.
    :param calendar: the market whose trading days count.
    """
    if day.isoweekday() > 5:
        return False
    if calendar is Calendar.DERIVATIVES:
        return (day.month, day.day) != (1, 1)
    return day not in _securities_holidays()


def trading_days(
    start: date, end: date, calendar: Calendar = Calendar.DERIVATIVES
) -> Iterator[pendulum.Date]:
    """Yield the trading days from *start* to *end*, oldest first.

    :param start: the first date, included. Nothing is yielded if it is after *end*.
    :param end: the last date, included.
    :param calendar: the market whose trading days count.
    """
    for ordinal in range(start.toordinal(), end.toordinal() + 1):
        day = pendulum.Date.fromordinal(ordinal)
        if is_trading_day(day, calendar):
            yield day


def previous_trading_day(day: date, calendar: Calendar = Calendar.DERIVATIVES) -> pendulum.Date:
    """Return the last trading day before *day*.

    :param day: a date in Hong Kong.
    :param calendar: the market whose trading days count.
    """
    return _nearest(day, -_DAY, calendar)


def next_trading_day(day: date, calendar: Calendar = Calendar.DERIVATIVES) -> pendulum.Date:
    """Return the first trading day after *day*.

    :param day: a date in Hong Kong.
    :param calendar: the market whose trading days count.
    """
    return _nearest(day, _DAY, calendar)


def is_public_holiday(day: date) -> bool:
    """Tell if *day* is a public holiday of Hong Kong. A Sunday alone does not count as one.

    :param day: a date in Hong Kong.
    """
    return day in _public_holidays()


def load_public_holidays() -> None:
    """Import the calendar of public holidays, which takes up to 0.4 s, so that `is_public_holiday` does not.

    Safe in a thread, while others ask for public holidays.
    """
    _public_holidays()


def is_saturday(day: date) -> bool:
    """Tell if *day* is a Saturday, when only CCMS may open (§4.1).

    :param day: a date in Hong Kong.
    """
    return day.isoweekday() == 6


def _nearest(day: date, step: timedelta, calendar: Calendar) -> pendulum.Date:
    found = pendulum.Date(day.year, day.month, day.day) + step
    while not is_trading_day(found, calendar):
        found += step
    return found


@cache
def _securities_holidays() -> HolidayBase:
    # Imported on first use: it takes 0.25 s, and parsing a DAG of the derivatives calendar does not need it.
    from holidays import financial_holidays

    return financial_holidays("XHKG")


@cache
def _public_holidays() -> HolidayBase:
    from holidays import country_holidays
    from holidays.constants import OPTIONAL

    # The library's category 'public' has the statutory holidays of employment law, which lack Easter
    # Saturday. Its category 'optional' has the general holidays of Cap. 149, Hong Kong's public holidays.
    return country_holidays("HK", categories=OPTIONAL)
