"""Check that the upload of a new key replaces no key that is in use (§6.3)."""

from __future__ import annotations

from itertools import count, islice
from typing import TYPE_CHECKING

from airflow_provider_hkex_rap.keystore import renewal_errors as errors
from airflow_provider_hkex_rap.keystore.store import conflict
from airflow_provider_hkex_rap.rap.account import Account
from airflow_provider_hkex_rap.rap.calendar import is_public_holiday, is_trading_day

if TYPE_CHECKING:
    import pendulum

    from airflow_provider_hkex_rap.keystore.answers import KeyAnswers
    from airflow_provider_hkex_rap.keystore.due import DuePolicy
    from airflow_provider_hkex_rap.keystore.record import KeyRecord, PendingKey
    from airflow_provider_hkex_rap.rap.clock import Clock

_MOST_UPLOADS = 2
"""Uploads of one new key, at most, unless somebody asks for more."""
_MOST_ATTEMPTS = 10
"""Uploads of one new key that were started, at most: a killed one may have reached RAP, or not."""


class UploadChecks:
    """The checks before each upload of a renewal; each raises an error if nothing may be uploaded.

    :param clock: gives the time.
    :param policy: tells if somebody asks for the renewal.
    :param replace_second_key: upload even if RAP may hold two keys, and would replace the newer one (§6.3).
    """

    def __init__(self, clock: Clock, policy: DuePolicy, *, replace_second_key: bool) -> None:
        self._clock = clock
        self._policy = policy
        self._replace_second_key = replace_second_key

    def first(self, found: KeyAnswers) -> None:
        """Check the first upload of a new key.

        :param found: RAP's answers, and the account's record with them.
        :raises RapConfigurationError: if the upload could replace a valid key.
        """
        allowed_from = found.record.uploads_allowed_from
        if allowed_from and self._clock().date() < allowed_from and not self._replace_second_key:
            raise errors.too_early(Account(found.record.account), allowed_from, found.record)

    def again(self, found: KeyAnswers) -> None:
        """Check the second upload of a new key that RAP has not answered.

        :param found: RAP's answers, and the account's record with them.
        :raises RapKeyVerificationError: if the key went up twice.
        :raises RapConfigurationError: if the upload could replace a valid key.
        """
        self._check_count(found.record)
        self.first(found)

    def of_accepted(self, found: KeyAnswers) -> None:
        """Check the second upload of a new key that RAP has accepted, and that does not log in.

        :param found: RAP's answers, and the account's record with them.
        :raises RapKeyVerificationError: if the key went up twice, or the upload could replace another key.
        """
        if self._replace_second_key:
            return
        record, old = found.record, errors.old_key_of(found.record)
        if found.foreign:
            raise errors.another_key(Account(record.account), _pending(record), found.foreign[0], old)
        self._check_count(record)
        last_resort = None
        if old and old.last_day and not self._policy.forces_upload(record):
            # Give people time to find the cause. But after the old key's end, no key of ours would be left.
            last_resort = first_day_of_last_resort(old.last_day)
        for allowed_from in (record.uploads_allowed_from, last_resort):
            if allowed_from and self._clock().date() < allowed_from:
                raise errors.not_verified(Account(record.account), _pending(record), old)

    def is_asked_for(self, record: KeyRecord) -> bool:
        """Return whether somebody asks to upload the pending key, although earlier uploads are against it.

        :param record: the account's record.
        """
        return self._replace_second_key or self._policy.forces_upload(record)

    def _check_count(self, record: KeyRecord) -> None:
        pending = _pending(record)
        too_often = pending.may_have_gone_up >= _MOST_UPLOADS or pending.attempts_begun >= _MOST_ATTEMPTS
        if too_often and not self.is_asked_for(record):
            raise errors.not_verified(Account(record.account), _pending(record), errors.old_key_of(record))


def _pending(record: KeyRecord) -> PendingKey:
    if record.pending is None:
        raise conflict(record.account, "the key store")
    return record.pending


def first_day_of_last_resort(last_day: pendulum.Date) -> pendulum.Date:
    """Return the first of the last two days on which RAP is open for all services before a key ends.

    :param last_day: the last day on which the key can log in.
    """
    days = (last_day.subtract(days=number) for number in count())
    return min(islice((day for day in days if is_trading_day(day) and not is_public_holiday(day)), 2))
