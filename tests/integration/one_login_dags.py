"""DAGs whose tasks share one account; a real scheduler reads a copy of this file."""

from datetime import timedelta

from airflow.sdk import DAG

from airflow_provider_hkex_rap.operators.download import RapDownloadOperator
from airflow_provider_hkex_rap.operators.key_renewal import RapKeyRenewalOperator
from airflow_provider_hkex_rap.sensors.report import RapReportSensor

LAKE = "{{ var.value.hkex_rap_lake }}"
FOLDERS = ["DCASS", "DCASS_OTHERS", "HKCC_SEOCH_CCMS_GLOB"]

ROOMY = {"pool": "roomy"}
"""A pool with a slot for every task: it never makes a task wait."""


def dag(dag_id, account, **defaults):
    shared = {"rap_conn_id": account, "retries": 2, "retry_delay": timedelta(seconds=1)}
    return DAG(dag_id, schedule=None, default_args=shared | defaults)


def look(task_id, folder, reports="*"):
    RapReportSensor(task_id=task_id, folder=folder, reports=reports, poke_interval=60)


def land(task_id, folders, **filters):
    RapDownloadOperator(task_id=task_id, folders=folders, lake=LAKE, expect=[], **filters)


for name, defaults in {"pooled": {}, "roomy": ROOMY}.items():
    with dag(f"{name}_by_folder", "DCXYZ001", **defaults):
        look("dcass_is_there", "DCASS")
        land("dcass", "DCASS", exclude="B*")
        land("others", "DCASS_OTHERS")
        land("ccms", "HKCC_SEOCH_CCMS_GLOB")
    with dag(f"{name}_by_report", "DCXYZ001", **defaults):
        look("b_is_there", "DCASS_OTHERS", "B*")
        look("ccms_is_there", "HKCC_SEOCH_CCMS_GLOB")
        land("b", FOLDERS, include="B*")
        land("everything", FOLDERS)

with dag("worker_killed", "DCABC001", **ROOMY):
    land("land", FOLDERS)

with dag("human_and_downloads", "DCDEF001", **ROOMY):
    land("dcass", ["DCASS", "DCASS_OTHERS"])
    land("ccms", "HKCC_SEOCH_CCMS_GLOB")

with dag("human_and_sensor", "DCGHI001", **ROOMY):
    look("look", "DCASS")

with dag("renewal", "DCJKL001", **ROOMY):
    RapKeyRenewalOperator(task_id="renew", key_size=2048, force=True)
