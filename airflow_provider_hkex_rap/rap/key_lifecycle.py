"""How long keys are valid: renewal, expiry and the two keys of an account (§6.1 to §6.3).

Every date is a calendar day in Hong Kong. A key's last day is the last day on which it can log in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pendulum

from airflow_provider_hkex_rap.rap.errors import RapConfigurationError

OVERLAP_DAYS = 14
"""Days on which the old key is still valid after an upload, the day of the upload included (§6.1)."""
WARNING_DAYS = 14
"""A key's last days, on which RAP warns that it expires (§6.2)."""
MAX_RENEW_BEFORE_DAYS = 365


class RegisteredKey(NamedTuple):
    """A key that HKEX has registered for an account."""

    fingerprint: str
    """MD5, as in §3.2.2."""
    last_day: pendulum.Date | None
    """The last day on which it can log in; None if it is not known."""

    def is_valid(self, day: pendulum.Date) -> bool:
        """Return whether the key is valid on *day*; a key without a known last day is."""
        return self.last_day is None or day <= self.last_day


def last_day_of_new_key(uploaded: pendulum.Date) -> pendulum.Date:
    """Return the last day of an uploaded key: two years less a day later (§6.1).

    A key uploaded on 29 February is valid through 27 February, the earlier reading of the guide.

    :param uploaded: the day of the upload.
    """
    return uploaded.add(years=2).subtract(days=1)


def last_day_of_old_key(uploaded: pendulum.Date, last_day: pendulum.Date | None) -> pendulum.Date:
    """Return the last day of the old key after a new one was uploaded (§6, §6.1).

    :param uploaded: the day on which the new key was uploaded.
    :param last_day: the old key's last day before the upload; None if it is not known.
    :returns: the 14th day, counted from the day of the upload, or *last_day* if that is earlier.
    """
    overlap_ends = uploaded.add(days=OVERLAP_DAYS - 1)
    return overlap_ends if last_day is None else min(last_day, overlap_ends)


def first_warning_day(last_day: pendulum.Date) -> pendulum.Date:
    """Return the first day on which RAP warns that a key expires; it warns through the last day (§6.2).

    :param last_day: the last day on which the key can log in.
    """
    return last_day.subtract(days=WARNING_DAYS - 1)


def first_renewal_day(last_day: pendulum.Date, renew_before_days: int = 30) -> pendulum.Date:
    """Return the first day on which the renewal of a key is due.

    :param last_day: the last day on which the key can log in.
    :param renew_before_days: number of days on which renewal is due, the last day included; 1 to 365.
    :raises RapConfigurationError: if *renew_before_days* is not in that range.
    """
    if not 1 <= renew_before_days <= MAX_RENEW_BEFORE_DAYS:
        raise RapConfigurationError(
            f"'renew_before_days' of {renew_before_days!r} is not valid.",
            why=f"It must be 1 to {MAX_RENEW_BEFORE_DAYS} days: a key is valid for two years (guide §6.1).",
            todo="Leave it at 30, which is well before RAP warns of the key (guide §6.2).",
            renew_before_days=renew_before_days,
        )
    return last_day.subtract(days=renew_before_days - 1)


def login_days_left(last_day: pendulum.Date, today: pendulum.Date) -> int:
    """Return the number of days on which a key can still log in, today included (§6.1).

    :param last_day: the last day on which it can log in.
    :param today: today's date in Hong Kong.
    """
    return max((last_day - today).days + 1, 0)


def parse_key_expires(text: str) -> pendulum.Date | None:
    """Return the last day of the registered key, as a connection's ``key_expires`` gives it.

    :param text: a date as ``YYYY-MM-DD``; blank if the day is not known.
    :returns: the day; None if *text* is blank.
    :raises RapConfigurationError: if *text* is not such a date.
    """
    text = text.strip()
    try:
        return pendulum.Date.fromisoformat(text) if text else None
    except ValueError:
        raise RapConfigurationError(
            "The extra 'key_expires' is not a date.",
            why="It is the last day on which the registered key can log in, as YYYY-MM-DD.",
            todo="Write it in that form, or leave it blank if the day is not known.",
            field="key_expires",
        ) from None


def old_key_after_upload(held: Sequence[RegisteredKey], uploaded: pendulum.Date) -> RegisteredKey | None:
    """Return the key that stays valid beside an uploaded one: the two-key rule (§6.3).

    An account has at most two keys. If RAP holds one, that key stays valid for 14 days (§6.1). If RAP holds
    two, the uploaded key replaces the newer one, and the old one is unaffected.

    :param held: the one or two valid keys that RAP holds, the old one first; or none.
    :param uploaded: the day of the upload.
    :returns: the old key with its last day after the upload; None if RAP holds no key.
    """
    if not held:
        return None
    old, *newer = held
    return old if newer else old._replace(last_day=last_day_of_old_key(uploaded, old.last_day))


def keys_after_upload(
    keys: tuple[RegisteredKey, ...], fingerprint: str, uploaded: pendulum.Date
) -> tuple[RegisteredKey, ...]:
    """Return the keys of an account after RAP has accepted an upload (§6.3).

    :param keys: the keys before the upload, the old one first; keys that are no longer valid are ignored.
    :param fingerprint: the uploaded key's.
    :param uploaded: the day of the upload.
    :returns: the old key, if there is one, and the uploaded key.
    """
    new = RegisteredKey(fingerprint, last_day_of_new_key(uploaded))
    old = old_key_after_upload([key for key in keys if key.is_valid(uploaded)], uploaded)
    return (old, new) if old else (new,)


def first_safe_upload_day(uploads: Iterable[pendulum.Date]) -> pendulum.Date | None:
    """Return the first day on which an upload cannot replace one of two valid keys (§6.3).

    :param uploads: the days of all uploads that are known.
    :returns: the 15th day, counted from the last upload; None if no upload is known.
    """
    last = max(uploads, default=None)
    return last and last.add(days=OVERLAP_DAYS)
