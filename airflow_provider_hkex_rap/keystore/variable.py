"""Store private keys in Airflow Variables, which every worker can read."""

from __future__ import annotations

import sys

from airflow_provider_hkex_rap.keystore.store import KeyStoreError, conflict

PREFIX = "hkex_rap_private_key_"
"""Prefix of the variables' names. Airflow's UI hides the value if the name contains ``private_key``."""


class VariableKeyStore:
    """Store each account's record in the variable ``hkex_rap_private_key_<ACCOUNT>``.

    Airflow encrypts variables with its Fernet key. If there is no Fernet key, the database has them in the
    clear; then set the connection's ``private_key_passphrase``.
    """

    def read(self, account: str) -> str | None:
        """Return the text of an account; None if there is no such variable.

        :param account: the RAP user account.
        :raises KeyStoreError: if the variable exists but cannot be read, or Airflow fails.
        """
        name = PREFIX + account
        try:
            text = _get(name)
            # Airflow also answers "not found" if a backend fails.
            if text is not None or not _exists(name):
                return text
            # Another task may have set it between the two calls.
            text = _get(name)
        except Exception as error:  # each secrets backend has its own errors
            raise self._error("read", account, error) from None
        if text is None:
            raise self._error("read", account, None)
        return text

    def write(self, account: str, text: str, *, replacing: str | None) -> None:
        """Set the account's variable and read it back.

        :param account: the RAP user account.
        :param text: the new text.
        :param replacing: the text that the variable must have now; None if it must not exist.
        :raises KeyStoreConflict: if the variable has another text.
        :raises KeyStoreError: if it cannot be set, or a secrets backend returns another text for it.
        """
        name = PREFIX + account
        if self.read(account) != replacing:
            raise conflict(account, f"the variable {name}")
        if not _in_task() and not _has_database():
            raise KeyStoreError(
                f"The variable {name} cannot be set: Airflow has no database here.",
                why="This is not a task, and 'airflow db migrate' has not run on this machine.",
                todo="Run this in a task, or set the connection's 'key_store' to a directory.",
                account=account,
            )
        try:
            _set(name, text)
        except Exception as error:  # each secrets backend has its own errors
            raise self._error("set", account, error) from None
        if self.read(account) != text:
            raise KeyStoreError(
                f"The variable {name} was set, but Airflow reads another text for it.",
                why="A secrets backend has a variable with the same name, which Airflow reads first;"
                " or another task has set the variable at the same moment.",
                todo="Remove the variable from the secrets backend, or use another 'key_store'.",
                account=account,
            )

    def _error(self, verb: str, account: str, error: Exception | None) -> KeyStoreError:
        # The message of the error may quote the value.
        reason = type(error).__name__ if error else "it exists, but Airflow does not return it"
        return KeyStoreError(
            f"Cannot {verb} the variable {PREFIX}{account}: {reason}.",
            why="Airflow's database, API server or secrets backend failed.",
            todo="See their logs. A later try continues from the last step that was stored.",
            account=account,
        )


def _in_task() -> bool:
    # airflow.sdk.Variable works in tasks only, and airflow.models.Variable everywhere else.
    return hasattr(sys.modules.get("airflow.sdk.execution_time.task_runner"), "SUPERVISOR_COMMS")


def _get(name: str) -> str | None:
    if _in_task():
        from airflow.sdk import Variable

        found = Variable.get(name, default=None)
    else:
        from airflow.models import Variable as StoredVariable

        # In a notebook Airflow may have no database, and then it has no variables.
        found = StoredVariable.get(name, default_var=None) if _has_database() else None
    return None if found is None else str(found)


def _set(name: str, text: str) -> None:
    if _in_task():
        from airflow.sdk import Variable

        Variable.set(name, text)
    else:
        from airflow.models import Variable as StoredVariable

        StoredVariable.set(name, text)


def _exists(name: str) -> bool:
    """Return whether Airflow's database has the variable; raise an error if the database fails."""
    if _in_task():
        from airflow.sdk import Variable

        # Airflow 3.2 does not have Variable.keys.
        return hasattr(Variable, "keys") and name in list(Variable.keys(prefix=name))
    from airflow.models import Variable as StoredVariable
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        found = select(StoredVariable.id).where(StoredVariable.key == name)
        return _has_database() and session.scalar(found) is not None


def _has_database() -> bool:
    from airflow.models import Variable as StoredVariable
    from airflow.utils.session import create_session
    from sqlalchemy import inspect

    with create_session() as session:
        return bool(inspect(session.connection()).has_table(StoredVariable.__tablename__))
