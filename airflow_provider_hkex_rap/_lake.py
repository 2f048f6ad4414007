"""The lake that a URI names, through Airflow's object storage and its connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_hkex_rap.rap.errors import RapConfigurationError

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_hkex_rap.lake.store import Lake


def open_lake(uri: str | ObjectStoragePath) -> Lake:
    """Return the lake at a URI.

    :param uri: an absolute path, or a URI of ``ObjectStoragePath``; its user part is an Airflow connection.
    :raises RapConfigurationError: it is blank, or neither.
    """
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_hkex_rap.lake.store import Lake

    text = str(uri or "").strip()
    if not ("://" in text or text.startswith("/")):
        raise RapConfigurationError(
            f"{text!r} in 'lake' is not the root of a lake.",
            why="A lake is an absolute path or a URI, such as file:///data/rap or s3://aws_default@bucket/rap.",
            todo="Set 'lake' to one; the user part of a URI is the Airflow connection to it.",
            lake=text,
        )
    path = ObjectStoragePath(text)
    return Lake(path.fs, path.path, path.as_uri())
