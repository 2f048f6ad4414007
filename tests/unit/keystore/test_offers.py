"""The keys that a login offers, and the record after a login."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_hkex_rap.keystore.expiry import ListedWarning, is_about_current
from airflow_provider_hkex_rap.keystore.offers import keys_to_offer, record_after_login, with_known_expiry
from airflow_provider_hkex_rap.keystore.record import KeyRecord, PendingKey, StoredKey
from airflow_provider_hkex_rap.rap.account import Account
from airflow_provider_hkex_rap.rap.expiry_warning import ExpiryWarning

from .model import NOW

if TYPE_CHECKING:
    import pendulum

TODAY = NOW.date()
YESTERDAY = TODAY.subtract(days=1)


def named(name: str, last_day: pendulum.Date | None = None) -> StoredKey:
    return StoredKey(fingerprint=name, private_key=f"PEM of {name}", last_day=last_day)


def pending(submitted: pendulum.Date | None) -> PendingKey:
    return PendingKey(fingerprint="pending", private_key="PEM", public_key="ssh-rsa", submitted=submitted)


EMPTY = KeyRecord(account="DCXYZ001")
RENEWED = replace(EMPTY, current=named("current"), previous=named("previous", TODAY))


def offered(record: KeyRecord, own: StoredKey | None = None) -> list[str]:
    return [offer.key.fingerprint for offer in keys_to_offer(record, own, TODAY)]


def test_the_first_use_offers_the_connections_key() -> None:
    assert offered(EMPTY, named("own")) == ["own"]
    assert offered(EMPTY) == []


def test_a_key_that_the_store_does_not_know_comes_first() -> None:
    assert offered(RENEWED, named("own")) == ["own", "current"]


def test_a_key_that_was_renewed_does_not_come_back() -> None:
    assert offered(RENEWED, named("previous")) == ["current", "previous"]
    retired = replace(EMPTY.adopted(named("own"), NOW), current=named("current"))
    assert offered(retired, named("own")) == ["current", "own"]


def test_the_previous_key_is_offered_while_it_is_valid() -> None:
    assert offered(RENEWED) == ["current", "previous"]
    assert offered(replace(RENEWED, previous=named("previous", YESTERDAY))) == ["current"]
    assert offered(replace(RENEWED, previous=named("previous"))) == ["current", "previous"]


def test_a_key_made_for_registration_is_tried_where_the_current_one_is_refused() -> None:
    assert offered(replace(EMPTY, unregistered=named("new"))) == ["new"]
    assert offered(replace(RENEWED, unregistered=named("new"))) == ["current", "new"]


def test_a_refused_current_key_takes_no_place_of_one_that_may_get_in() -> None:
    refused = replace(RENEWED, current=replace(named("current"), refused=TODAY))
    assert offered(refused) == ["current", "previous"]
    assert offered(refused, named("own")) == ["own", "previous"]
    assert offered(replace(refused, unregistered=named("new"))) == ["new", "previous"]


def test_a_key_that_an_upload_replaces_comes_last() -> None:
    renewed = replace(RENEWED, current=replace(named("current"), uploaded=YESTERDAY))
    assert offered(replace(renewed, pending=pending(TODAY))) == ["pending", "previous"]


def test_a_pending_key_is_offered_once_it_was_submitted() -> None:
    assert offered(replace(EMPTY, current=named("current"), pending=pending(None))) == ["current"]
    assert offered(replace(RENEWED, pending=pending(TODAY))) == ["current", "pending"]


keys = st.none() | st.sampled_from([named(name) for name in "abcd"])


@given(keys, keys, keys, keys, st.booleans())
def test_at_most_two_keys_are_offered_and_none_twice(
    current: StoredKey | None,
    previous: StoredKey | None,
    unregistered: StoredKey | None,
    own: StoredKey | None,
    in_progress: bool,
) -> None:
    record = replace(EMPTY, current=current, previous=previous, unregistered=unregistered)
    found = offered(replace(record, pending=pending(TODAY) if in_progress else None), own)
    assert len(found) == len(set(found)) <= 2
    assert bool(found) == any([current, previous, unregistered, own, in_progress])


def logged_in(record: KeyRecord, fingerprint: str, own: StoredKey | None = None) -> KeyRecord:
    return record_after_login(record, keys_to_offer(record, own, TODAY), fingerprint, NOW)


def test_a_refused_current_key_is_kept_in_mind_until_it_logs_in() -> None:
    refused = logged_in(RENEWED, "previous")
    assert refused.current
    assert refused.current.refused == TODAY
    assert (
        record_after_login(refused, keys_to_offer(refused, None, TODAY), "previous", NOW.add(days=1))
        == refused
    )
    assert logged_in(refused, "current") == RENEWED
    assert KeyRecord.from_json(refused.to_json(), Account("DCXYZ001")) == refused


def test_a_current_key_whose_last_day_is_over_is_offered_last() -> None:
    over = replace(RENEWED, current=named("current", YESTERDAY))
    assert offered(over) == ["previous", "current"]
    assert offered(replace(over, previous=None)) == ["current"]
    assert offered(replace(over, unregistered=named("new"), pending=pending(TODAY))) == ["new", "pending"]


def test_only_a_first_login_changes_the_record() -> None:
    for record in (RENEWED, replace(RENEWED, pending=pending(TODAY))):
        for offer in keys_to_offer(record, None, TODAY):
            known = record_after_login(record, [offer], offer.key.fingerprint, NOW)
            assert known == record
    adopted = logged_in(EMPTY, "own", named("own"))
    assert adopted.current == replace(named("own"), promoted=TODAY)
    new = logged_in(replace(RENEWED, unregistered=named("new")), "new")
    assert (new.unregistered, new.current and new.current.fingerprint) == (None, "new")
    assert new.previous
    assert (new.previous.fingerprint, new.previous.last_day) == ("current", TODAY.add(days=13))


def test_the_connections_date_is_about_the_registered_key_only() -> None:
    adopted = replace(EMPTY, current=named("own"))
    expires = TODAY.add(days=99)
    for own in (named("own"), None):
        known = with_known_expiry(adopted, own, expires, TODAY).current
        assert known
        assert known.last_day == expires
    assert with_known_expiry(adopted, named("another"), expires, TODAY) is adopted
    assert with_known_expiry(adopted, named("own"), None, TODAY) is adopted
    # RAP has let it in, so it is another key's day.
    assert with_known_expiry(adopted, None, YESTERDAY, TODAY) is adopted
    renewed = replace(EMPTY, current=replace(named("own"), uploaded=TODAY))
    assert with_known_expiry(renewed, named("own"), expires, TODAY) is renewed


def warned(text: str, day: pendulum.Date = TODAY) -> ListedWarning:
    return ListedWarning(ExpiryWarning.parse(text.encode()), day)


def test_a_warning_is_about_the_current_key_by_its_fingerprint_or_its_day() -> None:
    fingerprint = ":".join(["ab"] * 16)
    renewed = replace(EMPTY, current=replace(named("current", TODAY.add(years=2)), uploaded=TODAY))
    assert is_about_current(warned("expires"), EMPTY)
    assert is_about_current(warned("expires"), replace(EMPTY, current=named("current")))
    assert not is_about_current(warned("expires"), renewed)
    assert not is_about_current(warned("expires", TODAY.add(days=20)), renewed)
    assert not is_about_current(warned(f"{fingerprint} expires"), replace(EMPTY, current=named("current")))
    assert is_about_current(warned(f"{fingerprint} expires"), replace(EMPTY, current=named(fingerprint)))
    ends = replace(renewed, current=replace(named("current", TODAY), uploaded=TODAY.subtract(years=2)))
    assert is_about_current(warned("expires", TODAY.subtract(days=13)), ends)
    assert not is_about_current(warned("expires", TODAY.subtract(days=14)), ends)


@pytest.mark.parametrize("last_day", [None, TODAY.add(years=2)])
def test_after_a_renewal_by_hand_rap_warns_of_the_older_key_for_fourteen_days(
    last_day: pendulum.Date | None,
) -> None:
    record = EMPTY.adopted(named("old"), NOW.subtract(days=90)).adopted(named("new", last_day), NOW)
    assert not is_about_current(warned("expires"), record)
    assert not is_about_current(warned("expires", TODAY.add(days=13)), record)
    assert is_about_current(warned("expires", TODAY.add(days=14)), record)


def test_a_first_key_is_warned_of_whatever_day_was_typed() -> None:
    typed = EMPTY.adopted(named("own", TODAY.add(years=2)), NOW.subtract(days=30))
    assert is_about_current(warned("expires"), typed)
    assert is_about_current(warned("expires"), EMPTY.adopted(named("own"), NOW))
