"""The paths of a lake, and the names that may enter it."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_hkex_rap.rap.files import Kind, RemoteFile

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pendulum

    from airflow_provider_hkex_rap.rap.folders import Folder

MANIFESTS = "_manifests"
NAME_BYTES = 255
"""The longest name, in bytes of UTF-8, that common file systems accept."""
PART_PREFIX, PART_SUFFIX = ".rap-", ".part"
"""How the name of every unfinished file or directory begins and ends."""

_STAMP = "%Y%m%dT%H%M%SZ"
_MANIFEST = re.compile(r"(?P<stamp>[0-9]{8}T[0-9]{6}Z)-[0-9a-f]+-[0-9]+\.json")
_KINDS = {
    Kind.DIRECTORY: "It is a sub-folder, which RAP should not have (guide §4.2); its content was not listed.",
    Kind.SYMLINK: "It is a symbolic link, which may lead anywhere.",
    Kind.OTHER: "It is neither a file nor a folder.",
}


class Refused(NamedTuple):
    """Why a listed entry may not enter the lake."""

    reason: str


def safe_name(file: RemoteFile) -> str | Refused:
    """Return the name under which a file lands, or the reason why it may not land.

    Bytes that are not UTF-8 become ``%XX``. Names that differ only in Unicode normalisation stay two names.

    :param file: an entry of a folder's listing.
    """
    name = file.text
    if file.kind is not Kind.FILE:
        return Refused(_KINDS[file.kind])
    if name in ("", ".", ".."):
        return Refused("Its name is empty, . or .., which is no file name.")
    if "/" in name or "\\" in name:
        return Refused("Its name contains a path separator.")
    if any(unicodedata.category(character) == "Cc" for character in name):
        return Refused("Its name contains a control character.")
    if len(name.encode()) > NAME_BYTES:
        return Refused(f"Its name is longer than {NAME_BYTES} bytes.")
    if is_part(name):
        return Refused("Its name has the form that the lake uses for unfinished files.")
    return name


def is_part(name: str) -> bool:
    """Return whether a name is that of an unfinished file or directory.

    :param name: the last part of a path.
    """
    return name.startswith(PART_PREFIX) and name.endswith(PART_SUFFIX)


def versions(name: str) -> Iterator[str]:
    """Yield the names for a file's successive contents: its own, then with ``.v2``, ``.v3``...

    :param name: the file's name, as `safe_name` returns it.
    """
    yield name
    number = 2
    while True:
        yield f"{name}.v{number}"
        number += 1


def folder_directory(customer: str, folder: Folder | str) -> str:
    """Return the directory of a folder's reports, relative to the lake.

    :param customer: the DCASS customer code, such as ``CXYZ``.
    :param folder: the folder on RAP.
    """
    return f"customer={customer}/folder={folder}"


def report_directory(customer: str, folder: Folder | str, business_date: pendulum.Date | str) -> str:
    """Return the directory in which a report lands, relative to the lake.

    :param customer: the DCASS customer code, such as ``CXYZ``.
    :param folder: the folder on RAP.
    :param business_date: the day that the report is about; if text, in ISO form.
    """
    return f"{folder_directory(customer, folder)}/business_date={business_date}"


def manifest_path(customer: str, folder: str, business_date: str, run: str, sequence: int) -> str:
    """Return the path of one manifest file, relative to the lake.

    :param customer: the DCASS customer code, such as ``CXYZ``.
    :param folder: the folder on RAP.
    :param business_date: the business date of its entries, in ISO form.
    :param run: the run that writes it, as `run_stamp` returns it.
    :param sequence: number of the file among those of the run, from 1.
    """
    return f"{MANIFESTS}/{report_directory(customer, folder, business_date)}/{run}-{sequence:04}.json"


def run_stamp(now: pendulum.DateTime, suffix: str) -> str:
    """Return the name of a run; names sort by the time at which the runs started.

    :param now: when the run started.
    :param suffix: random hexadecimal digits.
    """
    return f"{now.in_timezone('UTC').strftime(_STAMP)}-{suffix}"


def manifest_stamp(path: str) -> str | None:
    """Return when the run of a manifest file started, as ``YYYYMMDDTHHMMSSZ``; None for other files.

    :param path: a path under ``_manifests``.
    """
    match = _MANIFEST.fullmatch(path.rpartition("/")[2])
    return match["stamp"] if match else None


def relative_path(uri: str) -> str:
    """Return a landed file's path relative to its lake, even if the lake has moved since.

    :param uri: the URI in a manifest entry.
    """
    return "/".join(uri.split("/")[-4:])
