"""A task killed while its lake is slow: the account is free at once, and nothing is committed later."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hkex_rap.hooks.login_source import AirflowLoginSource
from airflow_provider_hkex_rap.lake.store import Lake
from airflow_provider_hkex_rap.operators.download import RapDownloadOperator
from airflow_provider_hkex_rap.rap.errors import RapUnavailable
from airflow_provider_hkex_rap.rap.folders import Folder
from airflow_provider_hkex_rap.runner.policy import Policy
from airflow_provider_hkex_rap.runner.runner import SessionRunner

from ..simulated_rap import MTIME, by_name, download, entries, published

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.testing import RapSimulator


class SlowCalls:
    """Blocks calls of one method of every lake until released, and counts the calls that started."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, method: str, *, from_call: int = 1) -> None:
        self.reached, self.released = threading.Event(), threading.Event()
        self.started = 0
        original = getattr(Lake, method)

        def slow(lake: Lake, *arguments: Any, **options: Any) -> Any:
            self.started += 1
            if self.started >= from_call:
                self.reached.set()
                assert self.released.wait(60)
            return original(lake, *arguments, **options)

        monkeypatch.setattr(Lake, method, slow)


def log_in_elsewhere() -> bool:
    """Log in without waiting for the account."""
    runner = SessionRunner(AirflowLoginSource("hkex_rap_default"), Policy(lock_wait=2))

    async def log_in() -> bool:
        async with runner.session():
            return True

    return runner.run(log_in)


@pytest.mark.parametrize("method", ["list_directory", "names", "commit"])
def test_a_kill_frees_the_account_before_a_slow_storage_call_returns(
    rap: RapSimulator, lake: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Fault 24: the task is stopped while a storage call runs."""
    for number in range(40):
        rap.put(Folder.DCASS, f"R{number:02}_20261120.csv", 1_000, MTIME)
    with monkeypatch.context() as patch:
        slow = SlowCalls(patch, method, from_call=20 if method == "commit" else 1)
        operator = RapDownloadOperator(task_id="land", folders="DCASS", lake=lake.as_uri(), expect=[])
        with ThreadPoolExecutor(1) as thread:
            running = thread.submit(operator.execute, {})
            assert slow.reached.wait(60)
            operator.on_kill()
            assert log_in_elsewhere()
            assert not running.done()
            started = slow.started
            slow.released.set()
            with pytest.raises(RapUnavailable, match="was stopped"):
                running.result(timeout=30)
        assert slow.started == started
    assert {entry["rap_path"].rpartition("/")[2] for entry in entries(lake)} == {
        name for _, name in by_name(lake)
    }
    assert by_name(lake).items() <= published(rap).items()
    download(lake, folders="DCASS")
    assert by_name(lake) == published(rap)
    assert rap.events.peak_sessions("DCXYZ001") == 1
