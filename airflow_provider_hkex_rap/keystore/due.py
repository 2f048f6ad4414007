"""Decide if the renewal of a key is due, and if an upload is safe (§6.1 to §6.3)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count, islice
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_hkex_rap.keystore.expiry import is_warned
from airflow_provider_hkex_rap.keystore.record import Happened
from airflow_provider_hkex_rap.rap.calendar import is_public_holiday, is_trading_day
from airflow_provider_hkex_rap.rap.expiry_warning import EXPIRY_WARNING_FILE
from airflow_provider_hkex_rap.rap.key_lifecycle import first_renewal_day

if TYPE_CHECKING:
    import pendulum

    from airflow_provider_hkex_rap.keystore.record import KeyRecord
    from airflow_provider_hkex_rap.rap.clock import Clock
    from airflow_provider_hkex_rap.rap.key_folder import KeyFile, KeyFolder


class Due(NamedTuple):
    """A decision if a renewal is due."""

    is_due: bool | None
    """None if only RAP's expiry warning can decide."""
    reason: str
    """The reason, as a sentence."""


class DuePolicy:
    """Decide if the renewal of the current key is due.

    :param clock: gives the time.
    :param renew_before_days: number of days on which renewal is due, the last day included; 1 to 365.
    :param force: renew although it is not due; acts once per DAG run.
    :param run: the DAG run, if there is one.
    :raises RapConfigurationError: if *renew_before_days* is not in that range.
    """

    def __init__(
        self, clock: Clock, *, renew_before_days: int = 30, force: bool = False, run: str | None = None
    ) -> None:
        first_renewal_day(clock().date(), renew_before_days)
        self._clock = clock
        self._renew_before_days = renew_before_days
        self._force = force
        self._run = run

    def by_record(self, record: KeyRecord) -> Due:
        """Decide without a login, by the last day of the current key.

        :param record: the account's record.
        """
        if self._is_forced(record):
            return Due(True, "It was forced.")
        current = record.current
        if current is None or current.last_day is None:
            return Due(None, "The last day of the current key is not known.")
        first = first_renewal_day(current.last_day, self._renew_before_days)
        reason = f"The last day of {current.fingerprint} is {current.last_day}; it is renewed from {first}."
        return Due(self._clock().date() >= first, reason)

    async def by_warning(self, rap: KeyFolder, listing: Sequence[KeyFile], record: KeyRecord) -> Due:
        """Decide within a login: by the record, or if that cannot decide, by RAP's expiry warning (§6.2).

        :param rap: a login.
        :param listing: the files in the key folder.
        :param record: the account's record.
        :raises RapError: if the warning cannot be read.
        """
        due = self.by_record(record)
        if due.is_due is not None:
            return due
        if await is_warned(rap, listing, record, self._clock().date()):
            return Due(True, f"Its last day is not known, and RAP warns of it ({EXPIRY_WARNING_FILE}, §6.2).")
        return Due(False, "Its last day is not known (set 'key_expires'), and RAP does not warn of it yet.")

    def _is_forced(self, record: KeyRecord) -> bool:
        if not self._force or not self._run:
            return self._force
        rejected = {it.fingerprint for it in record.history if it.what is Happened.REJECTED}
        in_this_run = (it for it in record.history if it.run == self._run)
        acts = (Happened.CREATED, Happened.PROMOTED)
        return not {it.fingerprint for it in in_this_run if it.what in acts} - rejected


def first_day_of_last_resort(last_day: pendulum.Date) -> pendulum.Date:
    """Return the first of the last two days on which RAP is open for all services before a key ends.

    :param last_day: the last day on which the key can log in.
    """
    days = (last_day.subtract(days=number) for number in count())
    return min(islice((day for day in days if is_trading_day(day) and not is_public_holiday(day)), 2))
