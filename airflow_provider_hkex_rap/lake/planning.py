"""Decide which listed files to land."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_hkex_rap.lake.layout import Refused, safe_name
from airflow_provider_hkex_rap.rap.files import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import pendulum

    from airflow_provider_hkex_rap.lake.ledger import Ledger
    from airflow_provider_hkex_rap.rap.files import RemoteFile
    from airflow_provider_hkex_rap.rap.report_name import Naming


class Quarantined(NamedTuple):
    """A listed entry that may not enter the lake, and the reason."""

    file: RemoteFile
    reason: str


class Returned(NamedTuple):
    """A listed file that landed before a later content of its name did."""

    file: RemoteFile
    sha256: str
    uri: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The decision about each file of a listing.

    :param todo: the files to land, oldest first, since the oldest leave RAP first.
    :param already: the files that the lake has.
    :param returned: those that have a later content in the lake too, with SHA-256 and URI.
    :param quarantined: the entries that may not enter the lake.
    :param known: the listed files, those of other days and the quarantined ones included; they tell which
        reports are usual. Sub-folders are left out.
    :param excluded: how many files of the listing the patterns left out.
    :param seen: when the listing was taken.
    """

    todo: tuple[RemoteFile, ...]
    already: tuple[RemoteFile, ...]
    returned: tuple[Returned, ...]
    quarantined: tuple[Quarantined, ...]
    known: tuple[RemoteFile, ...]
    excluded: int
    seen: pendulum.DateTime


def plan(
    files: Iterable[RemoteFile],
    ledger: Ledger,
    naming: Naming,
    now: pendulum.DateTime,
    *,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    business_date: pendulum.Date | None = None,
) -> Plan:
    """Decide which listed files to land.

    :param files: the listings of one or more folders.
    :param ledger: the files that the lake has.
    :param naming: the rules that read business date and report from a file's name.
    :param now: when the listings were taken.
    :param include: globs on the file's name, case-sensitive; a file must match at least one.
    :param exclude: globs on the file's name; a file must match none.
    :param business_date: if given, plan only the files of this day.
    :returns: the plan; files that *include*, *exclude* or *business_date* leave out are not in it.
    """
    todo: list[RemoteFile] = []
    already: list[RemoteFile] = []
    returned: list[Returned] = []
    quarantined: list[Quarantined] = []
    known: list[RemoteFile] = []
    excluded = 0
    for file, refused in read_listing(files):
        if not is_wanted(file.text, include, exclude):
            excluded += 1
            continue
        if file.kind is not Kind.DIRECTORY:
            # Also one that may not land: its report is missing in the lake, and somebody has to act.
            known.append(file)
        if business_date and naming.read(file.text, file.mtime, now).business_date != business_date:
            continue
        if refused:
            quarantined.append(Quarantined(file, refused.reason))
        # Without an mtime, only the bytes show whether it is the file that landed.
        elif file.mtime is not None and ledger.has(file):
            already.append(file)
            if content := ledger.returned(file):
                returned.append(Returned(file, *content))
        else:
            todo.append(file)
    # A file without an mtime may be the oldest.
    todo.sort(key=lambda file: (file.mtime or 0, file.name))
    return Plan(tuple(todo), tuple(already), tuple(returned), tuple(quarantined), tuple(known), excluded, now)


def read_listing(files: Iterable[RemoteFile]) -> Iterator[tuple[RemoteFile, Refused | None]]:
    """Yield each entry of a listing once, with the reason why it may not land, or None.

    :param files: the entries; a server may list one of them several times.
    """
    for file in dict.fromkeys(files):
        name = safe_name(file)
        yield file, name if isinstance(name, Refused) else None


def is_wanted(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Tell if a file is to land, by its name.

    :param name: the file's name on RAP, as text.
    :param include: globs, case-sensitive; one of them must match.
    :param exclude: globs; none of them may match.
    """
    return any(fnmatchcase(name, glob) for glob in include) and not any(
        fnmatchcase(name, glob) for glob in exclude
    )
