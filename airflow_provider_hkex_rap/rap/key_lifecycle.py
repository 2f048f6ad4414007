"""How long keys log in: renewal, expiry and the two keys of an account (§6.1 to §6.3).

Every date is a calendar day in Hong Kong. A key's last day is the last on which it logs in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_hkex_rap.rap.errors import RapConfigurationError

if TYPE_CHECKING:
    import pendulum

OVERLAP_DAYS = 14
"""Days on which the old key still logs in, the day of the upload included (§6.1)."""
WARNING_DAYS = 14
"""Days before its end on which RAP warns of a key (§6.2)."""
MAX_RENEW_BEFORE_DAYS = 365


class RegisteredKey(NamedTuple):
    """A key that HKEX has registered for an account."""

    fingerprint: str
    """MD5, as in §3.2.2."""
    last_day: pendulum.Date | None
    """The last day on which it logs in; None where it is not known."""

    def is_valid(self, day: pendulum.Date) -> bool:
        """Return whether the key logs in on *day*; a key without a known last day does."""
        return self.last_day is None or day <= self.last_day


def last_day_of_new_key(uploaded: pendulum.Date) -> pendulum.Date:
    """Return the last day of a key uploaded on a day: two years less a day (§6.1).

    Of a key uploaded on 29 February it is 27 February, the earlier reading of the guide.

    :param uploaded: the day of the upload.
    """
    return uploaded.add(years=2).subtract(days=1)


def last_day_of_old_key(uploaded: pendulum.Date, last_day: pendulum.Date | None) -> pendulum.Date:
    """Return the last day of the key that a new one renews (§6, §6.1).

    :param uploaded: the day on which the new key was uploaded.
    :param last_day: the old key's last day before that; None where it is not known.
    :returns: the 14th day from the upload, or *last_day* where that is earlier.
    """
    overlap_ends = uploaded.add(days=OVERLAP_DAYS - 1)
    return overlap_ends if last_day is None else min(last_day, overlap_ends)


def first_warning_day(last_day: pendulum.Date) -> pendulum.Date:
    """Return the first day on which RAP warns of a key; the last such day is its last day (§6.2).

    :param last_day: the last day on which the key logs in.
    """
    return last_day.subtract(days=WARNING_DAYS - 1)


def first_renewal_day(last_day: pendulum.Date, renew_before_days: int = 30) -> pendulum.Date:
    """Return the day from which a key is to be renewed.

    :param last_day: the last day on which the key logs in.
    :param renew_before_days: on how many days, the last one included, renewal can be tried; 1 to 365.
    :raises RapConfigurationError: *renew_before_days* is out of that range.
    """
    if not 1 <= renew_before_days <= MAX_RENEW_BEFORE_DAYS:
        raise RapConfigurationError(
            f"'renew_before_days' of {renew_before_days!r} is not possible.",
            why=f"It is 1 to {MAX_RENEW_BEFORE_DAYS} days: a key lives two years (guide §6.1).",
            todo="Leave it at 30, well before RAP warns of the key (guide §6.2).",
            renew_before_days=renew_before_days,
        )
    return last_day.subtract(days=renew_before_days - 1)


def days_left(last_day: pendulum.Date, today: pendulum.Date) -> int:
    """Return on how many days a key still logs in, today included (§6.1).

    :param last_day: the last day on which it logs in.
    :param today: the day in Hong Kong.
    """
    return max((last_day - today).days + 1, 0)


def keys_after_upload(
    keys: tuple[RegisteredKey, ...], fingerprint: str, uploaded: pendulum.Date
) -> tuple[RegisteredKey, ...]:
    """Return the keys of an account after RAP has accepted an upload: one or two, the old one first (§6.3).

    :param keys: the keys before, the old one first; those that are no longer valid do not count.
    :param fingerprint: the uploaded key's.
    :param uploaded: the day of the upload.
    :returns: with one valid key before, that one with its overlap and the new one; with two, the old one
        unchanged and the new one in place of the second.
    """
    new = RegisteredKey(fingerprint, last_day_of_new_key(uploaded))
    valid = [key for key in keys if key.is_valid(uploaded)]
    match valid:
        case []:
            return (new,)
        case [only]:
            return (only._replace(last_day=last_day_of_old_key(uploaded, only.last_day)), new)
        case _:
            return (valid[0], new)
