"""Describe a landing to OpenLineage: which files were read on RAP, and which were written to the lake.

OpenLineage's provider calls the operator in the process of the task. This module is imported only then, and
it alone imports OpenLineage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from airflow.providers.openlineage.extractors import OperatorLineage
from openlineage.client.event_v2 import InputDataset, OutputDataset
from openlineage.client.facet_v2 import (
    BaseFacet,
    DatasetFacet,
    RunFacet,
    dataset_version_dataset,
    input_statistics_input_dataset,
    output_statistics_output_dataset,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_hkex_rap.lake.entry import Entry

FILES_NAMED = 500
"""One event names at most this many files: receivers refuse events of several megabytes."""

_FILE, _LANDING = "hkexRap_file", "hkexRap_landing"


class DatasetName(NamedTuple):
    """The two parts of a dataset's name in OpenLineage."""

    namespace: str
    name: str


def describe_landing(
    entries: Sequence[Entry], manifests: Sequence[str], account: str = ""
) -> OperatorLineage[Any, Any]:
    """Return the lineage of the files that landed.

    Each input is a file on RAP, with its size and modification time; each output is a file of the lake, with
    its size and SHA-256. The run has the number of all files, and the manifest files that name them.

    :param entries: the manifest entries of the files that landed.
    :param manifests: the URIs of the manifest files that the try wrote.
    :param account: the name of the Azure storage account, if the lake is in one.
    """
    named = [(entry, entry.uri) for entry in entries[:FILES_NAMED] if entry.uri]
    left_out = len(entries) - len(named)
    facets: dict[str, Any] = {
        _LANDING: _custom(
            RunFacet(),
            files=len(entries),
            filesNamed=len(named),
            bytes=sum(entry.size or 0 for entry in entries),
            manifests=list(manifests),
            note=f"{left_out} more files landed. The manifest files name them." if left_out else "",
        )
    }
    return OperatorLineage(
        inputs=[_input(entry) for entry, _ in named],
        outputs=[_output(entry, uri, account) for entry, uri in named],
        run_facets=facets,
    )


def lake_dataset(uri: str, account: str = "") -> DatasetName:
    """Return the name of a landed file by OpenLineage's naming of object stores and local files.

    :param uri: the file's URI in the lake; the user part, an Airflow connection, is left out.
    :param account: the name of the Azure storage account, if the file is in one.
    """
    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]
    # Not parts.path: a name may contain a question mark or a number sign.
    path = uri.partition("://")[2].partition("/")[2]
    if parts.scheme in ("file", "local", ""):
        return DatasetName("file", f"/{path}" if parts.scheme else uri)
    if parts.scheme in ("abfs", "abfss", "az", "wasb", "wasbs"):
        container = f"{host}@{account}.dfs.core.windows.net" if account else host
        return DatasetName(f"abfss://{container}", path)
    scheme = {"gcs": "gs", "s3a": "s3"}.get(parts.scheme, parts.scheme)
    return DatasetName(f"{scheme}://{host}", path)


def _input(entry: Entry) -> InputDataset:
    return InputDataset(
        namespace=f"sftp://{entry.address}",
        name=entry.rap_path,
        facets={_FILE: _custom(DatasetFacet(), size=entry.size, mtime=entry.mtime)},
        inputFacets={
            "inputStatistics": input_statistics_input_dataset.InputStatisticsInputDatasetFacet(
                size=entry.size, fileCount=1
            )
        },
    )


def _output(entry: Entry, uri: str, account: str) -> OutputDataset:
    name = lake_dataset(uri, account)
    return OutputDataset(
        namespace=name.namespace,
        name=name.name,
        facets={
            _FILE: _custom(
                DatasetFacet(),
                size=entry.size,
                mtime=entry.mtime,
                sha256=entry.sha256,
                report=entry.report,
                businessDate=entry.business_date,
                supersedes=entry.supersedes,
            ),
            "version": dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=entry.sha256 or ""),
        },
        outputFacets={
            "outputStatistics": output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
                size=entry.size, fileCount=1
            )
        },
    )


def _custom(facet: BaseFacet, **properties: object) -> Any:
    """Return a facet of this provider; properties without a value are left out."""
    return facet.with_additional_properties(
        **{name: value for name, value in properties.items() if value not in (None, "")}
    )
