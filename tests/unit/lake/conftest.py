"""Lakes for the tests."""

import itertools

import fsspec
import pytest

from airflow_provider_hkex_rap.lake.store import Lake

_numbers = itertools.count()


@pytest.fixture
def local_lake(tmp_path):
    return Lake(fsspec.filesystem("file"), str(tmp_path / "lake"))


@pytest.fixture(params=["file", "memory"])
def lake(request, tmp_path):
    """Return a lake on the local disk, then one on a file system that is like an object store."""
    if request.param == "file":
        return Lake(fsspec.filesystem("file"), str(tmp_path / "lake"))
    return Lake(fsspec.filesystem("memory"), f"/lake-{next(_numbers)}")
