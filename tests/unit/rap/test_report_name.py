import time
from datetime import date, timedelta

import pendulum
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_hkex_rap.rap import report_name
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
        ("RX_AUDIT_20261120_0001.zip", "RX_AUDIT", "2026-11-20", "name"),
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
        ("TP001_202611201.csv", "TP001", "2026-11-20", "mtime"),
        ("TP001_2026112012.csv", "TP001", "2026-11-20", "mtime"),
        ("TP001_202611202460.csv", "TP001", "2026-11-20", "mtime"),
        ("TP00120261120.csv", "TP001", "2026-11-20", "mtime"),
        ("TP٣20261120.csv", "TP٣", "2026-11-20", "mtime"),
        ("TP001_2026-11-19.csv", "TP001", "2026-11-20", "mtime"),
        ("DCASS.REF.DATA.csv", "DCASS.REF.DATA", "2026-11-20", "mtime"),
        ("README", "README", "2026-11-20", "mtime"),
        (".profile", ".profile", "2026-11-20", "mtime"),
        ("20261120.csv", "20261120", "2026-11-20", "name"),
        ("", "", "2026-11-20", "mtime"),
    ],
)
def test_built_in_rules(name, report, day, rule):
    assert Naming().read(name, NOON, SEEN) == (report, date.fromisoformat(day), rule)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        # the customer code, before, after and within, alone or in an account
        ("CXYZ_TP001_20261125_001.csv", "TP001"),
        ("TP001_CXYZ_20261120.csv", "TP001"),
        ("TP001.CXYZ.20261120.csv", "TP001"),
        ("RX_CXYZ_AUDIT_20261120.zip", "RX_AUDIT"),
        ("DCXYZ001_TP001_20261120.csv", "TP001"),
        ("TP001-DCXYZ004-20261120", "TP001"),
        ("CXYZ20261120TP001.csv", "TP001"),
        ("TP001_CXYZ20261120.csv", "TP001"),
        ("TP001(CXYZ).csv", "TP001"),
        ("TP001_cxyz_20261120.csv", "TP001"),
        ("報告CXYZ.pdf", "報告"),
        ("ACXYZ_TP001.csv", "ACXYZ_TP001"),
        ("TP001_CXYZA.csv", "TP001_CXYZA"),
        ("TP001_DCXYZ005.csv", "TP001_DCXYZ005"),
        ("TP001_CABC_20261120.csv", "TP001_CABC"),
        # dates with times
        ("RPI03_CXYZ_20261120183000.csv", "RPI03"),
        ("RPI03_20261120_1830_02.csv", "RPI03"),
        ("RPI03_2026112018.csv", "RPI03"),
        ("RPI03_2026-11-20.csv", "RPI03"),
        ("RPI03_2026-11-20T18:30:00.csv", "RPI03"),
        ("RPI03_2026-11-20 06.30PM.csv", "RPI03"),
        ("RPI03_2026_11_20_18_30_00.csv", "RPI03"),
        ("RPI03_20-NOV-2026.csv", "RPI03"),
        ("RPI03_20-Nov-26_183000.csv", "RPI03"),
        ("RPI03_20NOV20261830.csv", "RPI03"),
        ("RPI03 20 November 2026.pdf", "RPI03"),
        ("Nov-20-2026_RPI03.csv", "RPI03"),
        ("2026-Nov-20 RPI03.csv", "RPI03"),
        ("RPI03_261120.csv", "RPI03"),
        ("RPI03_261120183000.csv", "RPI03"),
        ("RPI03_261120_1830.csv", "RPI03"),
        ("RPI03_201126.csv", "RPI03"),
        ("RPI03_20112026.csv", "RPI03"),
        ("RPI03_20.11.2026.csv", "RPI03"),
        ("RPI03_1_20_11_2026.csv", "RPI03"),
        ("RPI03(20261120).csv", "RPI03"),
        ("RPI03_20261116_20261120.csv", "RPI03"),
        ("183000_RPI03_20261120.csv", "RPI03"),
        ("RX_183000_AUDIT_20261120.csv", "RX_AUDIT"),
        ("持倉報告_2026年11月20日.pdf", "持倉報告"),
        # months
        ("MT001_CXYZ_202611.pdf", "MT001"),
        ("MT001_202610.pdf", "MT001"),
        ("MT001_202612.pdf", "MT001"),
        ("MT001_112026.pdf", "MT001"),
        ("MT001_2026-11.pdf", "MT001"),
        ("MT001_2026-11_001.pdf", "MT001"),
        ("MT001_11-2026.pdf", "MT001"),
        ("MT001_NOV2026.pdf", "MT001"),
        ("MT001NOV2026.pdf", "MT001"),
        ("RPI03_NOV_2026.pdf", "RPI03"),
        ("MT001 Oct-26.pdf", "MT001"),
        ("MT001_2026NOV.pdf", "MT001"),
        ("NOV2026_MT001.pdf", "MT001"),
        ("月報2026年11月.pdf", "月報"),
        # the same forms, but not near the mtime
        ("TP001_201120.csv", "TP001_201120"),
        ("TP001_202607.csv", "TP001_202607"),
        ("TP001_20-NOV-2024.csv", "TP001_20-NOV-2024"),
        ("TP001_01-NOV-2026.csv", "TP001_01-NOV-2026"),
        ("TP001_NOV2024.csv", "TP001_NOV2024"),
        ("TP001_31-NOV-2026.csv", "TP001_31-NOV-2026"),
        ("TP001_183000.csv", "TP001_183000"),
        ("FORM_123456_A.csv", "FORM_123456_A"),
        # sequence numbers, and digits of the code
        ("TP001_001.csv", "TP001"),
        ("TP001-2.csv", "TP001"),
        ("TP001(1).csv", "TP001"),
        ("TP001 (12).csv", "TP001"),
        ("TP001_20261120(2).csv", "TP001"),
        ("0001_TP001.csv", "TP001"),
        ("RX_20261120_0001_AUDIT.csv", "RX_AUDIT"),
        ("TP001_20261120.v2.csv", "TP001"),
        ("TP001_20261120.v2", "TP001"),
        ("TP001_V2.csv", "TP001_V2"),
        ("TP001_00700.csv", "TP001_00700"),
        ("RX_01_AUDIT.csv", "RX_01_AUDIT"),
        ("TP001_20261120_T1.csv", "TP001_T1"),
        ("MS008.txt", "MS008"),
        ("CALENDAR_2026.pdf", "CALENDAR"),
        # extensions
        ("TP001_20261120.csv.gz", "TP001"),
        ("TP001_20261120.tar.gz", "TP001"),
        ("TP001_20261120.csv.gz.gpg", "TP001"),
        ("TP001.csv.001", "TP001"),
        ("TP001_20261120.7z", "TP001"),
        ("TP001_20261120.parquet", "TP001"),
        ("DCASS.TP01.20261120", "DCASS.TP01"),
        ("TP001", "TP001"),
        # nothing else is in the name
        ("CXYZ.csv", "CXYZ"),
        ("CXYZ_20261120_001.csv", "CXYZ"),
        ("DCXYZ001_20261120.csv", "DCXYZ001"),
        ("0001_20261120.csv", "0001"),
        ("20261120_001.csv", "20261120_001"),
        ("202611.csv", "202611"),
        ("001.csv", "001"),
        ("12345678", "12345678"),
        ("1234567890.txt", "1234567890"),
        ("☆.csv", "☆"),
        ("___.csv", "___.csv"),
    ],
)
def test_the_report_code_is_the_name_without_its_changing_parts(name, code):
    assert Naming(customer="CXYZ").read(name, NOON, SEEN).report == code


@pytest.mark.parametrize(
    ("name", "code"),
    [("CXYZ_TP001_20261120.csv", "CXYZ_TP001"), ("TP001_DCXYZ001.csv", "TP001_DCXYZ001")],
)
def test_without_a_customer_its_code_stays_in_the_report_code(name, code):
    assert Naming().read(name, NOON, SEEN).report == code


def test_a_users_report_code_is_kept_as_it_is():
    naming = Naming(r"^(?P<report>\w+?_\d{3})", customer="CXYZ")
    assert naming.read("CXYZ_TP_001_20261120.csv", NOON, SEEN).report == "CXYZ_TP_001"


DAY_FORMS = [
    "%Y%m%d", "%Y%m%d%H", "%Y%m%d%H%M", "%Y%m%d%H%M%S", "%Y%m%d_%H%M", "%Y%m%d_%H%M%S", "%Y%m%dT%H%M%S",
    "%Y-%m-%d", "%Y_%m_%d", "%Y.%m.%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H%M", "%Y-%m-%d_%H-%M-%S",
    "%d-%b-%Y", "%d%b%Y", "%d-%b-%y", "%d%b%Y_%H%M", "%d-%b-%Y-%H%M%S", "%d %B %Y", "%d%m%Y", "%d-%m-%Y",
    "%y%m%d", "%y%m%d%H%M", "%y%m%d%H%M%S", "%y%m%d_%H%M", "%d%m%y", "%Y年%m月%d日",
]  # fmt: skip
MONTH_FORMS = ["%Y%m", "%Y-%m", "%m-%Y", "%b%Y", "%b-%Y", "%b%y", "%Y%b", "%Y年%m月"]
moments = st.datetimes(pendulum.naive(2018, 1, 1), pendulum.naive(2032, 12, 31))
codes = st.sampled_from(
    ["TP001", "RPI03", "RX_AUDIT", "MS008", "OI002", "CCMS_COLLATERAL", "報告", "DCASS.REFERENCE"]
)
frames = st.sampled_from(
    ["{c}_{d}.csv", "{c}_CXYZ_{d}.pdf", "CXYZ_{c}_{d}_001.csv", "{d}_{c}.csv.gz", "{c}.{d}.txt", "{c}_{d}",
     "DCXYZ001-{c}-{d}.csv.gpg", "{c} ({d}).xlsx", "{c}_{d}_{c}.zip", "{c}-{d}-2.csv"]
)  # fmt: skip


def code_on(moment, frame, form, code, apart):
    name = frame.format(c=code, d=moment.strftime(form))
    written = pendulum.instance(moment, tz="Asia/Hong_Kong").start_of("day").add(hours=12, days=apart)
    return Naming(customer="CXYZ").read(name, int(written.timestamp()), written).report


@given(
    frames, codes, st.sampled_from(DAY_FORMS), moments, moments, st.integers(-10, 10), st.integers(-10, 10)
)
def test_a_report_has_one_code_on_every_day(frame, code, form, one, other, apart, further):
    expected = f"{code}_{code}" if frame.count("{c}") > 1 else code
    assert code_on(one, frame, form, code, apart) == expected
    assert code_on(other, frame, form, code, further) == expected


@given(frames, codes, st.sampled_from(MONTH_FORMS), moments, st.integers(-27, 60))
def test_a_monthly_report_has_one_code_in_every_month(frame, code, form, moment, apart):
    moment = moment.replace(day=1)
    expected = f"{code}_{code}" if frame.count("{c}") > 1 else code
    assert code_on(moment, frame, form, code, apart) == expected


def test_a_long_name_of_repeated_parts_gives_a_code():
    naming = Naming(customer="CXYZ")
    for part in ("0", "1_", "(1)", "jan", "2026", "20261120", "CXYZ_", " ", "._-", "1.1.20", "年", "\0"):
        assert naming.read(part * (255 // len(part)), NOON, SEEN).report


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


@pytest.mark.parametrize("mtime", [-1, 1, 315_532_800, 2**32 - 1, 2**32, int(SEEN.add(hours=25).timestamp())])
def test_an_mtime_that_is_no_time_counts_as_none(mtime):
    for name in ("TP001.csv", "TP001_20261120.csv"):
        assert Naming().read(name, mtime, SEEN) == Naming().read(name, None, SEEN)


def test_a_clock_may_be_behind_raps_by_less_than_a_day():
    ahead = SEEN.add(hours=23)
    assert Naming().read("TP001.csv", int(ahead.timestamp()), SEEN)[1:] == (date(2026, 11, 24), "mtime")


def test_without_an_mtime_a_date_in_the_name_must_be_near_the_first_listing():
    assert Naming().read("TP001_20261120.csv", None, SEEN)[1:] == (date(2026, 11, 20), "name")
    assert Naming().read("TP001_20261112.csv", None, SEEN)[1:] == (date(2026, 11, 23), "first_seen")


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        (r"(?P<report>[A-Z]+)\d+_(?P<date>\d{8})", "TP001_20250101.csv", ("TP", date(2025, 1, 1), "pattern")),
        (r"(?P<date>\d{4}-\d\d-\d\d)", "TP001_2026-11-19.csv", ("TP001", date(2026, 11, 19), "pattern")),
        (r"X(?P<date>\d{8})", "TP001_X2026111955.csv", ("TP001_X", date(2026, 11, 19), "pattern")),
        (r"(?P<date>\d{8})", "TP001_20261119235959.csv", ("TP001", date(2026, 11, 19), "pattern")),
        (r"^[^_]+_(?P<report>[^_]+)", "CXYZ_AUDIT_20261119.csv", ("AUDIT", date(2026, 11, 19), "name")),
        (r"^(?P<report>.+)_CXYZ", "TP001_CXYZ.csv", ("TP001", date(2026, 11, 20), "mtime")),
        (r"^(?P<report>\d+)$", "TP001_20261119.csv", ("TP001", date(2026, 11, 19), "name")),  # no match
        (r"_(?P<date>\d{8})", "TP001_20261399.csv", ("TP001_20261399", date(2026, 11, 20), "mtime")),
        (r"_(?P<date>\d{4}-\d{4})", "TP001_2026-1119.csv", ("TP001", date(2026, 11, 20), "mtime")),
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


pieces = st.sampled_from(
    ["CXYZ", "DCXYZ001", "20261120", "261120", "202611", "NOV", "20", "2026", "001", "(1)", "_", "-", ".",
     " ", "T", "1830", ".csv", ".gz", "TP001", "年", "月", "日", "\0", "٣"]
)  # fmt: skip


@given(
    st.text() | st.lists(pieces).map("".join),
    mtimes,
    seen,
    st.sampled_from([None, r"(?P<report>\w*)(?P<date>\S*)", r"(?P<date>\d+)"]),
)
@example("00000000", 0, SEEN, r"(?P<date>\d+)")
@example("٢٠٢٦١١٢٠_20261120", 2**63, SEEN, r"(?P<date>\d+)")
@example("\ud800\x00\n../20261120\n", -1, SEEN, None)
@example("TP001_\u017fep2026.csv", NOON, SEEN, None)  # a letter that ignoring case makes an s
def test_any_name_reads_as_something(name, mtime, first_seen, pattern):
    found = Naming(pattern, customer="CXYZ").read(name, mtime, first_seen)
    assert found.report or not name
    assert type(found.business_date) is pendulum.Date
    assert found.rule in {"pattern", "name", "mtime", "first_seen"}
    assert found == Naming(pattern, customer="CXYZ").read(name, mtime, first_seen)


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
    assert Naming().read(name, int(noon.timestamp()), noon) == (report, day, "name")


@given(st.datetimes(pendulum.naive(2018, 1, 1), pendulum.naive(2032, 1, 1)))
def test_the_night_belongs_to_the_trading_day_before(written):
    written = pendulum.instance(written, tz="Asia/Hong_Kong")
    found = Naming().read("TP001", int(written.timestamp()), written).business_date
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


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("TP001_20261119_" + "x" * 241, "TP001_20261119_" + "x" * 240),
        ("TP001_20261119_" + "é" * 121, "TP001_20261119_" + "é" * 120),
        ("1" * 5000, "1" * 255),
        *((f"{part * 50_000}_20261119.csv", (part * 255)[:255]) for part in ("1_", "-1", "(1)", " ", "N")),
    ],
    ids=lambda text: text[:4],
)
def test_a_name_that_is_too_long_to_land_is_cut_and_not_read(name, code):
    assert Naming("(?P<report>T)").read(name, NOON, SEEN) == (code, date(2026, 11, 20), "mtime")
    assert Naming().read(name, None, SEEN) == (code, date(2026, 11, 23), "first_seen")


@pytest.mark.parametrize("part", ["1", "_", "1_", "(1)", "20261120_", ".v1", "20-NOV-2026 "])
def test_the_longest_name_that_can_land_is_read(part):
    name = (part * 255)[:242] + "_20261120.csv"
    assert Naming(customer="CXYZ").read(name, NOON, SEEN)[1:] == (date(2026, 11, 20), "name")


class CountingNaming(Naming):
    """Count how often a name is read anew."""

    reads = 0

    def _read(self, *arguments):
        self.reads += 1
        return super()._read(*arguments)


def test_each_name_of_a_long_listing_is_read_once():
    naming = CountingNaming()
    names = [f"TP{number % 40:03}_20261120_{number // 40:04}.csv" for number in range(40_000)]
    first = [naming.read(name, NOON, SEEN) for name in names]
    assert [naming.read(name, NOON, SEEN) for name in names] == first
    assert naming.reads == len(names)
    assert len(set(map(id, first))) == 40


def test_a_listing_that_is_longer_than_the_memory_is_remembered_in_part(monkeypatch):
    monkeypatch.setattr(report_name, "_REMEMBERED", 10)
    naming = CountingNaming()
    names = [f"TP{number:03}_20261120.csv" for number in range(15)]
    assert [naming.read(name, NOON, SEEN).report for name in names * 2] == [name[:5] for name in names * 2]
    assert naming.reads == 15 + 5
