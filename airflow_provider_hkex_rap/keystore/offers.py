"""Decide which keys a login offers, in which order, and what its success means for the record (§6.1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_hkex_rap.keystore.record import KeyRecord, StoredKey

if TYPE_CHECKING:
    import pendulum

    from airflow_provider_hkex_rap.keystore.record import PendingKey

_MOST = 2
"""Maximum number of keys to offer: RAP holds no more for an account (§6.3), and refusals are not retried."""


class Offer(NamedTuple):
    """A key to offer, and its role."""

    key: StoredKey | PendingKey
    role: str
    """The role in words, for messages, such as ``the current key``."""


def keys_to_offer(record: KeyRecord, own: StoredKey | None, today: pendulum.Date) -> tuple[Offer, ...]:
    """Return the keys to offer in one login, the most likely one first; at most two.

    - If the record does not have the connection's key, that key comes first: it is new, or was registered
      again (§5). Otherwise the current key comes first.
    - Next come the key made for a registration with HKEX, the pending key if it was uploaded, and the
      previous key while it is valid.
    - The current key comes after all of these if its last day has passed, if an upload has replaced it
      (§6.3), or if RAP has refused it and there are two others.

    :param record: the account's record.
    :param own: the connection's key, if it has one.
    :param today: today's date in Hong Kong.
    """
    offers: dict[str, Offer] = {}
    for offer in _candidates(record, own, today):
        offers.setdefault(offer.key.fingerprint, offer)
    return tuple(offers.values())[:_MOST]


def _candidates(record: KeyRecord, own: StoredKey | None, today: pendulum.Date) -> Iterator[Offer]:
    new = [Offer(own, "the connection's key")] if own and not record.knows(own.fingerprint) else []
    current = [Offer(record.current, "the current key")] if record.current else []
    others = list(_others(record, today))
    if record.current and _is_doubtful(record.current, record, today, len(new) + len(others)):
        # RAP may still accept it: the last day may be wrong, or the upload that replaced it may have failed.
        yield from (*new, *others, *current)
    else:
        yield from (*new, *current, *others)
    if own:
        yield Offer(own, "the connection's key")


def _others(record: KeyRecord, today: pendulum.Date) -> Iterator[Offer]:
    if record.unregistered:
        yield Offer(record.unregistered, "the key made for registration")
    if record.pending and record.pending.submitted:
        yield Offer(record.pending, "the pending key")
    previous = record.previous
    if previous and previous.is_valid(today):
        yield Offer(previous, "the previous key")


def _is_doubtful(current: StoredKey, record: KeyRecord, today: pendulum.Date, others: int) -> bool:
    submitted = record.pending and record.pending.submitted
    return bool(
        not current.is_valid(today)
        or (submitted and record.previous and record.old_key_after_upload(submitted) == record.previous)
        or (current.refused and others >= _MOST)
    )


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
    roles = (record.current, record.previous, record.pending)
    if isinstance(key, StoredKey) and all(it is None or it.fingerprint != fingerprint for it in roles):
        return record.adopted(key, now)
    current = record.current
    if current and current.fingerprint == fingerprint:
        return replace(record, current=replace(current, refused=None))
    if current and current.fingerprint in tried:
        return replace(record, current=replace(current, refused=current.refused or now.date()))
    return record


def with_known_expiry(
    record: KeyRecord, own: StoredKey | None, key_expires: pendulum.Date | None, today: pendulum.Date
) -> KeyRecord:
    """Return the record with the connection's ``key_expires``, if it applies to the current key.

    It does not apply to a key that was renewed here: the last day of such a key follows from its upload
    (§6.1).

    :param record: the account's record.
    :param own: the connection's key, if it has one.
    :param key_expires: the last day of the registered key; None if the connection does not give it.
    :param today: today's date in Hong Kong.
    """
    current = record.current
    # A day that has passed was the last day of an earlier key.
    if not (key_expires and current) or current.uploaded or key_expires < today:
        return record
    if own and own.fingerprint != current.fingerprint:
        return record
    return replace(record, current=replace(current, last_day=key_expires))
