"""The errors of a renewal: what happened, why, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pendulum

from airflow_provider_hkex_rap.keystore.store import KeyStoreError
from airflow_provider_hkex_rap.rap.clock import HONG_KONG
from airflow_provider_hkex_rap.rap.errors import (
    RapConfigurationError,
    RapKeyRejected,
    RapKeyVerificationError,
)
from airflow_provider_hkex_rap.rap.expiry_warning import EXPIRY_WARNING_FILE
from airflow_provider_hkex_rap.rap.folders import KEY_FOLDER
from airflow_provider_hkex_rap.rap.key_lifecycle import OVERLAP_DAYS

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.keystore.answers import Answer
    from airflow_provider_hkex_rap.keystore.record import KeyRecord, PendingKey, StoredKey
    from airflow_provider_hkex_rap.rap.account import Account
    from airflow_provider_hkex_rap.rap.key_folder import KeyFile
    from airflow_provider_hkex_rap.rap.result_file import Rejected


def old_key_of(record: KeyRecord) -> StoredKey | None:
    """Return the key that stays valid if RAP has accepted the pending one; None if there is none."""
    submitted = record.pending and record.pending.submitted
    return record.old_key_after_upload(submitted) if submitted else record.current


def impossible_key_size(key_size: int) -> RapConfigurationError:
    """Return the error of a *key_size* that HKEX does not accept (§3.2.1)."""
    return RapConfigurationError(
        f"'key_size' of {key_size!r} is not valid.",
        why="RAP accepts RSA keys of 2048 or 4096 bits (guide §3.2.1).",
        todo="Leave it at 4096.",
        key_size=key_size,
    )


def not_stored(account: Account) -> KeyStoreError:
    """Return the error of a key that has logged in, but is not in the key store."""
    return KeyStoreError(
        f"The key store does not have the key of {account} that has logged in.",
        why="A renewal needs the current key in the key store, and the store could not be written: the log"
        " above says why.",
        todo="Make the key store writable. Until then, the current key keeps working.",
        account=account.name,
    )


def refused_key(account: Account, current: StoredKey, previous: StoredKey | None) -> RapKeyVerificationError:
    """Return the error of a current key that RAP refuses, while it accepts another key of the account.

    :param account: the RAP user account.
    :param current: the refused key.
    :param previous: the previous key, if there is one.
    """
    through = f" through {previous.last_day}" if previous and previous.last_day else ""
    return RapKeyVerificationError(
        f"RAP has refused the current key {current.fingerprint} of {account} since {current.refused}.",
        why="Another upload has replaced it (guide §6.3), or HKEX has removed it. Nothing was uploaded, since"
        " that could replace the other key.",
        todo=f"Another key of ours logs in{through}. Before it ends, set the connection to the key that was"
        " uploaded, or register a new one (§5).",
        account=account.name,
        fingerprint=current.fingerprint,
    )


def unclear_warning(account: str, current: StoredKey, day: pendulum.Date) -> RapKeyVerificationError:
    """Return the error of a warning that names no key, while the current key is new here (§6.2).

    :param account: the RAP user account.
    :param current: the current key.
    :param day: the day of the warning.
    """
    error = RapKeyVerificationError(
        f"RAP warns that a key of {account} expires soon ({EXPIRY_WARNING_FILE} of {day}) and names none.",
        why=f"The current key {current.fingerprint} has logged in only since {current.promoted}, so it"
        " may be about the key before it.",
        todo=f"If it is {current.fingerprint}, run 'airflow hkex-rap renew --force' within its last 14 days,"
        " else wait: 14 days after its first login, a warning counts for it. Nothing was uploaded.",
        account=account,
        fingerprint=current.fingerprint,
    )
    error.retryable = False
    return error


def not_processed(account: Account, file: KeyFile, old: StoredKey | None) -> RapKeyVerificationError:
    """Return the error of a key file in the folder that RAP has not processed.

    :param account: the RAP user account.
    :param file: the key file.
    :param old: the key that still logs in, with its last day.
    """
    at = "an unknown time"
    if file.mtime is not None:
        at = f"{pendulum.from_timestamp(file.mtime, HONG_KONG):YYYY-MM-DD HH:mm} HKT"
    return RapKeyVerificationError(
        f"RAP has not processed our upload of {at}: {KEY_FOLDER}/{file.name} is still there.",
        why="RAP answers immediately (§6), and denies an upload while the file is there (§4.2). Nothing was"
        " sent.",
        todo=f"The old key still works{_through(old)}. A later try looks again; if it persists, ask HKEX. If"
        " the answer was missed, 'airflow hkex-rap renew --force' uploads the same key again.",
        account=account.name,
        path=f"{KEY_FOLDER}/{file.name}",
    )


def rejected(
    account: Account, pending: PendingKey, answer: Rejected, old: StoredKey | None
) -> RapKeyRejected:
    """Return the error of a ``.rej`` (§6).

    :param account: the RAP user account.
    :param pending: the rejected key, with the name of the result file.
    :param answer: the content of the result file.
    :param old: the key that still logs in, with its last day.
    """
    return RapKeyRejected(
        f"RAP rejected the new key of {account} ({pending.rejected}): {answer.code} {answer.message}.",
        why="The code is HKEX's. A copy of the result file is in the key store (§6).",
        todo=f"The old key still works{_through(old)}. Ask HKEX what the code means. The next run makes a new"
        " key.",
        account=account.name,
        fingerprint=pending.fingerprint,
        code=answer.code,
        message=answer.message,
        result_file=pending.rejected,
    )


def another_key(
    account: Account, pending: PendingKey, answer: Answer, old: StoredKey | None
) -> RapKeyVerificationError:
    """Return the error of a ``.rcvd`` that names another key.

    :param account: the RAP user account.
    :param pending: the key that we uploaded.
    :param answer: RAP's answer.
    :param old: the key that still logs in, with its last day.
    """
    return RapKeyVerificationError(
        f"RAP took the key {answer.fingerprint} for {account} ({answer.file}), not the uploaded"
        f" {pending.fingerprint}.",
        why="Somebody else has uploaded a key for this account, or our upload was damaged on its way.",
        todo=f"The old key still works{_through(old)}. Find out who uploaded the other key. A later try tests"
        " if the new key logs in. It uploads nothing while that could replace the other key (§6.3).",
        account=account.name,
        fingerprint=pending.fingerprint,
        received=answer.fingerprint,
        result_file=answer.file,
    )


def not_verified(account: Account, pending: PendingKey, old: StoredKey | None) -> RapKeyVerificationError:
    """Return the error of a new key that does not log in after its upload.

    :param account: the RAP user account.
    :param pending: the new key.
    :param old: the key that still logs in, with its last day.
    """
    answer = f"accepted it ({pending.accepted})" if pending.accepted else "gave no result file"
    if pending.may_have_gone_up < 2:
        again = (
            "A later try continues with the same new key. If that fails too, ask HKEX about this upload"
            " before the old key ends."
        )
    else:
        again = (
            "It went up twice, and does not go up again: ask HKEX about the uploads before the old key ends."
            " 'airflow hkex-rap renew --force' uploads it once more."
        )
    return RapKeyVerificationError(
        f"The new key {pending.fingerprint} of {account} does not log in; RAP {answer}.",
        why="A new key is effective immediately if it was uploaded successfully (§6).",
        todo=f"The old key still works{_through(old)}. {again}",
        account=account.name,
        fingerprint=pending.fingerprint,
        result_file=pending.accepted,
        uploads=pending.may_have_gone_up,
    )


def too_early(account: Account, allowed_from: pendulum.Date, record: KeyRecord) -> RapConfigurationError:
    """Return the error of an upload that could replace a valid key (§6.3).

    :param account: the RAP user account.
    :param allowed_from: the first day on which an upload is safe.
    :param record: the account's record.
    """
    uploaded, foreign = allowed_from.subtract(days=OVERLAP_DAYS), record.foreign_upload
    current = record.current
    todo = "Only '--replace-second-key' on the command line uploads nevertheless."
    if foreign and current and current.last_day:
        todo = (
            f"The current key {current.fingerprint} ends on {current.last_day}. Until then, set the"
            f" connection to the key that was uploaded by hand ({foreign.fingerprint}), which becomes current"
            f" by its first login, or register a new one (§5). {todo}"
        )
    return RapConfigurationError(
        f"No new key of {account} is uploaded before {allowed_from}.",
        why=f"A key was uploaded on {uploaded}, less than {OVERLAP_DAYS} days ago. RAP may hold two keys, and"
        " a third would replace the newer one (guide §6.3).",
        todo=todo,
        account=account.name,
        allowed_from=allowed_from.isoformat(),
        last_day=current.last_day.isoformat() if current and current.last_day else None,
    )


def _through(old: StoredKey | None) -> str:
    return f" through {old.last_day}" if old and old.last_day else ""
