"""Turn the errors of a storage into errors that name the lake, the cause and the next step."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from airflow_provider_hkex_rap.rap.errors import LakeError, RapError


class _Advice(NamedTuple):
    """The usual reason of a kind of error, the next step, and whether a retry can help without it."""

    why: str
    todo: str
    retryable: bool = False


_RIGHTS = _Advice(
    "The worker's user, or the connection in the lake's URI, lacks a right.",
    "Grant it the rights to list, read and create files in the lake.",
)
_FULL = _Advice(
    "The storage has no space left, or a quota or limit on file size was reached.",
    "Free space, or raise the limit.",
    retryable=True,
)
_ABSENT = _Advice(
    "The bucket, container or directory does not exist.", "Create it, or correct the lake's URI."
)
_UNSUPPORTED = _Advice(
    "The storage does not support a request that the lake needs, such as an exclusive create"
    " (If-None-Match on S3), so that landed files could be overwritten.",
    "Upgrade the storage, or use another one for the lake.",
)
_OTHER = _Advice(
    "The storage failed, or cannot be reached.", "A later try may succeed; else check it.", retryable=True
)
_EXPIRED = _Advice(
    "The credentials of the connection have expired, or the clock of the worker is wrong.",
    "A later try gets new credentials; if it fails too, check the connection and the clock.",
    retryable=True,
)
_BY_ERRNO = {
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EROFS: _Advice("It is on a read-only file system.", "Mount it for writing, or use another lake."),
    errno.ENOTDIR: _Advice("A part of its path is a file.", "Remove that file, or correct the lake's URI."),
    errno.EEXIST: _Advice("A part of its path is a file.", "Remove that file, or correct the lake's URI."),
    errno.ENOENT: _ABSENT,
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _FULL,
    errno.ENOSYS: _UNSUPPORTED,
    errno.EOPNOTSUPP: _UNSUPPORTED,
}
# Some storages and libraries use types or codes of their own.
_BY_TYPE = (
    (PermissionError, _RIGHTS),
    (FileNotFoundError, _ABSENT),
    (NotImplementedError, _UNSUPPORTED),
)
_NO_CREDENTIALS = _Advice(
    "The connection in the lake's URI has no credentials, or names a profile that this machine lacks.",
    "Correct the connection, or give this machine the credentials.",
)
_BY_CODE = {
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "RequestExpired": _EXPIRED,
    "RequestTimeTooSkewed": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "NoCredentialsError": _NO_CREDENTIALS,
    "PartialCredentialsError": _NO_CREDENTIALS,
    "ProfileNotFound": _NO_CREDENTIALS,
    "401": _RIGHTS,
    "AccessDenied": _RIGHTS,
    "Forbidden": _RIGHTS,
    "403": _RIGHTS,
    "NoSuchBucket": _ABSENT,
    "404": _ABSENT,
    "NotImplemented": _UNSUPPORTED,
    "501": _UNSUPPORTED,
}


def refusal(what: str, uri: str, error: Exception) -> LakeError:
    """Return the error for a refused storage call; it says if a retry can help.

    :param what: what did not work, such as ``s3://bucket/rap cannot be used``.
    :param uri: the URI of the lake or file.
    :param error: the error of the storage call.
    """
    cause = same_cause(error)
    advice = _advice(error)
    return LakeError(
        f"{what}: {cause}.",
        why=advice.why,
        todo=advice.todo,
        uri=uri,
        cause=cause,
        retryable=advice.retryable,
    )


@contextmanager
def refusing(what: str, uri: str) -> Iterator[None]:
    """Turn the errors of storage calls in a block into a `LakeError`.

    :param what: what does not work if one fails, such as ``The manifest cannot be read``.
    :param uri: the URI of the lake or file.
    :raises LakeError: if a storage call failed.
    """
    try:
        yield
    except RapError:
        raise
    # Each backend raises errors of its own.
    except Exception as error:
        raise refusal(what, uri, error) from error


def same_cause(error: BaseException) -> str:
    """Return the cause of an error in words that name no file.

    Files that fail for the same reason have the same cause, so that it can be logged once.

    :param error: the error of a storage call, or of `Lake.commit`.
    """
    if isinstance(error, LakeError) and hasattr(error, "cause"):
        return error.cause
    if isinstance(error, RapError):
        return str(error)
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    parts = type(error).__name__, code_of(error), text.rstrip(".")
    return " ".join(dict.fromkeys(part for part in parts if part))


def code_of(error: BaseException) -> str:
    """Return the name of an error's number, or the code of the S3 answer behind it; empty if it has none.

    :param error: the error of a storage call.
    """
    for source in (error, error.__cause__):
        response = getattr(source, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
    status = getattr(error, "status_code", None) or getattr(error, "code", None)
    if isinstance(status, int | str):
        return str(status)
    number = error.errno if isinstance(error, OSError) else None
    return errno.errorcode.get(number, "") if number else ""


def _advice(error: Exception) -> _Advice:
    number = error.errno if isinstance(error, OSError) else None
    found = _BY_CODE.get(code_of(error) or type(error).__name__) or (
        _BY_ERRNO.get(number) if number else None
    )
    return found or next((advice for kind, advice in _BY_TYPE if isinstance(error, kind)), _OTHER)
