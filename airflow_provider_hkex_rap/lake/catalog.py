"""Read back what has landed: the reports of a lake, and the schema of its manifest."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from datetime import date
from functools import cache, partial
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_hkex_rap.lake.entry import Disposition, Entry, from_lines
from airflow_provider_hkex_rap.lake.layout import MANIFESTS, manifest_directory, manifest_stamp, relative_path
from airflow_provider_hkex_rap.lake.opening import open_lake
from airflow_provider_hkex_rap.lake.store import Lake
from airflow_provider_hkex_rap.rap.account import parse_customer
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.folders import Folder
from airflow_provider_hkex_rap.rap.trading_day import parse_business_date

if TYPE_CHECKING:
    import pendulum
    from airflow.sdk import ObjectStoragePath

    SCHEMA: Any
    """The ``pyarrow.Schema`` of the manifest; pyarrow is imported when this name is first used."""

_Date = date | str | None
BusinessDates = _Date | tuple[_Date, _Date] | list[_Date]
"""A business date, a pair of the first and the last one (None leaves that end open), or None for all."""

READERS = 16
"""How many manifest files are read at once."""

_CONNECTION = re.compile(r"[^:/]+://([^/@]+@)")
_INTEGERS = frozenset({"schema_version", "size", "listed_size", "mtime", "map_index", "try_number"})
_TIMES = frozenset({"first_seen", "downloaded", "committed"})

log = logging.getLogger(__name__)


def landed_reports(
    lake: str | ObjectStoragePath | Lake,
    customer: str,
    *,
    folder: Folder | str | None = None,
    report: str | None = None,
    business_date: BusinessDates = None,
    current: bool = True,
) -> Iterator[Entry]:
    """Yield the reports that have landed, each URI once, by folder, business date and name.

    Only the manifest is read, never the reports. With one business date, one directory per folder is listed
    and read. Without one, every manifest file of the customer is read.

    ::

        for report in landed_reports("s3://aws_default@bucket/rap", "CXYZ", report="TP001"):
            rows = csv.reader(ObjectStoragePath(report.uri).open("r"))

    :param lake: the lake's root, as an absolute path or a URI, or an open lake.
    :param customer: the DCASS customer code, such as ``CXYZ``.
    :param folder: a folder on RAP, such as ``DCASS``; None for all.
    :param report: a report code, such as ``TP001``; None for all.
    :param business_date: a date or its ISO text; or a pair of the first and the last date, both included; a
        None in the pair leaves that end open. None for all.
    :param current: leave out superseded content: of the files with the same RAP name, folder and business
        date, yield only the one that RAP published last. If False, yield every landed content.
    :returns: an iterator of manifest entries; if nothing matches, it is empty and the log says so. Their
        *uri* begins with the lake as it was given: with an Airflow connection it is ready for
        ``ObjectStoragePath``, without one for pandas and other libraries that have credentials of their own.
    :raises RapConfigurationError: if *lake*, *customer*, *folder* or *business_date* is not of the valid
        form; before the first entry is read.
    :raises OSError: if the lake cannot be read.
    """
    opened = lake if isinstance(lake, Lake) else _open(lake)
    folders = tuple(Folder) if folder is None else (Folder.parse(folder),)
    days = read_days(opened, parse_customer(customer), folders, business_date)
    return _noticed(choose_reports(_logged(days), report=report, current=current), opened.uri)


def _noticed(entries: Iterator[Entry], uri: str) -> Iterator[Entry]:
    found = False
    for entry in entries:
        found = True
        yield entry
    if not found:
        log.warning("The manifest of %s has no report that matches.", uri)


def _open(lake: str | ObjectStoragePath) -> Lake:
    """Open a lake whose URIs keep the Airflow connection, which those in the manifest do not name."""
    opened = open_lake(lake)
    connection = _CONNECTION.match(str(lake).strip())
    if not connection:
        return opened
    protocol, _, rest = opened.uri.partition("://")
    return Lake(opened.fs, opened.root, f"{protocol}://{connection[1]}{rest.removeprefix(connection[1])}")


def _logged(days: Iterator[Day]) -> Iterator[Day]:
    for day in days:
        for problem in day.problems:
            log.warning("Left out of the catalog: %s", problem)
        yield day


def choose_reports(days: Iterable[Day], *, report: str | None, current: bool) -> Iterator[Entry]:
    """Yield the entries of landed reports, each URI once.

    :param days: the manifest, as `read_days` yields it.
    :param report: a report code; None for all.
    :param current: leave out superseded content.
    """
    # The same bytes on two business dates have two entries and one URI.
    yielded: set[str] = set()
    for day in days:
        for entry in _landed_entries(day.entries, current):
            if entry.uri and entry.uri not in yielded and report in (None, entry.report):
                yielded.add(entry.uri)
                yield entry


def _landed_entries(entries: Iterable[Entry], current: bool) -> list[Entry]:
    """Return one entry for each URI that entries of one folder and business date name, sorted by name.

    :param entries: the entries; several may name one URI, as after a race between two runs.
    :param current: leave out superseded content.
    """
    claims = sorted((entry for entry in entries if entry.uri), key=_newness)
    # The entry that recorded the landing has the most facts: it is assigned after the others.
    ordered = sorted(claims, key=lambda entry: entry.disposition == Disposition.LANDED)
    by_uri = {entry.uri: entry for entry in ordered}
    if current:
        newest = {entry.name: entry.uri for entry in claims}
        by_uri = {uri: entry for uri, entry in by_uri.items() if uri in newest.values()}
    return sorted(by_uri.values(), key=lambda entry: (entry.rap_path, _newness(entry)))


def _newness(entry: Entry) -> tuple[str, int]:
    """Return a key that sorts the contents of one name by the time at which they became current."""
    # An entry without a time repeats a content that is current already.
    return entry.committed or "", -1 if entry.mtime is None else entry.mtime


class Day(NamedTuple):
    """The manifest of one folder and business date."""

    entries: list[Entry]
    """Their URIs begin with the lake as it was opened."""
    problems: list[str]
    """A text for each manifest file or line that could not be read."""


def read_days(
    lake: Lake, customer: str, folders: Iterable[Folder], business_date: BusinessDates = None
) -> Iterator[Day]:
    """Yield the manifest day by day, the earliest business date of each folder first.

    :param lake: the lake.
    :param customer: the DCASS customer code.
    :param folders: the folders on RAP.
    :param business_date: as in `landed_reports`.
    :raises RapConfigurationError: if *business_date* is not of the valid form; before anything is read.
    :raises OSError: if the lake cannot be read.
    """
    return _read_days(lake, customer, folders, *_first_and_last(business_date))


def _read_days(lake: Lake, customer: str, folders: Iterable[Folder], first: str, last: str) -> Iterator[Day]:
    # Threads instead of asyncio: the caller may be inside a running event loop.
    with ThreadPoolExecutor(READERS, "hkex-rap-catalog") as pool:
        for folder in folders:
            days = [first] if first == last else _days(lake, customer, folder, first, last)
            for start in range(0, len(days), READERS):
                directories = [manifest_directory(customer, folder, day) for day in days[start:][:READERS]]
                found = list(pool.map(partial(_manifest_files, lake), directories))
                read = pool.map(partial(_read, lake), [path for paths in found for path in paths])
                for paths in found:
                    yield _merged(islice(read, len(paths)))


def _days(lake: Lake, customer: str, folder: Folder, first: str, last: str) -> list[str]:
    """Return the business dates, of those between two, that have a manifest directory."""
    directories = lake.list_directory(f"{MANIFESTS}/{customer}/{folder}").directories
    days = (directory.rpartition("/")[2] for directory in directories)
    # The directory of the marks begins with an underscore, which comes after every digit.
    return sorted(day for day in days if first <= day <= last)


def _manifest_files(lake: Lake, directory: str) -> list[str]:
    """Return the manifest files in a directory, in the order in which their runs started."""
    # fsspec's object stores list the parent as well if there is no such directory; as a tree, they do not.
    found = lake.walk(directory) if lake.lists_trees else lake.list_directory(directory).files
    return sorted(path for path in found if manifest_stamp(path))


def _read(lake: Lake, path: str) -> Day:
    uri = lake.uri_of(path)
    try:
        lines = from_lines(lake.read(path))
    except FileNotFoundError as error:
        return Day([], [f"{uri}: {error}"])
    entries = [
        replace(entry, uri=_moved(lake, entry.uri), supersedes=_moved(lake, entry.supersedes))
        for entry in lines.entries
    ]
    return Day(entries, [f"{uri}, line {bad.number}: {bad.reason}" for bad in lines.bad])


def _merged(files: Iterable[Day]) -> Day:
    day = Day([], [])
    for file in files:
        day.entries.extend(file.entries)
        day.problems.extend(file.problems)
    return day


def _moved(lake: Lake, uri: str | None) -> str | None:
    """Return a URI below the lake as it is opened now: it may have moved, or be known by another name."""
    return uri and lake.uri_of(relative_path(uri))


def _first_and_last(business_date: BusinessDates) -> tuple[str, str]:
    """Return the first and the last business date in ISO form.

    :raises RapConfigurationError: if *business_date* is not of the valid form, or its pair is reversed.
    """
    ends = business_date if isinstance(business_date, tuple | list) else (business_date, business_date)
    if len(ends) != 2:
        raise _wrong_pair(business_date, "It does not have two dates.")
    first, last = (parse_business_date(end) for end in ends)
    if first and last and first > last:
        raise _wrong_pair(business_date, "The first date is after the last one.")
    return _iso(first, "0000-00-00"), _iso(last, "9999-99-99")


def _iso(day: pendulum.Date | None, otherwise: str) -> str:
    return day.isoformat() if day else otherwise


def _wrong_pair(business_date: object, why: str) -> RapConfigurationError:
    return RapConfigurationError(
        f"{business_date!r} in 'business_date' is not a first and a last business date.",
        why=why,
        todo="Give one date, such as '2026-11-20', or a pair, such as ('2026-11-16', '2026-11-20').",
        business_date=business_date,
    )


def __getattr__(name: str) -> Any:
    """Return `SCHEMA`; the other names of the module need no pyarrow."""
    if name == "SCHEMA":
        return _schema()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _schema() -> Any:
    import pyarrow

    time = pyarrow.timestamp("ms", tz="UTC")
    special = dict.fromkeys(_INTEGERS, pyarrow.int64()) | dict.fromkeys(_TIMES, time)
    return pyarrow.schema(
        [(field.name, special.get(field.name, pyarrow.string())) for field in fields(Entry)]
    )
