"""The grid of the board: which reports of each day and folder have landed, and which are missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_hkex_rap.board.lakes import ShownCustomer, ShownLake, read_lakes
from airflow_provider_hkex_rap.lake.grid import Cell, Lacking, judge_cells, name_of
from airflow_provider_hkex_rap.lake.manifest import window as manifest_window
from airflow_provider_hkex_rap.rap.calendar import is_public_holiday, is_saturday, is_trading_day
from airflow_provider_hkex_rap.rap.clock import HONG_KONG
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.folders import Folder
from airflow_provider_hkex_rap.rap.judgement import LEAST_BASELINE_DAYS, format_minutes
from airflow_provider_hkex_rap.rap.printable import printable
from airflow_provider_hkex_rap.rap.retention import days_until_removed

if TYPE_CHECKING:
    import pendulum

    from airflow_provider_hkex_rap.rap.judgement import MissingReport

_PROBLEMS_SHOWN = 20


def board(now: pendulum.DateTime) -> dict[str, Any]:
    """Return the board as JSON: each lake with its customers, days, folders and cells.

    An error is a part of the answer, with its cause and the next step: an empty grid would say that nothing
    has landed.

    :param now: the time in Hong Kong.
    """
    answer: dict[str, Any] = {"now": now.to_iso8601_string(), "error": None, "lakes": []}
    try:
        return answer | {"lakes": [_lake(lake, now) for lake in read_lakes(now)]}
    except RapConfigurationError as error:
        return answer | {"error": str(error)}


def _lake(lake: ShownLake, now: pendulum.DateTime) -> dict[str, Any]:
    customers = [{"customer": each.customer, **_customer(each, now)} for each in lake.customers]
    return {"uri": lake.uri, "error": lake.error, "customers": customers}


def _customer(shown: ShownCustomer, now: pendulum.DateTime) -> dict[str, Any]:
    if shown.error:
        return {"error": shown.error, "problems": [], "folders": [], "days": [], "cells": []}
    landed, problems = shown.landed, shown.problems
    known = {folder for _, folder in landed}
    folders = [folder for folder in Folder if folder in known]
    cells = judge_cells(landed, folders, now) if folders else []
    return {
        "error": None,
        # A line that cannot be read may be the entry of a report that seems to be missing.
        "problems": [printable(problem, limit=2000) for problem in problems[:_PROBLEMS_SHOWN]],
        "more_problems": len(problems[_PROBLEMS_SHOWN:]),
        "since": manifest_window(now.date())[0].isoformat(),
        "folders": [folder.value for folder in folders],
        # An account need not subscribe to every folder (§4.2), so a folder without any file is not judged.
        "unused_folders": [folder.value for folder in Folder if folder not in known],
        "days": [_day(day, now) for day in _days(cells)],
        "cells": [_cell(cell) for cell in cells],
    }


def _days(cells: Iterable[Cell]) -> list[pendulum.Date]:
    return sorted({cell.business_date for cell in cells}, reverse=True)


def _day(day: pendulum.Date, now: pendulum.DateTime) -> dict[str, Any]:
    return {
        "day": day.isoformat(),
        "weekday": f"{day:%a}",
        "today": day == now.date(),
        "days_left": days_until_removed(day, now.date()),
        "kind": _kind(day),
    }


def _kind(day: pendulum.Date) -> str:
    """Return in words why a day is not an ordinary one; an empty text if it is."""
    if is_public_holiday(day):
        return "public holiday"
    if is_saturday(day):
        return "Saturday"
    return "" if is_trading_day(day) else "no trading day"


def _cell(cell: Cell) -> dict[str, Any]:
    state, reason = _state(cell)
    committed = sorted(entry.committed for entry in cell.files.values() if entry.committed)
    return {
        "day": cell.business_date.isoformat(),
        "folder": cell.folder.value,
        "state": state,
        "reason": reason,
        "files": len(cell.files),
        "bytes": sum(entry.size or 0 for entry in cell.files.values()),
        "first": committed[0] if committed else None,
        "last": committed[-1] if committed else None,
        "missing": [_lacking(each) for each in cell.missing],
        "awaited": [_lacking(each) for each in cell.awaited],
        "excused": [_report(missing) for missing in cell.excused],
    }


def _state(cell: Cell) -> tuple[str, str]:
    """Return the state of a cell, and why it is not judged, in words."""
    if cell.missing:
        return "incomplete", ""
    if cell.awaited:
        return "awaited", ""
    kind = _kind(cell.business_date)
    if cell.excused:
        return "not judged", f"on a {kind} a missing report is no error"
    if cell.judged:
        return "complete", ""
    if kind:
        return "not judged", kind
    return "not judged", f"fewer than {LEAST_BASELINE_DAYS} ordinary days before it are known"


def _lacking(lacking: Lacking) -> dict[str, Any]:
    return {
        **_report(lacking.missing),
        "due": lacking.due.in_timezone(HONG_KONG).to_iso8601_string(),
        "seen_on": _iso(lacking.missing.seen_on),
    }


def _report(missing: MissingReport) -> dict[str, Any]:
    usual = None if missing.usual_time is None else format_minutes(missing.usual_time)
    return {"report": name_of(missing), "usual_time": usual}


def _iso(days: Sequence[Any]) -> list[str]:
    return [day.isoformat() for day in days]
