"""Find what a person should know of a run although no task fails for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pendulum

from airflow_provider_hkex_rap.notifications.record import RapWarning
from airflow_provider_hkex_rap.operators.metrics import key_days_left
from airflow_provider_hkex_rap.rap.calendar import previous_trading_day
from airflow_provider_hkex_rap.rap.clock import HONG_KONG
from airflow_provider_hkex_rap.rap.judgement import USUAL
from airflow_provider_hkex_rap.rap.key_lifecycle import WARNING_DAYS
from airflow_provider_hkex_rap.rap.printable import PATH_CHARACTERS, printable
from airflow_provider_hkex_rap.rap.retention import days_until_removed, left_on

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.keystore.record import KeyRecord
    from airflow_provider_hkex_rap.operators.ingest import Ingest
    from airflow_provider_hkex_rap.operators.judging import Judging

log = logging.getLogger(__name__)

_LAST_DAYS = 2
"""A file that has not landed is named on the last days on which RAP keeps it, so many."""
_NAMED = 5
"""Files and reports that a warning names, at most."""


def find_warnings(
    record: KeyRecord | None, today: pendulum.Date, ingest: Ingest | None, judging: Judging | None
) -> Iterator[RapWarning]:
    """Yield the warnings of a run; those that cost no storage calls come first.

    :param record: the account's keys; None if no login has shown them.
    :param today: the date in Hong Kong.
    :param ingest: the landing of a download.
    :param judging: the judgement of a download.
    """
    # A download without a judgement may run every ten minutes.
    is_daily = not ingest or not judging or bool(judging.expect and not _is_of_backfill(ingest, today))
    if record and is_daily:
        yield from _of_key(record, today)
    # If no login has listed RAP, nothing is known of the files.
    if ingest and judging and hasattr(ingest, "plan"):
        yield from _of_days(judging)
        if is_daily:
            yield from _of_leaving_files(ingest, today)
        if judging.expect:
            yield from _of_republished_files(judging)
        if USUAL in judging.expect and judging.verdicts and not ingest.request.only_day:
            yield from _of_monthly_reports(ingest, judging, today)


def _is_of_backfill(ingest: Ingest, today: pendulum.Date) -> bool:
    """Return whether the task may be one of many: a mapped one, or one for a day before the last trading day.

    The run of a trading day may start after the next midnight.
    """
    return ingest.run["map_index"] >= 0 or ingest.request.day < previous_trading_day(today)


def _of_key(record: KeyRecord, today: pendulum.Date) -> Iterator[RapWarning]:
    current, foreign = record.current, record.foreign_upload
    last_day = current.last_day if current else None
    if foreign:
        day = pendulum.DateTime.fromisoformat(foreign.at).in_timezone(HONG_KONG).date()
        ends = f" so the current key ends on {last_day}" if last_day else ""
        yield RapWarning(
            "KeyUploadedElsewhere",
            f"Somebody else uploaded the key {foreign.fingerprint} of {record.account} on {day}.",
            f"RAP keeps two keys of an account,{ends or ' and the current key ends'} (§6.3).",
            "Give the connection that key, or register a new one (§5); find out who uploaded it.",
        )
        return
    left = key_days_left(record, today)
    if current and left is not None and left <= WARNING_DAYS:
        yield RapWarning(
            "KeyExpires",
            f"The key {current.fingerprint} of {record.account} ends on {last_day}: days left {left}.",
            "Its renewal should have happened 30 days before the end (§6).",
            "Look at the runs of RapKeyRenewalOperator, or run 'airflow hkex-rap renew'. After the last day,"
            " only a new registration helps (§5).",
        )


def _of_days(judging: Judging) -> Iterator[RapWarning]:
    # A day that lacks reports fails the task, whose alert says more.
    said = [warning for each in judging.verdicts if not each.missing for warning in each.warnings]
    if said:
        yield RapWarning(
            "UnusualDay",
            " ".join(said[:_NAMED]) + _more(len(said), "warnings"),
            "The days before were different; no task fails for this.",
            "Check if HKEX has announced it. 'airflow hkex-rap gaps' shows each day.",
        )


def _of_leaving_files(ingest: Ingest, today: pendulum.Date) -> Iterator[RapWarning]:
    """Warn of listed files that have not landed and that leave RAP soon; refused names never land."""
    leaving: dict[pendulum.Date, list[str]] = {}
    for file in (*ingest.unfinished, *(each.file for each in ingest.plan.quarantined)):
        day = ingest.request.naming.read(file.text, file.mtime, ingest.plan.seen).business_date
        if days_until_removed(day, today) <= _LAST_DAYS:
            leaving.setdefault(day, []).append(f"{file.folder.path}/{file.text}")
    for day, paths in sorted(leaving.items()):
        yield RapWarning(
            "FileLeavesRap",
            f"{len(paths)} files of {day} leave RAP on {left_on(day)} and have not landed: {_named(paths)}.",
            "RAP keeps reports for ten calendar days (§4.1).",
            "The log of the task says why they did not land. If that cannot be mended in time, fetch them by"
            " hand.",
        )


def _of_republished_files(judging: Judging) -> Iterator[RapWarning]:
    again = [entry for entry in judging.landed_in_run() if entry.supersedes]
    if again:
        days = ", ".join(sorted({entry.business_date for entry in again}))
        yield RapWarning(
            "Republished",
            f"RAP has published {len(again)} files of {days} with new content:"
            f" {_named([f'{entry.folder}/{entry.text}' for entry in again])}.",
            "HKEX has corrected them. The new content has landed beside the old one.",
            "If somebody has used the old content, process these reports again.",
        )


def _of_monthly_reports(ingest: Ingest, judging: Judging, today: pendulum.Date) -> Iterator[RapWarning]:
    from airflow_provider_hkex_rap.lake.monthly import find_late_reports

    request, known = ingest.request, judging.known_days()
    customer, covers = ingest.ledger.customer, judging.covers
    search = find_late_reports(request.lake, customer, request.folders, known, today, covers)
    reports, problems = asyncio.run(search)
    for problem in problems:
        log.warning(
            "Ignoring %s; a report may therefore count as late.", printable(problem, limit=PATH_CHARACTERS)
        )
    for late in reports:
        yield RapWarning(
            "MonthlyReportLate",
            f"{late}.",
            "It came once a month before, so this month's should be there.",
            "Ask HKEX if it still comes; 'airflow hkex-rap ls' shows what RAP has.",
        )


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + _more(len(names), "files")


def _more(number: int, what: str) -> str:
    return f" and {number - _NAMED} more {what}" if number > _NAMED else ""
