"""List the files below a directory of a lake."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.lake.storage_calls import StorageCalls
    from airflow_provider_hkex_rap.lake.store import Lake

_DIRECTORIES = 256
"""How many directories are handed to the threads at a time."""


async def list_files(calls: StorageCalls, lake: Lake, directory: str) -> list[str]:
    """Return the finished files below a directory, relative to the lake, sorted; none if it does not exist.

    An object store lists a whole tree in one call; elsewhere each directory is a call of its own.

    :param calls: runs the storage calls.
    :param lake: the lake.
    :param directory: relative to the lake.
    :raises OSError: if the lake cannot be read.
    """
    if lake.lists_trees:
        return await calls.run(lake.walk, directory)
    files: list[str] = []
    directories = [directory]
    while directories:
        batch = [directories.pop() for _ in range(min(len(directories), _DIRECTORIES))]
        for listed in await calls.map(lake.list_directory, batch):
            files += listed.files
            directories += listed.directories
    return sorted(files)
