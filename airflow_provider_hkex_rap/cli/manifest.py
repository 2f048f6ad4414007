"""``airflow hkex-rap manifest``: show the entries of the manifest, or the current reports."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from airflow.utils import yaml

from airflow_provider_hkex_rap.cli.command import (
    FAILED,
    command,
    command_customer,
    command_lake,
    printable,
    say,
    show,
)
from airflow_provider_hkex_rap.lake.catalog import Day, choose_reports, read_days
from airflow_provider_hkex_rap.rap.folders import Folder

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable, Iterator
    from datetime import date

    from airflow_provider_hkex_rap.lake.entry import Entry


@command
def manifest(args: Namespace) -> int:
    """Print a row for each entry; fail if a part of the manifest cannot be read."""
    folders = [Folder.parse(args.folder)] if args.folder else list(Folder)
    customer = command_customer(args.customer, args.conn_id)
    lake = command_lake(args.lake)
    dates: list[date | str | None] = args.business_date or []
    days = list(read_days(lake, customer, folders, dates[0] if len(dates) == 1 else dates or None))
    chosen = choose_reports(days, report=args.report, current=True)
    entries = list(chosen if args.current else _entries(days, args.report))
    _print(entries, args.output)
    if not entries:
        say(
            f"{lake.uri} has no such entries of {customer}: check the lake's URI, the customer code, and the"
            " other options."
        )
    problems = [problem for day in days for problem in day.problems]
    for problem in problems:
        say(f"Left out: {printable(problem)}. 'airflow hkex-rap verify' says what to do.")
    return FAILED if problems else 0


def _entries(days: Iterable[Day], report: str | None) -> Iterator[Entry]:
    return (entry for day in days for entry in day.entries if report in (None, entry.report))


def _print(entries: list[Entry], output: str) -> None:
    # Not by `show`, which writes numbers as text.
    if output == "json":
        print(json.dumps([asdict(entry) for entry in entries], indent=2))
    elif output == "yaml":
        print(yaml.dump([asdict(entry) for entry in entries], sort_keys=False))
    elif entries:
        show(map(_row, entries), output)


def _row(entry: Entry) -> dict[str, object]:
    # A URI is too long for a table; json and yaml have it.
    return {
        "business_date": entry.business_date,
        "folder": entry.folder,
        "report": printable(entry.report),
        "name": printable(entry.text),
        "size": entry.size,
        "disposition": entry.disposition,
        "landed_as": printable((entry.uri or "").rpartition("/")[2]),
    }
