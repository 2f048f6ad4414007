"""The record of an account's keys: its text, and what it never shows."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pendulum
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_hkex_rap.keystore.record import (
    Happened,
    HistoryEntry,
    KeptWarning,
    KeyRecord,
    PendingKey,
    ResultFile,
    StoredKey,
    TypedDay,
)
from airflow_provider_hkex_rap.rap.account import Account
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError

from .model import ACCOUNT, NOW, key, stored

days = st.dates(date(2000, 1, 1), date(2199, 12, 31)).map(
    lambda day: pendulum.Date(day.year, day.month, day.day)
)
times = days.map(lambda day: f"{day}T09:00:00+08:00")
text = st.text(st.characters(codec="utf-8"), max_size=20)
stored_keys = st.builds(
    StoredKey,
    fingerprint=text,
    private_key=text,
    uploaded=st.none() | days,
    promoted=st.none() | days,
    last_day=st.none() | days,
)
records = st.builds(
    KeyRecord,
    account=st.just(ACCOUNT.name),
    unregistered=st.none() | stored_keys,
    current=st.none() | stored_keys,
    previous=st.none() | stored_keys,
    pending=st.none()
    | st.builds(
        PendingKey,
        fingerprint=text,
        private_key=text,
        public_key=text,
        results_before=st.lists(text, max_size=3).map(tuple),
        submitted=st.none() | days,
        attempts=st.integers(0, 2),
        uploads=st.integers(0, 2),
        accepted=st.none() | text,
        rejected=st.none() | text,
    ),
    refused=st.lists(text, max_size=3).map(tuple),
    typed=st.none() | st.builds(TypedDay, day=days, fingerprint=text),
    warning=st.none() | st.builds(KeptWarning, day=days, text=text),
    results=st.lists(
        st.builds(ResultFile, name=text, content=text, read=times, mtime=st.none() | st.integers()),
        max_size=2,
    ).map(tuple),
    history=st.lists(
        st.builds(
            HistoryEntry,
            at=times,
            what=st.sampled_from(Happened),
            fingerprint=text,
            run=st.none() | text,
            note=text,
        ),
        max_size=2,
    ).map(tuple),
    last_login=st.none() | times,
    superseded=st.lists(times, max_size=2).map(tuple),
)


@given(records)
def test_a_record_comes_back_from_its_text(record: KeyRecord) -> None:
    assert record.to_json().isascii()
    assert KeyRecord.from_json(record.to_json(), ACCOUNT) == record


def test_the_text_of_a_record_stays_readable_by_other_versions() -> None:
    text = (
        '{"schema":1,"account":"DCXYZ001",'
        '"current":{"fingerprint":"aa","private_key":"p","uploaded":"2026-11-20","last_day":"2028-11-19"},'
        '"pending":{"fingerprint":"bb","private_key":"q","public_key":"ssh-rsa","results_before":["x.rcvd"]},'
        '"results":[{"name":"x.rej","content":"4007 \\udcff","read":"2026-11-20T09:00:00+08:00"}],'
        '"history":[{"at":"2026-11-20T09:00:00+08:00","what":"created","fingerprint":"bb","note":"n"}]}'
    )
    record = KeyRecord.from_json(text, ACCOUNT)
    assert record.current == StoredKey(
        fingerprint="aa",
        private_key="p",
        uploaded=pendulum.Date(2026, 11, 20),
        last_day=pendulum.Date(2028, 11, 19),
    )
    assert type(record.current.last_day) is pendulum.Date
    assert record.history[0].what is Happened.CREATED
    assert record.to_json() == text


def test_a_result_file_is_kept_whole() -> None:
    content = b"\xff\xfe not UTF-8 \r\n|\x00"
    record = KeyRecord(account="DCXYZ001").with_result("DCXYZ001.pub.101010.rej", content, NOW)
    again = KeyRecord.from_json(record.to_json(), ACCOUNT)
    assert again.results[0].content.encode("utf-8", "surrogateescape") == content


@pytest.mark.parametrize(
    "found",
    [
        "[" * 100_000,
        "",
        "{}",
        "[]",
        "null",
        '{"schema": 1}',
        '{"schema": 2, "account": "DCXYZ001"}',
        '{"schema": 1, "account": "DCXYZ002"}',
        '{"schema": 1, "account": "DCXYZ001", "current": {"private_key": "SECRET"}}',
        '{"schema": 1, "account": "DCXYZ001", "current": "SECRET"}',
        '{"schema": 1, "account": "DCXYZ001", "pending": {"fingerprint": "", "submitted": "SECRET"}}',
        '{"schema": 1, "account": "DCXYZ001", "history": [{"what": "SECRET"}]}',
        '{"schema": 1, "private_key": "SECRET',
        '{"schema": 1, "account": "DCXYZ001", "current": {"fingerprint": "", "private_key": ["SECRET"]}}',
        '{"schema": 1, "account": "DCXYZ001", "current": {"fingerprint": "", "private_key": "","SECRET":1}}',
        '{"schema": 1, "account": "DCXYZ001", "history": [{"what": "created", "at": 5, "fingerprint": ""}]}',
        '{"schema": 1, "account": "DCXYZ001", "history": [{"what": "created", "at": "", "fingerprint": ""}]}',
        '{"schema": 1, "account": "DCXYZ001", "results": [{"name": "x", "content": 5, "read": ""}]}',
        '{"schema": 1, "account": "DCXYZ001",'
        ' "results": [{"name": "x", "content": "\\ud800", "read": "2026-11-20T09:00:00+08:00"}]}',
        '{"schema": 1, "account": "DCXYZ001", "typed": {"day": "0001-01-01", "fingerprint": ""}}',
        '{"schema": 1, "account": "DCXYZ001",'
        ' "history": [{"what": "created", "at": "10:00", "fingerprint": ""}]}',
    ],
)
def test_any_other_text_is_refused_without_showing_it(found: str) -> None:
    with pytest.raises(RapConfigurationError) as caught:
        KeyRecord.from_json(found, ACCOUNT)
    assert "SECRET" not in f"{caught.value!r} {caught.value} {caught.value.__dict__}"
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or "SECRET" not in str(caught.value.__context__)


def test_no_representation_shows_a_private_key() -> None:
    record = replace(
        KeyRecord(account="DCXYZ001").adopted(stored(1), NOW),
        pending=PendingKey(fingerprint="f", private_key=key(2).to_openssh(), public_key="ssh-rsa"),
    )
    assert "PRIVATE KEY" not in f"{record!r} {record} {record.current!r}"
    assert key(1).fingerprint in repr(record)


def test_the_history_holds_no_key_material_and_does_not_grow_for_ever() -> None:
    record = KeyRecord(account="DCXYZ001").adopted(stored(1), NOW)
    for number in range(300):
        record = record.noted(NOW, Happened.REJECTED, f"{number}")
        record = record.with_result(f"{number}", b"4007", NOW)
    assert len(record.history) == 1 + 40
    assert len(record.results) == 20
    assert record.knows(key(1).fingerprint)
    assert replace(record, current=None).knows(key(1).fingerprint)
    assert "PRIVATE" not in repr([vars_of(entry) for entry in record.history])


def vars_of(entry: HistoryEntry) -> list[str | None]:
    return [entry.at, entry.what, entry.fingerprint, entry.run, entry.note]


def test_a_login_with_another_key_makes_it_current_and_ends_what_went_before() -> None:
    record = KeyRecord(account="DCXYZ001").adopted(stored(1, NOW.date().add(days=400)), NOW)
    record = replace(
        record,
        pending=PendingKey(fingerprint="f", private_key="p", public_key="ssh-rsa"),
        unregistered=stored(2),
    )
    after = record.adopted(stored(2), NOW.add(days=3))
    assert after.current.fingerprint == key(2).fingerprint
    assert after.previous.fingerprint == key(1).fingerprint
    assert after.previous.last_day == NOW.date().add(days=16)
    assert after.pending is after.unregistered is None
    assert [entry.what for entry in after.history] == [Happened.ADOPTED] * 2


def test_the_first_day_for_another_upload_follows_from_every_upload_known() -> None:
    record = KeyRecord(account="DCXYZ001")
    assert record.uploads_allowed_from is None
    record = replace(record, current=replace(stored(1), uploaded=NOW.date()))
    assert record.uploads_allowed_from == NOW.date().add(days=14)
    record = record.noted(NOW.add(days=5), Happened.UPLOADED_ELSEWHERE, "somebody's")
    assert record.uploads_allowed_from == NOW.date().add(days=19)


def test_an_account_is_not_confused_with_another() -> None:
    with pytest.raises(RapConfigurationError, match="'DCXYZ001'"):
        KeyRecord.from_json(KeyRecord(account="DCXYZ001").to_json(), Account("DCXYZ002"))


def test_a_foreign_upload_ends_the_current_key_on_the_fourteenth_day() -> None:
    record = KeyRecord(account="DCXYZ001").adopted(stored(1, NOW.date().add(days=400)), NOW)
    after = record.with_foreign_upload("somebody's", NOW.add(days=3))
    assert after.current.last_day == NOW.date().add(days=16)
    assert after.foreign_upload.fingerprint == "somebody's"
    soon = replace(record, current=stored(1, NOW.date().add(days=5)))
    assert soon.with_foreign_upload("somebody's", NOW).current.last_day == NOW.date().add(days=5)
    # Of two keys, RAP replaces the newer one (§6.3).
    two = replace(
        record,
        current=replace(stored(1, NOW.date().add(days=700)), uploaded=NOW.date()),
        previous=stored(2, NOW.date().add(days=13)),
    ).with_foreign_upload("somebody's", NOW.add(days=3))
    assert not two.current.is_valid(NOW.date().add(days=3))
    assert two.previous.is_valid(NOW.date().add(days=13))


def test_a_foreign_key_that_logs_in_has_the_days_of_its_upload() -> None:
    record = KeyRecord(account="DCXYZ001").adopted(stored(1), NOW)
    after = record.with_foreign_upload(key(2).fingerprint, NOW).adopted(stored(2), NOW.add(days=5))
    assert after.foreign_upload is None
    assert after.current.uploaded == NOW.date()
    assert after.current.last_day == pendulum.Date(2028, 11, 19)


def test_the_previous_key_is_kept_as_long_as_rap_may_hold_it() -> None:
    # Its day was typed, and is too early.
    record = KeyRecord(account="DCXYZ001").adopted(stored(1, NOW.date()), NOW.subtract(days=9))
    record = record.adopted(stored(2), NOW)
    assert record.without_expired(NOW.add(days=13)).previous
    assert not record.without_expired(NOW.add(days=14)).previous


def test_logins_within_an_hour_count_as_one() -> None:
    record = KeyRecord(account=ACCOUNT.name).logged_in(NOW)
    assert record.last_login == NOW.to_iso8601_string()
    assert record.logged_in(NOW.add(minutes=59)) is record
    assert record.logged_in(NOW.add(minutes=60)).last_login == NOW.add(minutes=60).to_iso8601_string()
    # A clock that was set back does not stop the record.
    assert record.logged_in(NOW.subtract(days=1)).last_login == NOW.subtract(days=1).to_iso8601_string()


def test_the_last_ten_superseded_sessions_are_kept() -> None:
    record = KeyRecord(account=ACCOUNT.name)
    for minute in range(12):
        record = record.with_superseded_session(NOW.add(minutes=minute))
    assert len(record.superseded) == 10
    assert record.superseded[-1] == NOW.add(minutes=11).to_iso8601_string()
