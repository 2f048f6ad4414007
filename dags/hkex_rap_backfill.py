"""Land the reports of a range of trading days, and divide the days among several accounts of a customer.

Trigger it with the first and the last day. RAP keeps reports for ten calendar days (guide §4.1). Each account
in ``ACCOUNTS`` downloads its own days, so no file is downloaded twice; files that are already in the lake are
skipped. An account needs a connection, and a pool with one slot. List pools other than ``hkex_rap`` in the
option ``[hkex_rap] pools``; the scheduler creates them when it starts.

The days are those on which RAP serves all ``FOLDERS``: trading days. For the Saturdays on which CCMS opens,
name its folder alone; the daily DAG of CCMS lands their reports too. If the range has no day, the run fails.
"""

from datetime import date, timedelta

from airflow.sdk import DAG, Param, task
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_hkex_rap.notifications.alerts import alert
from airflow_provider_hkex_rap.operators.download import RapDownloadOperator
from airflow_provider_hkex_rap.rap.folders import parse_folders
from airflow_provider_hkex_rap.rap.service_hours import window

# The connection of each account, and its pool.
ACCOUNTS = {"hkex_rap_default": "hkex_rap"}
FOLDERS = ["DCASS", "DCASS_OTHERS", "HKCC_SEOCH_CCMS_GLOB"]


@task
def share(number: int, first_day: str, last_day: str) -> list[str]:
    """Return the days of one account: every n-th day of the range, if there are n accounts."""
    first, last = date.fromisoformat(first_day), date.fromisoformat(last_day)
    every = (first + timedelta(days=n) for n in range((last - first).days + 1))
    services = {folder.service for folder in parse_folders(FOLDERS)}
    days = [day.isoformat() for day in every if all(window(service, day) for service in services)]
    if not days:
        # Without days Airflow would skip the download, and the run would succeed.
        raise AirflowFailException(
            f"Nothing to land: RAP serves these folders on no day from {first_day} to {last_day}."
            " Trigger the DAG with a first_day that is not after last_day, and a trading day between them."
        )
    return days[number :: len(ACCOUNTS)]


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
            folders=FOLDERS,
            lake="{{ var.value.hkex_rap_lake }}",
            rap_conn_id=rap_conn_id,
            pool=pool,
        ).expand(business_date=days)
