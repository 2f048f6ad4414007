"""What a run tells a notifier, and the metrics that it sends; Airflow's own notifier mails to localhost."""

from __future__ import annotations

import json
import logging
import re
import signal
import threading
from asyncio import CancelledError
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pendulum
import pytest
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, BaseNotifier
from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowTaskTerminated,
    AirflowTaskTimeout,
)
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import GetTaskStates, GetXCom, TaskStatesResult, XComResult
from airflow.sdk.observability import stats
from airflow.sdk.observability.metrics.stats_utils import get_stats_factory

from airflow_provider_hkex_rap.keystore.record import Happened, KeyRecord, StoredKey
from airflow_provider_hkex_rap.notifications import alerts, notifiers
from airflow_provider_hkex_rap.notifications.alerts import alert
from airflow_provider_hkex_rap.operators.download import RapDownloadOperator
from airflow_provider_hkex_rap.operators.links import BoardLink
from airflow_provider_hkex_rap.operators.run_warnings import find_warnings
from airflow_provider_hkex_rap.rap.errors import RapReportMissing, RapTransferError
from airflow_provider_hkex_rap.rap.folders import Folder
from airflow_provider_hkex_rap.sensors.key_expiry import RapKeyExpiryWarningSensor
from airflow_provider_hkex_rap.sensors.report import RapReportSensor
from airflow_provider_hkex_rap.testing import Fault, RapSimulator

from ..simulated_rap import NOW, download, in_a_run, use
from .listeners import NOTIFIER, MailServer, StatsdServer

DAYS = [pendulum.date(2026, 11, day) for day in (11, 12, 13, 16, 17, 18, 19, 20)]
FRIDAY = DAYS[-1]
NOBODY = "alerts.never.Notifier"


@pytest.fixture
def mail(monkeypatch: pytest.MonkeyPatch) -> Iterator[MailServer]:
    with MailServer() as server:
        monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", server.connection)
        name(monkeypatch, NOTIFIER)
        yield server


def name(monkeypatch: pytest.MonkeyPatch, notifier: object) -> None:
    """Set the Variable that names the notifiers."""
    text = notifier if isinstance(notifier, str) else json.dumps(notifier)
    monkeypatch.setenv("AIRFLOW_VAR_HKEX_RAP_NOTIFIER", text)


def put(rap: RapSimulator, report: str, day: pendulum.Date, content: bytes = b"x") -> None:
    at = pendulum.datetime(day.year, day.month, day.day, 19, tz="Asia/Hong_Kong")
    rap.put(Folder.DCASS, f"{report}_CXYZ_{day:%Y%m%d}.csv", content, at)


def land(lake: Path, context: Any = None, **arguments: Any) -> dict[str, Any]:
    return download(
        lake, context or run(), **{"folders": ["DCASS"], "expect": ["usual"], "retries": 1, **arguments}
    )


@pytest.fixture
def complete(rap: RapSimulator) -> RapSimulator:
    """RAP lists a report of every day."""
    for day in DAYS:
        put(rap, "TP001", day)
    return rap


def run(day: pendulum.Date = FRIDAY, *, try_number: int = 1) -> Any:
    """Return the context of a task with one retry, in a run for a day."""
    context = in_a_run()
    context["ti"].__dict__.update(try_number=try_number, max_tries=1, map_index=-1)
    context["dag_run"].conf["business_date"] = day.isoformat()
    return context


def failing(error: BaseException, folders: Sequence[str] = ("DCASS",), lake: str = "file:///lake") -> Any:
    """Return the context of a failure callback."""
    task = RapDownloadOperator(task_id="land", folders=folders, lake=lake)
    made = run(try_number=2) | {"exception": error, "dag": DAG("daily"), "logical_date": None}
    made["ti"].task = task
    return made


def one_line(error: BaseException, mail: MailServer) -> str:
    alert(failing(error))
    (sent,) = mail.alerts()
    return sent["what"]


# Warnings.


def test_a_complete_ordinary_day_alerts_nobody(complete: RapSimulator, lake: Path, mail: MailServer) -> None:
    land(lake)
    assert mail.alerts() == []


def test_without_a_notifier_nothing_happens(
    complete: RapSimulator, lake: Path, caplog: pytest.LogCaptureFixture
) -> None:
    threads = threading.active_count()
    caplog.set_level(logging.WARNING, "airflow_provider_hkex_rap.notifications")
    for notifier in ("", " ", "[]"):
        with pytest.MonkeyPatch.context() as patch:
            name(patch, notifier)
            land(lake)
            alert(failing(RuntimeError("x")))
    alert(failing(RuntimeError("x")))
    assert [record for record in caplog.records if "notifications" in record.name] == []
    assert threading.active_count() <= threads + 1


def test_a_missing_report_of_a_holiday_is_a_warning_once_in_the_run(
    rap: RapSimulator, lake: Path, monkeypatch: pytest.MonkeyPatch, mail: MailServer
) -> None:
    # 25 December 2026 is a public holiday.
    for day in (18, 21, 22, 23, 24):
        put(rap, "TP001", pendulum.date(2026, 12, day))
        put(rap, "RPI03", pendulum.date(2026, 12, day))
    put(rap, "TP001", pendulum.date(2026, 12, 25))
    now = pendulum.datetime(2026, 12, 25, 23, 40, tz="Asia/Hong_Kong")
    rap.clock.set(now)
    use(monkeypatch, rap.connection("DCXYZ001"), now)
    context = run(now.date())
    # The first try fails, and a retry follows: it is the last try that warns.
    rap.faults.add(Fault("deny", path="*/TP001_CXYZ_20261225.csv", times=None))
    with pytest.raises(RapTransferError):
        land(lake, context)
    assert mail.alerts() == []
    rap.faults.clear()
    land(lake, run(now.date(), try_number=2))
    (warning,) = mail.alerts()
    assert (warning["severity"], warning["kind"]) == ("warning", "UnusualDay")
    assert "on a public holiday: RPI03 in DCASS" in warning["what"]
    assert (warning["account"], warning["business_date"]) == ("DCXYZ001", "2026-12-25")
    assert warning["board"].endswith("/hkex-rap/?customer=CXYZ&day=2026-12-25")


def test_a_day_whose_missing_report_fails_the_task_is_no_warning_too(
    complete: RapSimulator, lake: Path, mail: MailServer
) -> None:
    (missing,) = [
        file for file in complete.files(Folder.DCASS) if file.text == f"TP001_CXYZ_{FRIDAY:%Y%m%d}.csv"
    ]
    complete.remove(Folder.DCASS, missing.name)
    with pytest.raises(RapReportMissing):
        land(lake, run(try_number=2))
    assert mail.alerts() == []


def test_republished_content_is_a_warning_unless_versions_are_collected(
    complete: RapSimulator, lake: Path, mail: MailServer
) -> None:
    land(lake)
    put(complete, "TP001", FRIDAY, b"corrected")
    land(lake)
    (warning,) = mail.alerts()
    assert warning["kind"] == "Republished"
    assert "DCASS/TP001_CXYZ_20261120.csv" in warning["what"]
    put(complete, "TP001", FRIDAY, b"corrected again")
    land(lake, expect=[])
    assert mail.alerts() == []


def test_republished_content_is_no_news_to_other_mapped_tasks_and_to_a_cleared_run(
    complete: RapSimulator, lake: Path, mail: MailServer
) -> None:
    land(lake)
    put(complete, "TP001", FRIDAY, b"corrected")
    context = run()
    for map_index, kinds in ((0, ["Republished"]), (1, [])):
        context["ti"].map_index = map_index
        land(lake, context, business_date=FRIDAY.isoformat())
        assert [sent["kind"] for sent in mail.alerts()] == kinds
    # Airflow counts on, and allows as many tries as at first.
    context["ti"].__dict__.update(map_index=0, try_number=2, max_tries=2)
    land(lake, context, business_date=FRIDAY.isoformat())
    assert mail.alerts() == []


def test_a_file_that_leaves_rap_without_having_landed_is_a_warning(
    complete: RapSimulator, lake: Path, monkeypatch: pytest.MonkeyPatch, mail: MailServer
) -> None:
    put(complete, "OLD", pendulum.date(2026, 11, 10))
    complete.faults.add(Fault("deny", path="*/OLD_CXYZ_20261110.csv", times=None))
    with pytest.raises(RapTransferError):
        land(lake, run(try_number=2))
    (warning,) = mail.alerts()
    assert warning["kind"] == "FileLeavesRap"
    assert "2026-11-21" in warning["what"]
    assert "OLD_CXYZ_20261110.csv" in warning["what"]


def test_a_key_that_ends_soon_is_a_warning(
    complete: RapSimulator, lake: Path, monkeypatch: pytest.MonkeyPatch, mail: MailServer
) -> None:
    connection = complete.connection("DCXYZ001")
    connection["extra"]["key_expires"] = "2026-12-04"
    use(monkeypatch, connection)
    land(lake)
    assert mail.alerts() == []
    connection["extra"]["key_expires"] = "2026-12-03"
    use(monkeypatch, connection)
    land(lake)
    (warning,) = mail.alerts()
    assert warning["kind"] == "KeyExpires"
    assert "ends on 2026-12-03: days left 14." in warning["what"]


def test_downloads_that_run_often_leave_warnings_of_keys_and_leaving_files_to_the_daily_ones(
    complete: RapSimulator, lake: Path, monkeypatch: pytest.MonkeyPatch, mail: MailServer
) -> None:
    connection = complete.connection("DCXYZ001")
    connection["extra"]["key_expires"] = "2026-12-03"
    use(monkeypatch, connection)
    old = pendulum.date(2026, 11, 10)
    put(complete, "OLD", old)
    complete.faults.add(Fault("deny", path="*/OLD_CXYZ_20261110.csv", times=None))
    mapped = run(try_number=2)
    mapped["ti"].map_index = 0
    for last_try, arguments in (
        (run(try_number=2), {"expect": []}),
        (run(old, try_number=2), {"business_date": old.isoformat(), "expect": ["OLD_*"]}),
        (mapped, {}),
    ):
        with pytest.raises(RapTransferError):
            land(lake, last_try, **arguments)
        assert mail.alerts() == []
    with pytest.raises(RapTransferError):
        land(lake, run(try_number=2))
    assert {sent["kind"] for sent in mail.alerts()} == {"KeyExpires", "FileLeavesRap"}
    # A daily download may name its day; it then lands no other.
    land(lake, run(try_number=2), business_date=FRIDAY.isoformat())
    assert {sent["kind"] for sent in mail.alerts()} == {"KeyExpires"}


@pytest.mark.parametrize(
    ("now", "warns"), [("2026-11-21T01:30", True), ("2026-11-23T08:00", True), ("2026-11-24T08:00", False)]
)
def test_the_download_of_the_last_trading_day_warns_of_a_key_also_after_midnight(
    complete: RapSimulator,
    lake: Path,
    monkeypatch: pytest.MonkeyPatch,
    mail: MailServer,
    now: str,
    warns: bool,
) -> None:
    at = pendulum.parse(now, tz="Asia/Hong_Kong")
    assert isinstance(at, pendulum.DateTime)
    complete.clock.set(at)
    connection = complete.connection("DCXYZ001")
    connection["extra"]["key_expires"] = "2026-12-03"
    use(monkeypatch, connection, at)
    land(lake)
    assert [sent["kind"] for sent in mail.alerts()] == ["KeyExpires"] * warns


def test_the_upload_of_a_key_by_somebody_else_is_a_warning() -> None:
    current = StoredKey(fingerprint="aa", private_key="")
    record = KeyRecord(account="DCXYZ001", current=current).with_foreign_upload("bb", NOW)
    (warning,) = find_warnings(record, NOW.date(), None, None)
    assert warning.kind == "KeyUploadedElsewhere"
    assert "the key bb of DCXYZ001 on 2026-11-20" in warning.what
    assert "ends on 2026-12-03" in warning.why
    assert any(entry.what is Happened.UPLOADED_ELSEWHERE for entry in record.history)


def test_a_monthly_report_that_fails_to_come_is_a_warning(
    rap: RapSimulator,
    lake: Path,
    monkeypatch: pytest.MonkeyPatch,
    mail: MailServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for month, day, hour in ((8, 31, 22), (9, 30, 22), (11, 6, 20)):
        now = pendulum.datetime(2026, month, day, hour, tz="Asia/Hong_Kong")
        rap.clock.set(now)
        use(monkeypatch, rap.connection("DCXYZ001"), now)
        put(rap, "TP001", now.date())
        if month != 11:
            put(rap, "MT001", now.date())
        else:
            (damaged,) = lake.glob("manifest/*/DCASS/2026-08-31/*.jsonl")
            damaged.write_text(damaged.read_text() + "damaged\n")
        land(lake, run(now.date()))
    (late,) = [sent for sent in mail.alerts() if sent["kind"] == "MonthlyReportLate"]
    assert "MT001 in DCASS came on 2026-08-31 and 2026-09-30" in late["what"]
    assert f"Ignoring {damaged.as_uri()}, line 3: " in caplog.text


def test_a_refused_login_has_no_warnings(
    rap: RapSimulator, lake: Path, mail: MailServer, caplog: pytest.LogCaptureFixture
) -> None:
    rap.faults.add(Fault("refuse_login", times=None))
    with pytest.raises(AirflowFailException):
        land(lake, run(try_number=2))
    assert mail.alerts() == []
    assert "An alert was not sent" not in caplog.text


# Failures.


def test_a_failure_says_what_why_and_what_to_do(rap: RapSimulator, mail: MailServer) -> None:
    error = RapReportMissing("It is missing.", why="It came before.", todo="Ask HKEX.")
    failure = AirflowFailException("RapReportMissing: ...")
    failure.__cause__ = error
    for raised in (error, failure):
        alert(failing(raised))
        (sent,) = mail.alerts()
        assert (sent["severity"], sent["kind"]) == ("error", "RapReportMissing")
        assert (sent["what"], sent["why"], sent["todo"]) == ("It is missing.", "It came before.", "Ask HKEX.")
        assert (sent["dag_id"], sent["run_id"], sent["task_id"]) == ("daily", "run", "land")
        assert (sent["account"], sent["business_date"]) == ("DCXYZ001", "2026-11-20")
        assert sent["link"] == "http://localhost:8080/dags/daily/runs/run/tasks/land"


def dag_of(*order: str, **arguments: Any) -> DAG:
    """Return a DAG that alerts; *order* names tasks that wait for ``land``, with their trigger rules."""
    with DAG("daily", on_failure_callback=alert, **arguments) as dag:
        land = EmptyOperator(task_id="land")
        EmptyOperator(task_id="other")
        for number, rule in enumerate(order):
            land >> EmptyOperator(task_id=f"then_{number}", trigger_rule=rule)
    return dag


def killed(dag: DAG, task_id: str = "land", *, reason: str = "") -> Any:
    """Return what the DAG processor gives the callback of a killed task, or with a reason that of its DAG."""
    # A run of its own, since this process knows which tasks have alerted.
    run_id = str(uuid4())
    made = failing(RuntimeError("x")) | {"dag": dag, "run_id": run_id}
    made["ti"].__dict__.update(task_id=task_id, run_id=run_id, task=dag.task_dict.get(task_id))
    del made["exception"]
    return made | ({"reason": reason} if reason else {})


def test_a_killed_task_alerts_if_its_run_may_succeed(
    rap: RapSimulator, mail: MailServer, caplog: pytest.LogCaptureFixture
) -> None:
    joined, fast = dag_of("all_success"), dag_of("all_success", fail_fast=True)
    # It is skipped, and the run succeeds, if the other task skips first.
    joined.task_dict["other"] >> joined.task_dict["then_0"]
    for dag in (dag_of("all_done"), dag_of("none_failed"), joined, fast):
        alert(killed(dag))
        (sent,) = mail.alerts()
        assert (sent["kind"], sent["task_id"]) == ("TaskKilled", "land")
    # The DAG processor, in which this runs, never answers a task that wants to write an XCom.
    assert "not recorded" not in caplog.text


def test_a_killed_task_leaves_the_alert_to_its_dag_if_the_run_fails(
    rap: RapSimulator, mail: MailServer
) -> None:
    for dag in (dag_of(), dag_of("all_success"), dag_of("all_done", "all_success")):
        alert(killed(dag))
        assert mail.alerts() == []
        alert(killed(dag, reason="task_failure"))
        assert [sent["task_id"] for sent in mail.alerts()] == ["land"]


def test_a_run_that_succeeds_alerts_of_a_killed_task_if_it_is_asked_to(
    rap: RapSimulator, monkeypatch: pytest.MonkeyPatch, mail: MailServer
) -> None:
    dag = dag_of("all_done", on_success_callback=[alert])
    alert(killed(dag))
    assert mail.alerts() == []
    succeeded = killed(dag, "then_0", reason="success")
    # Without a supervisor, as in `dag.test()`, nothing but the last task is known of the run.
    alert(succeeded)
    assert mail.alerts() == []
    monkeypatch.setattr(
        task_runner, "SUPERVISOR_COMMS", Supervisor(succeeded["run_id"], "land"), raising=False
    )
    alert(succeeded)
    (sent,) = mail.alerts()
    assert (sent["kind"], sent["task_id"]) == ("TaskKilled", "land")
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", Supervisor(succeeded["run_id"]))
    alert(succeeded)
    assert mail.alerts() == []


class Supervisor:
    """Answers the requests of a callback: tasks of the run have failed, and have these XComs."""

    def __init__(self, run_id: str, *failed: str) -> None:
        self._states = TaskStatesResult(task_states={run_id: dict.fromkeys(failed, "failed")})
        self.xcoms: dict[str, Any] = {}

    def send(self, msg: Any) -> Any:
        if isinstance(msg, GetTaskStates):
            return self._states
        assert isinstance(msg, GetXCom)
        return XComResult(key=msg.key, value=self.xcoms.get(msg.task_id))


def test_a_task_that_was_cleared_alerts_again_in_its_next_try(
    rap: RapSimulator, monkeypatch: pytest.MonkeyPatch, mail: MailServer
) -> None:
    failed = failing(RuntimeError("x"))
    supervisor = Supervisor("run", "land", "other")
    failed["ti"].xcom_push = lambda key, value: supervisor.xcoms.update(
        dict.fromkeys(("land", "other"), value)
    )
    alert(failed)
    assert len(mail.alerts()) == 1
    dag = killed(dag_of(), reason="task_failure") | {"run_id": "run"}
    dag["ti"].run_id = "run"
    # As in the DAG processor, which is another process.
    monkeypatch.setattr(alerts, "_alerted", set())
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)
    alert(dag)
    assert mail.alerts() == []
    # The next try fails before it starts, so its XComs are those of the last one.
    dag["ti"].try_number += 1
    alert(dag)
    (sent,) = mail.alerts()
    assert (sent["kind"], sent["task_id"]) == ("TaskKilled", "land")


def test_a_task_that_its_dag_no_longer_has_loses_no_alert(
    rap: RapSimulator, monkeypatch: pytest.MonkeyPatch, mail: MailServer
) -> None:
    context = killed(dag_of(), reason="task_failure")
    gone = ("before_7", "land_dcass", "other_3")
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", Supervisor(context["run_id"], *gone), raising=False)
    alert(context)
    (sent,) = mail.alerts()
    assert "daily.before_7, daily.land_dcass, daily.other_3" in sent["what"]


def test_an_alert_links_to_the_day_of_its_task_on_the_board(
    rap: RapSimulator, mail: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    error, unrendered = RuntimeError("x"), "{{ var.value.hkex_rap_lake }}"
    alert(failing(error))
    alert(failing(error, folders=["DCASS", "DCASS_OTHERS"], lake="s3://aws_default@bucket/rap"))
    alert(failing(error, lake=unrendered))
    assert [sent["board"].partition("/hkex-rap/?")[2] for sent in mail.alerts()] == [
        f"customer=CXYZ&folder=DCASS&day={FRIDAY}&lake=file%3A%2F%2F%2Flake",
        f"customer=CXYZ&day={FRIDAY}&lake=s3%3A%2F%2Faws_default%40bucket%2Frap",
        f"customer=CXYZ&folder=DCASS&day={FRIDAY}",
    ]


@pytest.mark.parametrize("folders", ["DCASS", ["DCASS", "DCASS_OTHERS"]], ids=str)
def test_a_task_and_its_alert_link_to_the_same_day_on_the_board(
    complete: RapSimulator, lake: Path, mail: MailServer, folders: str | list[str]
) -> None:
    context = failing(RuntimeError("x"), folders=folders, lake=lake.as_uri())
    task = context["ti"].task
    task.expect = []
    task.execute(run())
    alert(context)
    (sent,) = mail.alerts()
    assert sent["board"] == BoardLink().get_link(task, ti_key=context["ti"])
    assert ("&folder=DCASS&" in sent["board"]) == isinstance(folders, str)


def test_an_alert_is_short_and_contains_no_secret_and_no_second_line(
    rap: RapSimulator, mail: MailServer
) -> None:
    from airflow.sdk.log import mask_secret

    mask_secret("correct horse battery")
    said = one_line(ValueError("It is correct horse battery.\nBcc: x@example.com " + "y" * 5000), mail)
    assert "correct horse" not in said
    assert "***" in said
    assert "\n" not in said
    assert len(said) <= 1500


def test_a_notifier_for_errors_gets_no_warnings(
    complete: RapSimulator, lake: Path, monkeypatch: pytest.MonkeyPatch, mail: MailServer
) -> None:
    name(monkeypatch, [NOTIFIER | {"severity": "error"}, NOTIFIER])
    land(lake)
    put(complete, "TP001", FRIDAY, b"corrected")
    land(lake)
    assert len(mail.alerts()) == 1
    alert(failing(RuntimeError("x")))
    assert len(mail.alerts()) == 2


@pytest.mark.parametrize(
    ("notifier", "said"),
    [
        ("{", "It is not JSON"),
        ({"kwargs": {}}, "with a 'notifier'"),
        ({"notifier": NOBODY}, "alerts.never.Notifier cannot be imported"),
        ({**NOTIFIER, "kwargs": {"whom": "x", "password": "hunter2"}}, "does not take these kwargs"),
        ({**NOTIFIER, "kwarg": {}}, "Unknown: 'kwarg'"),
        ({**NOTIFIER, "severity": "info"}, "'severity' must be"),
        ({"notifier": "json.loads", "kwargs": {"s": "1"}}, "is no notifier"),
        ({"notifier": "json.JSONDecoder"}, "is no notifier"),
    ],
)
def test_a_broken_notifier_is_logged_with_the_next_step_and_fails_nothing(
    complete: RapSimulator,
    lake: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    notifier: object,
    said: str,
) -> None:
    name(monkeypatch, notifier)
    alert(failing(RuntimeError("x")))
    (record,) = [r for r in caplog.records if r.name == notifiers.__name__]
    assert record.levelname == "ERROR"
    assert said in record.getMessage()
    assert "hkex-rap doctor" in record.getMessage()
    assert "hunter2" not in caplog.text
    assert land(lake)["landed"] == len(DAYS)


def test_a_name_that_is_no_notifier_is_not_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    never = tmp_path / "never"
    name(monkeypatch, {"notifier": "os.mkdir", "kwargs": {"path": str(never)}})
    alert(failing(RuntimeError("x")))
    assert not never.exists()


class Bad(BaseNotifier):
    """A notifier that raises what the test puts into it."""

    raised: BaseException
    at_start = False

    def __init__(self) -> None:
        super().__init__()
        if self.at_start:
            raise self.raised

    def notify(self, context: Any) -> None:
        raise self.raised


@pytest.mark.parametrize("at_start", [True, False])
@pytest.mark.parametrize(
    "raised",
    [CancelledError(), AirflowTaskTimeout(), SystemExit(1), KeyboardInterrupt()],
    ids=repr,
)
def test_a_notifier_that_raises_anything_leaves_the_others_their_alerts(
    monkeypatch: pytest.MonkeyPatch,
    mail: MailServer,
    caplog: pytest.LogCaptureFixture,
    raised: BaseException,
    at_start: bool,
) -> None:
    monkeypatch.setattr(Bad, "raised", raised, raising=False)
    monkeypatch.setattr(Bad, "at_start", at_start)
    name(monkeypatch, [{"notifier": f"{__name__}.Bad"}, NOTIFIER])
    alert(failing(RuntimeError("x")))
    assert len(mail.alerts()) == 1
    assert type(raised).__name__ in caplog.text


@pytest.mark.parametrize(
    "code", ["raise RuntimeError('unusable')", "def (:", "raise SystemExit('unusable')"], ids=repr
)
def test_a_module_that_fails_leaves_the_other_notifiers_their_alerts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mail: MailServer,
    caplog: pytest.LogCaptureFixture,
    code: str,
) -> None:
    (tmp_path / "unusable.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    name(monkeypatch, [{"notifier": "unusable.Notifier"}, NOTIFIER])
    alert(failing(RuntimeError("x")))
    assert len(mail.alerts()) == 1
    assert "unusable.Notifier cannot be imported" in caplog.text


def test_an_entry_that_is_not_valid_leaves_the_others_their_alerts(
    monkeypatch: pytest.MonkeyPatch, mail: MailServer, caplog: pytest.LogCaptureFixture
) -> None:
    name(monkeypatch, [NOTIFIER, {"notifer": "x"}, 5, {**NOTIFIER, "severity": ["x"]}, NOTIFIER])
    alert(failing(RuntimeError("x")))
    assert len(mail.alerts()) == 2
    said = [r.getMessage() for r in caplog.records if r.name == notifiers.__name__]
    assert [re.findall(r"Entry \d", text) for text in said] == [["Entry 2"], ["Entry 3"], ["Entry 4"]]


def test_a_notifier_is_interrupted_by_the_keyboard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bad, "raised", KeyboardInterrupt(), raising=False)
    monkeypatch.setattr(Bad, "at_start", True)
    with pytest.raises(KeyboardInterrupt):
        notifiers.NamedNotifier({"notifier": f"{__name__}.Bad"}).build()


class Hanging(BaseNotifier):
    released: threading.Event

    def notify(self, context: Any) -> None:
        self.released.wait(60)


class Prompt(BaseNotifier):
    taken: threading.Event

    def notify(self, context: Any) -> None:
        self.taken.set()


class Killing(Hanging):
    """A notifier in whose time Airflow kills the task."""

    def notify(self, context: Any) -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        super().notify(context)


@pytest.fixture
def released(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Let `Hanging` hang until the end of the test."""
    event = threading.Event()
    monkeypatch.setattr(Hanging, "released", event, raising=False)
    yield event
    event.set()


def test_a_notifier_that_hangs_delays_a_task_by_a_bound_and_leaves_the_others_their_time(
    rap: RapSimulator,
    released: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(notifiers, "SEND_SECONDS", 1.0)
    monkeypatch.setattr(Prompt, "taken", threading.Event(), raising=False)
    name(monkeypatch, [{"notifier": f"{__name__}.{kind}"} for kind in ("Hanging", "Prompt")])
    alert(failing(RuntimeError("x")))
    assert Prompt.taken.wait(10)
    assert f"were not sent by {__name__}.Hanging within 1 s" in caplog.text


def test_a_kill_of_the_task_ends_the_wait_for_a_notifier(
    released: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(number: int, frame: object) -> None:
        raise AirflowTaskTerminated

    name(monkeypatch, {"notifier": f"{__name__}.Killing"})
    before = signal.signal(signal.SIGUSR1, kill)
    try:
        with pytest.raises(AirflowTaskTerminated):
            alert(failing(RuntimeError("x")))
    finally:
        signal.signal(signal.SIGUSR1, before)


class Unreadable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_an_error_without_a_text_or_with_itself_as_its_cause_is_alerted(mail: MailServer) -> None:
    cyclic = ValueError("cyclic")
    cyclic.__cause__ = cyclic
    assert one_line(Unreadable(), mail).endswith("has failed: Unreadable")
    assert one_line(cyclic, mail).endswith("has failed: ValueError: cyclic")


# Metrics.


@pytest.fixture
def statsd(monkeypatch: pytest.MonkeyPatch) -> Iterator[StatsdServer]:
    """Let this process send Airflow's metrics as the process of a task does."""
    with StatsdServer() as server:
        for key, value in server.environment.items():
            monkeypatch.setenv(key, value)
        stats.initialize(factory=get_stats_factory(), export_legacy_names=True)
        yield server
    stats.initialize(factory=None, export_legacy_names=True)  # type: ignore[arg-type]


def test_the_metrics_of_a_download(
    complete: RapSimulator, lake: Path, monkeypatch: pytest.MonkeyPatch, statsd: StatsdServer
) -> None:
    connection = complete.connection("DCXYZ001")
    connection["extra"]["key_expires"] = "2026-12-03"
    use(monkeypatch, connection)
    for day in DAYS[:-1]:
        put(complete, "RPI03", day)
    complete.faults.add(Fault("drop", path="*/TP001_CXYZ_20261111.csv", at_byte=0))
    with pytest.raises(RapReportMissing):
        land(lake)
    sent = {(m.name, m.tags.get("folder")): m for m in statsd.metrics()}
    account = {"account": "DCXYZ001", "customer": "CXYZ"}
    assert all(m.tags.items() >= account.items() for m in sent.values())
    files = len(DAYS) * 2 - 1
    values = {key: (m.kind, m.value) for key, m in sent.items() if m.kind != "ms"}
    assert values == {
        ("hkex_rap.files.landed", "DCASS"): ("c", files),
        ("hkex_rap.bytes.landed", "DCASS"): ("c", files),
        ("hkex_rap.days.missing", "DCASS"): ("g", 1),
        ("hkex_rap.key.days_left", None): ("g", 14),
        ("hkex_rap.sessions.superseded", None): ("c", 1),
    }
    assert 0 < sent["hkex_rap.landing.duration", None].value < 60_000


def test_the_metrics_of_a_look_of_a_sensor(
    complete: RapSimulator, monkeypatch: pytest.MonkeyPatch, statsd: StatsdServer, tmp_path: Path
) -> None:
    connection = complete.connection("DCXYZ001")
    connection["extra"] |= {"key_expires": "2026-12-03", "key_store": tmp_path.as_uri()}
    use(monkeypatch, connection)
    context = in_a_run()
    assert RapReportSensor(task_id="look", folder="DCASS").poke(context)
    assert not RapKeyExpiryWarningSensor(task_id="look").poke(context)
    sent = [(m.name, m.value, m.tags["account"]) for m in statsd.metrics()]
    account = "DCXYZ001"
    assert (
        sent
        == [
            ("hkex_rap.sessions.superseded", 0, account),
            ("hkex_rap.key.days_left", 14, account),
        ]
        * 2
    )


def test_a_look_of_a_sensor_that_fails_sends_its_own_metrics(
    complete: RapSimulator, monkeypatch: pytest.MonkeyPatch, statsd: StatsdServer, tmp_path: Path
) -> None:
    connection = complete.connection("DCXYZ001")
    connection["extra"] |= {"key_expires": "2026-12-03", "key_store": tmp_path.as_uri()}
    use(monkeypatch, connection)
    for sensor in (
        RapReportSensor(task_id="look", folder="DCASS"),
        RapKeyExpiryWarningSensor(task_id="look"),
    ):
        complete.faults.add(Fault("listing_cut"))
        for superseded in (1, 0):
            sensor.poke(in_a_run())
            assert [(m.name, m.value) for m in statsd.metrics()] == [
                ("hkex_rap.sessions.superseded", superseded),
                ("hkex_rap.key.days_left", 14),
            ]
        complete.faults.add(Fault("refuse_login", times=None))
        with pytest.raises(AirflowFailException):
            sensor.poke(in_a_run())
        assert [(m.name, m.value) for m in statsd.metrics()] == [("hkex_rap.sessions.superseded", 0)]
        complete.faults.clear()


def test_a_sensor_that_times_out_alerts(rap: RapSimulator, mail: MailServer) -> None:
    sensor = RapReportSensor(task_id="wait", folder="DCASS", reports=["TP001_*"], timeout=0)
    context = run() | {"dag": DAG("daily")}
    context["ti"].get_first_reschedule_date = lambda context: None
    with pytest.raises(AirflowSensorTimeout) as raised:
        sensor.execute(context)
    context["ti"].task = sensor
    alert(context | {"exception": raised.value})
    (sent,) = mail.alerts()
    assert (sent["severity"], sent["kind"]) == ("error", "AirflowSensorTimeout")
    assert "TP001_* (0 of 1)" in sent["what"]
    assert sent["board"].endswith(f"/hkex-rap/?customer=CXYZ&folder=DCASS&day={FRIDAY}")


def test_a_metric_that_cannot_be_sent_fails_no_task(
    complete: RapSimulator, lake: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        def incr(self, *arguments: object, **tags: object) -> None:
            raise OSError("no buffer")

    stats.initialize(factory=Broken, export_legacy_names=True)  # type: ignore[arg-type]
    try:
        assert land(lake)["landed"] == len(DAYS)
    finally:
        stats.initialize(factory=None, export_legacy_names=True)  # type: ignore[arg-type]
    assert "OSError: no buffer" in caplog.text


def test_the_page_names_each_metric_and_no_other() -> None:
    root = Path(__file__).parents[2]
    code = (root / "airflow_provider_hkex_rap/operators/metrics.py").read_text()
    names = {f"hkex_rap.{name}" for name in re.findall(r'"([a-z]+\.[a-z_]+)",', code)}
    assert len(names) == 6
    assert set(re.findall(r"`(hkex_rap\.[a-z_.]+)`", (root / "docs/metrics.md").read_text())) == names
