"""A lake on S3 through an Airflow connection, against a server of the real protocol."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import boto3
import pendulum
import pytest
from moto.server import ThreadedMotoServer

from airflow_provider_hkex_rap.lake.opening import open_lake
from airflow_provider_hkex_rap.lake.preflight import check_lake
from airflow_provider_hkex_rap.lake.verify import verify
from airflow_provider_hkex_rap.operators.download import RapDownloadOperator
from airflow_provider_hkex_rap.rap.errors import LakeError
from airflow_provider_hkex_rap.rap.folders import Folder
from airflow_provider_hkex_rap.testing import RapSimulator

NOW = pendulum.datetime(2026, 11, 20, 23, 40, tz="Asia/Hong_Kong")
CREDENTIALS = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "ap-east-1"}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    # One server for all tests: Airflow keeps the storage that it has opened for a connection.
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield "http://{}:{}".format(*server.get_host_and_port())
    finally:
        server.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    connection = {
        "conn_type": "aws",
        "login": CREDENTIALS["aws_access_key_id"],
        "password": CREDENTIALS["aws_secret_access_key"],
        "extra": {"endpoint_url": endpoint, "region_name": CREDENTIALS["region_name"]},
    }
    monkeypatch.setenv("AIRFLOW_CONN_LAKE", json.dumps(connection))
    bucket = boto3.resource("s3", endpoint_url=endpoint, **CREDENTIALS).Bucket("reports")
    bucket.create(CreateBucketConfiguration={"LocationConstraint": CREDENTIALS["region_name"]})
    yield bucket
    bucket.objects.all().delete()
    bucket.delete()


def test_a_trading_day_lands_once_in_a_bucket(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with RapSimulator(now=NOW) as rap:
        monkeypatch.setenv("AIRFLOW_CONN_HKEX_RAP_DEFAULT", rap.connection_json("DCXYZ001"))
        monkeypatch.setenv("AIRFLOW__HKEX_RAP__CLOCK_OFFSET", str((NOW - pendulum.now()).total_seconds()))
        rap.publish_day(NOW.date(), reports=20)
        rap.put(Folder.DCASS, "LARGE_20261120.zip", 20_000_000, NOW.subtract(hours=1))
        operator = RapDownloadOperator(
            task_id="land", folders=list(Folder), lake="s3://lake@reports/rap", expect=[]
        )
        reports = [file for folder in Folder for file in rap.files(folder)]
        summary = operator.execute({})
        assert summary["landed"] == len(reports)
        objects = {item.key: item.get()["Body"].read() for item in bucket.objects.all()}
        assert summary["manifests"]
        assert {uri.removeprefix("s3://reports/") for uri in summary["manifests"]} <= objects.keys()
        landed = [body for key, body in objects.items() if "/manifest/" not in key]
        assert sorted(hashlib.sha256(body).hexdigest() for body in landed) == sorted(
            file.sha256 for file in reports
        )
        rap.events.clear()
        assert operator.execute({})["already"] == len(reports)
        assert not rap.events.of("open")
        assert {item.key for item in bucket.objects.all()} == set(objects)


@pytest.mark.usefixtures("bucket")
def test_an_unusable_bucket_is_found_without_a_login() -> None:
    check_lake(open_lake("s3://lake@reports/rap"))
    with pytest.raises(LakeError, match="s3://nowhere/rap cannot be used") as caught:
        check_lake(open_lake("s3://lake@nowhere/rap"))
    assert not caught.value.retryable


def test_the_lake_is_listed_although_the_console_has_made_its_folders(
    bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("reports", "reports/customer=CXYZ", "manifest", "manifest/CXYZ"):
        bucket.put_object(Key=f"rap/{folder}/", Body=b"")
    with RapSimulator(now=NOW) as rap:
        monkeypatch.setenv("AIRFLOW_CONN_HKEX_RAP_DEFAULT", rap.connection_json("DCXYZ001"))
        monkeypatch.setenv("AIRFLOW__HKEX_RAP__CLOCK_OFFSET", str((NOW - pendulum.now()).total_seconds()))
        for name in ("q?versionId=a_20261120.csv", "q?versionId=b_20261120.csv"):
            rap.put(Folder.DCASS, name, name.encode(), NOW.subtract(hours=1))
        operator = RapDownloadOperator(
            task_id="land", folders="DCASS", lake="s3://lake@reports/rap", expect=[]
        )
        assert operator.execute({})["landed"] == 2
        assert operator.execute({})["already"] == 2
    contents = {
        item.key.rpartition("/")[2]: item.get()["Body"].read()
        for item in bucket.objects.filter(Prefix="rap/reports/")
        if not item.key.endswith("/")
    }
    assert contents == {
        "q?versionId=a_20261120.csv": b"q?versionId=a_20261120.csv",
        "q?versionId=b_20261120.csv": b"q?versionId=b_20261120.csv",
    }
    assert asyncio.run(verify(open_lake("s3://lake@reports/rap"), "CXYZ")).problems == []
