"""Send alerts to the notifiers that the Airflow Variable ``hkex_rap_notifier`` names."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from contextvars import copy_context
from pkgutil import resolve_name
from threading import Thread
from typing import TYPE_CHECKING

from airflow_provider_hkex_rap.rap.errors import RapConfigurationError, RapError

if TYPE_CHECKING:
    from airflow.sdk import BaseNotifier, Context

    from airflow_provider_hkex_rap.notifications.record import RapAlert

VARIABLE = "hkex_rap_notifier"
"""The Airflow Variable that names the notifiers."""
SECONDS = 15.0
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

    def build(self) -> BaseNotifier:
        """Return the notifier.

        :raises RapConfigurationError: if its class cannot be imported, is no notifier of Airflow, or does not
            take the arguments.
        """
        from airflow.sdk import BaseNotifier

        try:
            kind = resolve_name(self.path)
        except (ImportError, AttributeError, ValueError) as error:
            raise _invalid(f"{self.path} cannot be imported: {error}.") from error
        # Before the call: the name may be that of any function, such as os.system.
        if not (isinstance(kind, type) and issubclass(kind, BaseNotifier)):
            raise _invalid(f"{self.path} is no notifier: no class that derives from Airflow's BaseNotifier.")
        try:
            return kind(**self._kwargs)
        # The class may be anybody's, and raise anything.
        except Exception as error:
            raise _invalid(f"{self.path} does not take these kwargs: {error}") from error

    def send(self, alert: RapAlert, context: Context) -> None:
        """Send an alert.

        :param alert: the alert.
        :param context: the context of the task, for the templates of the notifier.
        :raises RapError: if the notifier cannot be built or called.
        """
        # A notifier writes its rendered texts into itself, so each alert needs a new one.
        notifier = self.build()
        try:
            notifier({**context, "alert": alert})
        except Exception as error:
            raise RapError(
                f"The notifier {self.path} did not take an alert: {type(error).__name__}: {error}",
                todo=f"Check its connection, and its kwargs in the Variable {VARIABLE}.",
            ) from error


def read_notifiers() -> list[NamedNotifier]:
    """Return the notifiers that the Variable names; none if there is no Variable, or it is blank.

    :raises RapConfigurationError: if the Variable is not of the valid form.
    """
    from airflow.sdk import Variable

    text = Variable.get(VARIABLE, default=None)
    if not text or not text.strip():
        return []
    try:
        named = json.loads(text)
    except ValueError as error:
        raise _invalid(f"It is not JSON: {error}.") from None
    return [NamedNotifier(setting) for setting in (named if isinstance(named, list) else [named])]


def send_alerts(make: Callable[[], Iterable[RapAlert]], context: Context) -> bool:
    """Make alerts and send them, if the Variable names a notifier; log every problem, and raise none.

    :param make: returns the alerts; called only if there is a notifier, and in another thread.
    :param context: the context of the task.
    :returns: whether a notifier has taken each of the alerts; False if there is no notifier.
    """
    sent: list[bool] = []

    def work() -> None:
        # Neither a notifier nor the making of an alert may fail the task.
        try:
            notifiers = read_notifiers()
            if notifiers:
                # Every alert is sent, also after one that was not taken.
                sent.append(min([_send(alert, notifiers, context) for alert in make()], default=True))
        except Exception as error:
            _log_problem(error)

    # In a thread, since a notifier may take for ever; a daemon does not keep the process.
    thread = Thread(target=copy_context().run, args=(work,), name="hkex-rap-alerts", daemon=True)
    thread.start()
    thread.join(SECONDS)
    if thread.is_alive():
        log.error("The alerts were not sent within %g s; the task does not wait any longer.", SECONDS)
    return any(sent)


def _send(alert: RapAlert, notifiers: Iterable[NamedNotifier], context: Context) -> bool:
    wanted = [notifier for notifier in notifiers if notifier.wants(alert)]
    taken = 0
    for notifier in wanted:
        try:
            notifier.send(alert, context)
            taken += 1
        except RapError as error:
            _log_problem(error)
    return taken > 0 or not wanted


def _log_problem(error: Exception) -> None:
    text = str(error) if isinstance(error, RapError) else f"{type(error).__name__}: {error}"
    log.error("An alert was not sent. %s", text)


def _invalid(why: str) -> RapConfigurationError:
    return RapConfigurationError(
        f"The Variable {VARIABLE} names no usable notifier.",
        why=why,
        todo=f"Correct it, such as {_EXAMPLE}, and check it with 'airflow hkex-rap doctor'.",
        variable=VARIABLE,
    )
