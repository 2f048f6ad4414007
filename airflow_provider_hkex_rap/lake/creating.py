"""Create small files of the lake, each exactly once."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.lake.store import Lake


def create_once(lake: Lake, path: str, content: bytes) -> None:
    """Write a small new file; if it exists with the same bytes, it counts as written.

    A storage may write the file and lose its answer, and its client may then send the request again.

    :param lake: the lake.
    :param path: relative to the lake.
    :param content: the file's bytes.
    :raises FileExistsError: if the file exists with other bytes.
    :raises OSError: if the lake refuses it.
    """
    try:
        lake.create(path, content)
    # Backends raise errors of their own.
    except Exception as error:
        try:
            written = lake.read(path) == content
        except Exception:
            raise error from error.__cause__
        if not written:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from error
