"""How long RAP keeps a report: ten calendar days from the date it is generated (§4.1).

The guide leaves open whether day 10 is still inside. Here it is, and a listing is the truth: these dates say
what to expect and when to hurry, never that a file which is listed is gone.
"""

from __future__ import annotations

from datetime import date, timedelta

import pendulum

from airflow_provider_hkex_rap.rap.errors import RapRetentionExpired

RETENTION_DAYS = 10
"""Calendar days for which RAP keeps a report, after its own day (§4.1)."""


def first_kept(today: date) -> pendulum.Date:
    """Return the first business date whose reports RAP should still have (§4.1).

    :param today: the date in Hong Kong.
    """
    return _plus(today, -RETENTION_DAYS)


def left_on(business_date: date) -> pendulum.Date:
    """Return the first day (HKT) on which RAP no longer has the reports of a business date (§4.1).

    :param business_date: the day that the reports are of.
    """
    return _plus(business_date, RETENTION_DAYS + 1)


def days_left(business_date: date, today: date) -> int:
    """Return on how many days, today included, the reports of a business date can still be fetched (§4.1).

    :param business_date: the day that the reports are of.
    :param today: the date in Hong Kong.
    :returns: 1 on the last day, 0 once they are gone.
    """
    return max(0, left_on(business_date).toordinal() - today.toordinal())


def retention_expired(business_date: date, where: str, what: str = "Nothing") -> RapRetentionExpired:
    """Return the error of a business date whose reports are not listed any more (§4.1).

    :param business_date: the day that the reports are of.
    :param where: the folders that were listed.
    :param what: the reports that are not, as the words begin.
    """
    gone = left_on(business_date).isoformat()
    return RapRetentionExpired(
        f"{what} of {business_date.isoformat()} is in {where}: its reports left RAP on {gone}.",
        why="RAP keeps reports for the past ten calendar days (guide §4.1).",
        todo="Ask HKEX for these reports; no later try can fetch them.",
        business_date=business_date.isoformat(),
        left_on=gone,
    )


def _plus(day: date, days: int) -> pendulum.Date:
    return pendulum.Date(day.year, day.month, day.day) + timedelta(days=days)
