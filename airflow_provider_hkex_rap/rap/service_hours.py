"""Compute the service hours of RAP (§4.1), in Hong Kong time.

::

    if not is_open([Service.DCASS], clock()):
        opens_at = next_opening([Service.DCASS], clock())
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final, Literal

import pendulum

from airflow_provider_hkex_rap.rap.calendar import is_public_holiday, is_saturday, is_trading_day
from airflow_provider_hkex_rap.rap.clock import HONG_KONG
from airflow_provider_hkex_rap.rap.folders import Service

KEY_WORK: Final = "KEY_WORK"
"""The renewal of keys. The guide names no hours for it; it uses the hours when all accounts can log in."""

Wanted = Service | Literal["KEY_WORK"]
"""A service, or key work, that a task needs to be open."""

DAY_OPENS = timedelta(hours=7)
"""The time after midnight when the first service opens. Earlier times belong to the trading day before."""

_EDGE = timedelta(minutes=5)

_TRADING_DAY_HOURS: dict[Wanted, tuple[timedelta, timedelta]] = {
    Service.DCASS: (DAY_OPENS, timedelta(hours=27, minutes=30)),
    Service.CCMS: (timedelta(hours=7, minutes=15), timedelta(hours=24)),
    KEY_WORK: (timedelta(hours=7, minutes=15), timedelta(hours=24)),
}
_CCMS_SATURDAY_HOURS = (timedelta(hours=7, minutes=15), timedelta(hours=13))


@dataclass(frozen=True, slots=True)
class Window:
    """A period in which a service is open.

    :param opens: the first instant of the period, in Hong Kong time.
    :param closes: the first instant after the period, in Hong Kong time.
    """

    opens: pendulum.DateTime
    closes: pendulum.DateTime

    def __contains__(self, at: datetime) -> bool:
        return self.opens <= at < self.closes


def window(wanted: Wanted, day: date) -> Window | None:
    """Return the window that opens on *day* (§4.1). The window of DCASS closes on the day after.

    :param wanted: a service, or key work.
    :param day: a date in Hong Kong.
    :returns: None if it does not open on that day.
    """
    if is_trading_day(day):
        opens, closes = _TRADING_DAY_HOURS[wanted]
    elif wanted is Service.CCMS and is_saturday(day) and not is_public_holiday(day):
        opens, closes = _CCMS_SATURDAY_HOURS
    else:
        return None
    midnight = pendulum.datetime(day.year, day.month, day.day, tz=HONG_KONG)
    return Window(midnight + opens, midnight + closes)


def is_open(wanted: Iterable[Wanted], at: datetime) -> bool:
    """Tell if all wanted services are open at an instant (§4.1).

    :param wanted: services, or key work.
    :param at: a timezone-aware time.
    """
    return next_opening(wanted, at) == at


def is_near_edge(wanted: Iterable[Wanted], at: datetime) -> bool:
    """Tell if an opening or closing is at most five minutes away, so that a clock difference can matter.

    :param wanted: services, or key work.
    :param at: a timezone-aware time.
    """
    everything = tuple(wanted)
    return len({is_open(everything, at + by) for by in (-_EDGE, timedelta(), _EDGE)}) > 1


def is_near_opening(wanted: Iterable[Wanted], at: datetime) -> bool:
    """Tell if an opening is less than five minutes away, or was less than five minutes ago.

    :param wanted: services, or key work.
    :param at: a timezone-aware time.
    """
    everything = tuple(wanted)
    return not is_open(everything, at - _EDGE) and is_open(everything, at + _EDGE)


def next_opening(wanted: Iterable[Wanted], at: datetime) -> pendulum.DateTime:
    """Return the first instant, not before *at*, when all wanted services are open (§4.1).

    :param wanted: services, or key work. All are open together from 07:15 to 24:00 on every trading day.
    :param at: a timezone-aware time.
    :returns: the instant in Hong Kong time; *at* itself if all are open then.
    """
    everything = tuple(wanted)
    instant = _in_hong_kong(at)
    while True:
        opening = max((_opening(one, instant) for one in everything), default=instant)
        if opening == instant:
            return instant
        instant = opening


def latest_opened_trading_day(service: Service, at: datetime) -> pendulum.Date:
    """Return the last day whose window had opened at an instant (§4.1).

    :param service: the service whose windows count. Saturdays when CCMS opens count as days of CCMS.
    :param at: a timezone-aware time.
    """
    instant = _in_hong_kong(at)
    day = instant.date()
    while (opened := window(service, day)) is None or instant < opened.opens:
        day = day.subtract(days=1)
    return day


def _opening(wanted: Wanted, at: pendulum.DateTime) -> pendulum.DateTime:
    # The window of the day before may still be open.
    day = at.date().subtract(days=1)
    while (found := window(wanted, day)) is None or at >= found.closes:
        day = day.add(days=1)
    return max(at, found.opens)


def _in_hong_kong(at: datetime) -> pendulum.DateTime:
    return pendulum.instance(at).in_timezone(HONG_KONG)
