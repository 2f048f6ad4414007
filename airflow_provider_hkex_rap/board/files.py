"""The files of one cell of the board: one business date of one folder."""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING, Any

from airflow_provider_hkex_rap.board.lakes import lake_with, open_configured, reading
from airflow_provider_hkex_rap.lake.catalog import choose_reports, read_days
from airflow_provider_hkex_rap.rap.account import parse_customer
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.folders import Folder
from airflow_provider_hkex_rap.rap.printable import PATH_CHARACTERS, printable
from airflow_provider_hkex_rap.rap.trading_day import parse_business_date

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.lake.entry import Entry

_OF_LOGIN = ("account", "site", "address", "client_key_fingerprint", "host_key_fingerprint")


def files(
    customer: str,
    folder: str,
    day: str,
    *,
    lake: str | None = None,
    dags: Container[str] = (),
    accounts: Container[str] = (),
) -> dict[str, Any]:
    """Return the files of one cell as JSON, with the run that landed each.

    :param customer: the DCASS customer code, such as ``CXYZ``.
    :param folder: the folder on RAP, such as ``DCASS``.
    :param day: the business date, in ISO form.
    :param lake: the URI of a lake of the board; None for the first that has the customer.
    :param dags: the ids of the DAGs that the user may read; the runs of others are left out.
    :param accounts: the accounts that the user may see; the logins of others are left out.
    :raises RapConfigurationError: if an argument is not of the valid form, or the board does not show the
        lake.
    :raises LakeError: if the lake cannot be read.
    """
    code, where, when = parse_customer(customer), Folder.parse(folder), parse_business_date(day)
    if when is None:
        raise RapConfigurationError("The address has no 'day'.", todo="Add it as YYYY-MM-DD.")
    opened = open_configured(lake) if lake else lake_with(code)
    with reading(opened.uri):
        days = list(read_days(opened, code, [where], when))
    current = {entry.uri for entry in choose_reports(days, report=None, current=True)}
    landed = list(choose_reports(days, report=None, current=False))
    refused = [entry for each in days for entry in each.entries if not entry.uri]
    return {
        "customer": code,
        "folder": where.value,
        "day": when.isoformat(),
        "problems": [printable(problem, limit=PATH_CHARACTERS) for each in days for problem in each.problems],
        "files": [_file(entry, entry.uri in current, dags, accounts) for entry in (*landed, *refused)],
    }


def _file(entry: Entry, is_current: bool, dags: Container[str], accounts: Container[str]) -> dict[str, Any]:
    return {
        "name": printable(entry.text, limit=PATH_CHARACTERS),
        "report": printable(entry.report, limit=PATH_CHARACTERS),
        "size": entry.size,
        "sha256": entry.sha256,
        "uri": entry.uri and printable(entry.uri, limit=PATH_CHARACTERS),
        "supersedes": entry.supersedes and printable(entry.supersedes, limit=PATH_CHARACTERS),
        "current": is_current,
        "disposition": entry.disposition,
        "reason": printable(entry.reason, limit=PATH_CHARACTERS),
        "mtime": entry.mtime,
        "committed": entry.committed,
        "run": _run(entry, dags),
        "login": {name: getattr(entry, name) for name in _OF_LOGIN} if entry.account in accounts else None,
    }


def _run(entry: Entry, dags: Container[str]) -> dict[str, Any] | None:
    """Return the task that landed a file; None outside a run, or if the user may not read its DAG."""
    if not (entry.dag and entry.run and entry.task) or entry.dag not in dags:
        return None
    return {
        "dag": entry.dag,
        "run": entry.run,
        "task": entry.task,
        "map_index": entry.map_index,
        "try": entry.try_number,
    }
