"""The days that the board of the demo shows."""

from __future__ import annotations

import pendulum

from airflow_provider_hkex_rap.rap.calendar import previous_trading_day
from airflow_provider_hkex_rap.rap.judgement import is_ordinary
from airflow_provider_hkex_rap.rap.retention import days_until_removed
from airflow_provider_hkex_rap.testing.demo_ui import choose_board_days


def test_on_every_day_of_a_year_the_board_has_an_awaited_a_missed_and_a_leaving_day():
    start = pendulum.datetime(2026, 11, 27, 12, tz="Asia/Hong_Kong")
    for at in (start.add(days=number) for number in range(365)):
        days = choose_board_days(at)
        assert all(map(is_ordinary, days))
        assert days.today < at.date()
        assert (at.date() - days.today).days <= 25
        assert days.yesterday == previous_trading_day(days.today)
        assert days_until_removed(days.leaving, days.today) in (1, 2)
