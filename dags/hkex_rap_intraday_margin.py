"""Land the reports on intraday margin, each new version beside the last, every ten minutes of the day.

They are the ones that RAP lets you fetch more than once a day (guide §4.1). Name them in ``REPORTS``, set the
Airflow Variable ``hkex_rap_lake`` to the lake's root, and make the connection ``hkex_rap_default``.
"""

import pendulum
from airflow.sdk import DAG

from airflow_provider_hkex_rap.operators.download import RapDownloadOperator

# Patterns of file names; put those of your own subscription here, and no others.
REPORTS = ["*INTRADAY*MARGIN*"]

with DAG(
    "hkex_rap_intraday_margin",
    schedule="*/10 9-16 * * mon-fri",
    start_date=pendulum.datetime(2026, 1, 1, tz="Asia/Hong_Kong"),
    catchup=False,
    max_active_runs=1,
    tags=["hkex", "rap"],
    doc_md=__doc__,
):
    RapDownloadOperator(
        task_id="land", folders=["DCASS"], include=REPORTS, lake="{{ var.value.hkex_rap_lake }}"
    )
