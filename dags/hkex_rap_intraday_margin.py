"""Land the reports on intraday margin every ten minutes during the day; keep each new version.

HKEX asks participants to download all other reports once per day only (guide §4.1). Name the reports in
``REPORTS``, set the Airflow Variable ``hkex_rap_lake`` to the root of the lake, and create the connection
``hkex_rap_default``.
"""

import pendulum
from airflow.sdk import DAG

from airflow_provider_hkex_rap.notifications.alerts import alert
from airflow_provider_hkex_rap.operators.download import RapDownloadOperator

# Patterns of file names. Name only the intraday margin reports of your own subscription.
REPORTS = ["*INTRADAY*MARGIN*"]

with DAG(
    "hkex_rap_intraday_margin",
    schedule="*/10 9-16 * * mon-fri",
    start_date=pendulum.datetime(2026, 1, 1, tz="Asia/Hong_Kong"),
    catchup=False,
    max_active_runs=1,
    default_args={"on_failure_callback": alert},
    on_failure_callback=alert,
    tags=["hkex", "rap"],
    doc_md=__doc__,
):
    RapDownloadOperator(
        task_id="land",
        folders=["DCASS"],
        include=REPORTS,
        # The daily DAG judges the day, once it is over.
        expect=[],
        lake="{{ var.value.hkex_rap_lake }}",
    )
