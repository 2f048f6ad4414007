"""Land the reports of chosen trading days, the days shared among the customer's accounts.

Trigger it with the first and the last day; RAP keeps ten calendar days (guide §4.1). Each account of
``ACCOUNTS`` logs in for days of its own, so no file is fetched twice; what has landed before is not fetched
again. An account needs a connection and a pool with one slot: list the pools beside ``hkex_rap`` in the
setting ``[hkex_rap] pools``, and the scheduler makes them when it starts.
"""

from datetime import date, timedelta

from airflow.sdk import DAG, Param, task

from airflow_provider_hkex_rap.operators.download import RapDownloadOperator
from airflow_provider_hkex_rap.rap.calendar import trading_days

# The pool of each account, by its connection.
ACCOUNTS = {"hkex_rap_default": "hkex_rap"}


@task
def share(number: int, first_day: str, last_day: str) -> list[str]:
    """Return every so many-th trading day, oldest first: those of one account."""
    days = trading_days(date.fromisoformat(first_day), date.fromisoformat(last_day))
    return [day.isoformat() for day in days][number :: len(ACCOUNTS)]


with DAG(
    "hkex_rap_backfill",
    schedule=None,
    params={
        "first_day": Param(type="string", format="date", description="The first trading day to land."),
        "last_day": Param(type="string", format="date", description="The last trading day to land."),
    },
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=15)},
    tags=["hkex", "rap"],
    doc_md=__doc__,
):
    for number, (rap_conn_id, pool) in enumerate(ACCOUNTS.items()):
        days = share.override(task_id=f"days_of_{rap_conn_id}")(
            number, "{{ params.first_day }}", "{{ params.last_day }}"
        )
        RapDownloadOperator.partial(
            task_id=f"land_by_{rap_conn_id}",
            folders=["DCASS", "DCASS_OTHERS", "HKCC_SEOCH_CCMS_GLOB"],
            lake="{{ var.value.hkex_rap_lake }}",
            rap_conn_id=rap_conn_id,
            pool=pool,
        ).expand(business_date=days)
