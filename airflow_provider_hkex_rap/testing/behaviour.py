"""How a simulated RAP behaves if the guide allows more than one behaviour, and who may use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any, Literal, get_args

import pendulum

from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.retention import RETENTION_DAYS

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.rap.folders import Service

Attributes = Literal["full", "no_mtime", "no_size", "none"]
Superseded = Literal["disconnect", "cut"]
Unsubscribed = Literal["missing", "denied"]
Results = Literal["at_once", "delayed", "fresh_listing", "absent"]
UploadedFile = Literal["lingers", "consumed", "stays"]
Reupload = Literal["denied", "replaces"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who may log in to a simulated RAP, from which address, until when, and what they see (guide §3, §4).

    An account that may see DCASS reports only, on a RAP that closes at night::

        Access(subscriptions={"DCXYZ001": [Service.DCASS]}, enforce_hours=True)

    :param subscriptions: the services of each account (§4.2); an account that is not named has all services.
    :param allowed_addresses: the registered source addresses (§4.3, §7); None allows every address.
    :param enforce_hours: refuse logins and folders outside the service hours (§4.1).
    :param key_expires: last day, in Hong Kong, on which the registered keys can log in; None for two years
        less a day after the simulator's first day (§6.1). ``register_key`` can set another day for one.
    :param retention_days: calendar days for which a report stays after the day of its mtime (§4.1). The guide
        does not say if a report is still there on the tenth day after: with 10 it is, with 9 it is not.
    """

    subscriptions: Mapping[str, Sequence[Service]] = field(default_factory=dict)
    allowed_addresses: Sequence[str] | None = None
    enforce_hours: bool = False
    key_expires: date | None = None
    retention_days: int = RETENTION_DAYS


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerBehaviour:
    """How the SSH and SFTP server behaves if the guide leaves it open.

    A server that returns at most 32 KiB for one READ and lists no sizes::

        ServerBehaviour(read_limit=32 * 1024, attributes="no_size")

    :param supersede: how a session ends when its account logs in again (§4.3): ``disconnect`` sends a
        disconnect message first; ``cut`` closes the connection without one.
    :param unsubscribed: how a folder looks to an account without a subscription (§4.2): ``missing`` or
        ``denied``.
    :param read_limit: bytes that one READ returns at most; None for 4 MiB.
    :param announce_limits: offer the extension ``limits@openssh.com``, which tells clients the read limit.
    :param list_dots: list ``.`` and ``..``.
    :param attributes: the attributes in listings: ``full``, ``no_mtime``, ``no_size`` or ``none``.
    :param stat_attributes: the attributes in the replies to STAT and FSTAT; the same choices.
    :param client_signatures: the signature algorithms that clients may use; empty for all of §2.1.
    :param server_sig_algs: tell clients these algorithms (``server-sig-algs``, RFC 8308).
    :param extension_markers: list the markers ``ext-info-s`` and ``kex-strict-s-v00@openssh.com`` among the
        key exchange algorithms. Without them the server sends no ``server-sig-algs`` either.
    :raises RapConfigurationError: if *supersede*, *unsubscribed*, *attributes* or *stat_attributes* is not
        among its choices.
    """

    supersede: Superseded = "disconnect"
    unsubscribed: Unsubscribed = "missing"
    read_limit: int | None = None
    announce_limits: bool = False
    list_dots: bool = True
    attributes: Attributes = "full"
    stat_attributes: Attributes = "full"
    client_signatures: Sequence[str] = ()
    server_sig_algs: bool = True
    extension_markers: bool = True

    def __post_init__(self) -> None:
        _check_choice("supersede", self.supersede, Superseded)
        _check_choice("unsubscribed", self.unsubscribed, Unsubscribed)
        _check_choice("attributes", self.attributes, Attributes)
        _check_choice("stat_attributes", self.stat_attributes, Attributes)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFolderBehaviour:
    """How ``/key_management/publickey`` behaves if the guide leaves it open (§6).

    A result file that appears ten minutes after the upload::

        KeyFolderBehaviour(results="delayed", result_delay=600)

    :param results: when the result file of an upload appears: ``at_once``; ``delayed`` by *result_delay*;
        ``fresh_listing``, only in the second listing after the upload (§6, note 2); or ``absent``, never.
    :param result_delay: delay of a ``delayed`` result file, in seconds of the simulator's clock.
    :param pub_in_result_names: keep the ``.pub`` of the key file in the names of its result files.
    :param uploaded_file: how long the uploaded key file is listed: it ``lingers`` for one minute, is
        ``consumed`` at once, or ``stays``.
    :param reupload: the reply to an upload while a file of the same name is listed: ``denied``, since the
        guide allows no modification (§4.2), or ``replaces`` the file if it was uploaded. If files stay and a
        second upload is denied, an account can renew its key only once.
    :param warning_text: one line of ``SSHKeyExpireWarning.txt`` (§6.2), whose text the guide does not give.
        ``{account}``, ``{fingerprint}`` and ``{last_day}`` are replaced for each key that is about to expire.
    :raises RapConfigurationError: if *results*, *uploaded_file* or *reupload* is not among its choices, or if
        *warning_text* has other fields in braces.
    """

    results: Results = "at_once"
    result_delay: float = 60
    pub_in_result_names: bool = True
    uploaded_file: UploadedFile = "lingers"
    reupload: Reupload = "denied"
    warning_text: str = "The SSH public key {fingerprint} of {account} will expire on {last_day}."

    def __post_init__(self) -> None:
        _check_choice("results", self.results, Results)
        _check_choice("uploaded_file", self.uploaded_file, UploadedFile)
        _check_choice("reupload", self.reupload, Reupload)
        try:
            self.warning_text.format(account="", fingerprint="", last_day=pendulum.date(2026, 2, 28))
        except (LookupError, ValueError, AttributeError):
            raise RapConfigurationError(
                f"{self.warning_text!r} is not a valid 'warning_text'.",
                why="It may contain {account}, {fingerprint} and {last_day}, and nothing else in braces.",
                todo="Write a literal brace twice: '{{'.",
            ) from None


def _check_choice(name: str, value: str, choices: Any) -> None:
    """Refuse a *value* that is not among the *choices* of a ``Literal``.

    :raises RapConfigurationError: if it is not.
    """
    if value not in get_args(choices):
        raise RapConfigurationError(
            f"{name!r} cannot be {value!r}.",
            why=f"Valid: {', '.join(map(repr, get_args(choices)))}.",
            todo="Use one of these, or omit the argument.",
        )
