from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pendulum import Date

from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.key_lifecycle import (
    RegisteredKey,
    first_renewal_day,
    first_warning_day,
    keys_after_upload,
    last_day_of_new_key,
    last_day_of_old_key,
)

days = st.dates(date(2020, 1, 1), date(2060, 12, 31)).map(lambda day: Date(day.year, day.month, day.day))


def every_day(first: Date, last: Date) -> list[Date]:
    return [first.add(days=number) for number in range((last - first).days + 1)]


def valid(keys: tuple[RegisteredKey, ...], day: Date) -> str:
    return "".join(key.fingerprint for key in keys if key.is_valid(day))


@pytest.mark.guide("6.1 validity")
def test_the_timeline_in_the_guide() -> None:
    """§6.1: key A renewed by key B on 1 March 2024."""
    keys = keys_after_upload((RegisteredKey("A", Date(2024, 6, 30)),), "B", Date(2024, 3, 1))
    timeline = {
        ("2024-03-01", "2024-03-14"): "AB",
        ("2024-03-15", "2026-02-28"): "B",
        ("2026-03-01", "2026-12-31"): "",
    }
    for (start, end), expected in timeline.items():
        shown = {valid(keys, day) for day in every_day(Date.fromisoformat(start), Date.fromisoformat(end))}
        assert shown == {expected}


@pytest.mark.parametrize(
    ("uploaded", "last_day"),
    [
        ("2022-03-01", "2024-02-29"),
        ("2022-02-28", "2024-02-27"),
        ("2024-02-28", "2026-02-27"),
        ("2024-02-29", "2026-02-27"),
        ("2024-12-31", "2026-12-30"),
        ("2025-01-01", "2026-12-31"),
    ],
)
@pytest.mark.guide("6.1 validity")
def test_two_years_less_a_day(uploaded: str, last_day: str) -> None:
    assert last_day_of_new_key(Date.fromisoformat(uploaded)) == Date.fromisoformat(last_day)


@given(earlier=days, later=days)
def test_a_key_uploaded_later_never_ends_earlier(earlier: Date, later: Date) -> None:
    earlier, later = sorted((earlier, later))
    assert last_day_of_new_key(earlier) <= last_day_of_new_key(later)
    assert 729 <= (last_day_of_new_key(later) - later).days <= 730


@given(uploaded=days, left=st.none() | st.integers(0, 800))
@pytest.mark.guide("6.1 validity")
def test_the_old_key_has_fourteen_days_or_its_own_earlier_end(uploaded: Date, left: int | None) -> None:
    before = None if left is None else uploaded.add(days=left)
    after = last_day_of_old_key(uploaded, before)
    assert (after - uploaded).days + 1 == min(14, 14 if left is None else left + 1)


@given(last_day=days)
@pytest.mark.guide("6.2 warning")
def test_rap_warns_on_each_of_the_last_fourteen_days(last_day: Date) -> None:
    assert len(every_day(first_warning_day(last_day), last_day)) == 14


@given(uploaded=days)
def test_rap_warns_of_a_renewed_key_from_the_day_of_the_upload(uploaded: Date) -> None:
    """§6.2: the warning comes daily until the old key is removed, although it has been renewed."""
    assert first_warning_day(last_day_of_old_key(uploaded, None)) == uploaded


@given(last_day=days, renew_before_days=st.integers(1, 365))
def test_renewal_has_the_days_that_were_asked_for(last_day: Date, renew_before_days: int) -> None:
    assert len(every_day(first_renewal_day(last_day, renew_before_days), last_day)) == renew_before_days


def test_by_default_renewal_comes_before_the_warning() -> None:
    last_day = Date(2026, 2, 28)
    assert first_renewal_day(last_day) < first_warning_day(last_day)


@pytest.mark.parametrize("renew_before_days", [0, -1, 366])
def test_renewal_outside_the_life_of_a_key_is_refused(renew_before_days: int) -> None:
    with pytest.raises(RapConfigurationError, match="1 to 365 days") as refused:
        first_renewal_day(Date(2026, 2, 28), renew_before_days)
    assert vars(refused.value)["renew_before_days"] == renew_before_days


def test_a_third_key_takes_the_place_of_the_second() -> None:
    """§6.3."""
    first = keys_after_upload((RegisteredKey("A", None),), "B", Date(2024, 3, 1))
    third = keys_after_upload(first, "C", Date(2024, 3, 5))
    assert third == (RegisteredKey("A", Date(2024, 3, 14)), RegisteredKey("C", Date(2026, 3, 4)))


@given(start=days, own_end=st.none() | st.integers(0, 729), waits=st.lists(st.integers(0, 60), max_size=12))
@pytest.mark.guide("6.3 two keys")
def test_any_sequence_of_uploads_keeps_the_two_key_rule(
    start: Date, own_end: int | None, waits: list[int]
) -> None:
    day = start
    keys: tuple[RegisteredKey, ...] = (
        RegisteredKey("0", None if own_end is None else day.add(days=own_end)),
    )
    for number, wait in enumerate(waits, 1):
        day = day.add(days=wait)
        before = [key for key in keys if key.is_valid(day)]
        keys = keys_after_upload(keys, str(number), day)

        assert len(keys) == min(len(before) + 1, 2)
        assert keys[-1] == RegisteredKey(str(number), last_day_of_new_key(day))
        assert valid(keys, day) == "".join(key.fingerprint for key in keys)
        if before:
            assert keys[0].fingerprint == before[0].fingerprint
        if len(before) == 2:
            assert keys[0] == before[0]
        assert valid(keys, day.add(days=14)) == str(number)
