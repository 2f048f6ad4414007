"""Asset events of downloads: which reports they announce, and when the announcement is marked."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Semaphore
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import Asset, AssetAll
from airflow.sdk.execution_time.context import OutletEventAccessors

from airflow_provider_hkex_rap.assets import announcing
from airflow_provider_hkex_rap.operators.download import REPORTS_LANDED, RapDownloadOperator
from airflow_provider_hkex_rap.operators.key_renewal import RapKeyRenewalOperator
from airflow_provider_hkex_rap.plugins.announcements import on_task_instance_success
from airflow_provider_hkex_rap.rap.errors import RapReportMissing, RapUnavailable
from airflow_provider_hkex_rap.rap.folders import Folder

from ..simulated_rap import MTIME, NOW, download, in_a_run, use
from . import asset_dag

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.testing import RapSimulator

URI = "hkex-rap://CXYZ/DCASS"


@dataclass
class Tasks:
    """Downloads in DAG runs, as Airflow runs them."""

    lake: Path
    recorded: list[tuple[str, str]] = field(default_factory=list)
    """URI and run of each event that Airflow has recorded."""
    asked: Semaphore = field(default_factory=lambda: Semaphore(0))
    """Counts how often somebody has asked for the events of an asset that has none."""

    def run(
        self,
        *,
        day: str = NOW.date().isoformat(),
        events_recorded: bool = True,
        listener_called: bool = True,
        **arguments: Any,
    ) -> dict[str, dict[str, Any]]:
        """Run a task that succeeds, and return the content of its events by URI."""
        operator = self.operator(**arguments)
        assert REPORTS_LANDED in operator.outlets
        accessors, context = OutletEventAccessors(), in_a_run()
        context["dag_run"].conf["business_date"] = day
        operator.execute({**context, "outlet_events": accessors})
        emitted = accessors[REPORTS_LANDED].asset_alias_events
        if events_recorded:
            self.recorded += [(event.dest_asset_key.uri, event.extra["run"]) for event in emitted]
        if listener_called:
            on_task_instance_success(SimpleNamespace(task=operator))
        assert len({event.dest_asset_key.uri for event in emitted}) == len(emitted)
        for event in emitted:
            assert (
                event.dest_asset_key.name == event.dest_asset_key.uri == Asset(event.dest_asset_key.uri).uri
            )
            json.dumps(event.extra)
        return {event.dest_asset_key.uri: event.extra for event in emitted}

    def operator(self, **arguments: Any) -> RapDownloadOperator:
        """Return a download of every folder, which judges nothing."""
        return RapDownloadOperator(
            task_id="land", **{"folders": list(Folder), "lake": self.lake.as_uri(), "expect": [], **arguments}
        )

    def days(self, **arguments: Any) -> list[str]:
        """Run a task that succeeds, and return the business dates of DCASS that it announces."""
        return [day["business_date"] for day in self.run(**arguments).get(URI, {"days": []})["days"]]

    def marks(self) -> list[Path]:
        return list(self.lake.glob("manifest/*/*/_marks/announced/*/*.json"))


@pytest.fixture
def tasks(lake: Path, rap: RapSimulator, monkeypatch: pytest.MonkeyPatch) -> Tasks:
    tasks = Tasks(lake)

    def recorded_runs(uri: str, latest: int = 50) -> set[str]:
        found = {run for recorded, run in tasks.recorded if recorded == uri}
        if not found:
            tasks.asked.release()
        return found

    monkeypatch.setattr(announcing, "recorded_runs", recorded_runs)
    return tasks


def put(rap: RapSimulator, name: str, folder: Folder = Folder.DCASS, content: bytes = b"12345") -> None:
    rap.put(folder, name, content, MTIME)


def test_the_dag_of_the_readme_reads_what_an_event_says(tasks: Tasks, rap: RapSimulator) -> None:
    for name in ("TP001_20261120.csv", "TP001_20261119.csv", "RPI03_20261119.csv"):
        put(rap, name)
    events = {asset_dag.DCASS: [SimpleNamespace(extra=tasks.run()[URI])]}
    found = asset_dag.new_reports.function(triggering_asset_events=events)
    assert found == {"2026-11-19": ["RPI03", "TP001"], "2026-11-20": ["TP001"]}
    assert asset_dag.DCASS.uri == asset_dag.DCASS.name == URI
    assert asset_dag.dag.timetable.asset_condition == AssetAll(asset_dag.DCASS)


def test_one_event_per_folder_lists_every_business_date(tasks: Tasks, rap: RapSimulator) -> None:
    for name in ("TP001_20261120.csv", "TP001_20261119.csv", "RPI03_20261119.csv"):
        put(rap, name)
    put(rap, "SERIES_20261120.zip", Folder.DCASS_OTHERS, b"1")
    events = tasks.run()
    assert set(events) == {URI, "hkex-rap://CXYZ/DCASS_OTHERS"}
    extra = events[URI]
    assert (extra["customer"], extra["folder"], extra["lake"]) == ("CXYZ", "DCASS", tasks.lake.as_uri())
    manifests = [day.pop("manifests") for day in extra["days"]]
    assert extra["days"] == [
        {"business_date": "2026-11-19", "count": 2, "bytes": 10, "reports": ["RPI03", "TP001"]},
        {"business_date": "2026-11-20", "count": 1, "bytes": 5, "reports": ["TP001"]},
    ]
    written = {path.as_uri() for path in (tasks.lake / "manifest/CXYZ/DCASS").rglob("*.jsonl")}
    assert sorted(uri for uris in manifests for uri in uris) == sorted(written)


def test_nothing_new_gives_no_event_and_no_mark(tasks: Tasks, rap: RapSimulator) -> None:
    assert tasks.run() == {}
    assert tasks.marks() == []
    put(rap, "TP001_20261120.csv")
    tasks.run()
    (mark,) = tasks.marks()
    assert tasks.run() == {}
    assert tasks.marks() == [mark]


def test_each_landing_announces_its_own_files(tasks: Tasks, rap: RapSimulator) -> None:
    for number in range(12):
        put(rap, f"TP{number:03}_20261120.csv")
        (day,) = tasks.run()[URI]["days"]
        assert (day["count"], day["reports"]) == (1, [f"TP{number:03}"])


def test_a_content_that_came_back_is_announced(tasks: Tasks, rap: RapSimulator) -> None:
    for content, minutes in ((b"one", 0), (b"two", 1), (b"one", 2)):
        rap.put(Folder.DCASS, "TP001_20261120.csv", content, MTIME.add(minutes=minutes))
        assert tasks.days() == ["2026-11-20"]
    # The same bytes with another time, as after a switch of sites, are nothing new.
    rap.put(Folder.DCASS, "TP001_20261120.csv", b"one", MTIME.add(minutes=3))
    assert tasks.days() == []


def test_a_run_of_a_day_of_long_ago_does_not_announce_it_again(tasks: Tasks, rap: RapSimulator) -> None:
    put(rap, "TP001_20261009.csv")
    long_ago = {"day": "2026-10-09", "naming": r"_(?P<date>\d{8})"}
    assert tasks.days(**long_ago) == ["2026-10-09"]
    for number in range(9):
        put(rap, f"TP{number:03}_20261120.csv")
        assert tasks.days() == ["2026-11-20"]
    assert tasks.days(**long_ago) == []


def test_a_success_announces_what_a_failed_try_has_landed(tasks: Tasks, rap: RapSimulator) -> None:
    put(rap, "TP001_20261119.csv")
    with pytest.raises(RapReportMissing):
        tasks.run(expect=["TP001_20261120*"])
    assert tasks.marks() == []
    put(rap, "TP001_20261120.csv")
    assert tasks.days(expect=["TP001_20261120*"]) == ["2026-11-19", "2026-11-20"]
    assert tasks.days() == []


def test_a_success_announces_what_landed_outside_a_run(tasks: Tasks, rap: RapSimulator) -> None:
    put(rap, "TP001_20261119.csv")
    download(tasks.lake)
    assert tasks.marks() == []
    assert tasks.days() == ["2026-11-19"]


def test_a_task_that_is_killed_before_the_mark_is_announced_again(tasks: Tasks, rap: RapSimulator) -> None:
    put(rap, "TP001_20261120.csv")
    first = tasks.run(listener_called=False)[URI]
    assert tasks.marks() == []
    second = tasks.run()[URI]
    assert first["days"] == second["days"]
    # Airflow keeps one of several events with equal content.
    assert first != second
    assert tasks.run() == {}


def test_events_that_airflow_has_not_recorded_are_announced_again(tasks: Tasks, rap: RapSimulator) -> None:
    put(rap, "TP001_20261120.csv")
    tasks.run(events_recorded=False)
    assert tasks.marks() == []
    assert tasks.days() == ["2026-11-20"]


def test_an_airflow_that_does_not_answer_leaves_no_mark(
    tasks: Tasks, rap: RapSimulator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(uri: str, latest: int = 50) -> set[str]:
        raise RuntimeError("no answer")

    put(rap, "TP001_20261120.csv")
    with monkeypatch.context() as broken:
        broken.setattr(announcing, "recorded_runs", fail)
        tasks.run()
    assert "announces the reports of" in caplog.text
    assert tasks.marks() == []
    assert tasks.days() == ["2026-11-20"]


@pytest.fixture
def another_announces(tasks: Tasks, rap: RapSimulator, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let a task announce the first reports of two folders, before Airflow records it; return its run."""
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", rap.connection_json("DCXYZ002"))
    monkeypatch.setattr(announcing, "_POLL_SECONDS", 0.01)
    put(rap, "TP001_20261119.csv")
    put(rap, "SERIES_20261119.zip", Folder.DCASS_OTHERS)
    events = tasks.run(events_recorded=False, listener_called=False)
    while tasks.asked.acquire(blocking=False):
        pass
    put(rap, "TP001_20261120.csv")
    put(rap, "SERIES_20261120.zip", Folder.DCASS_OTHERS)
    return str(events[URI]["run"])


def test_the_first_reports_of_a_folder_are_announced_by_one_task_after_the_other(
    tasks: Tasks, another_announces: str
) -> None:
    with ThreadPoolExecutor(1) as thread:
        second = thread.submit(tasks.run, rap_conn_id="other")
        for _ in range(3):
            assert tasks.asked.acquire(timeout=20)
        assert not second.done()
        # Airflow records the events of a task together.
        tasks.recorded += [(URI, another_announces), (f"{URI}_OTHERS", another_announces)]
        assert set(second.result(20)) == {URI, f"{URI}_OTHERS"}
    runs = [run for uri, run in tasks.recorded if uri == URI]
    assert runs == [another_announces, runs[1]]


def test_a_task_that_is_killed_while_another_announces_ends(tasks: Tasks, another_announces: str) -> None:
    operator = tasks.operator(rap_conn_id="other")
    accessors = OutletEventAccessors()
    with ThreadPoolExecutor(1) as thread:
        second = thread.submit(operator.execute, in_a_run() | {"outlet_events": accessors})
        for _ in range(3):
            assert tasks.asked.acquire(timeout=20)
        operator.on_kill()
        with pytest.raises(RapUnavailable, match="stopped"):
            second.result(20)
    assert not accessors[REPORTS_LANDED].asset_alias_events


def test_no_task_waits_for_one_that_was_killed_before_its_success(
    tasks: Tasks,
    rap: RapSimulator,
    another_announces: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    use(monkeypatch, rap.connection("DCXYZ001"), NOW.add(minutes=1))
    assert set(tasks.run(events_recorded=False)) == {URI, f"{URI}_OTHERS"}
    assert "waiting for it" not in caplog.text
    # Now that one holds the leases.
    monkeypatch.setattr(announcing, "WAIT_SECONDS", 0.1)
    assert tasks.days(rap_conn_id="other") == ["2026-11-19", "2026-11-20"]
    assert "within 0.1 s" in caplog.text


def test_a_task_waits_for_nobody_once_a_folder_has_events(tasks: Tasks, rap: RapSimulator) -> None:
    put(rap, "TP001_20261120.csv")
    tasks.recorded.append((URI, "of another lake"))
    assert tasks.days() == ["2026-11-20"]
    assert not list(tasks.lake.glob("manifest/*/*/_marks/announcing/*"))


def test_only_the_folders_of_a_task_are_announced(tasks: Tasks, rap: RapSimulator) -> None:
    put(rap, "TP001_20261120.csv")
    put(rap, "SERIES_20261120.zip", Folder.DCASS_OTHERS)
    download(tasks.lake)
    assert set(tasks.run(folders=["DCASS_OTHERS"])) == {"hkex-rap://CXYZ/DCASS_OTHERS"}
    assert set(tasks.run()) == {URI}


def test_the_tasks_of_another_account_announce_what_is_not_announced(
    tasks: Tasks, rap: RapSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", rap.connection_json("DCXYZ002"))
    put(rap, "TP001_20261119.csv")
    tasks.run(listener_called=False)
    put(rap, "TP001_20261120.csv")
    assert tasks.days(rap_conn_id="other") == ["2026-11-19", "2026-11-20"]
    assert tasks.days() == []


def test_a_day_that_was_asked_for_is_announced_however_old_it_is(
    tasks: Tasks, rap: RapSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(rap, "TP001_20261120.csv")
    download(tasks.lake)
    later = NOW.add(days=41)
    rap.clock.set(later)
    use(monkeypatch, rap.connection("DCXYZ001"), later)
    assert tasks.days(day=later.date().isoformat()) == []
    assert tasks.days(business_date="2026-11-20") == ["2026-11-20"]


@pytest.mark.parametrize(
    "operator", [partial(RapDownloadOperator, folders="DCASS", lake="x"), RapKeyRenewalOperator]
)
def test_one_outlet_may_stand_for_itself(operator: Any) -> None:
    own = Asset("x://y")
    for outlets, expected in ((own, [own]), ((own,), [own]), (None, [])):
        assert operator(task_id="land", outlets=outlets).outlets[:-1] == expected


def test_the_outlets_of_the_user_stay(lake: Path) -> None:
    own = Asset("s3://bucket/own")
    operator = RapDownloadOperator(task_id="land", folders="DCASS", lake=lake.as_uri(), outlets=[own])
    assert list(operator.outlets) == [own, REPORTS_LANDED]


@pytest.mark.parametrize("task", [None, SimpleNamespace(), SimpleNamespace(announcement="of somebody else")])
def test_the_success_of_any_other_task_is_left_alone(task: object) -> None:
    on_task_instance_success(SimpleNamespace(task=task))
    on_task_instance_success(SimpleNamespace())
