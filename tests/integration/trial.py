"""A simulated RAP and a real Airflow that show the same time: one pair for the whole test session."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pendulum
import pytest

from airflow_provider_hkex_rap.rap.clock import HONG_KONG
from airflow_provider_hkex_rap.testing import RapSimulator

from .real_airflow import RealAirflow, free_port

DAGS = Path(__file__).parents[2] / "dags"
TRIAL_DAGS = Path(__file__).with_name("trial_dags.py")

ACCOUNT = "DCXYZ001"
SHARING_ACCOUNTS = ("DCABC001", "DCABC002")
"""Two accounts of another customer, which share a backfill."""

START = pendulum.datetime(2026, 12, 30, 3, tz=HONG_KONG)

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
        self.rap = RapSimulator((ACCOUNT, *SHARING_ACCOUNTS), START, port=free_port(), enforce_hours=True)
        self.rap.start()
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
            },
        )

    def move_to(self, month: int, day: int, hour: int, minute: int = 0) -> None:
        """Let both show that time of the winter of 2026 now, once no task is at work."""
        year = START.year if month == START.month else START.year + 1
        to = pendulum.datetime(year, month, day, hour, minute, tz=HONG_KONG)
        self.airflow.wait_until_idle()
        self.rap.clock.set(to)
        self.airflow.move_to(to)

    def landed(self, customer: str) -> Iterator[dict[str, Any]]:
        """Yield the entries of a customer's manifest for files that are in the lake."""
        for path in sorted(self.lake.glob(f"_manifests/customer={customer}/**/*.json")):
            for entry in json.loads(path.read_bytes())["entries"]:
                if entry["disposition"] == "landed":
                    yield entry


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
