"""The lake that a URI names, through Airflow's object storage and its connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_hkex_rap.rap.errors import RapConfigurationError

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.lake.store import Lake


def open_lake(uri: str) -> Lake:
    """Return the lake at a URI.

    :param uri: an absolute path, or a URI of ``ObjectStoragePath``; its user part is an Airflow connection.
    :raises RapConfigurationError: it is blank, or neither.
    """
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_hkex_rap.lake.store import Lake

    if not str(uri or "").strip() or not ("://" in uri or uri.startswith("/")):
        raise RapConfigurationError(
            f"{uri!r} in 'lake' is not the root of a lake.",
            why="A lake is an absolute path or a URI, such as file:///data/rap or s3://aws_default@bucket/rap.",
            todo="Set 'lake' to one; the user part of a URI is the Airflow connection to it.",
            lake=uri,
        )
    path = ObjectStoragePath(uri.strip())
    return Lake(path.fs, path.path, path.as_uri())
