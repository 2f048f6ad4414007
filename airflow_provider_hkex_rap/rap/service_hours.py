"""When RAP answers: the service hours of §4.1, in Hong Kong time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final, Literal

import pendulum

from airflow_provider_hkex_rap.rap.calendar import is_public_holiday, is_trading_day
from airflow_provider_hkex_rap.rap.clock import HONG_KONG
from airflow_provider_hkex_rap.rap.folders import Service

KEY_WORK: Final = "KEY_WORK"
"""Renewing keys. The guide gives it no hours: ours are those in which every kind of account can log in."""

Wanted = Service | Literal["KEY_WORK"]
"""What a task wants RAP to be open for."""

DAY_OPENS = timedelta(hours=7)
"""When the first service of a trading day opens, after midnight; before is the night of the day before."""

_EDGE = timedelta(minutes=5)

_SATURDAY = 5
_TRADING_DAY_HOURS: dict[Wanted, tuple[timedelta, timedelta]] = {
    Service.DCASS: (DAY_OPENS, timedelta(hours=27, minutes=30)),
    Service.CCMS: (timedelta(hours=7, minutes=15), timedelta(hours=24)),
    KEY_WORK: (timedelta(hours=7, minutes=15), timedelta(hours=24)),
}
_CCMS_SATURDAY_HOURS = (timedelta(hours=7, minutes=15), timedelta(hours=13))


@dataclass(frozen=True, slots=True)
class Window:
    """One opening of a service.

    :param opens: the first instant at which it is open, in Hong Kong time.
    :param closes: the first instant at which it no longer is.
    """

    opens: pendulum.DateTime
    closes: pendulum.DateTime

    def __contains__(self, at: datetime) -> bool:
        return self.opens <= at < self.closes


def window(wanted: Wanted, day: date) -> Window | None:
    """Return the window that opens on *day*; that of DCASS closes on the next (§4.1).

    :param wanted: a service, or key work.
    :param day: a date in Hong Kong.
    :returns: None where nothing opens on that day.
    """
    if is_trading_day(day):
        opens, closes = _TRADING_DAY_HOURS[wanted]
    elif wanted is Service.CCMS and day.weekday() == _SATURDAY and not is_public_holiday(day):
        opens, closes = _CCMS_SATURDAY_HOURS
    else:
        return None
    midnight = pendulum.datetime(day.year, day.month, day.day, tz=HONG_KONG)
    return Window(midnight + opens, midnight + closes)


def is_open(wanted: Iterable[Wanted], at: datetime) -> bool:
    """Return whether all that is wanted is open at an instant (§4.1).

    :param wanted: services, or key work.
    :param at: an aware time.
    """
    return next_opening(wanted, at) == at


def is_near_edge(wanted: Iterable[Wanted], at: datetime) -> bool:
    """Return whether an opening or a closing is less than five minutes away, where clocks may differ.

    :param wanted: services, or key work.
    :param at: an aware time.
    """
    everything = tuple(wanted)
    return len({is_open(everything, at + by) for by in (-_EDGE, timedelta(), _EDGE)}) > 1


def next_opening(wanted: Iterable[Wanted], at: datetime) -> pendulum.DateTime:
    """Return the first instant, *at* or later, at which all that is wanted is open (§4.1).

    :param wanted: services, or key work; they are all open together on every trading day, 07:15 to 24:00.
    :param at: an aware time.
    :returns: *at* itself where all is open then; in Hong Kong time.
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

    :param service: the service whose windows count; for CCMS the Saturdays on which it opens are days too.
    :param at: an aware time.
    """
    instant = _in_hong_kong(at)
    day = instant.date()
    while (opened := window(service, day)) is None or instant < opened.opens:
        day = day.subtract(days=1)
    return day


def _opening(wanted: Wanted, at: pendulum.DateTime) -> pendulum.DateTime:
    # A window may have opened on the day before and still be open.
    day = at.date().subtract(days=1)
    while (found := window(wanted, day)) is None or at >= found.closes:
        day = day.add(days=1)
    return max(at, found.opens)


def _in_hong_kong(at: datetime) -> pendulum.DateTime:
    return pendulum.instance(at).in_timezone(HONG_KONG)
