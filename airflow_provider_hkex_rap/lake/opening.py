"""Open the lake at a URI, through Airflow's object storage and its connections."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from airflow_provider_hkex_rap.lake.refusals import refusing
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath
    from fsspec import AbstractFileSystem

    from airflow_provider_hkex_rap.lake.store import Lake

LAKE_VARIABLE = "hkex_rap_lake"
"""The Airflow Variable in which the DAGs of ``dags/`` look for the lake's root."""
_BUCKET_SCHEMES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl"}


def open_lake(uri: str | ObjectStoragePath) -> Lake:
    """Return the lake at a URI.

    ::

        lake = open_lake("s3://aws_default@bucket/rap")

    A percent-encoded ``file://`` URI is decoded. The URIs in the manifest of a local lake are not encoded,
    since ``ObjectStoragePath`` and DuckDB do not decode them, and pandas opens both forms.

    :param uri: an absolute path, or a URI of ``ObjectStoragePath``; its user part is an Airflow connection.
    :raises RapConfigurationError: if *uri* is blank, a relative path, or not a URI; if it has an empty
        segment, or characters that storages or readers take for something else; if the provider package for
        its kind of storage is not installed; or if that storage cannot refuse to overwrite a file.
    :raises LakeError: if the storage cannot be opened, for example for want of credentials.
    """
    from airflow_provider_hkex_rap.lake.store import Lake

    text = str(uri or "").strip()
    # file://data would be a path below the worker's current directory.
    local = re.fullmatch(r"(?:(?P<scheme>file|local)://)?(?P<path>/.*)", text, re.DOTALL)
    if not local and not re.match(r"(?!file:|local:)[^/]+://", text):
        raise _invalid(text, "is not the root of a lake")
    if local:
        path = unquote(local["path"]) if local["scheme"] else local["path"]
    else:
        path = text.partition("://")[2]
        _check_user_part(path)
    if fault := _fault(text, path, local=bool(local)):
        raise _invalid(text, fault)
    if local:
        return _open_local(path)
    # Some storages look for the credentials as soon as they are opened.
    with refusing(f"The lake {text!r} cannot be opened", text):
        storage, root, root_uri = _open_storage(text)
    return Lake(storage, root, root_uri)


def _check_user_part(path: str) -> None:
    """Refuse a user part that looks like credentials; the error does not show them.

    :raises RapConfigurationError: if the user part has a colon.
    """
    user, at, _ = path.partition("/")[0].rpartition("@")
    if at and ":" in user:
        raise RapConfigurationError(
            "The user part of the URI in 'lake' has a colon, as a name with a password has.",
            why="It is the id of an Airflow connection. Logs and the manifest show the URI.",
            todo="Put the credentials into a connection, and its id into 'lake': s3://aws_default@bucket/rap.",
        )


def _fault(text: str, path: str, *, local: bool) -> str:
    """Return why files could land under other names than they are read by; empty if they cannot.

    :param path: the decoded path of a local lake; else the part of the URI behind ``://``.
    """
    bucket, *segments = path.removesuffix("/").split("/")
    fault = ""
    if path == "/":
        fault = "is the root of the whole file system"
    elif "" in segments:
        # s3fs leaves the objects below an empty segment out of its listings.
        fault = "has an empty segment (//)"
    elif not local and not bucket.rpartition("@")[2] and text.partition(":")[0] in _BUCKET_SCHEMES:
        fault = "has no bucket or container"
    elif {".", ".."} & set(segments):
        fault = "has a segment . or .., which leads elsewhere"
    elif found := [character for character in "?#" if character in path]:
        # s3fs reads ?versionId= as a version, gcsfs # as a generation; pandas cuts the URI at #.
        fault = f"has the character {found[0]}, which storages and readers take for the end of the path"
    elif local and "%" in path:
        # pandas decodes the URIs of the manifest, and other readers do not.
        fault = "has the character % in its path, which readers understand in different ways"
    elif not path.isprintable():
        fault = "has a control character"
    return fault


def _invalid(text: str, fault: str) -> RapConfigurationError:
    # What follows may be a signature.
    text = re.sub(r"\?.+", "?...", text, flags=re.DOTALL)
    scheme, separator, path = text.rpartition("://")
    # No other fault can be corrected without a guess.
    example = f"{scheme}{separator}{re.sub('/+', '/', path)}" if "empty" in fault else "one"
    return RapConfigurationError(
        f"{text!r} in 'lake' {fault}.",
        why="A lake is an absolute path or a URI, such as file:///data/rap or s3://aws_default@bucket/rap.",
        todo=f"Set 'lake' to {example}; the user part of a URI is the Airflow connection to it.",
        lake=text,
    )


def _open_local(path: str) -> Lake:
    # Airflow's object storage is not imported for it: that takes about 0.4 s of each task.
    from fsspec.implementations.local import LocalFileSystem

    from airflow_provider_hkex_rap.lake.store import Lake

    return Lake(LocalFileSystem(), path, f"file://{path}")


def _open_storage(text: str) -> tuple[AbstractFileSystem, str, str]:
    """Return the storage of a URI, and the root of the lake as a path on it and as a URI."""
    from airflow.sdk import ObjectStoragePath
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        path = ObjectStoragePath(text)
        return path.fs, path.path, path.as_uri()
    except (ValueError, ImportError, AirflowNotFoundException) as error:
        raise RapConfigurationError(
            f"The lake {text!r} cannot be opened: {error}.",
            why="Airflow opens a storage through the provider package for its kind.",
            todo="Install that provider with its fsspec extra, such as apache-airflow-providers-amazon[s3fs],"
            " or correct the URI.",
            lake=text,
        ) from None
