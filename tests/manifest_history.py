"""Write the manifest of days and folders, without the reports, as runs of the daily DAGs would."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable
from dataclasses import fields
from datetime import date
from pathlib import Path

import pendulum

from airflow_provider_hkex_rap.lake.entry import Entry, to_lines, utc
from airflow_provider_hkex_rap.lake.layout import manifest_path, report_directory, run_stamp
from airflow_provider_hkex_rap.rap.clock import HONG_KONG
from airflow_provider_hkex_rap.rap.folders import Folder

CUSTOMER = "CXYZ"


def at(day: date, hour: float) -> pendulum.DateTime:
    """Return a time in Hong Kong, in hours after midnight of a day."""
    return pendulum.datetime(day.year, day.month, day.day, tz=HONG_KONG).add(minutes=round(hour * 60))


def landed(lake: Path, day: date, folder: Folder, name: str, hour: float = 19.5, **changes: object) -> Entry:
    """Return the entry of a report that was published at an hour of its day and landed in the night after."""
    report = name.partition("_")[0]
    uri = f"file://{lake}/{report_directory(CUSTOMER, folder, report, f'{day}')}/{name}"
    values: dict[str, object] = dict.fromkeys((field.name for field in fields(Entry)), None)
    values |= {
        "schema_version": 1,
        "customer": CUSTOMER,
        "folder": folder.value,
        "rap_path": f"{folder.path}/{name}",
        "report": report,
        "business_date": day.isoformat(),
        "business_date_rule": "name",
        "size": 1000,
        "mtime": at(day, hour).int_timestamp,
        "sha256": hashlib.sha256(name.encode()).hexdigest(),
        "uri": uri,
        "account": "DCXYZ001",
        "site": "primary",
        "address": "10.151.14.141:18801",
        "client_key_fingerprint": "c1:b1:30:29:d7:b8:de:6c:97:77:10:d7:46:41:63:87",
        "dag": "hkex_rap_daily_dcass",
        "run": f"scheduled__{day}",
        "task": "land",
        "map_index": -1,
        "try_number": 1,
        "first_seen": utc(at(day, 25.5)),
        "downloaded": utc(at(day, 25.5)),
        "committed": utc(at(day, 25.5)),
        "package_version": "0",
        "disposition": "landed",
        "reason": "",
    }
    return Entry(**values | changes)  # type: ignore[arg-type]


def write(lake: Path, entries: Iterable[Entry], number: int = 1) -> Path:
    """Write one manifest file with entries of one business date and folder; return its path."""
    found = list(entries)
    day = date.fromisoformat(found[0].business_date)
    run = run_stamp(at(day, 25.5), f"{number:08x}")
    path = lake / manifest_path(CUSTOMER, found[0].folder, found[0].business_date, run, number)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(to_lines(found))
    return path


def write_history(
    lake: Path,
    days: Iterable[date],
    folders: Iterable[Folder] = (Folder.DCASS,),
    *,
    reports: int = 3,
    without: Container[tuple[date, str]] = (),
) -> None:
    """Write the manifest of days: *reports* reports in each folder, ``R000`` and so on, but some.

    :param without: days and report codes to leave out.
    """
    for day in days:
        for folder in folders:
            codes = [f"R{number:03}" for number in range(reports)]
            kept = [code for code in codes if (day, code) not in without]
            write(lake, (landed(lake, day, folder, f"{code}_{day:%Y%m%d}.csv") for code in kept))
