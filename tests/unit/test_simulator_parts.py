"""The parts of the simulated RAP that need no network."""

import csv
import hashlib
import io
import re
import threading
import zipfile
from dataclasses import replace

import asyncssh
import pendulum
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.folders import KEY_FOLDER, Folder
from airflow_provider_hkex_rap.rap.report_name import Naming
from airflow_provider_hkex_rap.testing import (
    Event,
    EventKind,
    EventLog,
    Fault,
    FaultRules,
    RapSimulator,
    SimulatedClock,
)
from airflow_provider_hkex_rap.testing._documents import generated_content
from airflow_provider_hkex_rap.testing._tree import _PERIOD, Generated, Given, Inverted, Joined, ServedFile
from airflow_provider_hkex_rap.testing.events import path_text
from airflow_provider_hkex_rap.testing.reports import CATALOGUE, generate_day

NOW = pendulum.datetime(2026, 11, 20, 23, 40, tz="Asia/Hong_Kong")
ACCOUNT = "DCXYZ001"

# Content.

CONTENTS = st.recursive(
    st.builds(Given, st.binary(max_size=50))
    | st.builds(Generated, st.integers(0, 200_000), st.text(max_size=20)),
    lambda inner: st.builds(Inverted, inner) | st.builds(Joined, inner, inner),
    max_leaves=4,
)


@given(CONTENTS, st.integers(0, 250_000), st.integers(0, 250_000))
def test_any_part_of_content_is_a_part_of_the_whole(content, offset, length):
    whole = content.read(0, content.size)
    assert len(whole) == content.size
    assert content.read(offset, length) == whole[offset : offset + length]


@given(st.integers(1, 70_000))
def test_no_block_of_generated_content_repeats_a_near_one(blocks):
    content = Generated(1 << 40, "salt")
    assert (
        content.read(1_000, 64) != content.read(1_000 + blocks * 32_768, 64) or blocks * 32_768 % _PERIOD == 0
    )


def test_changed_content_is_other_content():
    file = ServedFile("/download/DCASS", b"TP001", Given(b"abc"), 100)
    file.rewrite(100)
    assert (file.size, file.mtime) == (3, 101)
    assert file.content != b"abc"
    before = file.content
    file.grow(5, 500)
    assert (file.size, file.mtime, file.content[:3]) == (8, 500, before)
    assert file.sha256 == hashlib.sha256(file.content).hexdigest()


# Reports.


@given(st.dates(pendulum.date(2020, 1, 1), pendulum.date(2035, 1, 1)), st.integers(1, 60), st.integers(0, 3))
def test_a_day_of_reports(day, count, seed):
    files = list(generate_day(day, "CXYZ", reports=count, seed=seed))
    again = list(generate_day(day, "CXYZ", reports=count, seed=seed))
    assert [(f.path, f.size, f.mtime, f.sha256) for f in files] == [
        (f.path, f.size, f.mtime, f.sha256) for f in again
    ]
    monthly = [kind for kind in CATALOGUE if kind.monthly]
    assert len(files) == len({file.path for file in files})
    assert len(files) - count in (0, len(monthly))
    start = pendulum.datetime(day.year, day.month, day.day, tz="Asia/Hong_Kong")
    for file in files:
        last = (
            start.add(hours=24)
            if file.folder == Folder.HKCC_SEOCH_CCMS_GLOB.path
            else start.add(hours=25, minutes=10)
        )
        assert start.add(hours=8).timestamp() <= file.mtime <= last.timestamp()


def test_reports_are_read_as_of_their_day_and_have_a_code_each():
    day = pendulum.date(2026, 11, 20)
    naming = Naming(customer="CXYZ")
    names = [naming.read(f.text, f.mtime, NOW) for f in generate_day(day, "CXYZ", reports=40)]
    assert {name.business_date for name in names} == {day}
    assert len({name.report for name in names}) == 40


@given(st.integers(0, 20_000) | st.integers(0, 3_000_000), st.sampled_from(["csv", "txt", "zip", "pdf"]))
@example(0, "zip")
@example(0, "pdf")
def test_generated_content_opens_in_the_tools_of_its_extension(size, extension):
    content = generated_content(f"TP001_20261120.{extension}", size, "TP001 20261120")
    whole = content.read(0, content.size)
    assert len(whole) == content.size == size
    if size < 1_000:
        return
    if extension == "zip":
        with zipfile.ZipFile(io.BytesIO(whole)) as archive:
            assert archive.testzip() is None
            whole = archive.read(archive.namelist()[0])
    if extension == "pdf":
        assert_is_a_pdf(whole)
        return
    heading, *rows = csv.reader(io.StringIO(whole.decode(), newline=""))
    assert rows
    assert {len(row) for row in rows} == {len(heading)} == {len(set(heading))}
    assert all(float(price) >= 0 for _, _, _, price, _ in rows)
    assert whole.endswith(b"\r\n")


def assert_is_a_pdf(file):
    assert file.startswith(b"%PDF-1.4\n")
    assert file.endswith(b"%%EOF\n")
    at = int(re.search(rb"startxref\n(\d+)\n", file)[1])
    assert file[at:].startswith(b"xref\n0 6\n")
    for number, offset in enumerate(re.findall(rb"(\d{10}) 00000 n", file[at:]), 1):
        assert file[int(offset) :].startswith(b"%d 0 obj\n" % number)


def test_another_seed_customer_or_day_gives_other_reports():
    day = pendulum.date(2026, 11, 20)
    days = [
        list(generate_day(*arguments, seed=seed))
        for *arguments, seed in (
            (day, "CXYZ", 0),
            (day, "CXYZ", 1),
            (day, "CABC", 0),
            (day.add(days=3), "CXYZ", 0),
        )
    ]
    assert len({file.sha256 for files in days for file in files}) == sum(map(len, days))


def test_monthly_reports_come_besides_the_others_at_the_end_of_a_month():
    monthly = {kind.name.split("_")[0] for kind in CATALOGUE if kind.monthly}
    assert monthly
    friday, monday = pendulum.date(2026, 11, 27), pendulum.date(2026, 11, 30)
    naming = Naming(customer="CXYZ")
    ordinary, last = (
        {naming.read(file.text, file.mtime, NOW).report for file in generate_day(day, "CXYZ")}
        for day in (friday, monday)
    )
    assert last - ordinary == monthly
    assert not ordinary - last


# Clock.


def test_the_clock_ticks_from_the_time_that_is_set():
    clock = SimulatedClock(NOW)
    assert NOW <= clock() < NOW.add(minutes=1)
    assert clock().timezone_name == "Asia/Hong_Kong"
    clock.advance(days=1, hours=2, minutes=3, seconds=4)
    assert NOW.add(days=1, hours=2, minutes=3, seconds=4) <= clock() < NOW.add(days=1, hours=2, minutes=4)
    clock.set(NOW.in_timezone("UTC"))
    assert clock().date() == NOW.date()
    first = clock()
    assert clock() >= first


def test_a_time_without_zone_is_refused():
    with pytest.raises(RapConfigurationError, match="time zone"):
        SimulatedClock(pendulum.naive(2026, 11, 20))


def test_without_a_start_the_clock_shows_the_real_time():
    assert abs((SimulatedClock()() - pendulum.now("UTC")).total_seconds()) < 60


# Events.


@given(st.lists(st.tuples(st.integers(1, 5), st.sampled_from([ACCOUNT, "DCXYZ002"]))))
def test_peak_sessions_is_the_largest_number_at_the_same_time(steps):
    log, alive, peak = EventLog(), set(), 0
    for session, account in steps:
        ends = (session, account) in alive
        log.record(Event(EventKind.LOGOUT if ends else EventKind.LOGIN, account, session, "", NOW))
        alive ^= {(session, account)}
        peak = max(peak, sum(who == ACCOUNT for _, who in alive))
    assert log.peak_sessions(ACCOUNT) == peak


def test_events_are_found_by_their_values():
    log = EventLog()
    first = Event(EventKind.OPEN, ACCOUNT, 1, "/download/DCASS/%FF", NOW, "x")
    second = replace(first, kind=EventKind.CLOSE, session=2)
    log.record(first)
    log.record(second)
    assert log.of() == list(log) == [first, second] == log[:]
    assert log.of("open") == log.of(session=1) == log[:1] == [first]
    assert log.of("open", "close", path=b"/download/DCASS/\xff", account=ACCOUNT, detail="x") == [
        first,
        second,
    ]
    assert log.of("open", session=2) == []
    assert "close /download" in repr(log)
    log.clear()
    assert len(log) == 0


def test_waiting_ends_when_the_event_happens():
    log = EventLog()
    event = Event(EventKind.LOGIN, ACCOUNT, 1, "", NOW)
    waiting = threading.Thread(target=lambda: found.extend(log.wait_for("login", 2)))
    found: list[Event] = []
    waiting.start()
    log.record(event)
    log.record(event)
    waiting.join(10)
    assert found == [event, event]


def test_a_wait_that_times_out_lists_the_events():
    log = EventLog()
    log.record(Event(EventKind.CONNECT, "", 1, "", NOW))
    with pytest.raises(TimeoutError, match=r"'login'.*the log has: connect"):
        log.wait_for("login", timeout=0)
    with pytest.raises(ValueError, match="logon"):
        log.of("logon")


def test_paths_are_text():
    assert path_text(b"/a/\xffb") == "/a/%FFb"
    assert path_text("/a") == "/a"


# Faults.


@given(st.none() | st.integers(0, 5), st.integers(0, 8))
def test_a_rule_is_used_up(times, opened):
    rules = FaultRules(lambda: None)
    rule = rules.add(Fault("drop", times=times))
    taken = [rules.take("open", path="/download/DCASS/x", account=ACCOUNT) for _ in range(opened)]
    assert taken.count((rule,)) == (opened if times is None else min(times, opened))


def test_a_rule_is_for_its_moment_path_account_and_stage():
    rules = FaultRules(lambda: None)
    rules.add(Fault("drop", path="*/TP*", account=ACCOUNT, times=None))
    assert rules.take("open", path="/download/DCASS/TP001", account=ACCOUNT)
    assert not rules.take("list", path="/download/DCASS/TP001", account=ACCOUNT)
    assert not rules.take("open", path="/download/DCASS/OI002", account=ACCOUNT)
    assert not rules.take("open", path="/download/DCASS/TP001", account="DCXYZ002")
    rules.add(Fault("stall_at", stage="kex"))
    assert not rules.take("connect", stage="banner")
    assert rules.take("connect", stage="kex")


def test_releasing_a_rule_wakes_the_server_and_removes_it():
    woken = []
    rules = FaultRules(lambda: woken.append(1))
    first, second = rules.add(Fault("stall", times=None)), rules.add(Fault("stall", times=None))
    rules.release(first)
    assert (rules.is_released(first), rules.is_released(second), len(woken)) == (True, False, 1)
    assert rules.take("open", path="x", account=ACCOUNT) == (second,)
    rules.clear()
    assert rules.is_released(second)
    assert rules.take("open", path="x", account=ACCOUNT) == ()


@pytest.mark.parametrize("wrong", [{"kind": "droop"}, {"kind": "stall_at"}, {"kind": "drop", "stage": "kex"}])
def test_a_fault_that_does_not_exist_is_refused(wrong):
    with pytest.raises(RapConfigurationError, match="Valid:"):
        Fault(**wrong)


# The simulator's own arguments.


@pytest.mark.parametrize("account", ["dcxyz001", "DCXYZ005", "CXYZ001", ""])
def test_a_wrong_account_is_refused(account):
    with pytest.raises(RapConfigurationError, match=r"§3\.1"):
        RapSimulator((account,))


def test_a_wrong_folder_is_refused():
    rap = RapSimulator(now=NOW)
    for folder in ("DCAS", "/upload", "/download/dcass", "/key_management/private"):
        with pytest.raises(RapConfigurationError, match=r"§4\.2"):
            rap.put(folder, "x")
    with pytest.raises(RapConfigurationError, match="DCXYZ001"):
        rap.put(KEY_FOLDER, "x", account="DCXYZ002")
    with pytest.raises(RapConfigurationError, match="DCXYZ001"):
        rap.connection_json("DCXYZ009")


def test_an_entry_is_put_listed_and_removed():
    rap = RapSimulator(now=NOW)
    file = rap.put("DCASS", "x", b"1", 100)
    rap.put(Folder.DCASS, "large", 1 << 30)
    assert rap.files("/download/DCASS/") == rap.files("DCASS")
    assert [found.size for found in rap.files(Folder.DCASS)] == [1 << 30]  # the other is long gone
    rap.clock.set(pendulum.from_timestamp(100))
    assert file in rap.files("DCASS")
    rap.remove(Folder.DCASS, "x")
    assert file not in rap.files("DCASS")
    with pytest.raises(KeyError):
        rap.remove(Folder.DCASS, "x")


@pytest.mark.parametrize("algorithm", ["ecdsa-sha2-nistp256", "ssh-ed25519", "ssh-rsa"])
def test_a_key_of_another_kind_cannot_be_registered(algorithm):
    size = {"key_size": 3072} if algorithm == "ssh-rsa" else {}
    key = asyncssh.generate_private_key(algorithm, **size)
    with pytest.raises(RapConfigurationError, match="2048 and 4096"):
        RapSimulator(now=NOW).keys.register(ACCOUNT, key)


def test_each_account_has_one_key_for_the_whole_process():
    rap, again = RapSimulator((ACCOUNT, "DCXYZ002")), RapSimulator((ACCOUNT,))
    assert rap.private_key(ACCOUNT) == again.private_key(ACCOUNT) != rap.private_key("DCXYZ002")
    assert rap.host_key == again.host_key != RapSimulator(name="other").host_key
    assert rap.host_key.startswith("ssh-rsa AAAA")
    assert "\n" not in rap.host_key
    assert "PRIVATE" not in repr(vars(rap))
