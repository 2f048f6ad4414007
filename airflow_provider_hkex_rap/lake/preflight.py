"""Check before the login that a lake can take files."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING

from airflow_provider_hkex_rap.lake.layout import PART_PREFIX, PART_SUFFIX
from airflow_provider_hkex_rap.lake.refusals import refusal
from airflow_provider_hkex_rap.rap.errors import LakeError

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.lake.store import Lake

log = logging.getLogger(__name__)

# A directory with the name of an unfinished file, so that no reader takes a probe for a report.
_DIRECTORY = f"{PART_PREFIX}probe{PART_SUFFIX}"
_FIXED = f"{_DIRECTORY}/probe"

_OVERWRITES = "lets files be overwritten"
_UNLISTED = "does not list a file that was created in it"
_LOST = "lost a file that was created in it"
_WHY = {
    _OVERWRITES: "Its storage ignores the exclusive create that keeps landed files.",
    _UNLISTED: "Its listings leave out files, so that each run would land every file again.",
    _LOST: "The file was removed or changed at once.",
}


def check_lake(lake: Lake) -> str:
    """Check that a lake creates, lists and reads files, and that it never overwrites one.

    It writes one small probe and removes it. If a local lake does not exist yet, the probe goes into a new
    directory beside the first part of its path that is missing, and the lake is not created. On an object
    store the probe has a fixed name: if the lake gives no right to delete, it keeps exactly one tiny object.
    Call it before the login; it makes a few storage calls, which block.

    :param lake: the lake.
    :returns: the URI of the probe if it could not be removed; else an empty text.
    :raises LakeError: if the lake cannot be used; `retryable` says if a retry can help.
    """
    with _place_of_probe(lake) as place:
        return _check(lake, place)


def is_missing(lake: Lake) -> bool:
    """Return whether the root of a local lake does not exist yet; false for other lakes.

    :param lake: the lake.
    """
    return lake.is_local and not os.path.lexists(lake.root)


@contextlib.contextmanager
def _place_of_probe(lake: Lake) -> Iterator[Lake]:
    """Yield the lake; or if it does not exist, one in a new directory in the nearest directory above it.

    The lake itself is not created and removed again: a task may land in it between the two.
    """
    if not is_missing(lake):
        yield lake
        return
    log.warning(
        "The lake %s does not exist, and a landing makes it. If it did exist, is its disk mounted?", lake.uri
    )
    parent = os.path.dirname(lake.root)
    while not os.path.lexists(parent):
        parent = os.path.dirname(parent)
    if not os.path.isdir(parent):
        # The probe is refused, and nothing is made.
        yield lake
        return
    place = f"{parent.rstrip('/')}/{PART_PREFIX}{secrets.token_hex(8)}{PART_SUFFIX}"
    try:
        yield type(lake)(lake.fs, place)
    finally:
        with contextlib.suppress(OSError):
            os.rmdir(place)


def _check(lake: Lake, place: Lake) -> str:
    unique = secrets.token_hex(8)
    # A probe of a fixed name may be another run's, and vanish: a doubt is settled by one of our own.
    probes = [f"{PART_PREFIX}{unique}{PART_SUFFIX}"] if lake.is_local else [_FIXED, f"{_DIRECTORY}/{unique}"]
    doubt = ""
    for probe in probes:
        try:
            doubt, leftover = _prove(place, probe)
        # Each backend raises its own errors for a wrong bucket, region, permission or missing package.
        except Exception as error:
            raise refusal(f"The lake {lake.uri} cannot be used", lake.uri, error) from error
        if not doubt:
            return leftover
    raise LakeError(
        f"The lake {lake.uri} {doubt}.",
        why=_WHY[doubt],
        todo="Use another storage, or correct the lake's URI.",
        uri=lake.uri,
        cause=doubt,
    )


def _prove(lake: Lake, probe: str) -> tuple[str, str]:
    """Create a probe, and prove by it that the lake works.

    :returns: the fault that was found, or an empty text; and the URI of a probe that could not be removed.
    :raises Exception: if the lake refuses a call.
    """
    content = secrets.token_bytes(8)
    created = _create(lake, probe, content)
    leftover = ""
    try:
        fault = _fault(lake, probe, content if created else None)
    finally:
        if created:
            leftover = _remove(lake, probe)
    return fault, leftover


def _fault(lake: Lake, probe: str, content: bytes | None) -> str:
    """Return the fault that a probe shows; *content* is None if another run has created it."""
    directory, _, name = probe.rpartition("/")
    if name not in lake.names(directory):
        return _UNLISTED
    try:
        held = lake.read(probe)
    except FileNotFoundError:
        return _LOST
    if content is None:
        # That the create was refused has proven that the lake does not overwrite.
        return ""
    if held != content:
        return _LOST
    return _OVERWRITES if _create(lake, probe, b"overwritten") else ""


def _create(lake: Lake, probe: str, content: bytes) -> bool:
    """Create a probe; return False if it exists."""
    try:
        lake.create(probe, content)
    except FileExistsError:
        if lake.is_local and lake.stat(probe) is None:
            # The root of the lake, or a directory above it, is a file.
            raise
        return False
    except Exception as error:
        # The answer was lost, or the backend has its own error for "exists"; a refused right proves nothing.
        if not refusal("", "", error).retryable or lake.stat(probe) is None:
            raise
        return False
    return True


def _remove(lake: Lake, probe: str) -> str:
    """Remove a probe; return its URI if that fails."""
    try:
        lake.fs.rm_file(f"{lake.root}/{probe}")
    except FileNotFoundError:
        return ""
    # A lake needs no right to delete.
    except Exception:
        return lake.uri_of(probe)
    return ""
