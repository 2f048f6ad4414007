"""Store private keys in Airflow Variables, which every worker can read."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

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
        :raises KeyStoreError: if the variable exists but cannot be read, if Airflow fails, or if a task
            cannot prove that there is no variable (Airflow 3.2, or several teams).
        """
        name = PREFIX + account
        try:
            text = _get(name)
            # Airflow also answers "not found" if a backend fails.
            if text is not None or not _exists(name):
                return text
            # Another task may have set it between the two calls.
            text = _get(name)
        except _UnprovableError as error:
            raise KeyStoreError(
                f"Airflow returns no variable {name}, and a task cannot prove that there is none: {error}.",
                why="Airflow answers the same if it fails. If the variable exists, a new record would replace"
                " the only copy of the private key.",
                todo="Make the record outside a task: log in once with 'airflow hkex-rap ls', or make a key"
                " with 'airflow hkex-rap register'. Or set the connection's 'key_store' to a directory, or"
                " use Airflow 3.3 without teams.",
                account=account,
            ) from None
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


class _UnprovableError(Exception):
    """A task cannot prove that a variable does not exist; its text is the reason."""


def _exists(name: str) -> bool:
    """Return whether a secrets backend or Airflow's database has the variable.

    :raises _UnprovableError: if a task cannot find out.
    :raises Exception: if a backend or the database fails.
    """
    if _in_task():
        from airflow.sdk.execution_time.supervisor import ensure_secrets_backend_loaded

        keys = _keys_in_task(name)
        return name in keys or _is_in_one_of(ensure_secrets_backend_loaded(), name)
    from airflow.configuration import ensure_secrets_loaded

    return _has_database() and (_is_in_database(name) or _is_in_one_of(ensure_secrets_loaded(), name))


def _is_in_database(name: str) -> bool:
    from airflow.models import Variable as StoredVariable
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        found = select(StoredVariable.id).where(StoredVariable.key == name)
        return session.scalar(found) is not None


def _keys_in_task(prefix: str) -> list[str]:
    """Return the names of the variables in Airflow's database that begin with *prefix*.

    :raises _UnprovableError: if the list is not complete.
    """
    from airflow.sdk import Variable
    from airflow.sdk.configuration import conf

    if not hasattr(Variable, "keys"):
        raise _UnprovableError("Airflow lists the variables to a task from version 3.3 on")
    # A name is unique in the database, but the list of a team's task lacks the variables without a team.
    if conf.getboolean("core", "multi_team", fallback=False):
        raise _UnprovableError("with [core] multi_team, a task can list the variables of its team only")
    return list(Variable.keys(prefix=prefix))


def _is_in_one_of(backends: Iterable[Any], name: str) -> bool:
    """Return whether a secrets backend has the variable.

    Airflow's own search goes on to the next backend if one fails, and so can miss the one that has it.

    :raises Exception: if a backend fails.
    """
    return any(backend.get_variable(key=name) is not None for backend in backends)


def _has_database() -> bool:
    from airflow.models import Variable as StoredVariable
    from airflow.utils.session import create_session
    from sqlalchemy import inspect

    with create_session() as session:
        return bool(inspect(session.connection()).has_table(StoredVariable.__tablename__))
