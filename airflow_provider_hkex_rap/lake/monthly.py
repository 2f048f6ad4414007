"""Find the monthly reports that are late, by the manifest of the last twelve weeks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import date, timedelta
from typing import TYPE_CHECKING

from airflow_provider_hkex_rap.lake.manifest import READERS, WINDOW_DAYS_BACK, days_between, read_manifests
from airflow_provider_hkex_rap.lake.storage_calls import StorageCalls
from airflow_provider_hkex_rap.rap.judgement import Report
from airflow_provider_hkex_rap.rap.monthly import MONTHLY_DAYS_BACK, LateReport, late_monthly_reports

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.lake.store import Lake
    from airflow_provider_hkex_rap.rap.folders import Folder


async def find_late_reports(
    lake: Lake,
    customer: str,
    folders: Iterable[Folder],
    known: Mapping[Report, Collection[date]],
    today: date,
    covers: Callable[[str, str], bool] = lambda folder, name: True,
) -> tuple[list[LateReport], list[str]]:
    """Find the monthly reports that are late; only the days before the window of the ledger are read.

    :param lake: the lake.
    :param customer: the DCASS customer code, such as ``CXYZ``.
    :param folders: the folders on RAP.
    :param known: the business dates of each report in the window.
    :param today: the date in Hong Kong.
    :param covers: returns whether a file counts, by its folder and its name; by default, each does.
    :returns: the late reports, and a text for each line of the manifest that is not valid.
    :raises OSError: if the lake cannot be read.
    """
    first, last = today - timedelta(MONTHLY_DAYS_BACK), today - timedelta(WINDOW_DAYS_BACK + 1)
    days = {report: set(found) for report, found in known.items()}
    problems: list[str] = []
    async with StorageCalls(READERS) as calls:
        for folder in folders:
            async for manifest in read_manifests(calls, lake, customer, folder, days_between(first, last)):
                problems += manifest.problems(lake)
                for entry in manifest.entries:
                    if entry.uri and covers(entry.folder, entry.text):
                        report = Report(folder, entry.report)
                        days.setdefault(report, set()).add(date.fromisoformat(entry.business_date))
    return list(late_monthly_reports(days, today)), problems
