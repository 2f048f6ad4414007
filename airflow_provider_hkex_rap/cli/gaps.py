"""``airflow hkex-rap gaps``: landed and missing reports of the days that RAP still keeps."""

from __future__ import annotations

import asyncio
import sys
from datetime import date
from typing import TYPE_CHECKING

from airflow_provider_hkex_rap.cli.command import (
    FAILED,
    command,
    command_clock,
    command_customer,
    command_lake,
    printable,
    reading,
    show,
)
from airflow_provider_hkex_rap.lake.manifest import window as manifest_window
from airflow_provider_hkex_rap.rap.calendar import Calendar
from airflow_provider_hkex_rap.rap.folders import Folder, Service, parse_folders
from airflow_provider_hkex_rap.rap.judgement import USUAL
from airflow_provider_hkex_rap.rap.retention import days_until_removed

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable, Sequence

    import pendulum

    from airflow_provider_hkex_rap.lake.grid import Cell, Landed
    from airflow_provider_hkex_rap.lake.store import Lake
    from airflow_provider_hkex_rap.rap.judgement import Report

_DAGS = {Service.DCASS: "hkex_rap_daily_dcass", Service.CCMS: "hkex_rap_daily_ccms"}


def _shown(cell: Cell, today: pendulum.Date) -> dict[str, object]:
    from airflow_provider_hkex_rap.lake.grid import name_of

    return {
        "business_date": cell.business_date.isoformat(),
        "folder": cell.folder.value,
        "files": len(cell.files),
        "bytes": sum(file.size or 0 for file in cell.files.values()),
        "judged": cell.judged,
        "missing": [name_of(lacking.missing) for lacking in cell.missing],
        "awaited": [name_of(lacking.missing) for lacking in cell.awaited],
        "days_left": days_until_removed(cell.business_date, today),
    }


@command
def gaps(args: Namespace) -> int:
    """Print a row for each day and folder; fail if a report is missing."""
    from airflow_provider_hkex_rap.lake.grid import judge_cells

    folders = parse_folders(args.folders or list(Folder))
    customer = command_customer(args.customer, args.conn_id)
    lake = command_lake(args.lake)
    now = command_clock()()
    landed = _landed(lake, customer, folders, manifest_window(now.date()))
    rows = judge_cells(landed, folders, now, expect=args.expect or (USUAL,), calendar=Calendar(args.calendar))
    if not landed:
        print(
            f"{lake.uri} holds nothing of {customer} of these days: check its URI and the customer code.",
            file=sys.stderr,
        )
    show([_shown(row, now.date()) for row in rows], args.output)
    _warn_of_monthly_reports(lake, customer, folders, landed, now.date())
    incomplete = [row.business_date for row in rows if row.missing]
    print(_format_verdict(rows, complete=not incomplete), file=sys.stderr)
    if not incomplete:
        return 0
    first = min(incomplete)
    print(
        f"Trading days with missing reports: {len(set(incomplete))}, the first {first.isoformat()}. Days left"
        f" to fetch it, today included: {days_until_removed(first, now.date())} (§4.1). Trigger"
        f" {_dags_of(row.folder for row in rows if row.missing)}: a run lands all that RAP lists and the lake"
        " lacks; 'airflow hkex-rap ls' shows what RAP lists.",
        file=sys.stderr,
    )
    return FAILED


def _format_verdict(rows: Sequence[Cell], *, complete: bool) -> str:
    """Return how many rows were judged, and how many were not, in words."""
    judged = [row for row in rows if row.judged]
    judged_days = {row.business_date for row in judged}
    others: dict[str, set[str]] = {}
    for row in rows:
        if not row.judged:
            # If other folders were judged on that day, name the folder.
            where = f" in {row.folder}" if row.business_date in judged_days else ""
            others.setdefault(row.unjudged, set()).add(f"{row.business_date.isoformat()}{where}")
    reasons = "; ".join(f"{', '.join(sorted(named))}: {why}" for why, named in others.items())
    counts = f"Rows judged: {len(judged)}; not judged: {len(rows) - len(judged)}"
    if reasons:
        counts += f" ({reasons})"
    awaited = sum(len(row.awaited) for row in rows)
    verdict = "Every judged row is complete. " if complete and judged else ""
    return f"{verdict}{counts}. Awaited reports: {awaited}."


def _dags_of(folders: Iterable[Folder]) -> str:
    """Return the DAGs that land folders, in words."""
    names = sorted({_DAGS[folder.service] for folder in folders})
    return f"the DAG that lands the reports ({' or '.join(names)}, if you use those of the provider's dags/)"


def _warn_of_monthly_reports(
    lake: Lake, customer: str, folders: Iterable[Folder], landed: Landed, today: pendulum.Date
) -> None:
    """Name the monthly reports that are late; they are no gap of a day, and no error."""
    from airflow_provider_hkex_rap.lake.monthly import find_late_reports

    known: dict[Report, set[date]] = {}
    for (day, _), files in landed.items():
        for file in files.values():
            known.setdefault(file.sighting.report, set()).add(day)
    with reading(lake):
        reports, problems = asyncio.run(find_late_reports(lake, customer, folders, known, today))
    _print_left_out(problems)
    for late in reports:
        print(
            f"Warning: {printable(str(late))}. If it still comes, 'airflow hkex-rap ls' shows if RAP has it.",
            file=sys.stderr,
        )


def _landed(lake: Lake, customer: str, folders: Iterable[Folder], days: Sequence[date]) -> Landed:
    from airflow_provider_hkex_rap.lake.extracts import read_extracts
    from airflow_provider_hkex_rap.lake.grid import landed_files

    with reading(lake):
        extracts = asyncio.run(read_extracts(lake, customer, folders, days))
    _print_left_out(problem for extract in extracts for problem in extract.problems)
    return landed_files(extracts)


def _print_left_out(problems: Iterable[str]) -> None:
    for problem in problems:
        print(f"Left out: {problem}.", file=sys.stderr)
