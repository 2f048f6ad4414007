"""The lineage of a download, as OpenLineage's provider asks for it and its file transport writes it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hkex_rap.operators.download import RapDownloadOperator
from airflow_provider_hkex_rap.rap.errors import RapReportMissing
from airflow_provider_hkex_rap.rap.folders import Folder

from ..simulated_rap import MTIME, NOW, entries

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.testing import RapSimulator

pytest.importorskip("airflow.providers.openlineage", reason="Needs apache-airflow-providers-openlineage.")


def emitted(operator: RapDownloadOperator, directory: Path) -> dict[str, Any]:
    """Return the event that OpenLineage's file transport writes for an operator whose try has ended."""
    from airflow.providers.openlineage.extractors.base import DefaultExtractor
    from openlineage.client import OpenLineageClient
    from openlineage.client.event_v2 import Job, Run, RunEvent, RunState
    from openlineage.client.transport.file import FileConfig, FileTransport
    from openlineage.client.uuid import generate_new_uuid

    lineage = DefaultExtractor(operator).extract_on_complete(None)
    assert lineage
    path = directory / "events.jsonl"
    client = OpenLineageClient(transport=FileTransport(FileConfig(log_file_path=str(path), append=True)))
    client.emit(
        RunEvent(
            eventTime=NOW.isoformat(),
            eventType=RunState.COMPLETE,
            run=Run(str(generate_new_uuid()), lineage.run_facets),
            job=Job("airflow", "daily.land"),
            inputs=lineage.inputs,
            outputs=lineage.outputs,
        )
    )
    event: dict[str, Any] = json.loads(path.read_text().splitlines()[-1])
    return event


def test_inputs_are_files_on_rap_and_outputs_are_files_in_the_lake(
    rap: RapSimulator, lake: Path, tmp_path: Path
) -> None:
    rap.publish_day(NOW.date(), reports=12)
    operator = RapDownloadOperator(task_id="land", folders=list(Folder), lake=lake.as_uri(), expect=[])
    summary = operator.execute({})
    event = emitted(operator, tmp_path)

    listed = {
        f"{folder.path}/{file.text}": {"size": file.size, "mtime": file.mtime}
        for folder in Folder
        for file in rap.files(folder)
    }
    facets = {
        item["name"]: {key: item["facets"]["hkexRap_file"][key] for key in ("size", "mtime")}
        for item in event["inputs"]
    }
    assert facets == listed
    assert {item["namespace"] for item in event["inputs"]} == {f"sftp://127.0.0.1:{rap.port}"}
    outputs = {
        (item["namespace"], item["name"]): item["facets"]["hkexRap_file"]["sha256"]
        for item in event["outputs"]
    }
    assert outputs == {
        ("file", entry["uri"].removeprefix("file://")): entry["sha256"] for entry in entries(lake)
    }
    landing = event["run"]["facets"]["hkexRap_landing"]
    assert landing["files"] == landing["filesNamed"] == len(listed)
    assert sorted(landing["manifests"]) == summary["manifests"]

    assert operator.execute({})["landed"] == 0
    assert not emitted(operator, tmp_path)["outputs"]


def test_the_lineage_of_many_files_is_bounded_and_says_so(
    rap: RapSimulator, lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_hkex_rap.lineage.openlineage.FILES_NAMED", 3)
    for number in range(7):
        rap.put(Folder.DCASS, f"TP{number:03}_20261120.csv", b"12345", MTIME)
    operator = RapDownloadOperator(task_id="land", folders="DCASS", lake=lake.as_uri(), expect=[])
    operator.execute({})
    event = emitted(operator, tmp_path)
    landing = event["run"]["facets"]["hkexRap_landing"]
    assert len(event["inputs"]) == len(event["outputs"]) == landing["filesNamed"] == 3
    assert (landing["files"], landing["bytes"]) == (7, 35)
    assert "4 more files" in landing["note"]


def test_a_failed_try_names_the_files_that_landed(rap: RapSimulator, lake: Path, tmp_path: Path) -> None:
    rap.put(Folder.DCASS, "TP001_20261120.csv", b"x", MTIME)
    operator = RapDownloadOperator(task_id="land", folders="DCASS", lake=lake.as_uri(), expect=["RPI03_*"])
    with pytest.raises(RapReportMissing):
        operator.execute({})
    assert [item["name"] for item in emitted(operator, tmp_path)["inputs"]] == [
        "/download/DCASS/TP001_20261120.csv"
    ]


def test_a_task_that_has_not_run_has_no_lineage(lake: Path) -> None:
    operator = RapDownloadOperator(task_id="land", folders="DCASS", lake=lake.as_uri(), expect=[])
    assert operator.get_openlineage_facets_on_complete(None) is None


@pytest.mark.parametrize(
    ("uri", "account", "name"),
    [
        ("file:///data/rap/a.csv", "", ("file", "/data/rap/a.csv")),
        ("s3://aws_default@bucket/rap/a?b#c.csv", "", ("s3://bucket", "rap/a?b#c.csv")),
        ("s3://bucket/a.csv", "", ("s3://bucket", "a.csv")),
        ("gs://google@bucket/rap/a.csv", "", ("gs://bucket", "rap/a.csv")),
        ("gcs://bucket/rap/a.csv", "", ("gs://bucket", "rap/a.csv")),
        ("abfs://azure@box/rap/a.csv", "acme", ("abfss://box@acme.dfs.core.windows.net", "rap/a.csv")),
        ("abfs://azure@box/rap/a.csv", "", ("abfss://box", "rap/a.csv")),
    ],
)
def test_outputs_are_named_as_openlineage_names_the_files_of_each_storage(
    uri: str, account: str, name: tuple[str, str]
) -> None:
    from airflow_provider_hkex_rap.lineage.openlineage import lake_dataset

    assert lake_dataset(uri, account) == name


def test_a_download_without_openlineage_imports_nothing_of_it() -> None:
    code = (
        "import sys\n"
        "from airflow_provider_hkex_rap.operators import download, ingest\n"
        "print([name for name in sys.modules if name.startswith('openlineage') or '.lineage.' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
