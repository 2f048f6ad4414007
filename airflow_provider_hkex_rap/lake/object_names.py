"""Let object stores take each name as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fsspec import AbstractFileSystem

_VERSIONS = ("?versionId=", "?versionid=")
# Names that land have no control characters.
_MARK = "\0"


def keep_whole_names(fs: AbstractFileSystem) -> None:
    """Let s3fs and adlfs take ``?versionId=`` in a path for a part of the name.

    They cut such a name, also if they are not asked for versions of objects: the file would land under
    another name, and two such names under one.

    :param fs: the file system; one that is asked for versions, or that cuts no names, stays as it is.
    """
    split = getattr(fs, "split_path", None)
    if split is None or getattr(fs, "version_aware", True) or getattr(split, "keeps_whole_names", False):
        return

    def split_path(path: str, *arguments: Any, **options: Any) -> Sequence[Any]:
        for version in _VERSIONS:
            path = path.replace(version, _MARK + version[1:])
        bucket, key, *rest = split(path, *arguments, **options)
        return (bucket, key.replace(_MARK, "?"), *rest)

    split_path.keeps_whole_names = True  # type: ignore[attr-defined]
    fs.split_path = split_path
