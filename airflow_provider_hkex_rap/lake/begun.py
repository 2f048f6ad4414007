"""Note where a run lands files, so that a later run finds what it left if it was killed.

A file that a killed run committed has no entry, and RAP may no longer list it, or list newer content of
another day. So each run that lands files writes a mark with its directories before its first commit, and
another mark after its last entry. A later run claims the files in the directories of a run that lacks the
second mark.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pendulum

from airflow_provider_hkex_rap.aio.together import run_all
from airflow_provider_hkex_rap.lake.layout import run_stamp
from airflow_provider_hkex_rap.lake.marks import Mark, list_marks, load_marks, run_of, write_mark
from airflow_provider_hkex_rap.rap.report_name import ReportName

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.lake.entries import Target
    from airflow_provider_hkex_rap.lake.storage_calls import StorageCalls
    from airflow_provider_hkex_rap.lake.store import Lake
    from airflow_provider_hkex_rap.rap.folders import Folder

log = logging.getLogger(__name__)

_BEGUN, _ENDED = "begun", "ended"
_DAYS = 14
"""How many days back the marks are read; longer than RAP keeps a file."""
_RUN_HOURS = 48
"""If a run began earlier and has not ended, it was killed, and its unfinished files are old enough to remove.

No run lasts longer than 24 hours, and an unfinished file is removed 24 hours after it was written.
"""


class Place(NamedTuple):
    """A directory of the lake in which a run landed files."""

    folder: Folder
    directory: str
    """Relative to the lake."""
    name: ReportName
    """Report and business date of its files."""


class BegunRuns:
    """The marks of the runs of one customer.

    :param calls: runs the storage calls.
    :param lake: the lake.
    :param customer: the DCASS customer code, such as ``CXYZ``.
    :param run: the stamp of this run, as `run_stamp` returns it.
    """

    def __init__(self, calls: StorageCalls, lake: Lake, customer: str, run: str) -> None:
        self._calls = calls
        self._lake = lake
        self._customer = customer
        self._run = run
        self._folders: set[Folder] = set()
        self._left: dict[Folder, list[Mark]] = {}
        self._over: list[tuple[Folder, str]] = []
        self._past = ""

    async def load(self, folders: Iterable[Folder], now: pendulum.DateTime) -> None:
        """Find the runs that have begun and not ended.

        :param folders: the folders on RAP.
        :param now: the current time.
        :raises OSError: if the lake cannot be read.
        """
        self._past = run_stamp(now.subtract(hours=_RUN_HOURS), "")
        await run_all(*(self._load(folder, now) for folder in folders))

    async def _load(self, folder: Folder, now: pendulum.DateTime) -> None:
        since = now.subtract(days=_DAYS)
        of_folder = self._calls, self._lake, self._customer, folder
        begun, ended = await run_all(*(list_marks(*of_folder, kind, since, now) for kind in (_BEGUN, _ENDED)))
        left = {run_of(path) for path in begun} - {run_of(path) for path in ended}
        if left:
            paths = [path for path in begun if run_of(path) in left]
            self._left[folder] = await load_marks(self._calls, self._lake, paths)

    def left(self) -> list[Place]:
        """Return the directories of the runs that have not ended, each once."""
        places = {
            place.directory: place
            for folder, marks in self._left.items()
            for mark in marks
            for place in _places(folder, mark)
        }
        return list(places.values())

    async def begin(self, targets: Iterable[Target]) -> None:
        """Note that this run lands files.

        :param targets: the files and their places in the lake.
        :raises OSError: if the lake refuses the mark.
        """
        places: dict[Folder, dict[str, Sequence[str]]] = {}
        for target in targets:
            report, day, rule = target.name
            places.setdefault(target.file.folder, {})[target.directory] = (report, day.isoformat(), rule)
        self._folders = set(places)
        await run_all(
            *(
                self._write(folder, _BEGUN, self._run, {"directories": directories})
                for folder, directories in places.items()
            )
        )

    def claimed(self) -> None:
        """Remember that the files in the directories of `left` have entries now."""
        # A younger run may still live, and be killed later.
        self._over = [
            (folder, mark.run)
            for folder, marks in self._left.items()
            for mark in marks
            if mark.run < self._past
        ]

    async def end(self) -> None:
        """Note that every file of this run has its entry, as have those of the runs that were `claimed`.

        :raises OSError: if the lake refuses a mark.
        """
        runs = [(folder, self._run) for folder in self._folders] + self._over
        await run_all(*(self._write(folder, _ENDED, run, {}) for folder, run in runs))

    async def _write(self, folder: Folder, kind: str, run: str, payload: dict[str, Any]) -> None:
        await write_mark(self._calls, self._lake, self._customer, folder, kind, run, payload)


def _places(folder: Folder, mark: Mark) -> list[Place]:
    try:
        return [
            Place(folder, directory, ReportName(report, pendulum.Date.fromisoformat(day), rule))
            for directory, (report, day, rule) in mark.payload["directories"].items()
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        log.warning("Ignoring the mark that run %s has begun: %r.", mark.run, error)
        return []
