"""A run hands on its counts and the URIs of its manifest files."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_hkex_rap.lake import reading
from airflow_provider_hkex_rap.rap.errors import RapReportMissing
from airflow_provider_hkex_rap.rap.folders import Folder
from airflow_provider_hkex_rap.testing import Fault, RapSimulator

from ..simulated_rap import MTIME, download, entries, in_a_run

DAY = "2026-11-20"


def test_the_result_has_the_day_the_counts_and_the_manifest_files(rap: RapSimulator, lake: Path) -> None:
    rap.put(Folder.DCASS, "TP001_20261120.csv", b"123", MTIME)
    rap.put(Folder.DCASS, "TP001_20261119.csv", b"1", MTIME)
    rap.put(Folder.DCASS_OTHERS, "RPI03_20261120.csv", b"12", MTIME)
    rap.put(Folder.DCASS_OTHERS, "x_20261120.tmp", b"12", MTIME)
    rap.put(Folder.DCASS_OTHERS, "y_20261120.tmp", b"12", MTIME)
    summary = download(lake, exclude="*.tmp")
    seconds, manifests = summary.pop("seconds"), summary.pop("manifests")
    assert summary == {
        "business_date": DAY,
        "landed": 3,
        "already": 0,
        "deferred": 0,
        "quarantined": 0,
        "failed": 0,
        "excluded": 2,
        "bytes": 6,
        "by_report": {"DCASS": {"TP001": 2}, "DCASS_OTHERS": {"RPI03": 1}},
        "judgement": {"judged": False, "expected": 0, "missing": [], "warnings": []},
    }
    assert seconds > 0
    assert len(manifests) == len(set(manifests)) == 3
    written = [
        json.loads(line)
        for uri in manifests
        for line in Path(unquote(urlsplit(uri).path)).read_text().splitlines()
    ]
    assert Counter(entry["uri"] for entry in written) == Counter(entry["uri"] for entry in entries(lake))

    again = download(lake, exclude="*.tmp")
    assert (again["already"], again["excluded"]) == (3, 2)
    assert (again["by_report"], again["manifests"]) == ({}, [])


def tries_of(uris: list[str]) -> list[int]:
    """Return the numbers of the tries that wrote manifest files, sorted."""
    written = [json.loads(Path(unquote(urlsplit(uri).path)).read_text()) for uri in uris]
    return sorted(entry["try_number"] for entry in written)


def test_a_task_hands_on_the_manifest_files_of_all_its_tries_whether_it_fails_or_succeeds(
    rap: RapSimulator, lake: Path
) -> None:
    pushed: dict[str, list[str]] = {}
    context = in_a_run()
    context["ti"].xcom_push = lambda key, value: pushed.update({key: value})
    for number in (1, 2):
        context["ti"].try_number = number
        rap.put(Folder.DCASS, f"TP{number:03}_20261120.csv", b"1", MTIME)
        with pytest.raises(RapReportMissing):
            download(lake, context, expect=["NEVER_*"])
        assert pushed.keys() == {"manifests"}
        assert tries_of(pushed["manifests"]) == [1, 2][:number]
    context["ti"].try_number = 3
    assert download(lake, context)["manifests"] == pushed["manifests"]
    # The next task, and the same one after it was cleared, have written none.
    other = in_a_run()
    other["ti"].task_id = "other"
    assert download(lake, other)["manifests"] == []
    context["ti"].__dict__.update(try_number=4, max_tries=3)
    assert download(lake, context)["manifests"] == []


def test_a_mapped_task_hands_on_its_own_manifest_files(rap: RapSimulator, lake: Path) -> None:
    context = in_a_run()
    pushed: dict[str, list[str]] = {}
    context["ti"].xcom_push = lambda key, value: pushed.update({key: value})
    found = []
    for map_index, day in enumerate(("2026-11-19", DAY)):
        rap.put(Folder.DCASS, f"TP001_{day.replace('-', '')}.csv", b"1", MTIME)
        context["ti"].map_index = map_index
        found.append(set(download(lake, context, business_date=day)["manifests"]))
        with pytest.raises(RapReportMissing):
            download(lake, context, business_date=day, expect=["NEVER_*"])
        assert set(pushed["manifests"]) == found[-1]
    assert [len(uris) for uris in found] == [1, 1]
    assert found[0] != found[1]


def test_a_try_that_did_not_read_the_ledger_hands_on_no_manifest_files(rap: RapSimulator, lake: Path) -> None:
    pushed: dict[str, list[str]] = {}
    context = in_a_run()
    context["ti"].xcom_push = lambda key, value: pushed.update({key: value})
    rap.put(Folder.DCASS, "TP001_20261120.csv", b"1", MTIME)
    assert download(lake, context)["manifests"]
    rap.faults.add(Fault("refuse_login", times=None))
    with pytest.raises(AirflowFailException):
        download(lake, context)
    assert not pushed


def test_the_day_is_that_of_the_run_or_the_explicit_one(rap: RapSimulator, lake: Path) -> None:
    run = in_a_run()
    run["dag_run"].conf["business_date"] = "2026-11-18"
    assert download(lake, run)["business_date"] == "2026-11-18"
    rap.put(Folder.DCASS, "TP001_20261119.csv", b"1", MTIME)
    assert download(lake, business_date="2026-11-19")["business_date"] == "2026-11-19"


def test_an_entry_names_the_task_that_landed_its_file(rap: RapSimulator, lake: Path) -> None:
    run = in_a_run()
    for map_index in (-1, 3):
        rap.put(Folder.DCASS, f"TP{map_index + 2}_20261120.csv", b"1", MTIME)
        run["ti"].map_index = map_index
        download(lake, run)
    tasks = [(entry["dag"], entry["run"], entry["task"], entry["map_index"]) for entry in entries(lake)]
    assert sorted(tasks) == [("daily", "run", "land", -1), ("daily", "run", "land", 3)]


def test_the_files_of_all_sessions_of_a_run_count(
    rap: RapSimulator, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__HKEX_RAP__SUPERSEDED_WAIT", "0.1")
    # One file at a time, so that each session lands a file.
    monkeypatch.setattr(reading, "FILES_IN_FLIGHT", 1)
    names = [f"TP{number:03}_20261120.csv" for number in range(6)]
    for number, name in enumerate(names):
        rap.put(Folder.DCASS, name, b"x" * 10, MTIME.add(seconds=number))
    rap.faults.add(Fault("drop", path=f"*/{names[3]}", at_byte=5))
    summary = download(lake, in_a_run(), folders="DCASS")
    assert summary["landed"] == 6
    assert summary["by_report"] == {"DCASS": {name[:5]: 1 for name in names}}
    assert len(rap.events.of("login")) == 2


def test_the_result_stays_small_if_every_file_has_a_report_code_of_its_own(
    rap: RapSimulator, lake: Path
) -> None:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    for number in range(400):
        code = letters[number // 26] + letters[number % 26]
        rap.put(Folder.DCASS, f"{code}X_20261120.csv", b"x", MTIME)
    summary = download(lake)
    assert summary["landed"] == 400
    assert sum(summary["by_report"]["DCASS"].values()) == 400
    assert len(json.dumps(summary)) < 8000
    assert len(summary["manifests"]) <= 8
