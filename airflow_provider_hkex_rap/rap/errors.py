"""The errors of this package: one type for each kind of failure, with its facts as attributes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_hkex_rap.rap.printable import printable

if TYPE_CHECKING:
    import pendulum

MOST_CHARACTERS: Final = 20_000
"""The most characters of a message: enough for a list of files, and bounded whatever their names are."""


class RapError(Exception):
    """Base of every error of this package.

    An error can be pickled, and keeps its facts.

    :param what: what happened, naming the file, address or argument.
    :param why: the rule or the likely cause.
    :param todo: what the reader should do next.
    :param facts: values named in the message; each becomes an attribute.
    """

    retryable: bool = True
    """Whether a later try can succeed with nothing changed by anybody; an error may differ from its kind."""

    def __init__(self, what: str, *, why: str = "", todo: str = "", **facts: object) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.todo = todo
        self.__dict__.update(facts)

    def __str__(self) -> str:
        # The parts may hold text of a server, such as a file's name, that a log or a terminal would act on.
        text = " ".join(part for part in (self.what, self.why, self.todo) if part)
        return printable(text, limit=MOST_CHARACTERS)

    def __reduce__(self) -> tuple[Callable[..., RapError], tuple[Any, ...], dict[str, Any]]:
        return type(self), (self.what,), self.__dict__


def describe_error(error: BaseException) -> str:
    """Return type and text of an error; the type alone if it has no text, or cannot give it.

    :param error: any error, also one of somebody else's code.
    """
    kind = type(error).__name__
    try:
        text = str(error)
    except Exception:
        text = ""
    return f"{kind}: {text}" if text else kind


class RapConfigurationError(RapError):
    """An argument, connection field or setting is not of the valid form; nothing was sent."""

    retryable = False


class RapClosed(RapError):
    """RAP is outside its service hours (§4.1); nothing was sent."""

    opens_at: pendulum.DateTime
    """The next time at which everything that was asked for is open, in Hong Kong time."""


class RapUnavailable(RapError):
    """RAP did not answer, or not in time, at any address that was tried."""

    attempts: Sequence[str]
    """One ``host:port: reason`` for each address tried."""


class RapAuthenticationError(RapError):
    """RAP refused the login (§3.1, §3.2, §4.3, §7)."""

    retryable = False
    account: str
    address: str
    source_address: str
    fingerprints: Sequence[str]
    """MD5 fingerprints of the keys that were offered (§3.2.2)."""
    keys_refused: bool = True
    """Whether RAP refused these keys; False if it asks for a second factor after the key, or takes no key."""


class RapHostKeyError(RapError):
    """The server showed a host key that is not pinned; nothing of ours was sent to it."""

    retryable = False
    address: str
    expected: Sequence[str]
    """SHA-256 fingerprints of the pinned keys."""
    received: str
    """SHA-256 fingerprint of the key that the server showed."""


class RapAlgorithmError(RapError):
    """Client and server share no algorithm of §2.1."""

    retryable = False
    address: str
    mismatches: Sequence[tuple[str, str]]
    """The kinds of algorithms that are not shared, each with what the server offers; none if all are."""


class RapSessionSuperseded(RapError):
    """RAP ended our session after the login, as it does when the account logs in again (§4.3)."""

    account: str
    address: str
    announced: bool
    """Whether the server said so with a disconnect message, or just cut the connection."""


class RapPermissionDenied(RapError):
    """RAP does not allow the operation, or the account is not subscribed to the folder (§4.2)."""

    retryable = False
    path: str


class RapTransferError(RapError):
    """A report could not be read whole, or what arrived is not what was listed."""

    path: str


class RapRetentionExpired(RapError):
    """The reports asked for have left RAP: it keeps them for ten calendar days (§4.1)."""

    retryable = False
    business_date: str
    left_on: str
    """The first day (ISO, HKT) on which RAP no longer had them."""


class RapReportMissing(RapError):
    """Reports that were expected are not there, were deferred, or failed."""

    missing: Sequence[str]
    business_date: str


class RapKeyRejected(RapError):
    """RAP answered an uploaded public key with a ``.rej`` result file (§6)."""

    retryable = False
    code: str
    message: str


class RapKeyVerificationError(RapError):
    """A renewed key could not be verified: the old key still works and stays current (§6)."""


class LakeError(RapError):
    """The lake cannot be used; by default no retry can help, until somebody changes the lake or its rights.

    If a retry can help, as after a full disk, `retryable` is True on the error itself.
    """

    retryable = False
    uri: str
    """The lake, or the file in it."""
    cause: str
    """The storage's reason, without the file: the same for all files that fail for one reason."""


class LakeConflict(LakeError):
    """The lake holds, or lost, something that the manifest does not agree with."""

    retryable = True
