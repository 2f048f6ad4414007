import time
from datetime import timedelta

import pendulum
import pytest

from airflow_provider_hkex_rap.rap.clock import HONG_KONG, system_clock


def test_the_clock_gives_this_machines_time_in_hong_kong():
    before = pendulum.now("UTC")
    now = system_clock()()
    assert before <= now <= pendulum.now("UTC")
    assert now.timezone == HONG_KONG
    assert now.utcoffset() == timedelta(hours=8)


@pytest.mark.parametrize("seconds", [0.0, 0.5, 86400.0 * 30, -86400.0 * 365])
def test_an_offset_shifts_every_reading(seconds):
    now, shifted = system_clock(), system_clock(seconds)
    before = now()
    moment = shifted() - timedelta(seconds=seconds)
    assert before <= moment <= now()


@pytest.mark.parametrize("zone", ["UTC", "Asia/Hong_Kong", "America/New_York"])
def test_the_clock_does_not_follow_the_machines_zone(zone, monkeypatch):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        now = system_clock()()
        assert now.utcoffset() == timedelta(hours=8)
        assert abs(now.timestamp() - time.time()) < 5
    finally:
        monkeypatch.undo()
        time.tzset()
