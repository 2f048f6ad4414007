"""Decide which keys a login offers, in which order, and what its success means for the record (§6.1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_hkex_rap.keystore.record import KeyRecord, StoredKey, TypedDay
from airflow_provider_hkex_rap.rap.key_lifecycle import first_renewal_day, last_day_of_new_key

if TYPE_CHECKING:
    import pendulum

    from airflow_provider_hkex_rap.keystore.record import PendingKey

MOST_OFFERS = 2
"""Maximum number of keys in one login: RAP holds no more for an account (§6.3), and counts refusals."""

CONNECTION_KEY = "the connection's key"
"""The role of a key that only the connection has."""


class Offer(NamedTuple):
    """A key to offer, and its role."""

    key: StoredKey | PendingKey
    role: str
    """The role in words, for messages, such as ``the current key``."""


def keys_to_offer(record: KeyRecord, own: StoredKey | None, today: pendulum.Date) -> tuple[Offer, ...]:
    """Return every key in hand in the order in which to offer it; a login offers the first two that open.

    - If the record does not have the connection's key, that key comes first: it is new, or was registered
      again (§5). Otherwise the current key comes first.
    - Next come the key made for a registration with HKEX, the pending key if it was uploaded, and the
      previous key while it is valid.
    - The current key comes after all of these if its last day has passed, or if an upload has replaced it
      (§6.3).
    - Last come keys that RAP can accept only if the record is wrong, as after the restore of an old store.
    - If there are more than two, those that RAP has refused since the last login come after the others, the
      latest refusal last. So each key is offered after a few logins, whatever happens to the others.

    :param record: the account's record.
    :param own: the connection's key, if it has one.
    :param today: today's date in Hong Kong.
    """
    offers: dict[str, Offer] = {}
    for offer in _candidates(record, own, today):
        offers.setdefault(offer.key.fingerprint, offer)
    if len(offers) <= MOST_OFFERS:
        return tuple(offers.values())
    refusals = {fingerprint: number for number, fingerprint in enumerate(record.refused)}
    return tuple(sorted(offers.values(), key=lambda offer: refusals.get(offer.key.fingerprint, -1)))


def _candidates(record: KeyRecord, own: StoredKey | None, today: pendulum.Date) -> Iterator[Offer]:
    new = [Offer(own, CONNECTION_KEY)] if own and not record.knows(own.fingerprint) else []
    current = [Offer(record.current, "the current key")] if record.current else []
    others = list(_others(record, today))
    if record.current and _is_doubtful(record.current, record, today):
        # RAP may still accept it: the last day may be wrong, or the upload that replaced it may have failed.
        yield from (*new, *others, *current)
    else:
        yield from (*new, *current, *others)
    if own:
        yield Offer(own, CONNECTION_KEY)
    if record.pending:
        yield Offer(record.pending, "the pending key")
    if record.previous:
        yield Offer(record.previous, "the previous key")


def _others(record: KeyRecord, today: pendulum.Date) -> Iterator[Offer]:
    if record.unregistered:
        yield Offer(record.unregistered, "the key made for registration")
    if record.pending and record.pending.submitted:
        yield Offer(record.pending, "the pending key")
    previous = record.previous
    if previous and previous.is_valid(today):
        yield Offer(previous, "the previous key")


def _is_doubtful(current: StoredKey, record: KeyRecord, today: pendulum.Date) -> bool:
    submitted = record.pending and record.pending.submitted
    return bool(
        not current.is_valid(today)
        or (submitted and record.previous and record.old_key_after_upload(submitted) == record.previous)
    )


def record_after_refusal(record: KeyRecord, fingerprints: Sequence[str], today: pendulum.Date) -> KeyRecord:
    """Return the record after a login in which RAP has refused every key that was offered.

    :param record: the account's record before the login.
    :param fingerprints: the keys that were offered, in this order.
    :param today: today's date in Hong Kong.
    """
    earlier = (fingerprint for fingerprint in record.refused if fingerprint not in fingerprints)
    record = replace(record, refused=(*earlier, *fingerprints))
    current = record.current
    if current and current.fingerprint in fingerprints:
        return replace(record, current=replace(current, refused=current.refused or today))
    return record


def record_after_login(
    record: KeyRecord, offers: Sequence[Offer], fingerprint: str, now: pendulum.DateTime
) -> KeyRecord:
    """Return the record after a successful login.

    A key that is new in the record becomes current. The previous and the pending key keep their roles,
    because a renewal decides about them. If RAP has refused the current key, the record says so.

    :param record: the account's record before the login.
    :param offers: the keys that were offered, in this order.
    :param fingerprint: the fingerprint of the key that RAP accepted.
    :param now: the current time.
    """
    fingerprints = [offer.key.fingerprint for offer in offers]
    tried = fingerprints[: fingerprints.index(fingerprint)]
    key = offers[len(tried)].key
    record = replace(record_after_refusal(record, tried, now.date()), refused=tuple(tried))
    roles = (record.current, record.previous, record.pending)
    if isinstance(key, StoredKey) and all(it is None or it.fingerprint != fingerprint for it in roles):
        return record.adopted(key, now)
    current = record.current
    if current and current.fingerprint == fingerprint:
        return replace(
            record, current=replace(current, refused=None, last_day=_credible(current, now.date()))
        )
    return record


def _credible(key: StoredKey, today: pendulum.Date) -> pendulum.Date | None:
    """Return the last day of a key that has logged in: without a typed one that has passed."""
    if key.is_valid(today):
        return key.last_day
    return last_day_of_new_key(key.uploaded) if key.uploaded else None


def with_known_expiry(
    record: KeyRecord, own: StoredKey | None, key_expires: pendulum.Date | None, today: pendulum.Date
) -> KeyRecord:
    """Return the record with the connection's ``key_expires``, if it is the day of the current key.

    A day belongs to the key that it was first applied to, until somebody changes it. A day that has passed
    is not applied: it was the last day of an earlier key. If a day follows from an upload (§6.1), a typed one
    counts only if it is earlier.

    :param record: the account's record.
    :param own: the connection's key, if it has one.
    :param key_expires: the last day of the registered key; None if the connection does not give it.
    :param today: today's date in Hong Kong.
    """
    current = record.current
    if key_expires is None or current is None or key_expires < today:
        return record
    if own and own.fingerprint != current.fingerprint:
        return record
    typed = record.typed
    if typed is None or typed.day != key_expires:
        # A key that was registered or uploaded just now is not the one that is about to end.
        is_new = record.is_newly_registered(today) or current.uploaded
        is_of_other = typed is None and is_new and first_renewal_day(key_expires) <= today
        typed = TypedDay(day=key_expires, fingerprint="" if is_of_other else current.fingerprint)
    last_day = current.last_day
    if typed.fingerprint == current.fingerprint:
        last_day = min(filter(None, (key_expires, _computed(record, current))))
    return replace(record, typed=typed, current=replace(current, last_day=last_day))


def _computed(record: KeyRecord, current: StoredKey) -> pendulum.Date | None:
    """Return the last day of the current key that follows from an upload; None if no upload is known."""
    if record.foreign_upload:
        return current.last_day
    return last_day_of_new_key(current.uploaded) if current.uploaded else None


def without_passed_day(
    record: KeyRecord, key_expires: pendulum.Date | None, today: pendulum.Date
) -> KeyRecord:
    """Return the record after a login with the current key, which refutes a ``key_expires`` that has passed.

    :param record: the account's record.
    :param key_expires: the last day of the registered key; None if the connection does not give it.
    :param today: today's date in Hong Kong.
    """
    if key_expires is None or key_expires >= today:
        return record
    return replace(record, typed=TypedDay(day=key_expires, fingerprint=""))
