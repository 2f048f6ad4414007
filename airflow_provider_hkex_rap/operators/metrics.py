"""Send the metrics of a task through Airflow, to the backend that ``[metrics]`` configures."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_hkex_rap.rap.key_lifecycle import login_days_left

if TYPE_CHECKING:
    import pendulum
    from airflow.sdk import Context

    from airflow_provider_hkex_rap.keystore.record import KeyRecord
    from airflow_provider_hkex_rap.operators.ingest import Ingest
    from airflow_provider_hkex_rap.operators.judging import Judging
    from airflow_provider_hkex_rap.rap.account import Account
    from airflow_provider_hkex_rap.runner.runner import SessionRunner

PREFIX = "hkex_rap."

log = logging.getLogger(__name__)

_Metric = tuple[str, str, float, Mapping[str, str]]
"""The function of Airflow's ``stats`` module, the name without prefix, the value, and further tags."""


def send_metrics(
    context: Context,
    account: Account,
    today: pendulum.Date,
    runner: SessionRunner,
    record: KeyRecord | None,
    ingest: Ingest | None = None,
    judging: Judging | None = None,
) -> None:
    """Send the metrics of a try; an error is logged, and never fails the task.

    :param context: the task's context.
    :param account: the RAP user account.
    :param today: the date in Hong Kong.
    :param runner: the runner of the task's sessions.
    :param record: the account's keys; None if no login has shown them.
    :param ingest: the landing of a download.
    :param judging: the judgement of a download.
    """
    # Any error of a metrics backend has the same effect, and nobody could handle it.
    try:
        from airflow.sdk.observability import stats

        common = _tags(context, account)
        for kind, name, value, tags in _metrics(today, runner, record, ingest, judging):
            getattr(stats, kind)(PREFIX + name, value, tags={**common, **tags})
    except Exception as error:
        log.warning("The metrics of this task were not sent: %s: %s", type(error).__name__, error)


def _tags(context: Context, account: Account) -> dict[str, Any]:
    ti = context.get("ti")
    return {
        **(getattr(ti, "stats_tags", None) or {}),
        "account": account.name,
        "customer": account.customer,
    }


def _metrics(
    today: pendulum.Date,
    runner: SessionRunner,
    record: KeyRecord | None,
    ingest: Ingest | None,
    judging: Judging | None,
) -> Iterator[_Metric]:
    yield "incr", "sessions.superseded", runner.superseded, {}
    if (days := key_days_left(record, today)) is not None:
        yield "gauge", "key.days_left", days, {}
    if ingest and ingest.landings:
        yield from _of_landing(ingest)
    if judging and (missing := judging.days_missing()) is not None:
        for folder, days in missing.items():
            yield "gauge", "days.missing", days, {"folder": folder}


def _of_landing(ingest: Ingest) -> Iterator[_Metric]:
    files: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for entry in ingest.landed:
        files[entry.folder] += 1
        sizes[entry.folder] += entry.size or 0
    for folder in ingest.request.folders:
        yield "incr", "files.landed", files[folder.value], {"folder": folder.value}
        yield "incr", "bytes.landed", sizes[folder.value], {"folder": folder.value}
    # Airflow's own timers are in milliseconds too.
    yield "timing", "landing.duration", ingest.seconds * 1000, {}


def key_days_left(record: KeyRecord | None, today: pendulum.Date) -> int | None:
    """Return the number of days on which the current key can log in, today included; None if unknown.

    :param record: the account's record.
    :param today: the date in Hong Kong.
    """
    last_day = record.current.last_day if record and record.current else None
    return login_days_left(last_day, today) if last_day else None
