"""The keys that a login offers, and the record after a login."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_hkex_rap.keystore.expiry import About, ListedWarning, about, is_of_replaced_key
from airflow_provider_hkex_rap.keystore.offers import (
    Offer,
    keys_to_offer,
    record_after_login,
    record_after_refusal,
    with_known_expiry,
)
from airflow_provider_hkex_rap.keystore.record import Happened, KeyRecord, PendingKey, StoredKey
from airflow_provider_hkex_rap.rap.account import Account
from airflow_provider_hkex_rap.rap.expiry_warning import ExpiryWarning

from .model import NOW, key, stored

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


def login_offers(record: KeyRecord, own: StoredKey | None = None) -> tuple[Offer, ...]:
    """Return the offers of one login, if every key opens: two, as RAP holds no more (§6.3)."""
    return keys_to_offer(record, own, TODAY)[:2]


def offered(record: KeyRecord, own: StoredKey | None = None) -> list[str]:
    return [offer.key.fingerprint for offer in login_offers(record, own)]


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
    assert offered(replace(RENEWED, previous=named("previous"))) == ["current", "previous"]
    ended = replace(RENEWED, previous=named("previous", YESTERDAY))
    assert offered(ended, named("own")) == ["own", "current"]
    # Its day may be wrong, so it comes last instead of not at all.
    assert [offer.key.fingerprint for offer in keys_to_offer(ended, named("own"), TODAY)][2:] == ["previous"]


def test_a_key_made_for_registration_is_tried_where_the_current_one_is_refused() -> None:
    assert offered(replace(EMPTY, unregistered=named("new"))) == ["new"]
    assert offered(replace(RENEWED, unregistered=named("new"))) == ["current", "new"]


def test_a_refused_current_key_takes_no_place_of_one_that_may_get_in() -> None:
    refused = replace(RENEWED, refused=("current",))
    assert offered(refused) == ["current", "previous"]
    assert offered(refused, named("own")) == ["own", "previous"]
    assert offered(replace(refused, unregistered=named("new"))) == ["new", "previous"]


def test_the_next_login_offers_the_keys_that_were_not_refused() -> None:
    record = replace(RENEWED, unregistered=named("new"))
    tried = []
    for _ in range(4):
        tried.append(offered(record))
        record = record_after_refusal(record, tried[-1], TODAY)
    assert tried == [["current", "new"], ["previous", "current"], ["new", "previous"], ["current", "new"]]
    assert record.current
    assert record.current.refused == TODAY


DAYS = [None, YESTERDAY, TODAY.add(days=5)]
records = st.builds(
    lambda last_day, ended, submitted, **present: replace(
        EMPTY,
        current=named("current", last_day) if present["current"] else None,
        previous=named("previous", ended) if present["previous"] else None,
        unregistered=named("unregistered") if present["unregistered"] else None,
        pending=pending(submitted) if present["pending"] else None,
    ),
    last_day=st.sampled_from(DAYS),
    ended=st.sampled_from(DAYS),
    submitted=st.sampled_from([None, TODAY]),
    **{role: st.booleans() for role in ("current", "previous", "unregistered", "pending")},
)


@given(records, st.booleans(), st.data())
def test_every_key_in_hand_is_offered_within_three_logins(
    record: KeyRecord, has_own: bool, data: st.DataObject
) -> None:
    """Whatever the record says of its roles, days and refusals; RAP accepts one of the keys, and changes."""
    own = named("own") if has_own else None
    for _ in range(4):
        in_hand = {key.fingerprint for key in record.keys} | ({"own"} if own else set())
        if not in_hand:
            return
        accepted = data.draw(st.sampled_from(sorted(in_hand)))
        for _login in range(3):
            offers = login_offers(record, own)
            names = [offer.key.fingerprint for offer in offers]
            if accepted in names:
                record = record_after_login(record, offers, accepted, NOW)
                break
            record = record_after_refusal(record, names, TODAY)
        else:
            pytest.fail(f"{accepted} was not offered.")
        assert accepted in {key.fingerprint for key in record.keys}


def test_a_key_that_an_upload_replaces_comes_last() -> None:
    renewed = replace(RENEWED, current=replace(named("current"), uploaded=YESTERDAY))
    assert offered(replace(renewed, pending=pending(TODAY))) == ["pending", "previous"]


def test_a_pending_key_comes_last_until_it_was_submitted() -> None:
    assert offered(replace(RENEWED, pending=pending(None))) == ["current", "previous"]
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
    return record_after_login(record, login_offers(record, own), fingerprint, NOW)


def test_a_refused_current_key_is_kept_in_mind_until_it_logs_in() -> None:
    refused = logged_in(RENEWED, "previous")
    assert refused.current
    assert refused.current.refused == TODAY
    assert record_after_login(refused, login_offers(refused), "previous", NOW.add(days=1)) == refused
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


def test_the_connections_day_is_that_of_the_key_it_was_first_applied_to() -> None:
    adopted, expires = replace(EMPTY, current=named("own")), TODAY.add(days=99)
    for own in (named("own"), None):
        known = with_known_expiry(adopted, own, expires, TODAY)
        assert known.current
        assert known.current.last_day == expires
        # A key that was renewed by hand has not the day of the key before it.
        by_hand = known.adopted(named("another"), NOW)
        assert with_known_expiry(by_hand, None, expires, TODAY).current == by_hand.current
        changed = with_known_expiry(by_hand, None, TODAY.add(days=700), TODAY)
        assert changed.current
        assert changed.current.last_day == TODAY.add(days=700)
    assert with_known_expiry(adopted, named("another"), expires, TODAY) is adopted
    assert with_known_expiry(adopted, named("own"), None, TODAY) is adopted
    # RAP has let it in, so it is another key's day.
    assert with_known_expiry(adopted, None, YESTERDAY, TODAY) is adopted


def test_a_typed_day_shortens_a_computed_one_and_never_extends_it() -> None:
    computed = TODAY.add(days=100)
    renewed = replace(
        EMPTY, current=replace(named("own", computed), uploaded=computed.subtract(years=2).add(days=1))
    )
    typed = [TODAY.add(days=50), TODAY.add(days=200), TODAY.add(days=60)]
    for day, last_day in zip(typed, (typed[0], computed, typed[2]), strict=True):
        renewed = with_known_expiry(renewed, None, day, TODAY)
        assert renewed.current
        assert renewed.current.last_day == last_day
    # A login refutes a typed day, and the computed one counts again.
    later = record_after_login(renewed, login_offers(renewed), "own", NOW.add(days=61))
    assert later.current
    assert later.current.last_day == computed


def test_a_typed_day_does_not_undo_an_upload_by_somebody_else() -> None:
    typed = with_known_expiry(EMPTY.adopted(named("own"), NOW), None, TODAY.add(days=300), TODAY)
    record = typed.with_foreign_upload("somebody's", NOW)
    for _ in range(2):
        record = with_known_expiry(record, None, TODAY.add(days=300), TODAY)
        assert record.current
        assert record.current.last_day == TODAY.add(days=13)


def test_an_upload_before_that_of_the_current_key_does_not_end_it() -> None:
    record = replace(EMPTY, current=replace(named("own", TODAY.add(years=1)), uploaded=TODAY))
    assert record.with_foreign_upload("earlier", NOW.subtract(days=1)) == record


def test_the_previous_key_is_kept_while_the_current_one_is_refused() -> None:
    record = replace(RENEWED, current=replace(named("current"), refused=YESTERDAY))
    assert record.without_expired(NOW.add(days=30)).previous


def test_a_key_that_was_registered_just_now_does_not_end_on_the_day_of_the_key_before_it() -> None:
    made = replace(EMPTY, unregistered=named("new")).noted(NOW, Happened.CREATED, "new")
    registered = made.adopted(named("new"), NOW)
    soon = with_known_expiry(registered, None, TODAY.add(days=9), TODAY)
    assert soon.current
    assert soon.current.last_day is None
    # Nor on a later day.
    later = with_known_expiry(soon, None, TODAY.add(days=9), TODAY.add(days=1)).current
    assert later
    assert later.last_day is None
    far = with_known_expiry(registered, None, TODAY.add(days=700), TODAY).current
    assert far
    assert far.last_day == TODAY.add(days=700)


def test_a_login_refutes_a_typed_last_day_that_has_passed() -> None:
    ended = replace(EMPTY, current=named("current", YESTERDAY))
    assert logged_in(ended, "current").current == named("current")


def warned(text: str, day: pendulum.Date = TODAY) -> ListedWarning:
    return ListedWarning(ExpiryWarning.parse(text.encode()), day)


FINGERPRINT = key(1).fingerprint
SHA256 = key(1).public_key.sha256_fingerprint


@pytest.mark.parametrize(
    "spelling",
    [
        FINGERPRINT,
        FINGERPRINT.upper(),
        f"MD5:{FINGERPRINT}",
        FINGERPRINT.replace(":", ""),
        FINGERPRINT.replace(":", "-"),
        FINGERPRINT.replace(":", " "),
        SHA256,
        f"{SHA256}=",
        SHA256.removeprefix("SHA256:"),
        hashlib.sha256(key(1).public_key.blob).hexdigest(),
        hashlib.sha256(key(1).public_key.blob).digest().hex(":").upper(),
    ],
    ids=range(11),
)
def test_a_warning_names_a_key_in_any_spelling(spelling: str) -> None:
    # However new the key is, RAP's word counts.
    record = EMPTY.adopted(stored(1, TODAY.add(years=2)), NOW)
    assert about(warned(f"The key {spelling} will expire on 2026-12-01."), record) is About.CURRENT
    another = EMPTY.adopted(stored(2), NOW.subtract(days=90))
    assert about(warned(f"The key {spelling} will expire on 2026-12-01."), another) is About.ANOTHER


def test_a_warning_without_a_name_is_about_the_current_key_by_its_day() -> None:
    renewed = replace(EMPTY, current=replace(named("current", TODAY.add(years=2)), uploaded=TODAY))
    assert about(warned("expires"), EMPTY) is About.CURRENT
    assert about(warned("expires"), replace(EMPTY, current=named("current"))) is About.CURRENT
    assert about(warned("expires", TODAY.add(days=13)), renewed) is About.ANOTHER
    assert about(warned("expires", TODAY.add(days=14)), renewed) is About.CURRENT
    ends = replace(EMPTY, current=replace(named("current", TODAY), promoted=YESTERDAY))
    assert about(warned("expires", TODAY.subtract(days=13)), ends) is About.CURRENT


def test_a_warning_without_a_name_is_unclear_for_fourteen_days_after_the_first_login() -> None:
    for last_day in (None, TODAY.add(years=2)):
        record = EMPTY.adopted(named("old"), NOW.subtract(days=90)).adopted(named("new", last_day), NOW)
        assert about(warned("expires"), record) is About.UNCLEAR
        assert about(warned("expires", TODAY.add(days=13)), record) is About.UNCLEAR
        assert about(warned("expires", TODAY.add(days=14)), record) is About.CURRENT


def test_a_warning_is_of_a_replaced_key_only_while_rap_may_hold_that_key() -> None:
    old, new = EMPTY.adopted(named("old"), NOW.subtract(days=90)), named("new")
    record = old.adopted(new, NOW)
    for text in ("expires", FINGERPRINT):
        assert is_of_replaced_key(warned(text, TODAY.add(days=13)), record)
        assert not is_of_replaced_key(warned(text, TODAY.add(days=14)), record)
    assert not is_of_replaced_key(warned("expires"), EMPTY.adopted(new, NOW))
    assert not is_of_replaced_key(warned("expires"), EMPTY)
