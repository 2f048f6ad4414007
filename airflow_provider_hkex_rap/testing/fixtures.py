"""Pytest fixtures, to test your own DAGs against a simulated RAP. This module needs pytest.

Name it in the ``conftest.py`` of your tests::

    pytest_plugins = ["airflow_provider_hkex_rap.testing.fixtures"]
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pendulum
import pytest

from airflow_provider_hkex_rap.rap.clock import HONG_KONG
from airflow_provider_hkex_rap.testing.simulator import RapSimulator

NOW = pendulum.datetime(2026, 11, 21, 1, 30, tz=HONG_KONG)
"""The time of the simulated RAP and of the tasks: the night after a Friday, with all reports of DCASS."""


@pytest.fixture
def rap_simulator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[RapSimulator]:
    """Start a simulated RAP without reports, to which the connection ``hkex_rap_default`` leads.

    The tasks take its time for theirs. The account is ``DCXYZ001``, and its keys are kept in *tmp_path*, so
    that no database of Airflow is needed.
    """
    keys = tmp_path / "hkex-rap-keys"
    keys.mkdir(mode=0o700)
    with RapSimulator(now=NOW) as rap:
        connection = rap.connection("DCXYZ001")
        connection["extra"]["key_store"] = keys.as_uri()
        monkeypatch.setenv("AIRFLOW_CONN_HKEX_RAP_DEFAULT", json.dumps(connection))
        monkeypatch.setenv("AIRFLOW__HKEX_RAP__CLOCK_OFFSET", str((NOW - pendulum.now()).total_seconds()))
        yield rap
