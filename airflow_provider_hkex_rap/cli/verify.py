"""``airflow hkex-rap verify``: the manifest against the bytes."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from airflow_provider_hkex_rap.cli.command import (
    FAILED,
    command,
    command_lake,
    parse_customer,
    printable,
    show,
)
from airflow_provider_hkex_rap.lake.layout import MANIFESTS
from airflow_provider_hkex_rap.lake.store import Lake
from airflow_provider_hkex_rap.lake.verify import ProblemKind
from airflow_provider_hkex_rap.lake.verify import verify as find_problems
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.folders import Folder, parse_folders
from airflow_provider_hkex_rap.rap.trading_day import parse_business_date

if TYPE_CHECKING:
    from argparse import Namespace

    import pendulum

_TODO = {
    ProblemKind.MISSING: "Restore it from a backup of the lake. Or, while RAP lists it (§4.1), move its"
    " business date's manifest files out of the lake and run the download task: it lands again.",
    ProblemKind.CHANGED: "Something else wrote to it. Restore it from a backup of the lake. Or, while RAP"
    " lists it (§4.1), move it and its business date's manifest files out of the lake and run the download"
    " task.",
    ProblemKind.UNCLAIMED: "Run the download task: it adopts what a killed run left, while RAP lists it"
    " (§4.1). Where it stays, it did not come from RAP: move it out of the lake.",
    ProblemKind.UNREADABLE_MANIFEST: "Restore it from a backup of the lake. Or, while RAP lists its reports"
    " (§4.1), move it out of the lake and run the download task: it adopts what is there.",
}
"""What to do about a problem."""


@command
def verify(args: Namespace) -> int:
    """Print a row for each file that does not agree with the manifest; fail where there is one."""
    folders = parse_folders(args.folders or list(Folder))
    customer = parse_customer(args.customer)
    lake = command_lake(args.lake)
    if since := parse_business_date(args.since, field="--since"):
        lake = _LakeSince(lake, since)
    landed = [path for folder in folders for path in lake.walk(f"customer={customer}/folder={folder}")]
    if not landed and not lake.walk(f"{MANIFESTS}/customer={customer}"):
        raise RapConfigurationError(
            f"{lake.uri} has nothing of {customer} to verify.",
            why="It holds neither reports nor manifest files of that customer and those days.",
            todo="Check the lake's URI, the customer code and --since.",
        )
    problems = find_problems(lake, customer, folders)
    if not problems:
        print(f"All {len(landed)} files agree with the manifest.", file=sys.stderr)
        return 0
    rows = [
        {"uri": printable(problem.uri), "problem": problem.what, "todo": _TODO[problem.kind]}
        for problem in problems
    ]
    show(rows, args.output)
    return FAILED


class _LakeSince(Lake):
    """A lake without what lies under earlier business dates."""

    def __init__(self, lake: Lake, since: pendulum.Date) -> None:
        super().__init__(lake.fs, lake.root, lake.uri)
        self._since = since.isoformat()

    def walk(self, directory: str) -> list[str]:
        return [path for path in super().walk(directory) if _business_date(path) >= self._since]


def _business_date(path: str) -> str:
    """Return the business date that a path in a lake lies under; what lies under none is never left out."""
    found = re.search(r"/business_date=([^/]+)/", path)
    return found[1] if found else "9999-12-31"
