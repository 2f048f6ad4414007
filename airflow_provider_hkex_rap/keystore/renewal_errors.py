"""The errors of a renewal: what happened, why, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_hkex_rap.keystore.store import KeyStoreError
from airflow_provider_hkex_rap.rap.errors import (
    RapConfigurationError,
    RapKeyRejected,
    RapKeyVerificationError,
)
from airflow_provider_hkex_rap.rap.key_lifecycle import OVERLAP_DAYS
from airflow_provider_hkex_rap.rap.result_file import Rejected

if TYPE_CHECKING:
    import pendulum

    from airflow_provider_hkex_rap.keystore.answers import Answer
    from airflow_provider_hkex_rap.keystore.record import KeyRecord, PendingKey, StoredKey
    from airflow_provider_hkex_rap.rap.account import Account


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
        why="Another upload has replaced it (guide §6.3), or HKEX has removed it.",
        todo=f"Another key of ours logs in{through}. Before it ends, set the connection to the key that was"
        " uploaded, or register a new one (§5).",
        account=account.name,
        fingerprint=current.fingerprint,
    )


def rejected(account: Account, pending: PendingKey, answer: Answer, old: StoredKey | None) -> RapKeyRejected:
    """Return the error of a ``.rej`` (§6).

    :param account: the RAP user account.
    :param pending: the rejected key.
    :param answer: RAP's answer.
    :param old: the key that still logs in, with its last day.
    """
    code, message = Rejected.parse(answer.content)
    return RapKeyRejected(
        f"RAP rejected the new key of {account} ({answer.file}): {code} {message}.",
        why="The code is HKEX's. A copy of the result file is in the key store (§6).",
        todo=f"The old key still works{_through(old)}. Ask HKEX what the code means. The next run makes a new"
        " key.",
        account=account.name,
        fingerprint=pending.fingerprint,
        code=code,
        message=message,
        result_file=answer.file,
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
    return RapKeyVerificationError(
        f"The new key {pending.fingerprint} of {account} does not log in; RAP {answer}.",
        why="A new key is effective immediately if it was uploaded successfully (§6).",
        todo=f"The old key still works{_through(old)}. A later try continues with the same new key. If that"
        " fails too, ask HKEX about this upload before the old key ends.",
        account=account.name,
        fingerprint=pending.fingerprint,
        result_file=pending.accepted,
    )


def too_early(account: Account, allowed_from: pendulum.Date) -> RapConfigurationError:
    """Return the error of an upload that could replace a valid key (§6.3).

    :param account: the RAP user account.
    :param allowed_from: the first day on which an upload is safe.
    """
    uploaded = allowed_from.subtract(days=OVERLAP_DAYS)
    return RapConfigurationError(
        f"No new key of {account} is uploaded before {allowed_from}.",
        why=f"A key was uploaded on {uploaded}, less than {OVERLAP_DAYS} days ago. RAP may hold two keys, and"
        " a third would replace the newer one (guide §6.3).",
        todo="If somebody has renewed the key by hand, set the connection to that key; it becomes current by"
        " its first login. Only '--replace-second-key' on the command line uploads nevertheless.",
        account=account.name,
        allowed_from=allowed_from.isoformat(),
    )


def _through(old: StoredKey | None) -> str:
    return f" through {old.last_day}" if old and old.last_day else ""
