"""The result of a renewal, as tasks and commands hand it on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_hkex_rap.rap.key_lifecycle import login_days_left

if TYPE_CHECKING:
    import pendulum

    from airflow_provider_hkex_rap.keystore.record import KeyRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalOutcome:
    """The result of a renewal; contains no key material.

    :param account: the RAP user account.
    :param renewed: whether a new key became current.
    :param reason: why, or why not, as a sentence.
    :param fingerprint: the current key's (§3.2.2); None if no key is known yet.
    :param last_day: the current key's last day (ISO, HKT); None if it is not known.
    :param days_left: days on which the current key can log in, today included; None if that is not known.
    :param previous_fingerprint: the fingerprint of the previous key, while it is kept.
    :param previous_last_day: the last day (ISO, HKT) of the previous key.
    """

    account: str
    renewed: bool
    reason: str
    fingerprint: str | None
    last_day: str | None
    days_left: int | None
    previous_fingerprint: str | None
    previous_last_day: str | None

    @classmethod
    def of(cls, record: KeyRecord, today: pendulum.Date, *, renewed: bool, reason: str) -> RenewalOutcome:
        """Return the outcome that leaves the account with these keys.

        :param record: the account's record after the renewal.
        :param today: today's date in Hong Kong.
        :param renewed: whether a new key became current.
        :param reason: why, or why not, as a sentence.
        """
        current, previous = record.current, record.previous
        last_day = current.last_day if current else None
        return cls(
            account=record.account,
            renewed=renewed,
            reason=reason,
            fingerprint=current.fingerprint if current else None,
            last_day=last_day.isoformat() if last_day else None,
            days_left=login_days_left(last_day, today) if last_day else None,
            previous_fingerprint=previous.fingerprint if previous else None,
            previous_last_day=previous.last_day.isoformat() if previous and previous.last_day else None,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary of JSON values."""
        return asdict(self)
