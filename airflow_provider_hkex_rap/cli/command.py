"""Shared by the commands of ``airflow hkex-rap``: exit status, error messages, and rows of output."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from functools import wraps
from typing import TYPE_CHECKING

from airflow.cli.simple_table import AirflowConsole
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.utils import yaml
from airflow.utils.cli import suppress_logs_and_warning
from sqlalchemy.exc import SQLAlchemyError

from airflow_provider_hkex_rap.hooks.clock import clock_offset
from airflow_provider_hkex_rap.lake.opening import LAKE_VARIABLE, open_lake
from airflow_provider_hkex_rap.lake.refusals import refusing
from airflow_provider_hkex_rap.rap.account import Account, parse_customer
from airflow_provider_hkex_rap.rap.clock import Clock, system_clock
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError, RapError
from airflow_provider_hkex_rap.rap.printable import PATH_CHARACTERS
from airflow_provider_hkex_rap.rap.printable import printable as rap_printable

if TYPE_CHECKING:
    from argparse import Namespace

    from airflow_provider_hkex_rap.lake.store import Lake

FAILED = 1
_PIPE_CLOSED = 128 + 13
"""The exit status of a command that SIGPIPE has ended, as a shell reports it."""
_YES = ("y", "yes")
DEFAULT_CONN_ID = "hkex_rap_default"
NO_CONNECTION = "Make it by 'airflow connections add' or in the UI, with the type hkex_rap."


def command(run: Callable[[Namespace], int]) -> Callable[[Namespace], None]:
    """Make a function a command: its result is the exit status, and an error is one message on stderr.

    :param run: takes the parsed arguments; returns 0, or 1 if it found a problem.
    """

    @wraps(run)
    def ended(args: Namespace) -> None:
        # Without it, Airflow's SDK takes this process for a worker and never reads the database.
        os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"
        _survive_any_terminal()
        try:
            status = run(args)
            sys.stdout.flush()
        except BrokenPipeError:
            status = _end_silently()
        except (RapError, OSError) as error:
            status = _fail(str(error) or type(error).__name__)
        except SQLAlchemyError as error:
            status = _fail(database_unreadable(error))
        except AirflowNotFoundException as error:
            status = _fail(f"{error}. {NO_CONNECTION}")
        if status:
            raise SystemExit(status)

    quiet: Callable[[Namespace], None] = suppress_logs_and_warning(ended)
    return quiet


def database_unreadable(error: SQLAlchemyError) -> str:
    """Return the message that Airflow's database cannot be read.

    :param error: why.
    """
    return f"Airflow's database cannot be read ({type(error).__name__}). Run airflow db migrate."


def _survive_any_terminal() -> None:
    """Let the standard streams take any text: escape the characters that the terminal's encoding lacks.

    Under LANG=C, one § would end a command half-way; so would a name on RAP in Chinese.
    """
    for stream, errors in (
        (sys.stdout, "backslashreplace"),
        (sys.stderr, "backslashreplace"),
        (sys.stdin, "replace"),
    ):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def _fail(message: str) -> int:
    sys.stdout.flush()
    print(message, file=sys.stderr)
    return FAILED


def _end_silently() -> int:
    """Return the exit status after the reader of our output has gone, as ``head`` does."""
    # Else Python complains when it flushes the stream at its exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return _PIPE_CLOSED


def show(rows: Iterable[Mapping[str, object]], output: str) -> None:
    """Print rows as Airflow's own commands do, but with numbers as numbers in ``json`` and ``yaml``.

    :param rows: each with the same keys, which are the headings.
    :param output: ``table``, ``json``, ``yaml`` or ``plain``.
    """
    data = [dict(row) for row in rows]
    # Airflow's console writes every value as text.
    if output == "json":
        print(json.dumps(data, indent=2))
    elif output == "yaml":
        print(yaml.dump(data, sort_keys=False))
    else:
        # Names come from RAP: nothing in them is markup.
        AirflowConsole(markup=False, emoji=False, highlight=False).print_as(data=data, output=output)


def printable(text: str) -> str:
    """Return a text without characters that a terminal would act on.

    :param text: such as a file's name on RAP.
    """
    return rap_printable(text, limit=PATH_CHARACTERS)


def command_clock() -> Clock:
    """Return the clock of a command that uses no connection to RAP."""
    if offset := clock_offset():
        print(f"The clock is shifted by {offset:g} s ([hkex_rap] clock_offset).", file=sys.stderr)
    return system_clock(offset)


def lake_uri(given: str | None) -> str | None:
    """Return the URI of the lake; None if neither the option nor the Variable is set.

    :param given: ``--lake``; None for the Airflow Variable that the DAGs land by.
    """
    from airflow.models.variable import Variable

    found: str | None = given or Variable.get(LAKE_VARIABLE, default_var=None)
    return found


def command_lake(given: str | None) -> Lake:
    """Open the lake that a command works on.

    :param given: ``--lake``; None for the Airflow Variable that the DAGs land by.
    :raises RapConfigurationError: if neither names a lake, or the URI is not valid.
    """
    if uri := lake_uri(given):
        return open_lake(uri)
    raise RapConfigurationError(
        "No lake is given.",
        why=f"There is neither --lake nor the Airflow Variable {LAKE_VARIABLE}.",
        todo="Give the lake's root, such as --lake s3://aws_default@bucket/rap.",
    )


def reading(lake: Lake) -> AbstractContextManager[None]:
    """Turn the errors of a block that reads a lake into errors that name the lake and the next step.

    :param lake: the lake.
    """
    return refusing(f"The lake {lake.uri} cannot be read", lake.uri)


def command_account(name: str) -> Account:
    """Return the RAP user account that ``--account`` names.

    :param name: the text of the option.
    :raises RapConfigurationError: if it is not a RAP user account.
    """
    try:
        return Account(name)
    except RapConfigurationError as error:
        raise RapConfigurationError(
            error.what.replace("The login", "The value of --account"),
            why=error.why,
            todo="Give --account the account as HKEX assigned it, such as DCXYZ001.",
        ) from None


def command_customer(given: str | None, conn_id: str) -> str:
    """Return the DCASS customer code that a command works on.

    :param given: ``--customer``; None for the customer of the connection's account. If the default connection
        does not exist, it is the one customer of the other connections of the type ``hkex_rap``.
    :param conn_id: the Airflow connection of the type ``hkex_rap``.
    :raises RapConfigurationError: if *given* is no customer code; or if it is None, and the connections do
        not tell which customer is meant, or a login is no RAP user account.
    """
    if given is not None:
        return parse_customer(given)
    from airflow_provider_hkex_rap.hooks.login_source import AirflowLoginSource

    try:
        return AirflowLoginSource(conn_id).account.customer
    except AirflowNotFoundException:
        pass
    others = _customers() if conn_id == DEFAULT_CONN_ID else []
    if len(others) == 1:
        return others[0]
    known = f", and the others are of {', '.join(others)}" if others else ""
    raise RapConfigurationError(
        "No customer is given.",
        why=f"There is neither --customer nor the Airflow connection {conn_id}, whose account names one"
        f"{known}.",
        todo="Give the DCASS customer code, such as --customer CXYZ, or the connection by --conn-id.",
        conn_id=conn_id,
    )


def _customers() -> list[str]:
    """Return the customers of the connections that Airflow lists; none if its database cannot be read."""
    from sqlalchemy.exc import SQLAlchemyError

    from airflow_provider_hkex_rap.hooks.connections import list_conn_ids
    from airflow_provider_hkex_rap.hooks.login_source import AirflowLoginSource

    try:
        conn_ids = list_conn_ids()
    except SQLAlchemyError:
        return []
    return sorted({AirflowLoginSource(conn_id).account.customer for conn_id in conn_ids})


def say(text: str) -> None:
    """Print a message for the user on stderr."""
    # Standard output is for the rows alone.
    print(text, file=sys.stderr, flush=True)


def agreed() -> bool:
    """Ask whether to log in: RAP then ends a session that the account has elsewhere (§4.3)."""
    print("Log in? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in _YES
