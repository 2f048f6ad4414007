import time
from datetime import UTC, date, datetime

import pendulum
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.folders import Service
from airflow_provider_hkex_rap.rap.trading_day import parse_business_date, run_trading_day


def utc(text):
    return text and pendulum.parse(text, tz="UTC")


def hkt(text):
    return text and pendulum.parse(text, tz="Asia/Hong_Kong")


NOW = hkt("2026-11-25 10:00")  # a Wednesday

TABLE = {
    "conf comes first": ("2026-11-02", utc("2026-11-20"), NOW, "2026-11-02"),
    "conf may name a day without trading": ("2026-11-22", None, None, "2026-11-22"),
    "blank conf says nothing": ("", utc("2026-11-20"), NOW, "2026-11-20"),
    "a scheduled run of our timetable": (None, utc("2026-11-20"), hkt("2026-11-21 01:30"), "2026-11-20"),
    "dags test for a date": (None, utc("2026-11-20"), utc("2026-11-20"), "2026-11-20"),
    "dags test for a Sunday": (None, utc("2026-11-22"), utc("2026-11-22"), "2026-11-22"),
    "midnight UTC in another zone": (None, hkt("2026-11-20 08:00"), NOW, "2026-11-20"),
    "midnight in Hong Kong is no date": (None, hkt("2026-11-20 00:00"), NOW, "2026-11-19"),
    "a manual run in the morning": (None, hkt("2026-11-20 06:59"), NOW, "2026-11-19"),
    "a manual run in the day": (None, hkt("2026-11-20 12:00"), NOW, "2026-11-20"),
    "a manual run in the night": (None, hkt("2026-11-21 02:00"), NOW, "2026-11-20"),
    "a microsecond after midnight UTC": (None, utc("2026-11-22T00:00:00.000001"), NOW, "2026-11-20"),
    "no logical date": (None, None, hkt("2026-11-20 12:00"), "2026-11-20"),
    "no logical date, midnight UTC on a Sunday": (None, None, utc("2026-11-22"), "2026-11-20"),
    "no run at all": (None, None, None, "2026-11-25"),
}


@pytest.mark.parametrize(("conf", "logical", "after", "day"), TABLE.values(), ids=TABLE.keys())
@pytest.mark.parametrize("zone", ["UTC", "Asia/Hong_Kong", "America/New_York"])
def test_the_runs_trading_day(conf, logical, after, day, zone, monkeypatch):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        found = run_trading_day(
            conf_business_date=conf,
            logical_date=logical,
            run_after=after,
            service=Service.DCASS,
            now=NOW,
        )
    finally:
        monkeypatch.undo()
        time.tzset()
    assert found == date.fromisoformat(day)
    assert type(found) is pendulum.Date


def test_the_services_windows_count():
    def run(service):
        return run_trading_day(
            conf_business_date=None,
            logical_date=None,
            run_after=hkt("2026-11-21 12:00"),
            service=service,
            now=NOW,
        )

    assert run(Service.DCASS) == date(2026, 11, 20)
    assert run(Service.CCMS) == date(2026, 11, 21)


def test_times_of_the_standard_library_do_as_well():
    midnight = datetime(2026, 11, 20, tzinfo=UTC)
    assert run_trading_day(
        conf_business_date=None,
        logical_date=midnight,
        run_after=midnight,
        service=Service.DCASS,
        now=midnight,
    ) == date(2026, 11, 20)


@pytest.mark.parametrize("value", [None, "", "  ", "\n"])
def test_nothing_is_no_business_date(value):
    assert parse_business_date(value) is None


@given(st.dates(date(2000, 1, 1), date(2099, 12, 31)))
def test_a_business_date_reads_back(day):
    assert parse_business_date(day) == parse_business_date(day.isoformat()) == day
    assert type(parse_business_date(f" {day.isoformat()} ")) is pendulum.Date


@pytest.mark.parametrize(
    "value",
    [
        "20261120",
        "2026-W47-5",
        "2026-11-31",
        "0000-01-01",
        "0001-01-03",
        "1999-12-31",
        "9999-12-31",
        date(9999, 12, 31),
        "2026-11-20T00:00:00",
        "20-11-2026",
        "２０２６-11-20",
        "None",
        "{{ ds }}",
        20261120,
        False,
        datetime(2026, 11, 20, tzinfo=UTC),
    ],
)
def test_anything_else_is_refused_with_the_form(value):
    with pytest.raises(RapConfigurationError, match="YYYY-MM-DD") as caught:
        parse_business_date(value)
    assert caught.value.business_date == value
    assert repr(value) in str(caught.value)


def test_a_wrong_conf_is_called_by_its_name():
    with pytest.raises(RapConfigurationError, match=r'dag_run\.conf\["business_date"\].*YYYY-MM-DD'):
        run_trading_day(
            conf_business_date="20261120",
            logical_date=None,
            run_after=None,
            service=Service.DCASS,
            now=NOW,
        )
