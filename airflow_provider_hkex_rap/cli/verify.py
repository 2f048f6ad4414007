"""``airflow hkex-rap verify``: compare the manifest with the bytes in the lake."""

from __future__ import annotations

import asyncio
import sys
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
from airflow_provider_hkex_rap.lake.verify import ProblemKind
from airflow_provider_hkex_rap.lake.verify import verify as find_problems
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.folders import Folder, parse_folders
from airflow_provider_hkex_rap.rap.trading_day import parse_business_date

if TYPE_CHECKING:
    from argparse import Namespace

_TODO = {
    ProblemKind.MISSING: "Restore it from a backup of the lake. Or, while RAP lists it (§4.1), move its"
    " business date's manifest files out of the lake and run the download task: it lands again.",
    ProblemKind.CHANGED: "Something else wrote to it. Restore it from a backup of the lake. Or, while RAP"
    " lists it (§4.1), move it and its business date's manifest files out of the lake and run the download"
    " task.",
    ProblemKind.UNCLAIMED: "Run the download task: it adopts what a killed run left, while RAP lists it"
    " (§4.1). If it stays, it did not come from RAP: move it out of the lake.",
    ProblemKind.UNREADABLE_MANIFEST: "If a later version of the package wrote it, upgrade. Else restore it"
    " from a backup of the lake. Or, while RAP lists its reports (§4.1), move it out of the lake and run the"
    " download task: it adopts the files that are there.",
}
"""Advice for each kind of problem."""


@command
def verify(args: Namespace) -> int:
    """Print a row for each file that does not agree with the manifest; fail if there is one."""
    folders = parse_folders(args.folders or list(Folder))
    customer = command_customer(args.customer, args.conn_id)
    lake = command_lake(args.lake)
    since = parse_business_date(args.since, field="--since")
    today = command_clock()().date() if since else None
    with reading(lake):
        entries, files, problems = asyncio.run(find_problems(lake, customer, folders, since, today))
    if not entries and not files and not problems:
        raise RapConfigurationError(
            f"{lake.uri} has nothing of {customer} to verify.",
            why="It holds neither reports nor manifest files of that customer and those days.",
            todo="Check the lake's URI, the customer code and --since.",
        )
    if not problems:
        print(f"All {files} files agree with the manifest.", file=sys.stderr)
        return 0
    rows = [
        {"uri": printable(problem.uri), "problem": problem.what, "todo": _TODO[problem.kind]}
        for problem in problems
    ]
    show(rows, args.output)
    print(
        f"Problems: {len(problems)}, in the {files} files and {entries} manifest entries that were compared.",
        file=sys.stderr,
    )
    return FAILED
