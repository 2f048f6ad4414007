import time
from datetime import date, timedelta

import pendulum
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_hkex_rap.rap.calendar import is_trading_day, previous_trading_day
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.report_name import Naming


def hkt(text):
    return pendulum.parse(text, tz="Asia/Hong_Kong")


SEEN = hkt("2026-11-23 08:00")
NOON = int(hkt("2026-11-20 12:00").timestamp())  # a Friday
days = st.dates(date(2018, 1, 1), date(2032, 12, 31))
mtimes = st.none() | st.integers()
seen = st.datetimes(
    pendulum.naive(2018, 1, 1), pendulum.naive(2032, 12, 31), timezones=st.just(pendulum.UTC)
).map(pendulum.instance)


@pytest.mark.parametrize(
    ("name", "report", "day", "rule"),
    [
        ("TP001_20261120.csv", "TP001", "2026-11-20", "name"),
        ("RPI03.20261119.txt", "RPI03", "2026-11-19", "name"),
        ("CXYZ_RX_AUDIT_20261120235959.zip", "CXYZ_RX_AUDIT", "2026-11-20", "name"),
        ("RX_AUDIT_202611202359.zip", "RX_AUDIT", "2026-11-20", "name"),
        ("RX_AUDIT_20261120235959123.zip", "RX_AUDIT", "2026-11-20", "name"),
        ("RX_AUDIT_20261120235959.123.zip", "RX_AUDIT", "2026-11-20", "name"),
        ("RX_AUDIT_20261120235959123456.zip", "RX_AUDIT", "2026-11-20", "name"),
        ("RX_AUDIT_20261120T235959.zip", "RX_AUDIT", "2026-11-20", "name"),
        ("RX_AUDIT_20261120_235959.zip", "RX_AUDIT", "2026-11-20", "name"),
        ("RX_AUDIT_20261120_0001.zip", "RX_AUDIT_0001", "2026-11-20", "name"),
        ("RX_20261120_AUDIT.zip", "RX_AUDIT", "2026-11-20", "name"),
        ("20261120_TP001.csv", "TP001", "2026-11-20", "name"),
        ("20261120-TP001", "TP001", "2026-11-20", "name"),
        ("AB20261120CD.csv", "ABCD", "2026-11-20", "name"),
        ("TP001.csv.20261120", "TP001", "2026-11-20", "name"),
        ("TP001_20261120.csv.gz", "TP001", "2026-11-20", "name"),
        ("TP001_20261120", "TP001", "2026-11-20", "name"),
        ("20261120", "20261120", "2026-11-20", "name"),
        (".20261120", ".20261120", "2026-11-20", "name"),
        (".hidden_20261120.csv", ".hidden", "2026-11-20", "name"),
        ("報告_20261120.txt", "報告", "2026-11-20", "name"),
        ("A_20261119_20261120.csv", "A", "2026-11-19", "name"),
        ("A_20251119_20261120.csv", "A", "2026-11-20", "name"),  # the first is too old
        ("TP001_20261130.csv", "TP001", "2026-11-30", "name"),  # ten days ahead
        ("TP001_20261201.csv", "TP001", "2026-11-20", "mtime"),
        ("TP001_20261110.csv", "TP001", "2026-11-10", "name"),  # ten days ago
        ("TP001_20261109.csv", "TP001", "2026-11-20", "mtime"),
        ("TP001_20261131.csv", "TP001_20261131", "2026-11-20", "mtime"),
        ("TP001_202611201.csv", "TP001_202611201", "2026-11-20", "mtime"),
        ("TP001_2026112012.csv", "TP001_2026112012", "2026-11-20", "mtime"),
        ("TP001_202611202460.csv", "TP001_202611202460", "2026-11-20", "mtime"),
        ("TP00120261120.csv", "TP00120261120", "2026-11-20", "mtime"),
        ("TP٣20261120.csv", "TP٣20261120", "2026-11-20", "mtime"),
        ("TP001_2026-11-19.csv", "TP001_2026-11-19", "2026-11-20", "mtime"),
        ("DCASS.REF.DATA.csv", "DCASS.REF.DATA", "2026-11-20", "mtime"),
        ("README", "README", "2026-11-20", "mtime"),
        (".profile", ".profile", "2026-11-20", "mtime"),
        ("", "", "2026-11-20", "mtime"),
    ],
)
def test_built_in_rules(name, report, day, rule):
    assert Naming().read(name, NOON, SEEN) == (report, date.fromisoformat(day), rule)


@pytest.mark.parametrize(
    ("written", "day"),
    [
        ("2026-11-20 07:00", "2026-11-20"),
        ("2026-11-20 06:59:59", "2026-11-19"),
        ("2026-11-21 02:00", "2026-11-20"),
        ("2026-11-21 07:00", "2026-11-21"),  # CCMS is open on Saturdays
        ("2026-11-22 02:00", "2026-11-20"),
        ("2026-11-23 02:00", "2026-11-20"),
        ("2026-01-02 02:00", "2025-12-31"),  # 1 January is no trading day
        ("2026-10-02 02:00", "2026-10-01"),  # a holiday that trades
    ],
)
def test_without_a_date_the_mtime_gives_the_business_date(written, day):
    day = date.fromisoformat(day)
    assert Naming().read("TP001.csv", int(hkt(written).timestamp()), SEEN)[1:] == (day, "mtime")
    assert Naming().read("TP001.csv", None, hkt(written).in_timezone("UTC"))[1:] == (day, "first_seen")


def test_without_an_mtime_a_date_in_the_name_must_be_near_the_first_listing():
    assert Naming().read("TP001_20261120.csv", None, SEEN)[1:] == (date(2026, 11, 20), "name")
    assert Naming().read("TP001_20261112.csv", None, SEEN)[1:] == (date(2026, 11, 23), "first_seen")


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        (r"(?P<report>[A-Z]+)\d+_(?P<date>\d{8})", "TP001_20250101.csv", ("TP", date(2025, 1, 1), "pattern")),
        (r"(?P<date>\d{4}-\d\d-\d\d)", "TP001_2026-11-19.csv", ("TP001", date(2026, 11, 19), "pattern")),
        (r"X(?P<date>\d{8})", "TP001_X2026111955.csv", ("TP001_X55", date(2026, 11, 19), "pattern")),
        (r"(?P<date>\d{8})", "TP001_20261119235959.csv", ("TP001", date(2026, 11, 19), "pattern")),
        (r"^[^_]+_(?P<report>[^_]+)", "CXYZ_AUDIT_20261119.csv", ("AUDIT", date(2026, 11, 19), "name")),
        (r"^(?P<report>.+)_CXYZ", "TP001_CXYZ.csv", ("TP001", date(2026, 11, 20), "mtime")),
        (r"^(?P<report>\d+)$", "TP001_20261119.csv", ("TP001", date(2026, 11, 19), "name")),  # no match
        (r"_(?P<date>\d{8})", "TP001_20261399.csv", ("TP001_20261399", date(2026, 11, 20), "mtime")),
        (r"_(?P<date>\d{4}-\d{4})", "TP001_2026-1119.csv", ("TP001_2026-1119", date(2026, 11, 20), "mtime")),
        (r"TP(?P<report>X)?(?P<date>Y)?", "TP001_20261119.csv", ("TP001", date(2026, 11, 19), "name")),
        (r"(?P<report>)TP", "TP001_20261119.csv", ("TP001", date(2026, 11, 19), "name")),
    ],
)
def test_a_users_pattern_comes_first(pattern, name, expected):
    assert Naming(pattern).read(name, NOON, SEEN) == expected


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(?P<report>", "not a valid regular expression"),
        ("(?P<date>[)", "not a valid regular expression"),
        ("(?P<date>a{99999999999999999999})", "not a valid regular expression"),
        (r"(\w+)_(\d{8})", "no group named 'report' or 'date'"),
        (r"(?P<name>\w+)", "no group named 'report' or 'date'"),
        ("", "no group named 'report' or 'date'"),
    ],
)
def test_a_pattern_of_another_form_is_refused(pattern, why):
    with pytest.raises(RapConfigurationError, match=why) as caught:
        Naming(pattern)
    assert caught.value.pattern == pattern
    assert r"(?P<report>\w+)_(?P<date>\d{8})" in caught.value.todo


@given(st.text(), mtimes, seen, st.sampled_from([None, r"(?P<report>\w*)(?P<date>\S*)", r"(?P<date>\d+)"]))
@example("00000000", 0, SEEN, r"(?P<date>\d+)")
@example("٢٠٢٦١١٢٠_20261120", 2**63, SEEN, r"(?P<date>\d+)")
@example("\ud800\x00\n../20261120\n", -1, SEEN, None)
def test_any_name_reads_as_something(name, mtime, first_seen, pattern):
    found = Naming(pattern).read(name, mtime, first_seen)
    assert found.report or not name
    assert type(found.business_date) is pendulum.Date
    assert found.rule in {"pattern", "name", "mtime", "first_seen"}
    assert found == Naming(pattern).read(name, mtime, first_seen)


@given(
    days,
    st.integers(-10, 10),
    st.times(),
    st.sampled_from(["", "%H%M", "%H%M%S", "%H%M%S000", "T%H%M%S", "_%H%M%S", "-%H%M%S"]),
    st.from_regex(r"[A-Z][A-Z_]*[A-Z]", fullmatch=True),
    st.sampled_from(["_", ".", "-", " ", ""]),
    st.sampled_from(["", ".csv", ".TXT", ".7z", ".csv.gz"]),
)
def test_a_stamp_in_the_name_gives_its_date_and_leaves_the_report(
    day, apart, at, form, report, separator, extension
):
    name = f"{report}{separator}{day:%Y%m%d}{at.strftime(form)}{extension}"
    noon = pendulum.datetime(day.year, day.month, day.day, 12, tz="Asia/Hong_Kong").add(days=apart)
    assert Naming().read(name, int(noon.timestamp()), SEEN) == (report, day, "name")


@given(st.datetimes(pendulum.naive(2018, 1, 1), pendulum.naive(2032, 1, 1)))
def test_the_night_belongs_to_the_trading_day_before(written):
    written = pendulum.instance(written, tz="Asia/Hong_Kong")
    found = Naming().read("TP001", int(written.timestamp()), SEEN).business_date
    if written.hour >= 7:
        assert found == written.date()
    else:
        assert found == previous_trading_day(written.date())
        assert is_trading_day(found)
    assert written.date() - found <= timedelta(days=4)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Hong_Kong", "America/New_York"])
def test_names_do_not_follow_the_machines_zone(zone, monkeypatch):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert Naming().read("TP001", int(hkt("2026-11-21 06:59").timestamp()), SEEN)[1] == date(2026, 11, 20)
        assert Naming().read("TP001", None, hkt("2026-11-21 07:00"))[1] == date(2026, 11, 21)
    finally:
        monkeypatch.undo()
        time.tzset()
