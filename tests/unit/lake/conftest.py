"""Lakes for the tests."""

import itertools

import fsspec
import pytest

from airflow_provider_hkex_rap.lake import claims
from airflow_provider_hkex_rap.lake.store import Lake

_numbers = itertools.count()


@pytest.fixture(autouse=True)
def _entries_are_not_awaited(monkeypatch):
    """Let a file without an entry count as left by a killed run at once."""
    monkeypatch.setattr(claims, "SETTLE_SECONDS", 0.0)


@pytest.fixture
def entries_are_awaited(monkeypatch):
    """Wait for the entries of other runs, as outside of the tests."""
    monkeypatch.setattr(claims, "SETTLE_SECONDS", 3.0)
    monkeypatch.setattr(claims, "_POLL_SECONDS", 0.02)


@pytest.fixture
def local_lake(tmp_path):
    return Lake(fsspec.filesystem("file"), str(tmp_path / "lake"))


@pytest.fixture(params=["file", "memory"])
def lake(request, tmp_path):
    """Return a lake on the local disk, then one on a file system that is like an object store."""
    if request.param == "file":
        return Lake(fsspec.filesystem("file"), str(tmp_path / "lake"))
    return Lake(fsspec.filesystem("memory"), f"/lake-{next(_numbers)}")
