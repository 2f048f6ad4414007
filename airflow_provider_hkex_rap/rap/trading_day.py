"""Find the trading day of a DAG run while its task runs."""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import TYPE_CHECKING

import pendulum

from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.service_hours import latest_opened_trading_day

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.rap.folders import Service

# Dates of other centuries are mistyped, and the days around the first and the last date do not exist.
_FORM = re.compile(r"20[0-9]{2}-[0-9]{2}-[0-9]{2}")


def run_trading_day(
    *,
    conf_business_date: str | None,
    logical_date: datetime | None,
    run_after: datetime | None,
    service: Service,
    now: datetime,
) -> pendulum.Date:
    """Return the trading day of a DAG run.

    The first rule that applies decides:

    1. If *conf_business_date* is set, it is the trading day.
    2. If *logical_date* is exactly midnight UTC, its date is the trading day.
    3. Otherwise it is the last day whose window (§4.1) had opened at *logical_date*; without a logical date,
       at *run_after*; without a run, at *now*.

    :param conf_business_date: ``dag_run.conf["business_date"]`` as YYYY-MM-DD; None or blank if not set.
    :param logical_date: the logical date of the run; None if it has none.
    :param run_after: the earliest time when the run may start; None outside a run.
    :param service: the service whose windows count.
    :param now: the current time, used outside a run.
    :raises RapConfigurationError: if *conf_business_date* is not a date in the form YYYY-MM-DD.
    """
    if day := parse_business_date(conf_business_date, field='dag_run.conf["business_date"]'):
        return day
    if logical_date and _utc(logical_date) == _utc(logical_date).start_of("day"):
        return _utc(logical_date).date()
    return latest_opened_trading_day(service, logical_date or run_after or now)


def parse_business_date(value: str | date | None, *, field: str = "business_date") -> pendulum.Date | None:
    """Parse a business date.

    :param value: a text in the form YYYY-MM-DD, or a date. A template may render to a blank text.
    :param field: the name of the argument, for the error.
    :returns: None if *value* is None or blank.
    :raises RapConfigurationError: if *value* is neither a date nor a text in this form.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    # A datetime is refused: its date depends on a time zone that is not known here.
    text = "" if isinstance(value, datetime) else str(value).strip()
    try:
        if _FORM.fullmatch(text):
            return pendulum.Date.fromisoformat(text)
    except ValueError:
        pass
    raise RapConfigurationError(
        f"{value!r} in {field!r} is not a business date.",
        why="A business date is YYYY-MM-DD from 2000 on, such as 2026-11-20.",
        todo="Write it in that form, or leave it out.",
        business_date=value,
    )


def _utc(at: datetime) -> pendulum.DateTime:
    return pendulum.instance(at).in_timezone("UTC")
