"""Faults of the simulated RAP: what goes wrong, by rules that a test adds."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from airflow_provider_hkex_rap.rap.errors import RapConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS = {
    "drop": "open",
    "truncate": "open",
    "stall": "open",
    "grow": "open",
    "rewrite": "open",
    "deny": "open",
    "vanish": "open",
    "deny_listing": "list",
    "listing_cut": "list",
    "listing_error": "list",
    "listing_stall": "list",
    "deny_upload": "upload",
    "drop_upload": "upload",
    "drop_after_upload": "upload",
    "reject": "answer",
    "no_result": "answer",
    "delay_result": "answer",
    "wrong_fingerprint": "answer",
    "refuse_login": "login",
    "refuse_renewed_key": "renewed_login",
    "stall_at": "connect",
}
"""The kinds of faults; for each, the moment at which a rule is matched and used up."""

STAGES = ("banner", "kex", "auth")
"""The stages of a login: the SSH banner, the key exchange, the authentication."""


@dataclass(eq=False)
class Fault:
    """One rule: which fault, on which path or account, how often.

    A report whose first download breaks off after 500 bytes, while the second succeeds::

        with RapSimulator(["DCXYZ001"]) as rap:
            rap.put("DCASS", "TP001_CXYZ_20261120.csv", b"x" * 1000)
            rap.faults.add(Fault("drop", path="*/TP001_*", at_byte=500))

    While a file is read, from byte *at_byte* on:

    - ``drop``: the connection is closed; when the client closes the file if *at_byte* is the end of the file.
    - ``truncate``: the file ends there.
    - ``stall``: no request is answered until the fault is released.
    - ``grow``: the file grows by *by* bytes.
    - ``rewrite``: the file gets other content of the same size, and a later mtime.

    When a file is opened:

    - ``deny``: permission is denied.
    - ``vanish``: the file does not exist.

    While a folder is listed, after *entries* entries:

    - ``listing_cut``: the connection is closed.
    - ``listing_error``: the reply is a failure.
    - ``listing_stall``: no request is answered until the fault is released.
    - ``deny_listing``: permission is denied when the folder is opened; *entries* does not count.

    While a key is uploaded:

    - ``deny_upload``: permission is denied when the file is opened, as when a client appends (§2.1).
    - ``drop_upload``: the connection is closed after more than *at_byte* bytes, or when the client closes the
      file; the upload does not happen.
    - ``drop_after_upload``: the connection is closed in place of the reply to CLOSE; the upload does happen.

    When RAP answers an uploaded key with a result file (§6):

    - ``reject``: the result is a ``.rej`` with *code* and *message*, and the key is not registered.
    - ``no_result``: there is no result file; the key is registered if it is valid.
    - ``delay_result``: the result file appears *seconds* later; the key is registered at once if it is valid.
    - ``wrong_fingerprint``: the ``.rcvd`` names another key; the uploaded key is registered.

    When a client logs in:

    - ``refuse_login``: the key is refused.
    - ``refuse_renewed_key``: the key is refused if it is the newest of the account and was uploaded.
    - ``stall_at``: no message is answered from *stage* on until the fault is released.

    :param kind: one of :data:`KINDS`.
    :param path: glob on the path on RAP, as text; ``*`` also matches ``/``.
    :param account: glob on the account. In the stages ``banner`` and ``kex`` the account is not known yet and
        counts as empty.
    :param times: how often the fault occurs: number of files opened, folders listed, keys answered, keys
        offered or connections; None for every time.
    :param at_byte: offset in bytes, from 0.
    :param entries: number of entries that still arrive, ``.`` and ``..`` included.
    :param by: bytes by which the file grows.
    :param stage: one of :data:`STAGES`; for ``stall_at`` only.
    :param code: error code of the ``.rej``.
    :param message: error message of the ``.rej``; the default is the example of the guide.
    :param seconds: delay of the result file, in seconds of the simulator's clock.
    :raises RapConfigurationError: if there is no such kind or stage.
    """

    kind: str
    path: str = "*"
    account: str = "*"
    times: int | None = 1
    at_byte: int = 0
    entries: int = 0
    by: int = 1
    stage: str = ""
    code: str = "4007"
    message: str = "File name contains invalid characters"
    seconds: float = 60

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            _refuse("kind", self.kind, tuple(KINDS))
        if (self.kind == "stall_at") != (self.stage in STAGES):
            _refuse("stage", self.stage, STAGES if self.kind == "stall_at" else ("",))

    def matches(self, moment: str, path: str, account: str, stage: str) -> bool:
        """Return whether the rule applies at *moment*, one of the values of :data:`KINDS`."""
        return (
            self.times != 0
            and KINDS[self.kind] == moment
            and self.stage == stage
            and fnmatchcase(path, self.path)
            and fnmatchcase(account, self.account)
        )


class FaultRules:
    """The rules in force; safe to use from any thread.

    :param wake: called without arguments, in any thread, when stalled sessions may resume.
    """

    def __init__(self, wake: Callable[[], object]) -> None:
        self._rules: list[Fault] = []
        self._released: set[Fault] = set()
        self._lock = threading.Lock()
        self._wake = wake

    def add(self, fault: Fault) -> Fault:
        """Add a rule after those already in force; return it."""
        with self._lock:
            self._rules.append(fault)
        return fault

    def clear(self) -> None:
        """Remove every rule and release every stall."""
        with self._lock:
            self._released.update(self._rules)
            self._rules.clear()
        self._wake()

    def release(self, fault: Fault) -> None:
        """Remove *fault*, and resume the sessions that it has stalled.

        :param fault: a rule that was added.
        """
        with self._lock:
            self._released.add(fault)
            if fault in self._rules:
                self._rules.remove(fault)
        self._wake()

    def is_released(self, fault: Fault) -> bool:
        """Return whether *fault* was released; a released fault stalls no session."""
        return fault in self._released

    def take(self, moment: str, *, path: str = "", account: str = "", stage: str = "") -> tuple[Fault, ...]:
        """Return the rules that apply now, and count each of them as used once.

        :param moment: one of the values of :data:`KINDS`.
        :param path: the path on RAP, as text.
        :param account: the account; empty if the client has not named it yet.
        :param stage: one of :data:`STAGES` if *moment* is ``connect``, else empty.
        """
        if not self._rules:
            return ()
        with self._lock:
            taken = tuple(rule for rule in self._rules if rule.matches(moment, path, account, stage))
            for rule in taken:
                if rule.times is not None:
                    rule.times -= 1
        return taken


def _refuse(field: str, value: str, valid: tuple[str, ...]) -> None:
    raise RapConfigurationError(
        f"{value!r} is not a {field} of faults.",
        why=f"Valid: {', '.join(repr(v) for v in valid)}.",
        todo=f"Use one of these as {field!r}.",
    )
