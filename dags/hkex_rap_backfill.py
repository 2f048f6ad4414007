"""Land the reports of a range of trading days, and divide the days among several accounts of a customer.

Trigger it with the first and the last day. RAP keeps reports for ten calendar days (guide §4.1). Each account
in ``ACCOUNTS`` downloads its own days, so no file is downloaded twice; files that are already in the lake are
skipped. An account needs a connection, and a pool with one slot. List pools other than ``hkex_rap`` in the
option ``[hkex_rap] pools``; the scheduler creates them when it starts.
"""

from datetime import date, timedelta

from airflow.sdk import DAG, Param, task

from airflow_provider_hkex_rap.notifications.alerts import alert
from airflow_provider_hkex_rap.operators.download import RapDownloadOperator
from airflow_provider_hkex_rap.rap.calendar import trading_days

# The connection of each account, and its pool.
ACCOUNTS = {"hkex_rap_default": "hkex_rap"}


@task
def share(number: int, first_day: str, last_day: str) -> list[str]:
    """Return the trading days of one account: every n-th day of the range, if there are n accounts."""
    days = trading_days(date.fromisoformat(first_day), date.fromisoformat(last_day))
    return [day.isoformat() for day in days][number :: len(ACCOUNTS)]


with DAG(
    "hkex_rap_backfill",
    schedule=None,
    params={
        "first_day": Param(
            type="string", format="date", description="The first trading day to land, as YYYY-MM-DD."
        ),
        "last_day": Param(
            type="string", format="date", description="The last trading day to land, as YYYY-MM-DD."
        ),
    },
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=15), "on_failure_callback": alert},
    on_failure_callback=alert,
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
