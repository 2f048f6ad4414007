"""Prove the manifest against the bytes in the lake."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_hkex_rap.lake.layout import folder_directory, relative_path
from airflow_provider_hkex_rap.lake.manifest import READERS, Entry, read_manifests
from airflow_provider_hkex_rap.rap.folders import Folder

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_hkex_rap.lake.store import Lake


class ProblemKind(Enum):
    """How manifest and lake can disagree."""

    UNREADABLE_MANIFEST = auto()
    MISSING = auto()
    CHANGED = auto()
    UNCLAIMED = auto()


class Problem(NamedTuple):
    """Something on which manifest and lake do not agree."""

    kind: ProblemKind
    uri: str
    what: str


def verify(lake: Lake, customer: str, folders: Iterable[Folder] = tuple(Folder)) -> list[Problem]:
    """Read every landed byte of a customer, and say what does not agree with the manifest.

    :param lake: the lake.
    :param customer: the DCASS customer code.
    :param folders: the folders on RAP.
    :returns: a problem for each file that is missing, differs from its entry, or has none.
    :raises OSError: the lake cannot be read.
    """
    problems: list[Problem] = []
    for folder in folders:
        claims: dict[str, set[tuple[int | None, str | None]]] = {}
        for manifest in read_manifests(lake, customer, folder):
            if manifest.error:
                what = f"The manifest file is unreadable: {manifest.error}."
                problems.append(Problem(ProblemKind.UNREADABLE_MANIFEST, lake.uri_of(manifest.path), what))
            for entry in manifest.entries:
                _claim(claims, entry)
        found = lake.walk(folder_directory(customer, folder))
        problems += (
            Problem(ProblemKind.UNCLAIMED, lake.uri_of(path), "It has no manifest entry.")
            for path in found
            if path not in claims
        )
        with ThreadPoolExecutor(READERS) as pool:
            measured = pool.map(lake.measure, claims)
            for (path, claimed), measure in zip(claims.items(), measured, strict=True):
                problems += _differences(lake.uri_of(path), claimed, measure)
    return problems


def _claim(claims: dict[str, set[tuple[int | None, str | None]]], entry: Entry) -> None:
    if entry.uri:
        claims.setdefault(relative_path(entry.uri), set()).add((entry.size, entry.sha256))


def _differences(
    uri: str, claimed: set[tuple[int | None, str | None]], measured: tuple[int, str] | None
) -> list[Problem]:
    if measured is None:
        return [Problem(ProblemKind.MISSING, uri, "It is missing.")]
    holds = f"It holds {measured[0]} bytes of SHA-256 {measured[1]}"
    return [
        Problem(ProblemKind.CHANGED, uri, f"{holds}; its manifest entry says {size} of {sha256}.")
        for size, sha256 in claimed
        if (size, sha256) != measured
    ]
