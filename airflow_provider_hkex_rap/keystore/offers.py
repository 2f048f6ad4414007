"""Which keys a login offers, in which order, and what a login says of them (§4.3, §6.1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_hkex_rap.keystore.record import KeyRecord, StoredKey

if TYPE_CHECKING:
    import pendulum

    from airflow_provider_hkex_rap.keystore.record import PendingKey

_MOST = 2
"""Keys offered at most: RAP knows no more of an account (§6.3), and a refusal is never retried."""


class Offer(NamedTuple):
    """A key to log in with."""

    key: StoredKey | PendingKey
    role: str
    """Which one it is, in words."""


def keys_to_offer(record: KeyRecord, own: StoredKey | None, today: pendulum.Date) -> tuple[Offer, ...]:
    """Return the keys to offer in one login, the likeliest first; at most two.

    The connection's key comes first where the store does not know it: it is being used for the first time, or
    has been registered again (§5). Else the current key does. The second may be one that HKEX has registered
    meanwhile, one that a renewal has uploaded and not yet tried, or the previous one while it is valid.

    :param record: what the store holds.
    :param own: the connection's key, where it has one.
    :param today: the day in Hong Kong.
    """
    offers: dict[str, Offer] = {}
    for offer in _candidates(record, own, today):
        offers.setdefault(offer.key.fingerprint, offer)
    return tuple(offers.values())[:_MOST]


def _candidates(record: KeyRecord, own: StoredKey | None, today: pendulum.Date) -> Iterator[Offer]:
    if own and not record.knows(own.fingerprint):
        yield Offer(own, "the connection's key")
    if record.current:
        yield Offer(record.current, "the current key")
    if record.unregistered:
        yield Offer(record.unregistered, "the key made for registration")
    if record.pending and record.pending.submitted:
        yield Offer(record.pending, "the pending key")
    previous = record.previous
    if previous and not (previous.last_day and today > previous.last_day):
        yield Offer(previous, "the previous key")
    if own:
        yield Offer(own, "the connection's key")


def record_after_login(record: KeyRecord, key: StoredKey | PendingKey, now: pendulum.DateTime) -> KeyRecord:
    """Return the record after a login with *key*: one that was offered for the first time becomes current.

    The previous key and a pending one stay what they are: a renewal decides about them.
    """
    roles = (record.current, record.previous, record.pending)
    if isinstance(key, StoredKey) and all(it is None or it.fingerprint != key.fingerprint for it in roles):
        return record.adopted(key, now)
    return record


def with_known_expiry(
    record: KeyRecord, own: StoredKey | None, key_expires: pendulum.Date | None
) -> KeyRecord:
    """Return the record with the last day that the connection gives, where that is about the current key.

    The last day of a key that was renewed here follows from its upload (§6.1) and stays.

    :param record: what the store holds.
    :param own: the connection's key, where it has one.
    :param key_expires: the registered key's last day, where the connection says one.
    """
    current = record.current
    if not (key_expires and current) or current.uploaded:
        return record
    if own and own.fingerprint != current.fingerprint:
        return record
    return replace(record, current=replace(current, last_day=key_expires))
