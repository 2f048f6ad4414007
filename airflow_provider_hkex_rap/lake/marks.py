"""Marks: small records of a folder beside its manifest, such as which entries were announced."""

from __future__ import annotations

import json
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_hkex_rap.lake.creating import create_once
from airflow_provider_hkex_rap.lake.layout import marks_directory, run_stamp
from airflow_provider_hkex_rap.lake.listing import list_directories

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pendulum

    from airflow_provider_hkex_rap.lake.storage_calls import StorageCalls
    from airflow_provider_hkex_rap.lake.store import Lake
    from airflow_provider_hkex_rap.rap.folders import Folder

MARK_DAYS = 45
"""How many days back marks are read by default; longer than the window of the manifest."""
_MONTH = len("202611")
_READERS = 16

log = logging.getLogger(__name__)


class Mark(NamedTuple):
    """One mark."""

    run: str
    """The stamp of the run that wrote it."""
    payload: dict[str, Any]


async def write_mark(
    calls: StorageCalls,
    lake: Lake,
    customer: str,
    folder: Folder,
    kind: str,
    run: str,
    payload: dict[str, Any],
) -> str:
    """Write a mark of a run, and return its path relative to the lake; the same mark twice counts as one.

    ::

        run = new_run(clock())
        await write_mark(calls, lake, "CXYZ", Folder.DCASS, "announced", run, {"manifests": paths})

    :param calls: runs the storage calls.
    :param lake: the lake.
    :param customer: the DCASS customer code, such as ``CXYZ``.
    :param folder: the folder on RAP.
    :param kind: such as ``announced``; each kind has a directory of its own.
    :param run: the run's stamp, as `run_stamp` returns it; a run writes one mark of a kind per folder.
    :param payload: the mark's content, which JSON must be able to hold.
    :raises FileExistsError: if the run has written another mark of that kind.
    :raises OSError: if the lake refuses it.
    """
    path = f"{marks_directory(customer, folder, kind)}/{run[:_MONTH]}/{run}.json"
    content = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
    await calls.run(create_once, lake, path, content)
    return path


async def acquire_lease(
    calls: StorageCalls,
    lake: Lake,
    customer: str,
    folder: Folder,
    kind: str,
    run: str,
    now: pendulum.DateTime,
    seconds: float,
) -> bool:
    """Acquire a lease of a folder for a run; return False if another run holds it.

    A lease is not released. It expires after *seconds*, also if its run is still at work, so that a run that
    was killed does not block the others for longer.

    :param calls: runs the storage calls.
    :param lake: the lake.
    :param customer: the DCASS customer code, such as ``CXYZ``.
    :param folder: the folder on RAP.
    :param kind: such as ``announcing``; each kind has a directory and leases of its own.
    :param run: a name that no other run has.
    :param now: the current time.
    :param seconds: how long a lease lasts.
    :raises OSError: if the lake cannot be read or written.
    """
    lease, oldest = run_stamp(now, run).encode(), run_stamp(now.subtract(seconds=seconds), "").encode()
    number = 0
    while True:
        number += 1
        path = f"{marks_directory(customer, folder, kind)}/{number}"
        try:
            await calls.run(create_once, lake, path, lease)
        except FileExistsError:
            # An expired lease stays; the next number is tried instead.
            if await calls.run(lake.read, path) >= oldest:
                return False
        else:
            return True


async def read_marks(
    calls: StorageCalls,
    lake: Lake,
    customer: str,
    folder: Folder,
    kind: str,
    since: pendulum.DateTime,
    now: pendulum.DateTime,
    newest: int | None = None,
) -> list[Mark]:
    """Return the marks that runs since a time have written, oldest first; older months cost nothing.

    A mark that is not a JSON object is logged and left out.

    :param calls: runs the storage calls.
    :param lake: the lake.
    :param customer: the DCASS customer code, such as ``CXYZ``.
    :param folder: the folder on RAP.
    :param kind: such as ``announced``.
    :param since: leave out the marks of runs that started earlier, such as `MARK_DAYS` days ago.
    :param now: the current time; months after the next one are not read.
    :param newest: read only so many marks, the newest, and those of the same second; None for all.
    :raises OSError: if the lake cannot be read.
    """
    paths = await list_marks(calls, lake, customer, folder, kind, since, now)
    if newest and newest < len(paths):
        # Stamps have whole seconds: any mark of a second may be the newest of it.
        second = run_of(paths[-newest]).partition("-")[0]
        paths = [path for path in paths if run_of(path) >= second]
    return await load_marks(calls, lake, paths)


async def list_marks(
    calls: StorageCalls,
    lake: Lake,
    customer: str,
    folder: Folder,
    kind: str,
    since: pendulum.DateTime,
    now: pendulum.DateTime,
) -> list[str]:
    """Return the paths of the marks that `read_marks` would read, oldest first, without reading them.

    Its parameters are those of `read_marks`.

    :raises OSError: if the lake cannot be read.
    """
    earliest = run_stamp(since, "").rstrip("-")
    parent = marks_directory(customer, folder, kind)
    found = await list_directories(calls, lake, [f"{parent}/{month}" for month in _months(since, now)])
    return sorted(path for path in found if path.endswith(".json") and run_of(path) >= earliest)


async def load_marks(calls: StorageCalls, lake: Lake, paths: Sequence[str]) -> list[Mark]:
    """Return the marks at some paths; one that is not a JSON object is logged and left out.

    :param calls: runs the storage calls.
    :param lake: the lake.
    :param paths: relative to the lake.
    :raises OSError: if the lake cannot be read.
    """
    marks: list[Mark] = []
    for start in range(0, len(paths), _READERS):
        read = await calls.map(partial(_read, lake), paths[start : start + _READERS])
        marks += [mark for mark in read if mark]
    return marks


def run_of(path: str) -> str:
    """Return the stamp of the run that wrote a mark.

    :param path: the mark's path.
    """
    return path.rpartition("/")[2].removesuffix(".json")


def _months(since: pendulum.DateTime, now: pendulum.DateTime) -> list[str]:
    # The clock of another worker may be ahead of ours, in the next month already.
    last = now.in_timezone("UTC").add(days=1)
    month = since.in_timezone("UTC").start_of("month")
    months = []
    while month <= last:
        months.append(month.strftime("%Y%m"))
        month = month.add(months=1)
    return months


def _read(lake: Lake, path: str) -> Mark | None:
    try:
        payload = json.loads(lake.read(path))
        if not isinstance(payload, dict):
            raise ValueError("it is not a JSON object")
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        log.warning("Ignoring the mark %s: %s.", lake.uri_of(path), error)
        return None
    return Mark(run_of(path), payload)
