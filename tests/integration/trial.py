"""A simulated RAP and a real Airflow that show the same time; each module of trials starts its own pair."""

from __future__ import annotations

import json
import os
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import pendulum

from airflow_provider_hkex_rap.rap.clock import HONG_KONG
from airflow_provider_hkex_rap.testing import Access, RapSimulator

from ..ports import free_port
from .real_airflow import RealAirflow

DAGS = Path(__file__).parents[2] / "dags"
TRIAL_DAGS = Path(__file__).with_name("trial_dags.py")

ACCOUNT = "DCXYZ001"
SHARING_ACCOUNTS = ("DCABC001", "DCABC002")
"""Two accounts of another customer, which share one backfill."""

# The provider must not depend on the machine's time zone; if TZ is unset, use one far from Hong Kong's.
_TIME_ZONE = os.environ.get("TZ", "America/New_York")

# Each task is a fork of the scheduler: import once, before the forks, the modules that every task needs.
_PRELOADING = """
from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin


class Preloading:
    @hookimpl
    def on_starting(self, component):
        if type(component).__qualname__ == "Job":
            import airflow.dag_processing.dagbag
            import airflow_provider_hkex_rap.hooks.rap
            import airflow_provider_hkex_rap.lake.landing
            from airflow.dag_processing.bundles.manager import DagBundlesManager
            from airflow.sdk import ObjectStoragePath
            from airflow.sdk.listener import get_listener_manager

            get_listener_manager()
            ObjectStoragePath("file:///").exists()


class PreloadingPlugin(AirflowPlugin):
    name = "preloading"
    listeners = [Preloading()]
"""

_THE_BACKFILLS_ACCOUNTS = '{"hkex_rap_default": "hkex_rap"}'
_SHARED = {"hkex_rap_abc1": "hkex_rap_abc1", "hkex_rap_abc2": "hkex_rap_abc2"}


class Trial:
    """RAP and Airflow, which show the same time; use it in a ``with`` block, which starts and ends both.

    The time only moves forward: Airflow does not schedule by a clock that goes back.

    :param home: an empty directory for the lake and for everything that Airflow writes.
    :param start: the time in Hong Kong that both show first.
    :param dags: the text of each further file of DAGs, by the file's name.
    :param environment: further settings, as environment variables.
    """

    def __init__(
        self,
        home: Path,
        start: pendulum.DateTime,
        *,
        dags: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.lake = home / "lake"
        # A fixed port, so that RAP can stop and start again at the same address.
        self.rap = RapSimulator(
            (ACCOUNT, *SHARING_ACCOUNTS), start, port=free_port(), access=Access(enforce_hours=True)
        )
        (home / "plugins").mkdir()
        (home / "plugins" / "preloading.py").write_text(_PRELOADING)
        connections = zip(("default", "abc1", "abc2"), self.rap.accounts, strict=True)
        self.airflow = RealAirflow(
            home,
            dags=_dags() | dict(dags or {}),
            now=start,
            # No task is deferred, so no triggerer is needed.
            parts=("api-server", "scheduler", "dag-processor"),
            environment={
                f"AIRFLOW_CONN_HKEX_RAP_{name.upper()}": self.rap.connection_json(account)
                for name, account in connections
            }
            | {
                "AIRFLOW_VAR_HKEX_RAP_LAKE": self.lake.as_uri(),
                "AIRFLOW__HKEX_RAP__POOLS": ",".join(_SHARED.values()),
                # Airflow often notices one interval late that a task's process has ended.
                "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
                "TZ": _TIME_ZONE,
            }
            | dict(environment or {}),
        )

    def __enter__(self) -> Self:
        self.rap.start()
        try:
            self.airflow.__enter__()
        except BaseException:
            self.rap.stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.airflow.__exit__()
        finally:
            self.rap.stop()

    def move_to(self, month: int, day: int, hour: int, minute: int = 0) -> None:
        """Wait until no task is running, then set both clocks.

        :param month: a month of the winter of 2026: December is that of 2026, any other is of 2027.
        """
        year = 2026 if month == 12 else 2027
        to = pendulum.datetime(year, month, day, hour, minute, tz=HONG_KONG)
        self.airflow.wait_until_idle()
        self.rap.clock.set(to)
        self.airflow.move_to(to)

    def end_of(self, dag_id: str, run_id: str) -> str:
        """Wait until a run has ended, and return its state."""
        path = f"dags/{dag_id}/dagRuns/{run_id}"

        def state() -> str | None:
            now = self.airflow.request("GET", path)["state"]
            return now if now in ("success", "failed") else None

        return str(self.airflow.wait_until(state, f"the end of {dag_id} {run_id}"))

    def landed(self, customer: str) -> Iterator[dict[str, Any]]:
        """Yield the manifest entries of the files that landed for a customer."""
        for path in sorted(self.lake.glob(f"manifest/{customer}/**/*.jsonl")):
            for entry in map(json.loads, path.read_text().splitlines()):
                if entry["disposition"] == "landed":
                    yield entry

    def log(self, dag_id: str, run_id: str, task_id: str) -> str:
        """Return the logs of all tries and pokes of a task, oldest first."""
        logs = self.airflow.home.glob(f"logs/dag_id={dag_id}/run_id={run_id}/task_id={task_id}/*.log")
        return "".join(path.read_text() for path in sorted(logs))

    def fetched(self, account: str) -> Counter[str]:
        """Return how often the account opened each file, by the file's name."""
        return Counter(event.path.rpartition("/")[2] for event in self.rap.events.of("open", account=account))


def documented(command: str) -> list[str]:
    """Return the arguments of the line of docs/operations.md that begins with a command of ``airflow``."""
    lines = (DAGS.parent / "docs" / "operations.md").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(f"airflow {command} ")]
    return shlex.split(line)[1:]


def name_of(entry: dict[str, Any]) -> str:
    """Return the file name on RAP that a manifest entry records."""
    return str(entry["rap_path"]).rpartition("/")[2]


def _dags() -> dict[str, str]:
    """Return the DAGs of ``dags/``, the backfill with two accounts filled in, and the trials' own DAGs."""
    texts = {path.name: path.read_text() for path in [*DAGS.glob("*.py"), TRIAL_DAGS]}
    assert _THE_BACKFILLS_ACCOUNTS in texts["hkex_rap_backfill.py"]
    texts["hkex_rap_backfill.py"] = texts["hkex_rap_backfill.py"].replace(
        _THE_BACKFILLS_ACCOUNTS, repr(_SHARED)
    )
    return texts
