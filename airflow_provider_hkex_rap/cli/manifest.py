"""``airflow hkex-rap manifest``: show the entries of the manifest, or the current reports."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from airflow_provider_hkex_rap.cli.command import (
    FAILED,
    command,
    command_customer,
    command_lake,
    printable,
    reading,
    say,
    show,
)
from airflow_provider_hkex_rap.lake.catalog import Day, choose_reports, read_days
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.folders import Folder
from airflow_provider_hkex_rap.rap.trading_day import parse_business_date

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable, Iterator, Sequence

    import pendulum

    from airflow_provider_hkex_rap.lake.entry import Entry


@command
def manifest(args: Namespace) -> int:
    """Print a row for each entry; fail if a part of the manifest cannot be read."""
    folders = [Folder.parse(args.folder)] if args.folder else list(Folder)
    dates = _dates(args.business_date or ())
    customer = command_customer(args.customer, args.conn_id)
    lake = command_lake(args.lake)
    with reading(lake):
        days = list(read_days(lake, customer, folders, dates))
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


def _dates(given: Sequence[str]) -> tuple[pendulum.Date | None, pendulum.Date | None]:
    """Return the first and the last business date; a None leaves that end open.

    :raises RapConfigurationError: if ``--business-date`` has another form.
    """
    if len(given) > 2:
        raise _wrong_dates(given, "These are more than two dates.")
    dates = [parse_business_date(text, field="--business-date") for text in given] or [None]
    first, last = dates[0], dates[-1]
    if first and last and first > last:
        raise _wrong_dates(given, "The first date is after the last one.")
    return first, last


def _wrong_dates(given: Sequence[str], why: str) -> RapConfigurationError:
    return RapConfigurationError(
        f"--business-date {' '.join(given)} is not a first and a last business date.",
        why=why,
        todo="Give one date, or the first and the last one: --business-date 2026-11-16 2026-11-20.",
    )


def _entries(days: Iterable[Day], report: str | None) -> Iterator[Entry]:
    return (entry for day in days for entry in day.entries if report in (None, entry.report))


def _print(entries: list[Entry], output: str) -> None:
    if output in ("json", "yaml"):
        show(map(asdict, entries), output)
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
