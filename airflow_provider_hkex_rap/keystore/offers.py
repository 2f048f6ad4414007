"""Which keys a login offers, in which order, and what a login says of them (§4.3, §6.1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    meanwhile, one that a renewal has uploaded and not yet tried, or the previous one while it is valid. A
    current key comes after those where its last day is over, where an upload has taken its place (§6.3), and
    where RAP has refused it and there are two others.

    :param record: what the store holds.
    :param own: the connection's key, where it has one.
    :param today: the day in Hong Kong.
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
        # It may be let in all the same: its last day may be wrong, and what took its place may have failed.
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
    """Return the record after a login: a key that was offered for the first time becomes current.

    The previous key and a pending one stay what they are: a renewal decides about them. That the current one
    was refused is kept.

    :param record: what the store holds.
    :param offers: the keys that were offered, in this order.
    :param fingerprint: the one that RAP let in.
    :param now: the clock's time.
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
    """Return the record with the last day that the connection gives, where that is about the current key.

    The last day of a key that was renewed here follows from its upload (§6.1) and stays.

    :param record: what the store holds.
    :param own: the connection's key, where it has one.
    :param key_expires: the registered key's last day, where the connection says one.
    :param today: the day in Hong Kong.
    """
    current = record.current
    # A day that is over was that of a key before.
    if not (key_expires and current) or current.uploaded or key_expires < today:
        return record
    if own and own.fingerprint != current.fingerprint:
        return record
    return replace(record, current=replace(current, last_day=key_expires))
