"""The paths of a lake, and the names that may enter it."""

from __future__ import annotations

import hashlib
import itertools
import re
import secrets
import unicodedata
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_hkex_rap.rap.errors import LakeConflict
from airflow_provider_hkex_rap.rap.files import NAME_BYTES, Kind, RemoteFile, is_too_long

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pendulum

    from airflow_provider_hkex_rap.rap.folders import Folder

REPORTS = "reports"
"""The directory of the landed reports; nothing else is in it, so that each report is a table of its own."""
MANIFESTS = "manifest"
"""The directory of the manifest. Without a leading underscore, since readers of lakes skip those."""
MARKS = "_marks"
"""The directory of the marks of one folder; its leading underscore hides it from readers of lakes."""
PART_PREFIX, PART_SUFFIX = ".rap-", ".part"
"""How the name of every unfinished file or directory begins and ends."""
VERSIONS = 10_000
"""The most contents that one name can have in a directory."""

# What Hive escapes, and what Windows and globs do not take; ~ marks a code that was cut.
_UNSAFE = frozenset("/\\:*?\"<>|=%#'[]{}^~")
_CODE_BYTES, _HASH_DIGITS = 200, 16
# The control characters of Unicode.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# reports/customer=…/folder=…/report=…/business_date=…/<file name>
_REPORT_PARTS = 6
_STAMP = "%Y%m%dT%H%M%SZ"
_MANIFEST = re.compile(r"(?P<stamp>[0-9]{8}T[0-9]{6}Z)-[0-9a-f]+-[0-9]+\.jsonl")
_MANIFEST_DAY = re.compile(rf"{MANIFESTS}/[^/]+/[^/]+/([0-9-]{{10}})/")
_REPORT_DAY = re.compile(rf"{REPORTS}/[^/]+/[^/]+/[^/]+/business_date=([^/]+)/")
# A compressed file has two extensions: report.csv.gz.
_EXTENSION = re.compile(
    r"(?P<stem>.+?)(?P<extension>(\.\w{1,16})?\.(gz|bz2|xz|zst|lz4|br|zip|Z)|\.\w{1,16})",
    re.DOTALL | re.IGNORECASE | re.ASCII,
)
_KINDS = {
    Kind.DIRECTORY: "It is a sub-folder, which RAP should not have (guide §4.2); its content was not listed.",
    Kind.SYMLINK: "It is a symbolic link, which may lead anywhere.",
    Kind.OTHER: "It is neither a file nor a folder.",
}


class Refused(NamedTuple):
    """Why a listed entry may not enter the lake."""

    reason: str


def safe_name(file: RemoteFile) -> str | Refused:
    """Return the name under which a file's first content lands, or the reason why it may not land.

    Bytes that are not UTF-8 become ``%XX``; `landing_name` has the other changes. Names that differ only in
    Unicode normalisation stay two names.

    :param file: an entry of a folder's listing.
    """
    if file.kind is not Kind.FILE:
        return Refused(_KINDS[file.kind])
    return refuse_name(file.text) or landing_name(file.text)


def refuse_name(name: str) -> Refused | None:
    """Return why a file of a name may not be written to a directory; None if it may.

    :param name: the name on RAP, as `RemoteFile.text`.
    """
    if name in ("", ".", ".."):
        return Refused("Its name is empty, . or .., which is no file name.")
    if "/" in name or "\\" in name:
        return Refused("Its name contains a path separator.")
    if is_too_long(name):
        return Refused(f"Its name is longer than {NAME_BYTES} bytes.")
    if _CONTROL.search(name):
        return Refused("Its name contains a control character.")
    if is_part(name):
        return Refused("Its name has the form that the lake uses for unfinished files.")
    return None


def is_part(name: str) -> bool:
    """Return whether a name is that of an unfinished file or directory.

    :param name: the last part of a path.
    """
    return name.startswith(PART_PREFIX) and name.endswith(PART_SUFFIX)


def landing_name(name: str) -> str:
    """Return a report's name in a form that readers of lakes see.

    They skip names that begin with ``.`` or ``_``: these characters become ``%2E`` and ``%5F``. A name that
    is then too long is shortened. Any other name, and a name that was changed before, stays as it is.

    :param name: the name on RAP, as `RemoteFile.text`.
    """
    if name.startswith((".", "_")):
        name = f"%{ord(name[0]):02X}{name[1:]}"
    return _fitting(name, "")


def rap_name_of(name: str) -> str:
    """Return the name on RAP of a file's first version in the lake; a shortened name stays as it is.

    :param name: as `landing_name` returns it.
    """
    return re.sub(r"^%(2E|5F)", lambda match: chr(int(match[1], 16)), name)


def versions(name: str) -> Iterator[str]:
    """Yield the names for a file's successive contents: its own, then with ``.v2``, ``.v3``... in it.

    ::

        list(itertools.islice(versions("TP001_20261120.csv.gz"), 2))
        # ["TP001_20261120.csv.gz", "TP001_20261120.v2.csv.gz"]

    :param name: the file's name on RAP, or as `safe_name` returns it.
    :raises LakeConflict: if more than `VERSIONS` names are asked for.
    """
    name = landing_name(name)
    yield name
    for number in range(2, VERSIONS + 1):
        yield _fitting(name, f".v{number}")
    raise LakeConflict(
        f"{name} has {VERSIONS} versions in one directory of the lake.",
        why="Each new content of a name lands beside the older ones, and so many are not expected.",
        todo="Find out why RAP keeps publishing it; move its versions out of the lake, or exclude the name.",
    )


def _fitting(name: str, version: str) -> str:
    """Return a name with a version in front of its extension, shortened to `NAME_BYTES`.

    A hash of the whole name keeps two long names distinct.
    """
    match = _EXTENSION.fullmatch(name)
    stem, extension = (match["stem"], match["extension"]) if match else (name, "")
    excess = len(f"{name}{version}".encode()) - NAME_BYTES
    if excess > 0:
        mark = f"-{hashlib.sha256(name.encode()).hexdigest()[:_HASH_DIGITS]}"
        kept = stem.encode()[: -(excess + len(mark))]
        # A character of several bytes is kept whole or not at all.
        stem = kept.decode(errors="ignore") + mark
    return f"{stem}{version}{extension}"


def folder_directory(customer: str, folder: Folder | str) -> str:
    """Return the directory of a folder's reports, relative to the lake.

    :param customer: the DCASS customer code, such as ``CXYZ``.
    :param folder: the folder on RAP.
    """
    return f"{REPORTS}/customer={customer}/folder={folder}"


def report_directory(
    customer: str, folder: Folder | str, report: str, business_date: pendulum.Date | str
) -> str:
    """Return the directory in which a report lands, relative to the lake.

    ::

        report_directory("CXYZ", Folder.DCASS, "TP001", "2026-11-20")
        # "reports/customer=CXYZ/folder=DCASS/report=TP001/business_date=2026-11-20"

    :param customer: the DCASS customer code, such as ``CXYZ``.
    :param folder: the folder on RAP.
    :param report: the report code, as `Naming.read` returns it.
    :param business_date: the day that the report is about; if text, in ISO form.
    """
    directory = f"{folder_directory(customer, folder)}/report={report_code_directory(report)}"
    return f"{directory}/business_date={business_date}"


def report_code_directory(report: str) -> str:
    r"""Return a report code as the value of a hive directory.

    Characters that a file system, a glob or a hive directory may not hold become ``%XX``, as Hive and Spark
    write them: control characters, ``/ \ : * ? " < > | = % # ' [ ] { } ^ ~``, a ``.`` or ``_`` at the start,
    and a ``.`` or a space at the end. `urllib.parse.unquote` returns the code, unless it was too long: more
    than 200 bytes are cut, and ``~`` and a hash of the code are appended. Two codes never share a directory,
    and names that differ only in Unicode normalisation stay two.

    :param report: the report code, as `Naming.read` returns it.
    """
    last = len(report) - 1
    pieces = [
        _escape(character)
        if _is_unsafe(character)
        or (index == 0 and character in "._")
        or (index == last and character in ". ")
        else character
        for index, character in enumerate(report)
    ]
    directory = "".join(pieces)
    if len(directory.encode()) <= _CODE_BYTES:
        return directory
    digest = hashlib.sha256(report.encode(errors="surrogatepass")).hexdigest()[:_HASH_DIGITS]
    lengths = itertools.accumulate(len(piece.encode()) for piece in pieces)
    kept = sum(length <= _CODE_BYTES - 1 - _HASH_DIGITS for length in lengths)
    return f"{''.join(pieces[:kept])}~{digest}"


def _is_unsafe(character: str) -> bool:
    return character in _UNSAFE or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")


def _escape(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode(errors="surrogatepass"))


def manifest_directory(customer: str, folder: Folder | str, business_date: pendulum.Date | str) -> str:
    """Return the directory of the manifest files of one business date, relative to the lake.

    :param customer: the DCASS customer code, such as ``CXYZ``.
    :param folder: the folder on RAP.
    :param business_date: the business date of the entries; if text, in ISO form.
    """
    return f"{MANIFESTS}/{customer}/{folder}/{business_date}"


def manifest_path(
    customer: str, folder: Folder | str, business_date: pendulum.Date | str, run: str, sequence: int
) -> str:
    """Return the path of one manifest file, relative to the lake.

    :param customer: the DCASS customer code, such as ``CXYZ``.
    :param folder: the folder on RAP.
    :param business_date: the business date of its entries; if text, in ISO form.
    :param run: the run that writes it, as `run_stamp` returns it.
    :param sequence: number of the file among those of the run, from 1.
    """
    return f"{manifest_directory(customer, folder, business_date)}/{run}-{sequence:04}.jsonl"


def marks_directory(customer: str, folder: Folder | str, kind: str) -> str:
    """Return the directory of a folder's marks of one kind, relative to the lake.

    :param customer: the DCASS customer code, such as ``CXYZ``.
    :param folder: the folder on RAP.
    :param kind: such as ``announced``.
    """
    return f"{MANIFESTS}/{customer}/{folder}/{MARKS}/{kind}"


def claim_path(customer: str, folder: Folder | str, business_date: pendulum.Date | str, path: str) -> str:
    """Return the path of the mark that decides which run enters a file without an entry.

    :param customer: the DCASS customer code, such as ``CXYZ``.
    :param folder: the folder on RAP.
    :param business_date: the business date of the file.
    :param path: the file's path, relative to the lake.
    """
    name = hashlib.sha256(path.encode()).hexdigest()[: 2 * _HASH_DIGITS]
    return f"{marks_directory(customer, folder, 'claimed')}/{business_date}/{name}"


def business_date_of(path: str) -> str | None:
    """Return the business date in the path of a report or manifest file, in ISO form; None if it has none.

    :param path: relative to the lake.
    """
    match = _REPORT_DAY.match(path) or _MANIFEST_DAY.match(path)
    return match[1] if match else None


def run_stamp(now: pendulum.DateTime, suffix: str) -> str:
    """Return the name of a run; names sort by the time at which the runs started.

    :param now: when the run started.
    :param suffix: random hexadecimal digits.
    """
    return f"{now.in_timezone('UTC').strftime(_STAMP)}-{suffix}"


def new_run(now: pendulum.DateTime) -> str:
    """Return a name that no other run has.

    :param now: when the run starts.
    """
    return run_stamp(now, secrets.token_hex(3))


def manifest_stamp(path: str) -> str | None:
    """Return when the run of a manifest file started, as ``YYYYMMDDTHHMMSSZ``; None for other files.

    :param path: a path below `MANIFESTS`.
    """
    match = _MANIFEST.fullmatch(path.rpartition("/")[2])
    return match["stamp"] if match else None


def relative_path(uri: str) -> str:
    """Return a landed file's path relative to its lake, even if the lake has moved since.

    :param uri: the URI in a manifest entry.
    """
    return "/".join(uri.split("/")[-_REPORT_PARTS:])
