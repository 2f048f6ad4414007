"""What a run hands on, and whom it tells; it is Friday 15 January 2027, 20:00.

Landings trigger the DAGs that are scheduled on a folder's reports. Each task has links and sends metrics, and
failures reach a mailbox.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit

import pendulum
import pytest

from airflow_provider_hkex_rap.rap.clock import HONG_KONG
from airflow_provider_hkex_rap.rap.folders import Folder

from .listeners import NOTIFIER, MailServer, Metric, StatsdServer
from .real_airflow import missing_faketime
from .trial import ACCOUNT, DAGS, SHARING_ACCOUNTS, Trial

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing_faketime() is not None, reason=str(missing_faketime())),
    pytest.mark.timeout(300),
]

NOW = pendulum.datetime(2027, 1, 15, 20, tz=HONG_KONG)
EVENT_DAGS = Path(__file__).with_name("trial_event_dags.py")
RECIPE = DAGS.parent / "docs" / "recipes" / "downstream.py"
VALIDATE = "hkex_rap_validate"
CSV = b"series,quantity\r\nHSI27A,1\r\nHSI27B,2\r\n"
DAYS = ["2027-01-12", "2027-01-13", "2027-01-14"]
KILLED = {
    "kill_worker": "failed",
    "kill_worker_and_succeed": "success",
    "kill_task": "failed",
    "kill_task_and_succeed": "success",
}
"""The DAGs that are killed, with the state of the run; a second alert would come before the next one's."""
FAILED_DAY, NEXT_DAY = "2027-01-11", "2027-01-15"


@dataclass
class Events:
    """The runs that landed files, and the runs that the landings triggered.

    :param summaries: the results of the task ``land``, by the name of the landing.
    :param seen: for each consumer, the extras of the events of each of its runs.
    :param runs: the ids of the runs of ``land``, by the name of the landing.
    :param alerts: the alerts that were mailed, by DAG.
    """

    trial: Trial
    runs: dict[str, str] = field(default_factory=dict)
    alerts: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    metrics: list[Metric] = field(default_factory=list)
    summaries: dict[str, dict[str, Any]] = field(default_factory=dict)
    seen: dict[str, list[list[dict[str, Any]]]] = field(default_factory=dict)

    def days(self, consumer: str) -> list[list[str]]:
        """Return the business dates that each run of a consumer saw."""
        return [
            [day["business_date"] for extra in extras for day in extra["days"]]
            for extras in self.seen[consumer]
        ]


@pytest.fixture(scope="module")
def mail() -> Iterator[MailServer]:
    with MailServer() as server:
        yield server


@pytest.fixture(scope="module")
def statsd() -> Iterator[StatsdServer]:
    with StatsdServer() as server:
        yield server


@pytest.fixture(scope="module")
def trial(
    tmp_path_factory: pytest.TempPathFactory, mail: MailServer, statsd: StatsdServer
) -> Iterator[Trial]:
    home = tmp_path_factory.mktemp("events")
    lineage = {"type": "file", "log_file_path": str(home / "lineage.jsonl"), "append": True}
    with Trial(
        home,
        NOW,
        dags={path.name: path.read_text() for path in (EVENT_DAGS, RECIPE)},
        environment={
            "TRIAL_SEEN": str(home),
            "AIRFLOW_VAR_HKEX_RAP_PARQUET": (home / "parquet").as_uri(),
            "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(lineage),
            "AIRFLOW__API__BASE_URL": "https://airflow.example.com",
            "AIRFLOW_CONN_SMTP_DEFAULT": mail.connection,
            "AIRFLOW_VAR_HKEX_RAP_NOTIFIER": json.dumps(NOTIFIER),
            # Seconds after which a worker without a heartbeat counts as lost.
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "10",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
            # Seconds. A callback that comes while the DAG processor reads the file waits for the next time.
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "5",
            **statsd.environment,
        },
    ) as trial:
        yield trial


@pytest.fixture(scope="module")
def events(trial: Trial, mail: MailServer, statsd: StatsdServer) -> Events:
    airflow, rap, played = trial.airflow, trial.rap, Events(trial)

    def publish(report: str, day: str, folder: Folder = Folder.DCASS, account: str = ACCOUNT) -> None:
        name = f"{report}_{day.replace('-', '')}.csv"
        published = pendulum.parse(f"{day}T18:00", tz=HONG_KONG)
        assert isinstance(published, pendulum.DateTime)
        rap.put(folder, name, CSV, published, account=account)

    def land(name: str) -> None:
        run = airflow.trigger("land")
        assert trial.end_of("land", run) == "success", trial.log("land", run, "land")
        played.summaries[name] = airflow.xcom("land", run, "land")
        played.runs[name] = run

    def wait_for_runs(consumer: str, count: int) -> None:
        path = Path(airflow.home, f"{consumer}.jsonl")
        airflow.wait_until(
            lambda: path.exists() and len(path.read_text().splitlines()) >= count,
            f"run {count} of consume_{consumer}",
        )

    consumers = ["dcass", "others", "ccms", "abc"]
    airflow.unpause(
        "land",
        "land_and_fail",
        "land_by_two",
        "land_mapped",
        *KILLED,
        VALIDATE,
        "rows_of_tp001",
        *(f"consume_{name}" for name in consumers),
    )

    # Several days at once, in two folders.
    for day in DAYS:
        publish("TP001", day)
    publish("RPI03", DAYS[-1], Folder.DCASS_OTHERS)
    land("several days")
    wait_for_runs("dcass", 1)
    wait_for_runs("others", 1)
    land("nothing new")
    # A run that lands a file and fails; the next run lands another file and succeeds.
    publish("TP001", FAILED_DAY)
    assert trial.end_of("land_and_fail", airflow.trigger("land_and_fail")) == "failed"
    publish("TP001", NEXT_DAY)
    land("after the failed run")
    wait_for_runs("dcass", 2)
    for account, day in zip(SHARING_ACCOUNTS, DAYS[1:], strict=True):
        publish("TP001", day, account=account)
    two = airflow.trigger("land_by_two")
    assert trial.end_of("land_by_two", two) == "success"
    wait_for_runs("abc", 1)
    # If both tasks ended within a second, the consumer sees the second event after the next landing.
    for account, day in zip(SHARING_ACCOUNTS, DAYS[1:], strict=True):
        publish("TP002", day, account=account)
    assert trial.end_of("land_by_two", airflow.trigger("land_by_two")) == "success"
    wait_for_runs("abc", 2)

    for day in DAYS[1:]:
        publish("CCMS", day, Folder.HKCC_SEOCH_CCMS_GLOB)
    assert trial.end_of("land_mapped", airflow.trigger("land_mapped")) == "success"
    wait_for_runs("ccms", 1)

    airflow.wait_until(lambda: parquet(trial, NEXT_DAY).exists(), "the Parquet file of the last day")
    airflow.wait_until_idle()
    played.metrics = statsd.metrics()

    played.alerts = alerts_of_killed_tasks(trial, mail)
    played.seen = {
        name: [json.loads(line) for line in Path(airflow.home, f"{name}.jsonl").read_text().splitlines()]
        for name in consumers
    }
    return played


def alerts_of_killed_tasks(trial: Trial, mail: MailServer) -> dict[str, list[dict[str, str]]]:
    """Kill a task and a worker, and return by DAG all alerts that have come so far."""
    alerts: dict[str, list[dict[str, str]]] = {}

    def has_alerted(dag_id: str) -> bool:
        for alert in mail.alerts():
            alerts.setdefault(alert["dag_id"], []).append(alert)
        return dag_id in alerts

    for dag_id, state in KILLED.items():
        assert trial.end_of(dag_id, trial.airflow.trigger(dag_id)) == state
        trial.airflow.wait_until(lambda dag=dag_id: has_alerted(dag), f"the alert of {dag_id}")
    return alerts


def parquet(trial: Trial, day: str, folder: str = "DCASS", report: str = "TP001") -> Path:
    root = trial.airflow.home / "parquet" / folder
    return root / f"report={report}" / f"business_date={day}" / "report.parquet"


def entries_of(extra: dict[str, Any], day: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the landed entries of a day of an event, from the manifest files that the event names."""
    paths = [Path(unquote(urlsplit(uri).path)) for uri in day["manifests"]]
    entries = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    assert {(e["folder"], e["business_date"]) for e in entries} == {(extra["folder"], day["business_date"])}
    return [entry for entry in entries if entry["disposition"] == "landed"]


def test_a_consumer_runs_once_per_landing_and_folder_and_sees_every_business_date(events: Events) -> None:
    assert events.days("dcass") == [DAYS, [FAILED_DAY, NEXT_DAY]]
    assert events.days("others") == [[DAYS[-1]]]


def test_a_run_that_lands_nothing_triggers_nobody(events: Events) -> None:
    assert events.summaries["nothing new"]["landed"] == 0
    assert events.summaries["nothing new"]["already"] == len(DAYS) + 1
    # Its event would have come between those of the two landings.
    assert len(events.seen["dcass"]) == 2


def test_a_success_announces_the_files_of_a_failed_run(events: Events) -> None:
    assert events.summaries["after the failed run"]["landed"] == 1
    ((extra,),) = events.seen["dcass"][1:]
    assert [day["count"] for day in extra["days"]] == [1, 1]


def test_every_event_names_the_manifest_files_of_its_days(events: Events) -> None:
    for extras in events.seen.values():
        for extra in (extra for run in extras for extra in run):
            for day in extra["days"]:
                entries = entries_of(extra, day)
                assert len({entry["uri"] for entry in entries}) == day["count"]
                assert sum(entry["size"] for entry in entries) == day["bytes"]
                assert sorted({entry["report"] for entry in entries}) == day["reports"]


def test_two_accounts_that_land_at_once_leave_out_no_day(events: Events) -> None:
    assert {day for run in events.days("abc") for day in run} == set(DAYS[1:])
    names = {
        Path(entry["rap_path"]).name
        for extras in events.seen["abc"]
        for extra in extras
        for day in extra["days"]
        for entry in entries_of(extra, day)
    }
    assert names >= {f"TP001_{day.replace('-', '')}.csv" for day in DAYS[1:]}


def test_a_mapped_task_announces_its_day(events: Events) -> None:
    # If both tasks ended within a second, the second event waits for the next landing.
    (first, *_) = events.days("ccms")
    assert len(first) == 1
    assert first[0] in DAYS[1:]


def test_each_announced_manifest_file_has_a_mark(events: Events) -> None:
    manifests = set((events.trial.lake / "manifest").rglob("*.jsonl"))
    marks = list((events.trial.lake / "manifest").glob("*/*/_marks/announced/*/*.json"))
    assert marks
    marked = "".join(path.read_text() for path in marks)
    assert [path for path in manifests if path.name not in marked] == []


def test_the_validating_dag_writes_each_report_as_parquet(events: Events) -> None:
    pyarrow_parquet = pytest.importorskip("pyarrow.parquet")
    for day in (*DAYS, FAILED_DAY, NEXT_DAY):
        table = pyarrow_parquet.read_table(parquet(events.trial, day).open("rb"))
        assert table.to_pydict() == {"series": ["HSI27A", "HSI27B"], "quantity": [1, 2]}
    assert parquet(events.trial, DAYS[-1], "DCASS_OTHERS", "RPI03").exists()
    assert {run["state"] for run in events.trial.airflow.runs(VALIDATE)} == {"success"}


def test_the_recipe_counts_the_rows_of_each_new_report(events: Events) -> None:
    airflow = events.trial.airflow
    runs = sorted(airflow.runs("rows_of_tp001"), key=lambda run: str(run["run_after"]))
    assert {run["state"] for run in runs} == {"success"}
    counted = [airflow.xcom("rows_of_tp001", run["dag_run_id"], "count_rows") for run in runs]
    assert [set(rows.values()) for rows in counted] == [{2}, {2}]
    assert [sorted(Path(uri).name for uri in rows) for rows in counted] == [
        [f"TP001_{day.replace('-', '')}.csv" for day in days] for days in events.days("dcass")
    ]


def test_openlineage_gets_the_files_of_each_landing(events: Events) -> None:
    pytest.importorskip("airflow.providers.openlineage")
    lines = (events.trial.airflow.home / "lineage.jsonl").read_text().splitlines()
    landings = [
        event
        for event in map(json.loads, lines)
        if event["job"]["name"] in ("land.land", "land_and_fail.land")
        and event["eventType"] in ("COMPLETE", "FAIL")
    ]
    landed = sorted(len(event["outputs"]) for event in landings)
    # The second try of the failed run has landed nothing.
    assert landed == [0, 0, 1, 1, 4]
    assert all(len(event["inputs"]) == len(event["outputs"]) for event in landings)


def lake_of(events: Events) -> str:
    """Return the parameter of an address of the board that names the lake."""
    return urlencode({"lake": events.trial.lake.as_uri()})


def test_a_download_links_to_its_day_on_the_board_and_to_its_manifest_files(events: Events) -> None:
    run = events.runs["several days"]
    links = events.trial.airflow.request("GET", f"dags/land/dagRuns/{run}/taskInstances/land/links")
    base = "https://airflow.example.com"
    assert links["extra_links"] == {
        # The task has several folders.
        "Board": f"{base}/hkex-rap/?customer=CXYZ&day=2027-01-15&{lake_of(events)}",
        "Manifest files": f"{base}/dags/land/runs/{quote(run)}/tasks/land/xcom",
    }
    run = events.runs["nothing new"]
    links = events.trial.airflow.request("GET", f"dags/land/dagRuns/{run}/taskInstances/land/links")
    assert links["extra_links"]["Board"]
    assert links["extra_links"]["Manifest files"] is None


def test_a_failed_download_links_to_the_manifest_files_of_all_its_tries(events: Events) -> None:
    (task,) = events.trial.airflow.task_instances("land_and_fail")
    run = task["dag_run_id"]
    place = f"dags/land_and_fail/dagRuns/{run}/taskInstances/land"
    links = events.trial.airflow.request("GET", f"{place}/links")["extra_links"]
    assert links["Manifest files"].endswith(f"/dags/land_and_fail/runs/{quote(run)}/tasks/land/xcom")
    # The first try has landed the report; the second one has failed the task.
    value = events.trial.airflow.request("GET", f"{place}/xcomEntries/manifests", deserialize=True)["value"]
    (uri,) = json.loads(value) if isinstance(value, str) else value
    (line,) = Path(unquote(urlsplit(uri).path)).read_text().splitlines()
    assert (json.loads(line)["run"], json.loads(line)["try_number"]) == (run, 1)


def test_a_failure_alerts_once_after_its_last_try(events: Events) -> None:
    (alert,) = events.alerts["land_and_fail"]
    (task,) = events.trial.airflow.task_instances("land_and_fail")
    assert task["try_number"] == 2
    assert (alert["severity"], alert["kind"], alert["account"]) == ("error", "RapReportMissing", ACCOUNT)
    assert "NEVER_*" in alert["what"]
    assert alert["why"]
    assert alert["todo"]
    assert alert["business_date"] == "2027-01-15"
    assert alert["link"].endswith(f"/runs/{quote(task['dag_run_id'])}/tasks/land")
    assert alert["board"].endswith(f"/hkex-rap/?customer=CXYZ&day=2027-01-15&{lake_of(events)}")


def test_a_killed_task_and_a_lost_worker_alert_once(events: Events) -> None:
    for dag_id in KILLED:
        alert, *more = events.alerts[dag_id]
        # Airflow calls the callback of the task twice; that of the DAG would alert once.
        assert not more or dag_id == "kill_worker_and_succeed"
        assert (alert["severity"], alert["kind"]) == ("error", "TaskKilled")
        assert alert["what"].startswith(f"{dag_id}.die ")
        assert (alert["task_id"], alert["link"].rpartition("/")[2]) == ("die", "die")


def test_a_success_alerts_nobody(events: Events) -> None:
    assert events.alerts.keys() == {"land_and_fail", *KILLED}


def test_the_metrics_of_each_landing_reach_statsd(events: Events) -> None:
    tags = {"dag_id": "land", "task_id": "land", "account": ACCOUNT, "customer": "CXYZ"}

    def total(name: str, **more: str) -> float:
        return sum(m.value for m in events.metrics if m.name == name and m.tags == {**tags, **more})

    assert total("hkex_rap.files.landed", folder="DCASS") == len(DAYS) + 1
    assert total("hkex_rap.files.landed", folder="DCASS_OTHERS") == 1
    assert total("hkex_rap.bytes.landed", folder="DCASS_OTHERS") == len(CSV)
    assert total("hkex_rap.sessions.superseded") == 0
    durations = [m for m in events.metrics if m.name == "hkex_rap.landing.duration" and m.tags == tags]
    assert [m.kind for m in durations] == ["ms"] * len(events.summaries)
    assert all(0 < m.value < 60_000 for m in durations)
