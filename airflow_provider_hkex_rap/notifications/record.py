"""The record that a notifier gets."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

Severity = Literal["warning", "error"]


class RapWarning(NamedTuple):
    """A fact that a person should know, and that fails no task.

    :param kind: a word by which a notifier can tell the warnings apart.
    :param what: what happened, as a sentence.
    :param why: the rule or the likely cause.
    :param todo: what the reader should do next.
    """

    kind: str
    what: str
    why: str
    todo: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RapAlert:
    """An alert about a task or a run; each of its texts is one line, and contains no secret.

    The templates of a notifier get it as ``alert``, as in ``{{ alert.what }}``.

    :param severity: ``error`` if the task has failed for good, else ``warning``.
    :param kind: the class of the error, such as ``RapReportMissing``, or the kind of the warning.
    :param what: what happened.
    :param why: the rule or the likely cause; empty if it is not known.
    :param todo: what the reader should do next.
    :param account: the RAP user account; empty if it is not known.
    :param business_date: the trading day of the run, as YYYY-MM-DD; empty if there is none.
    :param dag_id: the DAG.
    :param run_id: the run.
    :param task_id: the task; empty if the alert is about several tasks.
    :param link: the URL of the task or the run in Airflow's UI.
    :param board: the URL of the day on the board, in the task's lake and folder if they are known; empty
        without account or day.
    """

    severity: Severity
    kind: str
    what: str
    why: str
    todo: str
    account: str = ""
    business_date: str = ""
    dag_id: str = ""
    run_id: str = ""
    task_id: str = ""
    link: str = ""
    board: str = ""

    @property
    def text(self) -> str:
        """What, why and what to do, in one line."""
        return " ".join(part for part in (self.what, self.why, self.todo) if part)

    def to_dict(self) -> dict[str, str]:
        """Return the fields as a dictionary of texts."""
        return asdict(self)
