"""Read RAP's warning of a key that expires, and tell which key it is about (§6.2)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

import pendulum

from airflow_provider_hkex_rap.rap.clock import HONG_KONG
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.expiry_warning import EXPIRY_WARNING_FILE, ExpiryWarning
from airflow_provider_hkex_rap.rap.key_lifecycle import first_warning_day, last_day_of_old_key
from airflow_provider_hkex_rap.rap.keys import PublicKey

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.keystore.record import KeyRecord, StoredKey
    from airflow_provider_hkex_rap.rap.key_folder import KeyFile, KeyFolder


WARNING_CHARACTERS = 2_000
"""The part of a warning's text that a record keeps."""


class ListedWarning(NamedTuple):
    """RAP's warning that a key expires soon, and its date (§6.2)."""

    warning: ExpiryWarning
    day: pendulum.Date
    """The day in Hong Kong of the file's mtime; without an mtime, the day on which it was seen first."""


class About(StrEnum):
    """The key that a warning is about."""

    CURRENT = "the current key"
    ANOTHER = "another key"
    UNCLEAR = "the current key or the one before it"
    """It names no key, and the current key has logged in for less than 14 days."""


async def read_warning(
    rap: KeyFolder, listing: Sequence[KeyFile], record: KeyRecord, today: pendulum.Date
) -> ListedWarning | None:
    """Return RAP's warning, or None if the folder has none.

    :param rap: a login.
    :param listing: the files in the key folder.
    :param record: the account's record, with the last warning.
    :param today: today's date in Hong Kong.
    :raises RapError: if the warning is listed but cannot be read.
    """
    for file in listing:
        if file.name == EXPIRY_WARNING_FILE:
            warning = ExpiryWarning.parse(await rap.read_key_file(file.name))
            return ListedWarning(warning, _day(warning, file, record, today))
    return None


def _day(warning: ExpiryWarning, file: KeyFile, record: KeyRecord, today: pendulum.Date) -> pendulum.Date:
    """Return the day of a warning: that of its mtime, or on which its text was seen first."""
    if file.mtime is not None:
        return pendulum.from_timestamp(file.mtime, HONG_KONG).date()
    kept = record.warning
    return kept.day if kept and kept.text == warning.text[:WARNING_CHARACTERS] else today


def about(found: ListedWarning, record: KeyRecord) -> About:
    """Return which key a warning is about.

    The fingerprints in it decide. If it has none, its day decides: RAP warns of an old key until it removes
    that key, at the latest 13 days after the upload of the current one (§6.1, §6.2).

    :param found: the warning.
    :param record: the account's record.
    """
    current = record.current
    if current is None:
        return About.CURRENT
    if found.warning.fingerprints:
        return About.CURRENT if _names(current) & set(found.warning.fingerprints) else About.ANOTHER
    if current.last_day and found.day >= first_warning_day(current.last_day):
        return About.CURRENT
    if current.uploaded:
        return About.ANOTHER if _has_older_key(found, current) else About.CURRENT
    return About.UNCLEAR if _has_older_key(found, current) else About.CURRENT


def is_of_replaced_key(found: ListedWarning, record: KeyRecord) -> bool:
    """Return whether a warning is about a key that the current one has replaced, and that RAP still holds.

    :param found: the warning.
    :param record: the account's record.
    """
    current = record.current
    if current is None or not _has_older_key(found, current):
        return False
    kind = about(found, record)
    has_older = any(entry.fingerprint != current.fingerprint for entry in record.became_current)
    return kind is About.ANOTHER or (kind is About.UNCLEAR and has_older)


def _has_older_key(found: ListedWarning, current: StoredKey) -> bool:
    """Return whether RAP may have had an older key beside the current one when it wrote a warning (§6.1)."""
    since = current.uploaded or current.promoted
    return since is not None and found.day <= last_day_of_old_key(since, None)


def _names(key: StoredKey) -> set[str]:
    """Return the fingerprints of a key, as warnings may give them."""
    try:
        return {key.fingerprint, PublicKey.of_private_key(key.private_key).sha256_fingerprint}
    except RapConfigurationError:
        return {key.fingerprint}
