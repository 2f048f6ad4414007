"""The trading day of a run, resolved when its task runs."""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import TYPE_CHECKING

import pendulum

from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.service_hours import latest_opened_trading_day

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.rap.folders import Service

_FORM = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def run_trading_day(
    *,
    conf_business_date: str | None,
    logical_date: datetime | None,
    run_after: datetime | None,
    service: Service,
    now: datetime,
) -> pendulum.Date:
    """Return the trading day of a run: the first of these that says one.

    The run's conf; the interval, which starts at D 00:00 UTC; a logical date of exactly midnight UTC, which
    means that date; else the last day whose window (§4.1) had opened at the logical date, at *run_after*, or
    now, whichever is known first.

    :param conf_business_date: ``dag_run.conf["business_date"]`` (YYYY-MM-DD).
    :param logical_date: the run's logical date, where it has one.
    :param run_after: the earliest time at which the run may start, where there is a run.
    :param service: the service whose windows count.
    :param now: the clock's time, for an execution outside any run.
    :raises RapConfigurationError: *conf_business_date* is not a date of that form.
    """
    if day := parse_business_date(conf_business_date, field='dag_run.conf["business_date"]'):
        return day
    if logical_date and _utc(logical_date) == _utc(logical_date).start_of("day"):
        return _utc(logical_date).date()
    return latest_opened_trading_day(service, logical_date or run_after or now)


def parse_business_date(value: str | date | None, *, field: str = "business_date") -> pendulum.Date | None:
    """Return the date that an argument names.

    :param value: YYYY-MM-DD, or a date; a template may have rendered to nothing.
    :param field: where the value comes from, for the error.
    :returns: None where *value* is None or blank.
    :raises RapConfigurationError: *value* is anything else.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    # A time has a date only in some time zone, and nothing here says which.
    if isinstance(value, date) and not isinstance(value, datetime):
        return pendulum.Date(value.year, value.month, value.day)
    try:
        if _FORM.fullmatch(str(value).strip()):
            return pendulum.Date.fromisoformat(str(value).strip())
    except ValueError:
        pass
    raise RapConfigurationError(
        f"{value!r} in {field!r} is not a business date.",
        why="A business date is YYYY-MM-DD, such as 2026-11-20.",
        todo="Write it in that form, or leave it out.",
        business_date=value,
    )


def _utc(at: datetime) -> pendulum.DateTime:
    return pendulum.instance(at).in_timezone("UTC")
