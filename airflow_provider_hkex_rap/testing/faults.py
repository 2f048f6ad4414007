"""Faults that the simulated RAP shows by rule."""

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
"""Each kind of fault, and the moment at which a rule of it is matched and used up."""

STAGES = ("banner", "kex", "auth")


@dataclass(eq=False)
class Fault:
    """One rule: what goes wrong, where, and how often.

    On a file, once byte *at_byte* is asked for: ``drop`` cuts the connection (at the latest when the file
    is closed, if that byte is its end); ``truncate`` ends the file there; ``stall`` answers nothing until
    released; ``grow`` adds *by* bytes to it; ``rewrite`` gives it other content of the same size, and a later
    mtime. On opening one: ``deny``, and ``vanish`` (it is missing).

    On a folder, after *entries* entries: ``listing_cut`` cuts the connection, ``listing_error`` answers with
    a failure, ``listing_stall`` with nothing until released; ``deny_listing`` denies it from the start.

    On the upload of a key: ``deny_upload`` denies to open the file, as where the client appends (§2.1);
    ``drop_upload`` cuts the connection once more than *at_byte* bytes have come, at the latest when the file
    is closed, and nothing is uploaded; ``drop_after_upload`` cuts it instead of confirming the file, which is
    uploaded and answered.

    On the answer to an uploaded key (§6): ``reject`` gives a ``.rej`` with *code* and *message*, and the key
    is not registered; ``no_result`` gives no result file, and ``delay_result`` one *seconds* later, whatever
    becomes of the key; ``wrong_fingerprint`` names another key in the ``.rcvd``, while the uploaded one is
    registered.

    On a login: ``refuse_login`` refuses the key; ``refuse_renewed_key`` only the account's newest one, where
    it was uploaded: it was accepted, and yet does not log in; ``stall_at`` answers nothing from *stage* on
    until released.

    :param kind: one of :data:`KINDS`.
    :param path: glob on the path on RAP, as text; ``*`` also matches ``/``.
    :param account: glob on the account; not known yet for ``stall_at`` in ``banner`` and ``kex``.
    :param times: how many matching files opened, folders listed, keys answered, keys offered or connections
        it affects; None for all.
    :param at_byte: offset in bytes, from 0.
    :param entries: number of entries of the listing that still arrive, with ``.`` and ``..``.
    :param by: bytes that the file grows by.
    :param stage: one of :data:`STAGES`, for ``stall_at``.
    :param code: error code of the ``.rej``.
    :param message: error message of the ``.rej``; the default is the one that the guide shows.
    :param seconds: how much later the result file comes, by the simulator's clock.
    :raises RapConfigurationError: the kind or the stage does not exist.
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

    :param wake: called without arguments, in any thread, when stalled sessions may go on.
    """

    def __init__(self, wake: Callable[[], object]) -> None:
        self._rules: list[Fault] = []
        self._released: set[Fault] = set()
        self._lock = threading.Lock()
        self._wake = wake

    def add(self, fault: Fault) -> Fault:
        """Put *fault* in force, after those added before; return it."""
        with self._lock:
            self._rules.append(fault)
        return fault

    def clear(self) -> None:
        """Put every rule out of force and release every stall."""
        with self._lock:
            self._released.update(self._rules)
            self._rules.clear()
        self._wake()

    def release(self, fault: Fault) -> None:
        """Let what *fault* has stalled go on, and put it out of force.

        :param fault: a rule that was added.
        """
        with self._lock:
            self._released.add(fault)
            if fault in self._rules:
                self._rules.remove(fault)
        self._wake()

    def is_released(self, fault: Fault) -> bool:
        """Return whether *fault* no longer stalls anything."""
        return fault in self._released

    def take(self, moment: str, *, path: str = "", account: str = "", stage: str = "") -> tuple[Fault, ...]:
        """Return the rules that apply now, each used up by one.

        :param moment: one of the values of :data:`KINDS`.
        :param path: the path on RAP, as text.
        :param account: the account; empty where it is not known.
        :param stage: one of :data:`STAGES` where the moment is ``connect``.
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
        f"{value!r} is not a {field} of a fault.",
        why=f"Valid: {', '.join(repr(v) for v in valid)}.",
        todo=f"Give one of these as {field!r}.",
    )
