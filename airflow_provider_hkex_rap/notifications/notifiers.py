"""Send alerts to the notifiers that the Airflow Variable ``hkex_rap_notifier`` names."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from pkgutil import resolve_name
from threading import Thread
from time import monotonic
from typing import TYPE_CHECKING

from airflow_provider_hkex_rap.rap.errors import RapConfigurationError, RapError, describe_error

if TYPE_CHECKING:
    from airflow.sdk import BaseNotifier, Context

    from airflow_provider_hkex_rap.notifications.record import RapAlert

VARIABLE = "hkex_rap_notifier"
"""The Airflow Variable that names the notifiers."""
SEND_SECONDS = 15.0
"""Seconds that a task waits until its alerts are sent, at most; Airflow ends a failed task after twenty."""

_FIELDS = {"notifier", "kwargs", "severity"}
_EXAMPLE = (
    '{"notifier": "airflow.providers.smtp.notifications.smtp.SmtpNotifier", "kwargs": {"to": "rap@cxyz.hk",'
    ' "subject": "{{ alert.what }}", "html_content": "{{ alert.text | e }}"}}'
)

log = logging.getLogger(__name__)


class NamedNotifier:
    """A notifier that the Variable names.

    :param setting: the class as a dotted path in ``notifier``, its arguments in ``kwargs``, and in
        ``severity`` the least severity that it gets: ``warning``, the default, or ``error``.
    :raises RapConfigurationError: if it is not of that form.
    """

    def __init__(self, setting: object) -> None:
        if not isinstance(setting, dict) or not isinstance(setting.get("notifier"), str):
            raise _invalid("It must be a JSON object with a 'notifier', or a list of such objects.")
        if unknown := sorted(set(setting) - _FIELDS):
            raise _invalid(f"Unknown: {', '.join(map(repr, unknown))}; known are {sorted(_FIELDS)}.")
        self.path: str = setting["notifier"]
        self._kwargs = setting.get("kwargs", {})
        if not isinstance(self._kwargs, dict):
            raise _invalid("'kwargs' must be a JSON object: the arguments of the notifier.")
        if (severity := setting.get("severity", "warning")) not in ("warning", "error"):
            raise _invalid("'severity' must be 'warning' or 'error'.")
        self._errors_only = severity == "error"

    def wants(self, alert: RapAlert) -> bool:
        """Return whether the notifier gets alerts of this severity."""
        return alert.severity == "error" or not self._errors_only

    @property
    def connections(self) -> list[str]:
        """The Airflow connections that the arguments name, by Airflow's convention for such arguments."""
        named = (value for name, value in self._kwargs.items() if name.endswith("conn_id"))
        return [value for value in named if isinstance(value, str)]

    def build(self) -> BaseNotifier:
        """Return the notifier.

        :raises RapConfigurationError: if its class cannot be imported, is no notifier of Airflow, or does not
            take the arguments, whatever error they raise.
        """
        from airflow.sdk import BaseNotifier

        with _any_error_as(lambda said: _invalid(f"{self.path} cannot be imported: {said}.")):
            kind = resolve_name(self.path)
            is_notifier = isinstance(kind, type) and issubclass(kind, BaseNotifier)
        # Before the call: the name may be that of any function, such as os.system.
        if not is_notifier:
            raise _invalid(f"{self.path} is no notifier: no class that derives from Airflow's BaseNotifier.")
        with _any_error_as(lambda said: _invalid(f"{self.path} does not take these kwargs: {said}.")):
            notifier: BaseNotifier = kind(**self._kwargs)
        return notifier

    def send(self, alert: RapAlert, context: Context) -> None:
        """Send an alert.

        :param alert: the alert.
        :param context: the context of the task, for the templates of the notifier.
        :raises RapError: if the notifier cannot be built or called.
        """
        # A notifier writes its rendered texts into itself, so each alert needs a new one.
        notifier = self.build()
        with _any_error_as(self._not_taken):
            notifier({**context, "alert": alert})

    def _not_taken(self, said: str) -> RapError:
        return RapError(
            f"The notifier {self.path} did not take an alert: {said}.",
            todo=f"Check its connection, and its kwargs in the Variable {VARIABLE}.",
        )


@contextmanager
def _any_error_as(make: Callable[[str], RapError]) -> Iterator[None]:
    """Turn any error, also one such as SystemExit, into the error that *make* returns for its text.

    The code of a notifier may be anybody's, and raise anything. A kill of the task is raised in the main
    thread, and notifiers of a task run in other threads.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise make(describe_error(error)) from error


def read_notifiers() -> tuple[list[NamedNotifier], list[RapConfigurationError]]:
    """Return the notifiers that the Variable names, and an error for each entry of it that is not valid.

    Both are empty if there is no Variable, or it is blank.
    """
    from airflow.sdk import Variable

    notifiers: list[NamedNotifier] = []
    malformed: list[RapConfigurationError] = []
    text = Variable.get(VARIABLE, default=None)
    if not text or not text.strip():
        return notifiers, malformed
    try:
        named = json.loads(text)
    except (ValueError, RecursionError) as error:
        return notifiers, [_invalid(f"It is not JSON: {error}.")]
    for number, setting in enumerate(named if isinstance(named, list) else [named], start=1):
        try:
            notifiers.append(NamedNotifier(setting))
        except RapConfigurationError as error:
            error.why = f"Entry {number}: {error.why}"
            malformed.append(error)
    return notifiers, malformed


def send_alerts(make: Callable[[], Iterable[RapAlert]], context: Context) -> bool:
    """Make alerts and send them, if the Variable names a notifier; log every problem, and raise none.

    A notifier that fails or hangs keeps no alert from the others. A kill of the task ends the wait.

    :param make: returns the alerts; called only if there is a notifier, and in another thread.
    :param context: the context of the task.
    :returns: whether there are alerts, and a notifier has taken each of them; False if there is no notifier.
    """
    deadline = monotonic() + SEND_SECONDS
    notifiers: list[NamedNotifier] = []
    alerts: list[RapAlert] = []

    def prepare() -> None:
        named, malformed = read_notifiers()
        for error in malformed:
            log.error("%s", error)
        notifiers.extend(named)
        if named:
            alerts.extend(make())

    if _still_runs(_start(prepare), deadline):
        _log_late("to any notifier")
        return False
    taken = _send_to_each(notifiers, alerts, context, deadline)
    return bool(alerts) and all(
        number in taken or not any(notifier.wants(alert) for notifier in notifiers)
        for number, alert in enumerate(alerts)
    )


def _send_to_each(
    notifiers: Sequence[NamedNotifier], alerts: Sequence[RapAlert], context: Context, deadline: float
) -> set[int]:
    """Send the alerts to each notifier; return the numbers of those that a notifier has taken in time."""
    taken: set[int] = set()
    threads: list[Thread] = []
    # In turn while they are quick: under `airflow dags test`, threads may not call Airflow's API at once.
    for waiting, notifier in zip(range(len(notifiers), 0, -1), notifiers, strict=True):
        threads.append(_start(partial(_send, notifier, alerts, context, taken)))
        # If it hangs, the others still have their shares of the time; its thread continues beside them.
        threads[-1].join(max(deadline - monotonic(), 0) / waiting)
    for notifier, thread in zip(notifiers, threads, strict=True):
        if _still_runs(thread, deadline):
            _log_late(f"by {notifier.path}")
    return taken.copy()


def _send(notifier: NamedNotifier, alerts: Iterable[RapAlert], context: Context, taken: set[int]) -> None:
    for number, alert in enumerate(alerts):
        if not notifier.wants(alert):
            continue
        # Every alert is sent, also after one that was not taken.
        try:
            notifier.send(alert, context)
            taken.add(number)
        except RapError as error:
            _log_problem(error)


def _start(work: Callable[[], None]) -> Thread:
    """Run *work* in a thread, and log whatever it raises: it may not fail the task."""

    def run() -> None:
        try:
            work()
        except BaseException as error:
            _log_problem(error)

    # In a thread, since a notifier may take for ever; a daemon does not keep the process.
    thread = Thread(target=copy_context().run, args=(run,), name="hkex-rap-alerts", daemon=True)
    thread.start()
    return thread


def _still_runs(thread: Thread, deadline: float) -> bool:
    thread.join(max(deadline - monotonic(), 0))
    return thread.is_alive()


def _log_late(what: str) -> None:
    log.error("The alerts were not sent %s within %g s; the task waits no longer.", what, SEND_SECONDS)


def _log_problem(error: BaseException) -> None:
    text = str(error) if isinstance(error, RapError) else describe_error(error)
    log.error("An alert was not sent. %s", text)


def _invalid(why: str) -> RapConfigurationError:
    return RapConfigurationError(
        f"The Variable {VARIABLE} is not valid.",
        why=why,
        todo=f"Correct it, such as {_EXAMPLE}, and check it with 'airflow hkex-rap doctor'.",
        variable=VARIABLE,
    )
