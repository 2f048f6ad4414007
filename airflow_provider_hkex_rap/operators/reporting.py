"""Report how a try of a task has ended: its metrics, and the warnings of its run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow_provider_hkex_rap.notifications.alerts import send_warnings
from airflow_provider_hkex_rap.operators.metrics import send_metrics
from airflow_provider_hkex_rap.operators.run_warnings import find_warnings
from airflow_provider_hkex_rap.operators.task import is_test_run
from airflow_provider_hkex_rap.rap.errors import RapClosed, RapError

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_hkex_rap.hooks.login_source import AirflowLoginSource
    from airflow_provider_hkex_rap.keystore.record import KeyRecord
    from airflow_provider_hkex_rap.operators.ingest import Ingest
    from airflow_provider_hkex_rap.operators.judging import Judging
    from airflow_provider_hkex_rap.runner.runner import SessionRunner


class Reporting:
    """Reports how a try has ended.

    :param context: the task's context; outside a run, nobody gets a warning.
    :param source: the settings of the login.
    :param runner: the runner of the task's sessions.
    :param record: returns the account's keys; None if no login has shown them.
    :param ingest: the landing of a download.
    :param judging: the judgement of a download.
    """

    def __init__(
        self,
        context: Context,
        source: AirflowLoginSource,
        runner: SessionRunner,
        record: Callable[[], KeyRecord | None],
        ingest: Ingest | None = None,
        judging: Judging | None = None,
    ) -> None:
        self._context = context
        self._source = source
        self._runner = runner
        self._record = record
        self._ingest = ingest
        self._judging = judging

    @contextmanager
    def of_try(self) -> Iterator[None]:
        """Send the metrics when the try ends, and the warnings if no try follows.

        A try that was killed or timed out, or that waits for RAP to open, reports nothing.
        """
        try:
            yield
        except RapClosed:
            raise
        except RapError as error:
            self._report(error)
            raise
        self._report(None)

    def _report(self, error: RapError | None) -> None:
        # A killed task has five seconds left.
        if self._runner.killed:
            return
        account, today = self._source.login.account, self._source.clock().date()
        record = self._record()
        send_metrics(self._context, account, today, self._runner, record, self._ingest, self._judging)
        if "dag_run" not in self._context or _is_retried(error, self._context):
            return
        send_warnings(
            self._context,
            find_warnings(record, today, self._ingest, self._judging),
            account.name,
            self._ingest.request.day.isoformat() if self._ingest else "",
        )


def _is_retried(error: RapError | None, context: Context) -> bool:
    """Return whether another try follows; a run then has its warnings from the last try only."""
    if error is None or not error.retryable or is_test_run():
        return False
    ti = context["ti"]
    return bool(ti.try_number <= (getattr(ti, "max_tries", 0) or 0))
