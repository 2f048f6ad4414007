"""The timetable that runs a DAG once a trading day."""

from __future__ import annotations

import re
from datetime import date, timedelta
from enum import StrEnum
from typing import Any, Self, TypeVar

import pendulum
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction, Timetable

from airflow_provider_hkex_rap.rap.calendar import Calendar, is_trading_day, next_trading_day
from airflow_provider_hkex_rap.rap.clock import HONG_KONG
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.folders import Service
from airflow_provider_hkex_rap.rap.service_hours import DAY_OPENS, Window, window
from airflow_provider_hkex_rap.rap.trading_day import run_trading_day

_DAY = timedelta(days=1)
_SATURDAY = 5
_SATURDAY_AT = timedelta(hours=12, minutes=30)
"""The latest time of a Saturday's run: CCMS closes at 13:00 (§4.1)."""

_FORM = re.compile(r"(?P<hours>[01][0-9]|2[0-3]):(?P<minutes>[0-5][0-9])")

Choice = TypeVar("Choice", bound=StrEnum)


class RapTradingDayTimetable(Timetable):
    """Run a DAG once a trading day, within the service hours of that day (§4.1).

    The run of a trading day D has the logical date D 00:00 UTC and the data interval from there to D+1 00:00
    UTC, so that ``{{ ds }}`` is D. It starts at *at* in Hong Kong, whatever the DAG's time zone. For CCMS the
    Saturdays on which it opens are days too; there an *at* after 12:30 becomes 12:30. Without catch-up, only
    the last of the days that were missed is run. Give the DAG's ``end_date`` in UTC, as midnight of its last
    trading day: Airflow starts no task of a logical date after it.

    :param at: HH:MM in Hong Kong, inside the service's window of D; before 07:00 it is the night after D.
    :param service: whose window: ``DCASS`` (07:00 to 03:30) or ``CCMS`` (07:15 to 24:00).
    :param calendar: which days are trading days: ``derivatives`` (weekdays but 1 January) or ``securities``
        (those of XHKG).
    :raises RapConfigurationError: an argument has another form, or *at* is outside the service hours.
    """

    def __init__(
        self,
        *,
        at: str = "01:30",
        service: Service | str = Service.DCASS,
        calendar: Calendar | str = Calendar.DERIVATIVES,
    ) -> None:
        self._service = _choice(Service, service, "service")
        self._calendar = _choice(Calendar, calendar, "calendar")
        self._at, self._after_midnight = at, _after_midnight(at, self._service)
        days = (
            "in the night after each trading day" if self._after_midnight >= _DAY else "on each trading day"
        )
        saturdays = f", on Saturdays at {min(at, '12:30')}" if self._service is Service.CCMS else ""
        self.description = (
            f"At {at} Hong Kong time {days} of {self._service}{saturdays} ({self._calendar} calendar)"
        )

    @property
    def summary(self) -> str:
        """The time and the service, for the list of DAGs."""
        return f"{self._at} HKT, {self._service} days"

    def serialize(self) -> dict[str, Any]:
        """Return the arguments, for the database."""
        return {"at": self._at, "service": self._service.value, "calendar": self._calendar.value}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> Self:
        """Return the timetable with the arguments that :meth:`serialize` gave.

        :param data: those arguments.
        """
        return cls(**data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RapTradingDayTimetable) and self.serialize() == other.serialize()

    def __hash__(self) -> int:
        return hash(tuple(self.serialize().values()))

    def infer_manual_data_interval(self, *, run_after: pendulum.DateTime) -> DataInterval:
        """Return the interval of the trading day that a manual run is for.

        :param run_after: the logical date given; of exactly midnight UTC, it means that date.
        """
        day = run_trading_day(
            conf_business_date=None,
            logical_date=run_after,
            run_after=None,
            service=self._service,
            now=run_after,
        )
        return _interval(day)

    def next_dagrun_info(
        self, *, last_automated_data_interval: DataInterval | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        """Return the run of the next trading day.

        :param last_automated_data_interval: the interval of the last scheduled or backfill run, if any.
        :param restriction: the earliest logical date, the last day, and whether to catch up.
        :returns: None where no day is left, or where neither a start date nor a run says where to begin.
        """
        candidates = []
        if restriction.earliest:
            candidates.append(_first_day(restriction.earliest))
        if last_automated_data_interval:
            candidates.append(_utc_date(last_automated_data_interval.start) + _DAY)
        if not restriction.catchup:
            candidates.append(self._last_due(pendulum.now(HONG_KONG)))
        if not candidates:
            return None
        day = self._day_from(max(candidates))
        # A bound of midnight in Hong Kong is D-1 in UTC, and means D: a backfill's bounds are inclusive.
        if restriction.latest and day > restriction.latest.in_timezone(HONG_KONG).date():
            return None
        return DagRunInfo(run_after=self._run_after(day), data_interval=_interval(day))

    def _is_day(self, day: date) -> bool:
        if self._service is Service.CCMS and day.weekday() == _SATURDAY:
            return window(Service.CCMS, day) is not None
        return is_trading_day(day, self._calendar)

    def _day_from(self, day: pendulum.Date) -> pendulum.Date:
        while not self._is_day(day):
            day += _DAY
        return day

    def _last_due(self, now: pendulum.DateTime) -> pendulum.Date:
        day = now.date()
        while not self._is_day(day) or self._run_after(day) > now:
            day -= _DAY
        return day

    def _run_after(self, day: date) -> pendulum.DateTime:
        on_the_day = _midnight_in_hong_kong(day) + self._after_midnight
        if day.weekday() != _SATURDAY:
            return on_the_day
        return min(on_the_day, _midnight_in_hong_kong(day) + _SATURDAY_AT)


def _choice(options: type[Choice], value: str, name: str) -> Choice:
    """Return the option of that name."""
    try:
        return options(value)
    except ValueError:
        raise RapConfigurationError(
            f"{value!r} in {name!r} of the timetable is unknown.",
            why=f"There is {' and '.join(repr(option.value) for option in options)}.",
            todo="Write it as one of these.",
            **{name: value},
        ) from None


def _after_midnight(at: str, service: Service) -> timedelta:
    """Return how long after the trading day's midnight a run starts.

    :raises RapConfigurationError: *at* is not a time within the service hours.
    """
    hours = _hours_of_a_trading_day(service)
    if match := _FORM.fullmatch(str(at)):
        time = timedelta(hours=int(match["hours"]), minutes=int(match["minutes"]))
        after_midnight = time if time >= DAY_OPENS else time + _DAY
        if _midnight_in_hong_kong(hours.opens.date()) + after_midnight in hours:
            return after_midnight
    opens, last = hours.opens.format("HH:mm"), hours.closes.subtract(minutes=1).format("HH:mm")
    raise RapConfigurationError(
        f"{at!r} in 'at' of the timetable is no time at which {service} is open.",
        why=f"On a trading day {service} can be used from {opens} to {last} in Hong Kong (§4.1).",
        todo=f"Write HH:MM from {opens} to {last}; a time before 07:00 is in the night after the day.",
        at=at,
        service=service,
    )


def _hours_of_a_trading_day(service: Service) -> Window:
    hours = window(service, next_trading_day(pendulum.Date(2026, 1, 1)))
    assert hours is not None  # noqa: S101 - every service opens on a trading day
    return hours


def _first_day(earliest: pendulum.DateTime) -> pendulum.Date:
    """Return the first date whose logical date is not before *earliest*."""
    # Airflow makes no tasks in a run from before the start date.
    day = _utc_date(earliest)
    return day if _interval(day).start >= earliest else day + _DAY


def _utc_date(at: pendulum.DateTime) -> pendulum.Date:
    return at.in_timezone("UTC").date()


def _midnight_in_hong_kong(day: date) -> pendulum.DateTime:
    return pendulum.datetime(day.year, day.month, day.day, tz=HONG_KONG)


def _interval(day: date) -> DataInterval:
    start = pendulum.datetime(day.year, day.month, day.day, tz="UTC")
    return DataInterval(start, start + _DAY)
