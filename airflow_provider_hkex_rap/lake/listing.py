"""List files of a lake: a whole tree, or some directories by their names."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

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


async def list_directories(calls: StorageCalls, lake: Lake, directories: Iterable[str]) -> list[str]:
    """Return the finished files in some directories, relative to the lake; a missing directory has none.

    Each directory costs one call, however many directories lie beside it.

    :param calls: runs the storage calls.
    :param lake: the lake.
    :param directories: relative to the lake; they have files, and no directories.
    :raises OSError: if the lake cannot be read.
    """
    files: list[str] = []
    for batch in _batches(list(directories)):
        if lake.lists_trees:
            # fsspec lists the parent as well if it finds no such directory; listing a tree does not.
            for found in await calls.map(lake.walk, batch):
                files += found
        else:
            for listed in await calls.map(lake.list_directory, batch):
                files += listed.files
    return files


def _batches(directories: list[str]) -> Iterable[list[str]]:
    return (directories[start : start + _DIRECTORIES] for start in range(0, len(directories), _DIRECTORIES))
