"""The outcome of each planned file, and the result of a landing."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_hkex_rap.lake.entry import Disposition, Entry
from airflow_provider_hkex_rap.lake.refusals import refusal, same_cause
from airflow_provider_hkex_rap.rap.errors import MOST_CHARACTERS, LakeError
from airflow_provider_hkex_rap.rap.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_provider_hkex_rap.lake.entries import Target
    from airflow_provider_hkex_rap.lake.manifest import ManifestFile
    from airflow_provider_hkex_rap.rap.files import RemoteFile

log = logging.getLogger(__name__)


class FileOutcome(NamedTuple):
    """How the landing of one file ended; *reason* is empty if it landed in the ordinary way."""

    file: RemoteFile
    disposition: Disposition
    reason: str


class LandingProgress(NamedTuple):
    """How many files of a landing are finished, and how many bytes by the sizes that RAP listed."""

    files: int
    total_files: int
    bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class LandingResult:
    """The result of a landing so far.

    :param landed: number of files that are in the lake and had no manifest entry before.
    :param already: number of files that the lake had before.
    :param deferred: number of files that were incomplete, or changed while they were read.
    :param quarantined: number of listed entries that may not enter the lake.
    :param failed: number of files that could not be read, or not be written to the lake.
    :param bytes: the bytes of the files that landed.
    :param entries: the manifest entries that were written.
    :param outcomes: the outcome of each planned file, in the order in which they finished.
    :param manifests: the URIs of the manifest files that were written.
    :param manifest_files: the same files, with their entries.
    :param refusals: for each cause for which the lake refused a file, the first such error.
    """

    landed: int
    already: int
    deferred: int
    quarantined: int
    failed: int
    bytes: int
    entries: tuple[Entry, ...]
    outcomes: tuple[FileOutcome, ...]
    manifests: tuple[str, ...]
    manifest_files: tuple[ManifestFile, ...]
    refusals: tuple[LakeError, ...]


NOTHING_LANDED = LandingResult(0, 0, 0, 0, 0, 0, (), (), (), (), ())


class Outcomes:
    """Collect one outcome for each planned file, and report the progress.

    :param progress: called from the event loop after each file.
    """

    def __init__(self, progress: Callable[[LandingProgress], object] | None) -> None:
        self.landed_bytes = 0
        self.refusals: dict[str, LakeError] = {}
        """The first error of each cause for which the lake refused a file."""
        # To save memory, only the file is kept if it landed in the ordinary way.
        self._finished: list[RemoteFile | FileOutcome] = []
        self._progress = progress
        self._planned: Sequence[RemoteFile] = ()
        self._total_bytes = 0
        self._finished_bytes = 0

    def expect(self, files: Sequence[RemoteFile]) -> None:
        """Set the files that need an outcome.

        :param files: the files to land, each once.
        """
        self._planned = files
        self._total_bytes = sum(file.size or 0 for file in files)

    @property
    def finished(self) -> tuple[FileOutcome, ...]:
        """The outcomes so far, in the order in which the files finished."""
        return tuple(
            each if isinstance(each, FileOutcome) else FileOutcome(each, Disposition.LANDED, "")
            for each in self._finished
        )

    def missing(self) -> list[RemoteFile]:
        """Return the planned files that have no outcome yet."""
        finished = {outcome.file for outcome in self.finished}
        return [file for file in self._planned if file not in finished]

    def add(self, file: RemoteFile, disposition: Disposition, reason: str = "") -> None:
        """Record the outcome of one file.

        :param file: the file as it was planned.
        :param disposition: how its landing ended.
        :param reason: why, if it did not land in the ordinary way.
        """
        ordinary = disposition is Disposition.LANDED and not reason
        self._finished.append(file if ordinary else FileOutcome(file, disposition, reason))
        self._finished_bytes += file.size or 0
        if self._progress:
            state = LandingProgress(
                len(self._finished), len(self._planned), self._finished_bytes, self._total_bytes
            )
            # In a callback of its own, so that an error in *progress* cannot keep a file from its entry.
            asyncio.get_running_loop().call_soon(self._progress, state)

    def add_target(self, target: Target, disposition: Disposition, reason: str = "") -> None:
        """Record the outcome of a file that is in the lake, and its bytes if this run has landed it.

        :param target: the file, with the size that the reading proved.
        :param disposition: how its landing ended.
        :param reason: why, if it did not land in the ordinary way.
        """
        if disposition is Disposition.LANDED:
            self.landed_bytes += target.file.size or 0
        self.add(target.listed, disposition, reason)

    def add_refused(self, file: RemoteFile, uri: str, error: Exception) -> None:
        """Record that a storage call for a file failed.

        :param file: the file as it was planned.
        :param uri: its URI in the lake.
        :param error: the error of the storage call.
        """
        cause = same_cause(error)
        if cause not in self.refusals:
            refused = error if isinstance(error, LakeError) else refusal(f"{uri} was refused", uri, error)
            self.refusals[cause] = refused
            log.warning(
                "%s did not land. Other files with the same cause are not logged: %s",
                printable(uri, MOST_CHARACTERS),
                refused,
            )
        self.add(file, Disposition.FAILED, f"The lake refused the file: {cause}.")
