"""Private keys in Airflow Variables, which every worker of a cluster sees."""

from __future__ import annotations

import sys

from airflow_provider_hkex_rap.keystore.store import KeyStoreError, conflict

PREFIX = "hkex_rap_private_key_"
"""Begins the names of the variables; Airflow's UI hides values of names with ``private_key``."""


class VariableKeyStore:
    """Keeps each account's record in the variable ``hkex_rap_private_key_<ACCOUNT>``.

    Airflow encrypts variables by its Fernet key; without one they stand in the database as they are, so set
    ``private_key_passphrase`` there.
    """

    def read(self, account: str) -> str | None:
        """Return the text kept for an account; None where there is no such variable.

        :raises KeyStoreError: Airflow does not give the variable although it is there.
        """
        name = PREFIX + account
        try:
            text = _get(name)
            # Airflow answers "not found" for a backend that fails, too.
            if text is not None or not _exists(name):
                return text
            # Another task may have set it between the two questions.
            text = _get(name)
        except Exception as error:  # whatever backend is configured, with errors of its own
            raise self._error("read", account, error) from None
        if text is None:
            raise self._error("read", account, None)
        return text

    def write(self, account: str, text: str, *, replacing: str | None) -> None:
        """Set the account's variable and read it back.

        :raises KeyStoreConflict: it holds something else than *replacing*.
        :raises KeyStoreError: it cannot be set, or a secrets backend gives another value for it.
        """
        name = PREFIX + account
        if self.read(account) != replacing:
            raise conflict(account, f"the variable {name}")
        if not _in_task() and not _has_database():
            raise KeyStoreError(
                f"The variable {name} cannot be set: Airflow has no database here.",
                why="This is neither a task nor a machine where 'airflow db migrate' has run.",
                todo="Run it as a task, or set the connection's 'key_store' to a directory.",
                account=account,
            )
        try:
            _set(name, text)
        except Exception as error:  # whatever backend is configured, with errors of its own
            raise self._error("set", account, error) from None
        if self.read(account) != text:
            raise KeyStoreError(
                f"The variable {name} was set, but reads as something else.",
                why="A secrets backend holds a variable of that name too, and Airflow reads that one; or"
                " another task has set it at the same moment.",
                todo="Remove it from the secrets backend, or use another 'key_store'.",
                account=account,
            )

    def _error(self, verb: str, account: str, error: Exception | None) -> KeyStoreError:
        # The words of an error may quote the value.
        reason = type(error).__name__ if error else "it is there, but Airflow does not give it"
        return KeyStoreError(
            f"Cannot {verb} the variable {PREFIX}{account}: {reason}.",
            why="Airflow's database, API server or secrets backend did not answer as it should.",
            todo="See their logs; a later try goes on from the last step that was kept.",
            account=account,
        )


def _in_task() -> bool:
    # The variable of airflow.sdk works in a task only, the one of airflow.models everywhere else.
    return hasattr(sys.modules.get("airflow.sdk.execution_time.task_runner"), "SUPERVISOR_COMMS")


def _get(name: str) -> str | None:
    if _in_task():
        from airflow.sdk import Variable

        found = Variable.get(name, default=None)
    else:
        from airflow.models import Variable as StoredVariable

        # In a notebook Airflow may have no database, and then no variable either.
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
    """Return whether Airflow's database has the variable; raise where it cannot say."""
    if _in_task():
        from airflow.sdk import Variable

        # Airflow 3.2 has no keys.
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
