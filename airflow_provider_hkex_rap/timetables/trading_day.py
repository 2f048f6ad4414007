"""Run a DAG once on each trading day."""

from __future__ import annotations

import re
from datetime import date, timedelta
from enum import StrEnum
from typing import Any, Self, TypeVar

import pendulum
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction, Timetable

from airflow_provider_hkex_rap.rap.calendar import Calendar, is_saturday, is_trading_day, next_trading_day
from airflow_provider_hkex_rap.rap.clock import HONG_KONG
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.folders import Service
from airflow_provider_hkex_rap.rap.service_hours import DAY_OPENS, Window, window
from airflow_provider_hkex_rap.rap.trading_day import run_trading_day

_DAY = timedelta(days=1)
_LATEST_ON_SATURDAY = timedelta(hours=12, minutes=30)
"""The latest time of a run on a Saturday, when CCMS closes at 13:00 (§4.1)."""

_FORM = re.compile(r"(?P<hours>[01][0-9]|2[0-3]):(?P<minutes>[0-5][0-9])")

Choice = TypeVar("Choice", bound=StrEnum)


class RapTradingDayTimetable(Timetable):
    """Run a DAG once on each trading day, within the service hours of that day (§4.1).

    ::

        with DAG("daily", schedule=RapTradingDayTimetable(at="01:30", service="DCASS"), ...):
            ...

    The run of trading day D has the data interval from D 00:00 UTC to D+1 00:00 UTC, so ``{{ ds }}`` is D. It
    starts at *at* in Hong Kong time; the time zone of the DAG does not matter. Without catch-up, only the
    last missed day is run. Set the DAG's ``end_date`` to midnight UTC of its last trading day, because
    Airflow starts no task whose logical date is after it.

    With ``service="CCMS"`` the DAG also runs on the Saturdays when CCMS opens. If *at* is after 12:30, a
    Saturday's run starts at 12:30.

    :param at: the start time as HH:MM in Hong Kong, within the service hours of D. A time before 07:00 is in
        the night after D.
    :param service: the service whose hours apply: ``DCASS`` (07:00 to 03:30) or ``CCMS`` (07:15 to 24:00).
    :param calendar: the trading days: ``derivatives`` (weekdays except 1 January) or ``securities`` (the
        trading days of XHKG).
    :raises RapConfigurationError: if *service* or *calendar* is unknown, or if *at* is not HH:MM within the
        service hours.
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
        """The start time and the service, as the list of DAGs shows them."""
        return f"{self._at} HKT, {self._service} days"

    def serialize(self) -> dict[str, Any]:
        """Return the arguments to store in Airflow's database."""
        return {"at": self._at, "service": self._service.value, "calendar": self._calendar.value}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> Self:
        """Return a timetable from its stored arguments.

        :param data: the arguments that :meth:`serialize` returned.
        """
        return cls(**data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RapTradingDayTimetable) and self.serialize() == other.serialize()

    def __hash__(self) -> int:
        return hash(tuple(self.serialize().values()))

    def infer_manual_data_interval(self, *, run_after: pendulum.DateTime) -> DataInterval:
        """Return the data interval for the trading day of a manual run.

        :param run_after: the logical date of the run. If it is exactly midnight UTC, its date is the day.
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
        :param restriction: the earliest and latest logical date, and the DAG's ``catchup``.
        :returns: None if no day is left, or if there is neither a start date nor an earlier run.
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
        # Compare dates in Hong Kong: midnight of D there is on D-1 in UTC, and bounds are inclusive.
        if restriction.latest and day > restriction.latest.in_timezone(HONG_KONG).date():
            return None
        return DagRunInfo(run_after=self._run_after(day), data_interval=_interval(day))

    def _is_day(self, day: date) -> bool:
        if self._service is Service.CCMS and is_saturday(day):
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
        if not is_saturday(day):
            return on_the_day
        return min(on_the_day, _midnight_in_hong_kong(day) + _LATEST_ON_SATURDAY)


def _choice(options: type[Choice], value: str, name: str) -> Choice:
    """Return the option that *value* names.

    :raises RapConfigurationError: if there is no such option.
    """
    try:
        return options(value)
    except ValueError:
        raise RapConfigurationError(
            f"{value!r} is not a valid {name!r} of the timetable.",
            why=f"Valid are {' and '.join(repr(option.value) for option in options)}.",
            todo="Use one of these values.",
            **{name: value},
        ) from None


def _after_midnight(at: str, service: Service) -> timedelta:
    """Return the time from midnight of the trading day to the start of its run.

    :raises RapConfigurationError: if *at* is not HH:MM, or is outside the service hours.
    """
    hours = _hours_of_a_trading_day(service)
    if match := _FORM.fullmatch(str(at)):
        time = timedelta(hours=int(match["hours"]), minutes=int(match["minutes"]))
        after_midnight = time if time >= DAY_OPENS else time + _DAY
        if _midnight_in_hong_kong(hours.opens.date()) + after_midnight in hours:
            return after_midnight
    opens, last = hours.opens.format("HH:mm"), hours.closes.subtract(minutes=1).format("HH:mm")
    raise RapConfigurationError(
        f"{at!r} is not a valid 'at' of the timetable for {service}.",
        why=f"On a trading day {service} is open from {opens} to {last} in Hong Kong (guide §4.1).",
        todo=f"Write HH:MM from {opens} to {last}. A time before 07:00 is in the night after that day.",
        at=at,
        service=service,
    )


def _hours_of_a_trading_day(service: Service) -> Window:
    hours = window(service, next_trading_day(pendulum.Date(2026, 1, 1)))
    assert hours is not None  # noqa: S101 - every service opens on a trading day
    return hours


def _first_day(earliest: pendulum.DateTime) -> pendulum.Date:
    """Return the first date whose logical date is not before *earliest*."""
    # Airflow creates no tasks for a run whose logical date is before the start date.
    day = _utc_date(earliest)
    return day if _interval(day).start >= earliest else day + _DAY


def _utc_date(at: pendulum.DateTime) -> pendulum.Date:
    return at.in_timezone("UTC").date()


def _midnight_in_hong_kong(day: date) -> pendulum.DateTime:
    return pendulum.datetime(day.year, day.month, day.day, tz=HONG_KONG)


def _interval(day: date) -> DataInterval:
    start = pendulum.datetime(day.year, day.month, day.day, tz="UTC")
    return DataInterval(start, start + _DAY)
