"""A simulated RAP and a real Airflow that show the same time: one pair for the whole test session.

Their time goes forward only: the modules that share them play one after another, in the order of their names.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pendulum
import pytest

from airflow_provider_hkex_rap.rap.clock import HONG_KONG
from airflow_provider_hkex_rap.testing import Access, RapSimulator

from .real_airflow import RealAirflow, free_port

DAGS = Path(__file__).parents[2] / "dags"
TRIAL_DAGS = Path(__file__).with_name("trial_dags.py")

ACCOUNT = "DCXYZ001"
SHARING_ACCOUNTS = ("DCABC001", "DCABC002")
"""Two accounts of another customer, which share a backfill."""

START = pendulum.datetime(2026, 12, 30, 3, tz=HONG_KONG)

# Nothing may depend on the machine's time zone; where it has none of its own, one far from Hong Kong's.
_TIME_ZONE = os.environ.get("TZ", "America/New_York")

# Each task is a fork of the scheduler, and imports these: here, once for all.
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
_STASHED: pytest.StashKey[Trial] = pytest.StashKey()


class Trial:
    """RAP and Airflow; the time in both is that of Hong Kong, from Wednesday 30 December 2026, 03:00.

    :param home: an empty directory.
    """

    def __init__(self, home: Path) -> None:
        self.lake = home / "lake"
        # A port of its own that it keeps, so that RAP can be away and come back.
        self.rap = RapSimulator(
            (ACCOUNT, *SHARING_ACCOUNTS), START, port=free_port(), access=Access(enforce_hours=True)
        )
        self.rap.start()
        (home / "plugins").mkdir()
        (home / "plugins" / "preloading.py").write_text(_PRELOADING)
        connections = zip(("default", "abc1", "abc2"), self.rap.accounts, strict=True)
        self.airflow = RealAirflow(
            home,
            dags=_dags(),
            now=START,
            # Nothing here is deferred, so there is nothing for a triggerer to do.
            parts=("api-server", "scheduler", "dag-processor"),
            environment={
                f"AIRFLOW_CONN_HKEX_RAP_{name.upper()}": self.rap.connection_json(account)
                for name, account in connections
            }
            | {
                "AIRFLOW_VAR_HKEX_RAP_LAKE": self.lake.as_uri(),
                "AIRFLOW__HKEX_RAP__POOLS": ",".join(_SHARED.values()),
                # The end of a task's process is often seen one interval late.
                "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
                "TZ": _TIME_ZONE,
            },
        )

    def move_to(self, month: int, day: int, hour: int, minute: int = 0) -> None:
        """Let both show that time of the winter of 2026 now, once no task is at work."""
        year = START.year if month == START.month else START.year + 1
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
        """Yield the entries of a customer's manifest for files that are in the lake."""
        for path in sorted(self.lake.glob(f"_manifests/customer={customer}/**/*.json")):
            for entry in json.loads(path.read_bytes())["entries"]:
                if entry["disposition"] == "landed":
                    yield entry

    def log(self, dag_id: str, run_id: str, task_id: str) -> str:
        """Return what a task's tries and looks have logged, oldest first."""
        logs = self.airflow.home.glob(f"logs/dag_id={dag_id}/run_id={run_id}/task_id={task_id}/*.log")
        return "".join(path.read_text() for path in sorted(logs))

    def fetched(self, account: str) -> Counter[str]:
        """Return how often each file was opened by an account, by its name."""
        return Counter(event.path.rpartition("/")[2] for event in self.rap.events.of("open", account=account))


def documented(command: str) -> list[str]:
    """Return the arguments of the line of docs/operations.md that begins with a command of ``airflow``."""
    lines = (DAGS.parent / "docs" / "operations.md").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(f"airflow {command} ")]
    return shlex.split(line)[1:]


def name_of(entry: dict[str, Any]) -> str:
    """Return the name on RAP of a manifest's entry."""
    return str(entry["rap_path"]).rpartition("/")[2]


def shared_trial(config: pytest.Config) -> Trial:
    """Return the trial of this test session; the first call takes half a minute.

    :param config: pytest's, which ends the trial at its own end.
    """
    if _STASHED not in config.stash:
        home = Path(tempfile.mkdtemp(prefix="trial-"))
        config.add_cleanup(lambda: shutil.rmtree(home, ignore_errors=True))
        trial = Trial(home)
        config.add_cleanup(trial.rap.stop)
        trial.airflow.__enter__()
        config.add_cleanup(lambda: trial.airflow.__exit__())
        config.stash[_STASHED] = trial
    return config.stash[_STASHED]


def _dags() -> dict[str, str]:
    """Return the DAGs that users copy, the backfill with the accounts filled in, and those of the trials."""
    texts = {path.name: path.read_text() for path in [*DAGS.glob("*.py"), TRIAL_DAGS]}
    assert _THE_BACKFILLS_ACCOUNTS in texts["hkex_rap_backfill.py"]
    texts["hkex_rap_backfill.py"] = texts["hkex_rap_backfill.py"].replace(
        _THE_BACKFILLS_ACCOUNTS, repr(_SHARED)
    )
    return texts
