"""Open the lake at a URI, through Airflow's object storage and its connections."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from airflow_provider_hkex_rap.rap.errors import RapConfigurationError

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_hkex_rap.lake.store import Lake


def open_lake(uri: str | ObjectStoragePath) -> Lake:
    """Return the lake at a URI.

    ::

        lake = open_lake("s3://aws_default@bucket/rap")

    :param uri: an absolute path, or a URI of ``ObjectStoragePath``; its user part is an Airflow connection.
    :raises RapConfigurationError: if *uri* is blank, a relative path, or not a URI; if the provider package
        for its kind of storage is not installed; or if that storage cannot refuse to overwrite a file.
    """
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_hkex_rap.lake.store import Lake

    text = str(uri or "").strip()
    # file://data would be a path below the worker's current directory.
    if not re.match(r"/|(file|local):///|(?!file:|local:)[^/]+://", text):
        raise RapConfigurationError(
            f"{text!r} in 'lake' is not the root of a lake.",
            why="A lake is an absolute path or a URI, such as file:///data/rap or s3://aws_default@bucket/rap.",
            todo="Set 'lake' to one; the user part of a URI is the Airflow connection to it.",
            lake=text,
        )
    try:
        path = ObjectStoragePath(text)
        storage = path.fs
    except (ValueError, ImportError) as error:
        raise RapConfigurationError(
            f"The lake {text!r} cannot be opened: {error}.",
            why="Airflow opens a storage through the provider package for its kind.",
            todo="Install that provider with its fsspec extra, such as apache-airflow-providers-amazon[s3fs],"
            " or correct the URI.",
            lake=text,
        ) from None
    return Lake(storage, path.path, path.as_uri())
