"""Read RAP's warning that a key expires soon, and find out which key it means (§6.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import pendulum

from airflow_provider_hkex_rap.rap.clock import HONG_KONG
from airflow_provider_hkex_rap.rap.expiry_warning import EXPIRY_WARNING_FILE, ExpiryWarning
from airflow_provider_hkex_rap.rap.key_lifecycle import first_warning_day, last_day_of_old_key

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.keystore.record import KeyRecord
    from airflow_provider_hkex_rap.rap.key_folder import KeyFile, KeyFolder


class ListedWarning(NamedTuple):
    """RAP's warning that a key expires soon, and its date (§6.2)."""

    warning: ExpiryWarning
    day: pendulum.Date
    """The day in Hong Kong of the file's mtime; today if the listing has no mtime."""


async def read_warning(
    rap: KeyFolder, listing: Sequence[KeyFile], today: pendulum.Date
) -> ListedWarning | None:
    """Return RAP's warning, or None if the folder has none.

    :param rap: a login.
    :param listing: the files in the key folder.
    :param today: today's date in Hong Kong.
    :raises RapError: if the warning is listed but cannot be read.
    """
    for file in listing:
        if file.name == EXPIRY_WARNING_FILE:
            day = today if file.mtime is None else pendulum.from_timestamp(file.mtime, HONG_KONG).date()
            return ListedWarning(ExpiryWarning.parse(await rap.read_key_file(file.name)), day)
    return None


def is_about_current(found: ListedWarning, record: KeyRecord) -> bool:
    """Return whether a warning is about the current key.

    The fingerprints in the warning decide. If it has none, its date decides.

    :param found: the warning.
    :param record: the account's record.
    """
    current = record.current
    if current is None:
        return True
    if found.warning.fingerprints:
        return current.fingerprint in found.warning.fingerprints
    if current.last_day and found.day >= first_warning_day(current.last_day):
        return True
    if current.uploaded:
        return False
    # RAP warns of an older key until it removes that key (§6.2). After that, the warning is about the current
    # key, even if somebody typed a later last day.
    older = any(entry.fingerprint != current.fingerprint for entry in record.became_current)
    since = current.promoted if older or current.last_day else None
    return since is None or found.day > last_day_of_old_key(since, None)


async def is_warned(
    rap: KeyFolder, listing: Sequence[KeyFile], record: KeyRecord, today: pendulum.Date
) -> bool:
    """Return whether RAP warns of the current key; a warning about a replaced key is ignored (§6.2).

    :param rap: a login.
    :param listing: the files in the key folder.
    :param record: the account's record.
    :param today: today's date in Hong Kong.
    :raises RapError: if the warning is listed but cannot be read.
    """
    found = await read_warning(rap, listing, today)
    return found is not None and is_about_current(found, record)
