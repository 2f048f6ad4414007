"""The examples of docs/query.md and the README, run against a lake that the operator has landed."""

from __future__ import annotations

import contextlib
import io
import json
import re
import secrets
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import duckdb
import pandas
import pyarrow
import pyarrow.json
import pytest
from moto.server import ThreadedMotoServer

from airflow_provider_hkex_rap.lake.catalog import SCHEMA, landed_reports
from airflow_provider_hkex_rap.lake.entry import Entry
from airflow_provider_hkex_rap.lake.layout import relative_path
from airflow_provider_hkex_rap.operators.download import RapDownloadOperator
from airflow_provider_hkex_rap.rap.folders import Folder

from ..simulated_rap import MTIME, NOW, download, in_a_run

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.testing import RapSimulator

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "query.md").read_text()
README = (ROOT / "README.md").read_text()
DAY = "2026-11-20"
DAYS = [NOW.subtract(days=days) for days in range(5)]
BLOCKS = re.findall(r"^```(python|sql)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
NOT_RUN = ("-- Athena", "-- Hive", "-- Spark")


def csv(day: str, price: int) -> bytes:
    return "".join(["account,price\n", *(f"{day}-{row},{price}\n" for row in range(3))]).encode()


@pytest.fixture
def week(rap: RapSimulator, lake: Path) -> Path:
    """Land a week of reports; publish those of the last day again, land, and land once more."""
    for day in DAYS:
        date, mtime = day.to_date_string(), day.subtract(hours=2)
        for folder, name in (
            (Folder.DCASS, f"TP001_CXYZ_{day:YYYYMMDD}.csv"),
            (Folder.DCASS, f"CXYZ_OI002_{day:YYYYMMDD}.csv"),
            (Folder.DCASS_OTHERS, f"RPI03_CXYZ_{day:YYYYMMDD}.csv"),
        ):
            rap.put(folder, name, csv(date, 1), mtime)
        rap.put(Folder.DCASS_OTHERS, "FEES.csv", csv("any", 1), mtime)
        download(lake)
    rap.put(Folder.DCASS, b"odd \xff name.csv", b"", MTIME)
    rap.put(Folder.DCASS, b"../outside.csv", b"x", MTIME)
    download(lake, in_a_run())
    rap.put(Folder.DCASS, "TP001_CXYZ_20261120.csv", csv(DAY, 2), MTIME.add(minutes=5))
    rap.put(Folder.DCASS_OTHERS, "RPI03_CXYZ_20261120.csv", csv(DAY, 2), MTIME.add(minutes=5))
    for _ in range(2):
        download(lake)
    return lake


class Page:
    """Executes the blocks of the page in order.

    *names* are those of its Python, *queries* the rows of each SQL query, and *tables* the rows of each
    example in Python that reads TP001 of the day.
    """

    def __init__(self, lake: Path) -> None:
        self.names: dict[str, Any] = {}
        self.queries: list[list[dict[str, Any]]] = []
        self.tables: list[list[dict[str, Any]]] = []
        self.connection = duckdb.connect()
        for language, block in BLOCKS:
            if not block.startswith(NOT_RUN):
                getattr(self, f"_run_{language}")(block.replace("/data/rap", str(lake)))

    def _run_python(self, block: str) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(block, "docs/query.md", "exec"), self.names)
        if (table := self.names.pop("tp001", None)) is not None:
            self.tables.append(rows_of(table))

    def _run_sql(self, block: str) -> None:
        if block.startswith("CREATE"):
            self.connection.execute(block)
        else:
            self.queries.append(rows_of(self.connection.sql(block)))


def rows_of(table: Any) -> list[dict[str, Any]]:
    if isinstance(table, pyarrow.Table):
        return table.to_pylist()
    frame = table if isinstance(table, pandas.DataFrame) else table.df()
    return frame.to_dict("records")


def prices(rows: list[dict[str, Any]]) -> Counter[tuple[str, int]]:
    return Counter((row["account"], row["price"]) for row in rows)


CURRENT = Counter({(f"{DAY}-{row}", 2): 1 for row in range(3)})


def test_every_example_gives_the_current_rows_once(week: Path) -> None:
    page = Page(week)
    assert [prices(table) for table in page.tables] == [CURRENT] * 4
    (report,), rows = page.queries
    assert report["uri"].endswith("/TP001_CXYZ_20261120.v2.csv")
    assert prices(rows) == CURRENT
    assert {row["business_date"].date().isoformat() for row in rows} == {DAY}
    reports = list(landed_reports(str(week), "CXYZ", business_date=("2026-11-16", DAY)))
    assert page.names["week"]["uri"].to_list() == [report.uri for report in reports]
    entries = page.names["entries"]
    assert entries.schema == SCHEMA
    assert entries.num_rows > len(list(landed_reports(str(week), "CXYZ", business_date=DAY)))


def test_catalog_and_view_agree_on_what_rap_lists(rap: RapSimulator, week: Path) -> None:
    current = list(landed_reports(str(week), "CXYZ"))
    on_rap = {(folder, file.name): file.sha256 for folder in Folder for file in rap.files(folder)}
    # The others have no business date in their names: the content of an earlier date stays current.
    dated = {(report.folder, report.name): report.sha256 for report in current if b"2026" in report.name}
    assert dated == {key: digest for key, digest in on_rap.items() if b"2026" in key[1]}
    assert len({report.uri for report in current}) == len(current)
    view = Page(week).connection.sql("SELECT DISTINCT uri FROM current_reports").fetchall()
    assert sorted(uri for (uri,) in view) == sorted(str(report.uri) for report in current)


def test_catalog_and_view_agree_on_a_report_without_a_date_and_on_one_that_came_back(
    rap: RapSimulator, lake: Path
) -> None:
    today = int(MTIME.timestamp())
    for content, mtime in ((b"a", today - 86_400), (b"a", today), (b"b", today + 60)):
        rap.put(Folder.DCASS, "FEES.txt", b"account,price\n%s,1\n" % content, mtime)
        download(lake, folders="DCASS")
    for content, mtime in ((b"one", today), (b"two", today + 60), (b"one", today)):
        rap.put(Folder.DCASS, "TP001_20261120.csv", b"account,price\n%s,1\n" % content, mtime)
        download(lake, folders="DCASS")
    view = Page(lake).connection.sql("SELECT business_date::VARCHAR, uri FROM current_reports").fetchall()
    days = ("2026-11-19", "2026-11-20")
    catalog = [(day, r.uri) for day in days for r in landed_reports(str(lake), "CXYZ", business_date=day)]
    assert sorted(view) == sorted(catalog)
    assert [(day, uri.rpartition("/")[2]) for day, uri in catalog] == [
        ("2026-11-19", "FEES.txt"),
        ("2026-11-20", "FEES.txt"),
        ("2026-11-20", "TP001_20261120.csv"),
    ]


def test_every_line_that_a_landing_writes_has_the_schema(week: Path) -> None:
    options = pyarrow.json.ParseOptions(explicit_schema=SCHEMA, unexpected_field_behavior="error")
    paths = sorted((week / "manifest").rglob("*.jsonl"))
    dispositions = Counter()
    for path in paths:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert all(list(line) == SCHEMA.names for line in lines)
        table = pyarrow.json.read_json(path, parse_options=options)
        assert table.schema == SCHEMA
        assert table.num_rows == len(lines)
        integers = {field.name for field in SCHEMA if pyarrow.types.is_integer(field.type)}
        for line in lines:
            values = {name: value for name, value in line.items() if value is not None}
            assert all(type(value) is (int if name in integers else str) for name, value in values.items())
            dispositions[line["disposition"]] += 1
    assert {"landed", "already", "quarantined"} == set(dispositions)


def test_the_lines_of_the_readme_make_a_frame_of_the_current_report(week: Path) -> None:
    (block,) = (
        block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "frame = " in block
    )
    names: dict[str, Any] = {}
    exec(block.replace("/data/rap", str(week)), names)
    assert prices(names["frame"].to_dict("records")) == CURRENT


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the name of a bucket; the connection ``query`` and the environment have access to it."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        extra = {"endpoint_url": endpoint, "region_name": "us-east-1"}
        connection = {"conn_type": "aws", "login": "key", "password": "secret", "extra": extra}
        # A name of its own: Airflow keeps the storage that it has opened for a connection.
        monkeypatch.setenv("AIRFLOW_CONN_QUERY", json.dumps(connection))
        for name, value in (
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_ENDPOINT_URL", endpoint),
            ("AWS_DEFAULT_REGION", "us-east-1"),
        ):
            monkeypatch.setenv(name, value)
        name = f"reports-{secrets.token_hex(4)}"
        boto3.client("s3").create_bucket(Bucket=name)
        yield name
    finally:
        server.stop()


def test_the_uris_of_a_lake_on_s3_are_ready_with_and_without_a_connection(
    rap: RapSimulator, bucket: str
) -> None:
    from airflow.sdk import ObjectStoragePath

    content = csv(DAY, 1)
    rap.put(Folder.DCASS, "TP001_CXYZ_20261120.csv", content, MTIME)
    lake = f"s3://query@{bucket}/rap"
    RapDownloadOperator(task_id="land", folders=["DCASS"], lake=lake, expect=[]).execute({})
    (report,) = landed_reports(lake, "CXYZ")
    assert report.uri
    assert report.uri.startswith(f"{lake}/reports/customer=CXYZ/")
    assert ObjectStoragePath(report.uri).read_bytes() == content
    assert list(landed_reports(ObjectStoragePath(lake), "CXYZ")) == [report]
    (report,) = landed_reports(f"s3://{bucket}/rap", "CXYZ")
    assert report.uri == f"s3://{bucket}/rap/{relative_path(report.uri)}"
    assert pandas.read_csv(report.uri).to_csv(index=False).encode() == content


@pytest.mark.parametrize("engine", NOT_RUN)
def test_the_columns_of_the_ddl_are_the_fields_of_an_entry(engine: str) -> None:
    block = next(block for _, block in BLOCKS if block.startswith(engine) and "TABLE manifest (" in block)
    columns = re.search(r"TABLE manifest \((.*?)\n\)", block, re.DOTALL)
    assert columns
    names, types = zip(*(column.split() for column in columns[1].split(",")), strict=True)
    assert list(names) == [field.name for field in fields(Entry)]
    integers = [name for name, type_ in zip(names, types, strict=True) if type_ != "string"]
    assert integers == [field.name for field in SCHEMA if pyarrow.types.is_integer(field.type)]


def test_every_field_is_explained() -> None:
    explained = re.search(r"## The fields\n(.*)", PAGE, re.DOTALL)
    assert explained
    cells = "".join(row.split("|")[1] for row in explained[1].splitlines() if row.startswith("| `"))
    assert sorted(re.findall(r"`(\w+)`", cells)) == sorted(field.name for field in fields(Entry))
