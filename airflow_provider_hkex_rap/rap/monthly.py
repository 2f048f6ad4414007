"""Find monthly reports that fail to come, by the days on which they came before."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import date, timedelta
from typing import TYPE_CHECKING, NamedTuple

import pendulum

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.rap.judgement import Report

MONTHLY_DAYS_BACK = 84
"""Days before today that tell if a monthly report is late."""
_SHIFT = 5
"""Days by which a monthly report may be off a month after the last one: weekends move it."""
_SHOWN = 10
"""Days for which a late report is named; RAP keeps it no longer (§4.1)."""
_DAYS_OF_ONE_ISSUE = 2
"""Business dates that the files of one month may have, at most; a report with more is not monthly."""


class LateReport(NamedTuple):
    """A report that came in each of two months, and has not come in the next."""

    report: Report
    before: date
    last: date

    def __str__(self) -> str:
        return f"{self.report} came on {self.before} and {self.last}, about a month apart, and not since"


def late_monthly_reports(days: Mapping[Report, Collection[date]], today: date) -> Iterator[LateReport]:
    """Yield the monthly reports that are late: a month and five days after the last one, for ten days.

    A report is taken for monthly if its days, of the last twelve weeks, are one or two in each of two months,
    about a month apart.

    :param days: the business dates of each report that has landed.
    :param today: the date in Hong Kong.
    """
    shift = timedelta(_SHIFT)
    for report in sorted(days):
        known = sorted(day for day in days[report] if (today - day).days <= MONTHLY_DAYS_BACK)
        if not known:
            continue
        last = known[-1]
        due = _months_from(last, 1) + shift
        usual = _months_from(last, -1)
        recent = [day for day in known if last - day <= shift]
        before = [day for day in known if abs(day - usual) <= shift]
        late = due < today <= due + timedelta(_SHOWN)
        fits = 0 < len(before) <= _DAYS_OF_ONE_ISSUE and len(recent) <= _DAYS_OF_ONE_ISSUE
        if late and fits and len(before) + len(recent) == len(known):
            yield LateReport(report, before[-1], last)


def _months_from(day: date, months: int) -> date:
    return pendulum.date(day.year, day.month, day.day).add(months=months)
