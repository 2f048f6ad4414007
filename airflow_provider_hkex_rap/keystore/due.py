"""Decide if the renewal of a key is due (§6.1, §6.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_hkex_rap.keystore import renewal_errors as errors
from airflow_provider_hkex_rap.keystore.expiry import About, about
from airflow_provider_hkex_rap.keystore.record import Happened
from airflow_provider_hkex_rap.rap.expiry_warning import EXPIRY_WARNING_FILE
from airflow_provider_hkex_rap.rap.key_lifecycle import first_renewal_day

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.keystore.expiry import ListedWarning
    from airflow_provider_hkex_rap.keystore.record import KeyRecord
    from airflow_provider_hkex_rap.rap.clock import Clock


class Due(NamedTuple):
    """A decision if a renewal is due."""

    is_due: bool
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
        """Decide by the last day of the current key.

        :param record: the account's record.
        """
        if self.is_forced(record):
            return Due(True, "It was forced.")
        current = record.current
        if current is None or current.last_day is None:
            return Due(False, "The last day of the current key is not known; RAP's warning decides (§6.2).")
        first = first_renewal_day(current.last_day, self._renew_before_days)
        reason = (
            f"The last day of {current.fingerprint} is {current.last_day}; its renewal is due from {first}."
        )
        return Due(self._clock().date() >= first, reason)

    def by_warning(self, found: ListedWarning | None, record: KeyRecord) -> Due:
        """Decide by RAP's expiry warning too, which takes precedence over a last day (§6.2).

        :param found: the warning; None if RAP does not warn.
        :param record: the account's record.
        :raises RapKeyVerificationError: if the warning may be about the current key or an older one.
        """
        due, current = self.by_record(record), record.current
        if due.is_due or found is None or current is None:
            return due
        kind = about(found, record)
        if kind is About.UNCLEAR:
            raise errors.unclear_warning(record.account, current, found.day)
        reason = f"RAP warns of {kind} ({EXPIRY_WARNING_FILE} of {found.day}, §6.2)."
        if kind is About.ANOTHER:
            return Due(False, f"{due.reason} {reason}")
        allowed_from = record.uploads_allowed_from
        if allowed_from and self._clock().date() < allowed_from:
            return Due(False, f"{reason} A key was uploaded already; the next may go up from {allowed_from}.")
        return Due(True, reason)

    def is_forced(self, record: KeyRecord) -> bool:
        """Return whether the user asks for a renewal that this run has not made yet.

        :param record: the account's record.
        """
        if not self._force or not self._run:
            return self._force
        rejected = {it.fingerprint for it in record.history if it.what is Happened.REJECTED}
        in_this_run = (it for it in record.history if it.run == self._run)
        acts = (Happened.CREATED, Happened.PROMOTED)
        return not {it.fingerprint for it in in_this_run if it.what in acts} - rejected

    def forces_upload(self, record: KeyRecord) -> bool:
        """Return whether the user asks to upload the pending key again, and this run has not done it yet.

        :param record: the account's record.
        """
        if not self._force or not self._run or not record.pending:
            return self._force
        done = (self._run, Happened.SUBMITTED, record.pending.fingerprint)
        return all((it.run, it.what, it.fingerprint) != done for it in record.history)
