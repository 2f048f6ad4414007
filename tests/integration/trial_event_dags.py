"""DAGs for the trial of asset events under a real scheduler; it reads a copy of this file."""

import json
import os
import signal
from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG, Asset, task

from airflow_provider_hkex_rap.notifications.alerts import alert
from airflow_provider_hkex_rap.operators.download import RapDownloadOperator

LAKE = "{{ var.value.hkex_rap_lake }}"
SEEN = Path(os.environ["TRIAL_SEEN"])

ALERTING = {"retry_delay": timedelta(seconds=1), "retries": 1, "on_failure_callback": alert}

for dag_id, expect in (("land", []), ("land_and_fail", ["NEVER_*"])):
    with DAG(dag_id, schedule=None, default_args=ALERTING, on_failure_callback=alert):
        RapDownloadOperator(task_id="land", folders=["DCASS", "DCASS_OTHERS"], lake=LAKE, expect=expect)

# Two accounts of one customer, in pools of their own, at the same time.
with DAG("land_by_two", schedule=None):
    for number, day in (("1", "2027-01-13"), ("2", "2027-01-14")):
        RapDownloadOperator(
            task_id=f"land_by_{number}",
            folders=["DCASS"],
            lake=LAKE,
            expect=[],
            include=f"*{day.replace('-', '')}*",
            rap_conn_id=f"hkex_rap_abc{number}",
            pool=f"hkex_rap_abc{number}",
        )

with DAG("land_mapped", schedule=None):
    RapDownloadOperator.partial(
        task_id="land", folders=["HKCC_SEOCH_CCMS_GLOB"], lake=LAKE, expect=[], pool="hkex_rap"
    ).expand(business_date=["2027-01-13", "2027-01-14"])


@task
def die(of_whom):
    """Kill this process, and before it the supervisor too if a worker is to be lost."""
    if of_whom == "worker":
        os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


@task(trigger_rule="all_done")
def clean_up():
    """Succeed, and so does the run."""


for of_whom in ("task", "worker"):
    with DAG(f"kill_{of_whom}", schedule=None, default_args=ALERTING, on_failure_callback=alert):
        die.override(retries=0)(of_whom)
    with DAG(
        f"kill_{of_whom}_and_succeed",
        schedule=None,
        default_args=ALERTING,
        on_failure_callback=alert,
        # If only the process of the task is killed, Airflow calls nothing else.
        on_success_callback=alert if of_whom == "task" else None,
    ):
        die.override(retries=0)(of_whom) >> clean_up()


@task
def see(consumer, uri, triggering_asset_events=None):
    """Write the contents of the run's triggering events as one line of a file."""
    extras = [event.extra for event in triggering_asset_events[Asset(uri)]]
    with (SEEN / f"{consumer}.jsonl").open("a") as file:
        file.write(json.dumps(extras) + "\n")


for consumer, uri in {
    "dcass": "hkex-rap://CXYZ/DCASS",
    "others": "hkex-rap://CXYZ/DCASS_OTHERS",
    "ccms": "hkex-rap://CXYZ/HKCC_SEOCH_CCMS_GLOB",
    "abc": "hkex-rap://CABC/DCASS",
}.items():
    with DAG(f"consume_{consumer}", schedule=[Asset(uri)]):
        see(consumer, uri)
