from datetime import date, timedelta

import pendulum
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_hkex_rap.rap.retention import RETENTION_DAYS, days_until_removed, first_kept, left_on

days = st.dates(date(2018, 1, 1), date(2032, 12, 31))


@pytest.mark.parametrize(
    ("today", "left"),
    [
        ("2026-11-19", 12),
        ("2026-11-20", 11),
        ("2026-11-29", 2),
        ("2026-11-30", 1),
        ("2026-12-01", 0),
        ("2027-01-01", 0),
    ],
)
@pytest.mark.guide("4.1 ten days")
def test_a_report_is_kept_for_ten_days_after_its_own(today, left):
    business_date = date(2026, 11, 20)
    assert left_on(business_date) == date(2026, 12, 1)
    assert days_until_removed(business_date, date.fromisoformat(today)) == left


@given(days, st.integers(0, 30))
def test_the_three_say_the_same(business_date, age):
    today = business_date + timedelta(days=age)
    kept = business_date >= first_kept(today)
    assert kept is (today < left_on(business_date)) is (days_until_removed(business_date, today) > 0)
    assert kept is (age <= RETENTION_DAYS)
    assert type(first_kept(today)) is type(left_on(today)) is pendulum.Date
