"""Write a local file whole, or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from airflow_provider_hkex_rap.lake.layout import PART_PREFIX, PART_SUFFIX


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Yield a file to write to; at the end of the block, unless by an error, it replaces the file at *path*.

    The mode of the file that was there is kept. A pipe or a device is written to directly.

    :param path: the path of the file; its directory must exist. A symbolic link is followed.
    :raises OSError: if the file cannot be written.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        with open(path, "wb") as direct:
            yield direct
        return
    target = os.path.realpath(path)
    # Beside the target, since only a rename within one file system replaces it in one step.
    part = os.path.join(os.path.dirname(target), f"{PART_PREFIX}{secrets.token_hex(8)}{PART_SUFFIX}")
    try:
        with open(part, "xb") as file:
            yield file
        if os.path.exists(target):
            shutil.copymode(target, part)
        os.replace(part, target)
    except BaseException:
        if os.path.exists(part):
            os.unlink(part)
        raise
