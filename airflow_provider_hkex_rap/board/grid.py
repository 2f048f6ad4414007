"""The grid of the board: which reports of each day and folder have landed, and which are missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_hkex_rap.board.lakes import choose_customer, find_customers, read_customer
from airflow_provider_hkex_rap.lake.grid import NOT_KNOWN, Cell, Lacking, judge_cells, landed_files, name_of
from airflow_provider_hkex_rap.lake.manifest import window as manifest_window
from airflow_provider_hkex_rap.rap.calendar import is_public_holiday, is_saturday, is_trading_day
from airflow_provider_hkex_rap.rap.clock import HONG_KONG
from airflow_provider_hkex_rap.rap.errors import RapError
from airflow_provider_hkex_rap.rap.folders import Folder
from airflow_provider_hkex_rap.rap.judgement import format_minutes
from airflow_provider_hkex_rap.rap.printable import printable
from airflow_provider_hkex_rap.rap.retention import days_until_removed

if TYPE_CHECKING:
    import pendulum

    from airflow_provider_hkex_rap.lake.store import Lake
    from airflow_provider_hkex_rap.rap.judgement import MissingReport

_PROBLEMS_SHOWN = 20


def board(now: pendulum.DateTime, customer: str | None = None) -> dict[str, Any]:
    """Return the board as JSON: each lake with the days, folders and cells of one customer.

    Only that customer's manifest is read; the others are named. An error is a part of the answer, with its
    cause and the next step: an empty grid would say that nothing has landed.

    :param now: the time in Hong Kong.
    :param customer: the DCASS customer code, such as ``CXYZ``; None for the first that a lake has.
    """
    answer: dict[str, Any] = {"now": now.to_iso8601_string(), "error": None, "lakes": []}
    try:
        found = find_customers()
    except RapError as error:
        return answer | {"error": str(error)}
    shown = choose_customer(found, customer)
    lakes = [
        {
            "uri": each.uri,
            "error": each.error,
            "customers": [
                {"customer": code, **_customer(each.lake, code, now)}
                for code in each.customers
                if each.lake and code == shown
            ],
            "others": [code for code in each.customers if code != shown],
        }
        for each in found
    ]
    if customer and not any(lake["customers"] for lake in lakes):
        answer["error"] = f"No lake of the board has a manifest of {printable(customer)}."
    return answer | {"lakes": lakes}


def _customer(lake: Lake, customer: str, now: pendulum.DateTime) -> dict[str, Any]:
    try:
        extracts = read_customer(lake, customer, now.date())
    except RapError as error:
        return {"error": str(error), "problems": [], "folders": [], "days": [], "cells": []}
    landed = landed_files(extracts)
    problems = [problem for extract in extracts for problem in extract.problems]
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
    return "not judged", NOT_KNOWN


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
