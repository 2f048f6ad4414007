"""Monthly reports that fail to come."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from airflow_provider_hkex_rap.rap.folders import Folder
from airflow_provider_hkex_rap.rap.judgement import Report
from airflow_provider_hkex_rap.rap.monthly import late_monthly_reports

MT001 = Report(Folder.DCASS, "MT001")
SEPTEMBER, OCTOBER = date(2026, 8, 31), date(2026, 9, 30)


def late(days: list[date], today: date) -> list[Report]:
    return [found.report for found in late_monthly_reports({MT001: days}, today)]


@pytest.mark.parametrize(
    ("today", "expected"),
    [
        (date(2026, 10, 30), False),
        (date(2026, 11, 4), False),
        (date(2026, 11, 5), True),
        (date(2026, 11, 14), True),
        (date(2026, 11, 15), False),
    ],
)
def test_it_is_late_from_some_days_after_its_day_of_the_month(today: date, expected: bool) -> None:
    assert bool(late([SEPTEMBER, OCTOBER], today)) is expected


@pytest.mark.parametrize(
    "days",
    [
        [],
        [OCTOBER],
        [SEPTEMBER, OCTOBER, date(2026, 10, 30)],
        [date(2026, 9, 1) + timedelta(number) for number in range(30)],
        [date(2026, 9, 2), date(2026, 9, 9), date(2026, 9, 16), date(2026, 9, 23), OCTOBER],
        [SEPTEMBER - timedelta(10), OCTOBER],
    ],
    ids=["never", "once", "it has come", "discontinued daily", "weekly", "apart"],
)
def test_another_report_is_not_late(days: list[date]) -> None:
    assert not late(days, date(2026, 11, 6))


def test_it_names_the_days() -> None:
    (found,) = late_monthly_reports({MT001: [SEPTEMBER, OCTOBER]}, date(2026, 11, 6))
    assert str(found) == (
        "MT001 in DCASS came on 2026-08-31 and 2026-09-30, about a month apart, and not since"
    )
