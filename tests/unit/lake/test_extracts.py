"""The cache of what the board needs of manifest files."""

from __future__ import annotations

import asyncio
from datetime import date
from pathlib import Path
from typing import NoReturn

import pytest

from airflow_provider_hkex_rap.lake.extracts import Extract, ExtractCache, LandedFile, read_extracts
from airflow_provider_hkex_rap.lake.layout import manifest_path, new_run
from airflow_provider_hkex_rap.lake.manifest import READERS
from airflow_provider_hkex_rap.lake.opening import open_lake
from airflow_provider_hkex_rap.rap.folders import Folder
from airflow_provider_hkex_rap.rap.judgement import Report, Sighting

from ...in_memory_rap import NOW

FILE = LandedFile("", Sighting(Report(Folder.DCASS, "R000"), date(2026, 11, 20), "", None), True, 1, None)


def extract(files: int, problems: tuple[str, ...] = ()) -> Extract:
    return Extract((FILE,) * files, (), problems)


def test_the_cache_keeps_no_more_files_than_it_may(tmp_path: Path) -> None:
    lake, cache = open_lake(tmp_path), ExtractCache(files=10)
    for name, files in (("a", 4), ("b", 4)):
        cache.put(lake, name, extract(files))
    # The one that was used last stays.
    assert cache.get(lake, "a")
    cache.put(lake, "c", extract(4))
    assert [name for name in "abc" if cache.get(lake, name)] == ["a", "c"]
    cache.put(lake, "large", extract(11))
    assert not cache.get(lake, "large")
    # A manifest file may have no landed file at all.
    for number in range(30):
        cache.put(lake, f"empty{number}", extract(0))
    assert sum(cache.get(lake, f"empty{number}") is not None for number in range(30)) == 10


def test_the_cache_keeps_no_damaged_file_and_tells_lakes_apart(tmp_path: Path) -> None:
    one, other, cache = open_lake(tmp_path / "one"), open_lake(tmp_path / "other"), ExtractCache(files=10)
    cache.put(one, "damaged", extract(1, ("line 1: damaged",)))
    cache.put(one, "whole", extract(1))
    assert not cache.get(one, "damaged")
    assert (cache.get(one, "whole"), cache.get(other, "whole")) == (extract(1), None)


def test_a_lake_that_cannot_be_read_is_not_asked_for_every_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, day, asked = open_lake(tmp_path), date(2026, 11, 20), list[str]()
    for _ in range(3 * READERS):
        path = tmp_path / manifest_path("CXYZ", Folder.DCASS, day.isoformat(), new_run(NOW), 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def read(path: str) -> NoReturn:
        asked.append(path)
        raise PermissionError(path)

    monkeypatch.setattr(lake, "read", read)
    with pytest.raises(PermissionError):
        asyncio.run(read_extracts(lake, "CXYZ", [Folder.DCASS], [day]))
    assert len(asked) == READERS
