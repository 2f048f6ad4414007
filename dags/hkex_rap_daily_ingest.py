"""Land every report of RAP in the data lake, once a trading day.

Set the Airflow Variable ``hkex_rap_lake`` to the lake's root, such as ``s3://aws_default@bucket/rap``, and
make the connection ``hkex_rap_default``. The task lands whatever is new, so a day missed heals by itself.
"""

from datetime import timedelta

import pendulum
from airflow.sdk import DAG

from airflow_provider_hkex_rap.operators.download import RapDownloadOperator

with DAG(
    "hkex_rap_daily_ingest",
    schedule="30 23 * * 1-5",
    start_date=pendulum.datetime(2026, 1, 1, tz="Asia/Hong_Kong"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=10)},
    tags=["hkex", "rap"],
    doc_md=__doc__,
):
    RapDownloadOperator(
        task_id="land",
        folders=["DCASS", "DCASS_OTHERS", "HKCC_SEOCH_CCMS_GLOB"],
        lake="{{ var.value.hkex_rap_lake }}",
    )
