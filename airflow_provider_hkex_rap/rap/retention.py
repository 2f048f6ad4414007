"""Compute how long RAP keeps a report: ten calendar days from the day it is generated (§4.1).

The guide does not say if the tenth day is still included; this module includes it. If a listing disagrees
with these dates, trust the listing: a file that RAP lists is there.
"""

from __future__ import annotations

from datetime import date, timedelta
from functools import lru_cache

import pendulum

from airflow_provider_hkex_rap.rap.errors import RapRetentionExpired

RETENTION_DAYS = 10
"""Calendar days for which RAP keeps a report after the day of the report (§4.1)."""


def first_kept(today: date) -> pendulum.Date:
    """Return the oldest business date whose reports RAP should still have (§4.1).

    :param today: the date in Hong Kong.
    """
    return _plus(today, -RETENTION_DAYS)


@lru_cache(64)
def left_on(business_date: date) -> pendulum.Date:
    """Return the first day (HKT) on which RAP no longer has the reports of a business date (§4.1).

    :param business_date: the business date of the reports.
    """
    return _plus(business_date, RETENTION_DAYS + 1)


def days_until_removed(business_date: date, today: date) -> int:
    """Count the days until RAP removes the reports of a business date, today included (§4.1).

    :param business_date: the business date of the reports.
    :param today: the date in Hong Kong.
    :returns: the number of days; 1 on the last day, 0 when the reports are gone.
    """
    return max(0, left_on(business_date).toordinal() - today.toordinal())


def retention_expired(business_date: date, folders: str, reports: str = "Nothing") -> RapRetentionExpired:
    """Return the error for a business date whose reports RAP no longer lists (§4.1).

    :param business_date: the business date of the reports.
    :param folders: the paths of the folders that were listed.
    :param reports: the subject of the message, such as ``None of TP001_*``.
    """
    gone = left_on(business_date).isoformat()
    return RapRetentionExpired(
        f"{reports} of {business_date.isoformat()} is in {folders}: its reports left RAP on {gone}.",
        why="RAP keeps reports for the past ten calendar days (guide §4.1).",
        todo="Ask HKEX for these reports; no later try can fetch them.",
        business_date=business_date.isoformat(),
        left_on=gone,
    )


def _plus(day: date, days: int) -> pendulum.Date:
    return pendulum.Date(day.year, day.month, day.day) + timedelta(days=days)
