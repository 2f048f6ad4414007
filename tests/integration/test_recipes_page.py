"""The recipes of docs/recipes.md: Airflow can import each of them, and it lands what the page says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.models.connection import Connection
from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_hkex_rap.lake.catalog import landed_reports
from airflow_provider_hkex_rap.notifications.alerts import alert
from airflow_provider_hkex_rap.rap.folders import Folder

from ..simulated_rap import MTIME

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.testing import RapSimulator

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "recipes.md").read_text()
RECIPES = sorted((ROOT / "docs" / "recipes").glob("*.py"))
SHIPPED = sorted((ROOT / "dags").glob("*.py"))
CSV = b"series,quantity\r\nHSI27A,1\r\nHSI27B,2\r\n"
NAME = "TP001_CXYZ_20261120.csv"


def dags_of(recipe: str) -> dict[str, Any]:
    return dict(DagBag(ROOT / "docs" / "recipes" / f"{recipe}.py").dags)


@pytest.mark.parametrize("path", [*RECIPES, *SHIPPED], ids=lambda path: path.stem)
def test_airflow_imports_each_recipe_and_the_page_shows_it(path: Path) -> None:
    bag = DagBag(path)
    assert bag.import_errors == {}
    assert bag.dags
    shown = str(path.relative_to(ROOT / "docs")) if path in RECIPES else f"../dags/{path.name}"
    assert f"]({shown})" in PAGE


@pytest.mark.parametrize("path", [*RECIPES, *SHIPPED], ids=lambda path: path.stem)
def test_each_recipe_alerts_and_those_of_the_page_retry(path: Path) -> None:
    for dag in DagBag(path).dags.values():
        assert dag.on_failure_callback is alert
        for task in dag.tasks:
            assert list(task.on_failure_callback) == [alert]
            assert task.retries or path in SHIPPED


def share() -> Any:
    """Return the function of the backfill that shares the days among the accounts."""
    dag = DagBag(ROOT / "dags" / "hkex_rap_backfill.py").dags["hkex_rap_backfill"]
    return dag.task_dict["days_of_hkex_rap_default"].python_callable


@pytest.mark.parametrize(("first", "last"), [("2026-11-20", "2026-11-19"), ("2026-11-21", "2026-11-22")])
def test_a_backfill_without_a_day_fails_and_names_the_range(first: str, last: str) -> None:
    with pytest.raises(AirflowFailException, match=f"from {first} to {last}"):
        share()(0, first, last)


def test_a_backfill_has_saturdays_if_it_is_of_ccms_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    days = share()
    assert days(0, "2026-11-20", "2026-11-23") == ["2026-11-20", "2026-11-23"]
    monkeypatch.setitem(days.__globals__, "FOLDERS", ["HKCC_SEOCH_CCMS_GLOB"])
    assert days(0, "2026-11-20", "2026-11-23") == ["2026-11-20", "2026-11-21", "2026-11-23"]
    # Saturday 26 December is a public holiday, as is Friday, on which derivatives trade.
    assert days(0, "2026-12-24", "2026-12-28") == ["2026-12-24", "2026-12-25", "2026-12-28"]


def publish(rap: RapSimulator, account: str = "DCXYZ001") -> None:
    rap.put(Folder.DCASS, NAME, CSV, MTIME, account=account)
    rap.put(Folder.DCASS_OTHERS, "RPI03_CXYZ_20261120.csv", CSV, MTIME, account=account)


def execute(dag: Any, lake: Path) -> list[Any]:
    """Execute the tasks of a DAG in their order; return their results."""
    results = []
    for task in dag.topological_sort():
        if hasattr(task, "lake"):
            task.lake = lake.as_uri()
        results.append(task.execute({}))
    return results


def names(lake: Path) -> list[str]:
    return [report.name.decode() for report in landed_reports(str(lake), "CXYZ")]


def connect(monkeypatch: pytest.MonkeyPatch, rap: RapSimulator, **accounts: str) -> None:
    for name, account in accounts.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", rap.connection_json(account))


def test_the_report_that_was_waited_for_lands_alone(rap: RapSimulator, lake: Path) -> None:
    publish(rap)
    execute(dags_of("wait_for_report")["margin_of_the_day"], lake)
    assert names(lake) == [NAME]


def test_two_accounts_land_the_folders_of_one_customer(
    rap: RapSimulator, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(rap)
    connect(monkeypatch, rap, hkex_rap_1="DCXYZ001", hkex_rap_2="DCXYZ002")
    dag = dags_of("several_accounts")["rap_by_two_accounts"]
    execute(dag, lake)
    assert names(lake) == [NAME, "RPI03_CXYZ_20261120.csv"]
    assert {event.account for event in rap.events.of("login")} == {"DCXYZ001", "DCXYZ002"}
    assert {task.pool for task in dag.tasks} == {"hkex_rap_1", "hkex_rap_2"}


def test_each_customer_has_a_dag_with_its_connection_and_pool() -> None:
    tasks = {dag_id: dag.task_dict["land"] for dag_id, dag in dags_of("several_customers").items()}
    assert {dag_id: (task.rap_conn_id, task.pool) for dag_id, task in tasks.items()} == {
        f"rap_daily_{customer}": (f"hkex_rap_{customer}", f"hkex_rap_{customer}")
        for customer in ("cxyz", "cabc")
    }


def test_the_dag_downstream_counts_the_rows_of_the_reports_that_landed(
    rap: RapSimulator, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(rap)
    execute(dags_of("wait_for_report")["margin_of_the_day"], lake)
    monkeypatch.setenv("AIRFLOW_VAR_HKEX_RAP_LAKE", lake.as_uri())
    task = dags_of("downstream")["rows_of_tp001"].task_dict["count_rows"]
    days = [{"business_date": "2026-11-20", "reports": ["TP001"]}, {"business_date": "x", "reports": []}]
    events = {Asset("hkex-rap://CXYZ/DCASS"): [SimpleNamespace(extra={"days": days})]}
    rows = task.python_callable(triggering_asset_events=events)
    (report,) = landed_reports(lake.as_uri(), "CXYZ")
    assert rows == {report.uri: 2}


def test_the_connections_to_a_storage_can_be_read_and_are_named_by_the_lake() -> None:
    shown = re.findall(
        r"connections add (\w+) --conn-json '(.*?)'\nairflow variables set \w+ (\S+)", PAGE, re.S
    )
    types = {}
    for name, text, lake in shown:
        connection = Connection.from_json(text, conn_id=name)
        assert connection.extra_dejson == json.loads(text)["extra"]
        scheme, _, rest = lake.partition("://")
        assert rest.startswith(f"{name}@")
        types[scheme] = connection.conn_type
    assert types == {"s3": "aws", "gs": "google_cloud_platform", "abfs": "wasb"}
