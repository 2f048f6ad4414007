"""The URIs that are lakes, and those that storages or readers take for something else."""

import json
import os

import fsspec
import pytest

from airflow_provider_hkex_rap.lake.opening import open_lake
from airflow_provider_hkex_rap.rap.errors import LakeError, RapConfigurationError


@pytest.mark.parametrize(
    ("uri", "fault"),
    [
        ("", "not the root of a lake"),
        ("data/rap", "not the root of a lake"),
        ("file://data/rap", "not the root of a lake"),
        ("/", "root of the whole file system"),
        ("file:///", "root of the whole file system"),
        ("s3://bucket//rap", "empty segment"),
        ("s3://conn@bucket/a//rap", "empty segment"),
        ("s3://bucket/rap//", "empty segment"),
        ("//data/rap", "empty segment"),
        ("file:///data//rap", "empty segment"),
        ("s3:///rap", "no bucket"),
        ("s3://conn@/rap", "no bucket"),
        ("s3://bucket/rap?versionId=1", r"character \?"),
        ("gs://bucket/rap#1", "character #"),
        ("file:///data/a%23b", "character #"),
        ("s3://bucket/a/../rap", r"segment \. or \.\."),
        ("/data/./rap", r"segment \. or \.\."),
        ("/data/a%20b", "character %"),
        ("file:///data/a%2520b", "character %"),
        ("file:///data/100%", "character %"),
        ("file:///data/%2E%2E/etc", r"segment \. or \.\."),
        ("file:///data/a%0Ab", "control character"),
    ],
)
def test_a_uri_that_is_read_in_two_ways_is_refused(uri, fault):
    with pytest.raises(RapConfigurationError, match=fault) as caught:
        open_lake(uri)
    assert "such as file:///data/rap or s3://aws_default@bucket/rap" in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://AKIA:hidden@bucket/rap",
        "sftp://user:hidden@host/rap",
        "s3://user:hid@hidden@bucket",
        "https://account.blob.core.windows.net/container?sig=hidden",
    ],
)
def test_credentials_in_the_uri_are_refused_and_not_shown(uri):
    with pytest.raises(RapConfigurationError) as caught:
        open_lake(uri)
    assert "hid" not in f"{caught.value} {vars(caught.value)}"


@pytest.mark.parametrize(
    ("uri", "valid"),
    [
        ("s3://conn@bucket//rap", "s3://conn@bucket/rap"),
        ("s3://bucket/a//rap//", "s3://bucket/a/rap/"),
        ("file:///data//rap", "file:///data/rap"),
        ("//data/rap", "/data/rap"),
    ],
)
def test_the_error_for_an_empty_segment_names_the_valid_form(uri, valid):
    with pytest.raises(RapConfigurationError) as caught:
        open_lake(uri)
    assert f"Set 'lake' to {valid};" in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "root"),
    [
        ("/data/rap", "/data/rap"),
        ("/data/rap/", "/data/rap"),
        ("file:///data/rap", "/data/rap"),
        ("local:///data/rap", "/data/rap"),
        ("file:///data/my%20lake", "/data/my lake"),
        ("file:///data/my lake", "/data/my lake"),
        ("/data/my lake", "/data/my lake"),
        ("file:///data/%E5%A0%B1", "/data/報"),
    ],
)
def test_a_local_lake_has_one_root_and_one_uri(uri, root):
    lake = open_lake(uri)
    assert (lake.root, lake.uri) == (root, f"file://{root}")
    assert open_lake(lake.uri).root == root


def test_readers_open_the_uris_of_a_local_lake(tmp_path):
    lake = open_lake((tmp_path / "my lake 報").as_uri())
    assert os.listdir(tmp_path) == []
    lake.create("reports/a b.csv", b"n\n1\n")
    assert os.listdir(tmp_path) == ["my lake 報"]
    uri = lake.uri_of("reports/a b.csv")
    from airflow.sdk import ObjectStoragePath

    assert ObjectStoragePath(uri).read_bytes() == b"n\n1\n"
    with fsspec.open(uri) as file:
        assert file.read() == b"n\n1\n"
    pandas = pytest.importorskip("pandas")
    assert list(pandas.read_csv(uri)["n"]) == [1]
    duckdb = pytest.importorskip("duckdb")
    assert duckdb.connect().execute("select * from read_csv(?)", [uri]).fetchall() == [(1,)]


@pytest.mark.parametrize(
    "extra", [{"profile_name": "absent"}, {"role_arn": "arn:aws:iam::123456789012:role/absent"}]
)
def test_a_storage_without_credentials_is_an_error_of_the_lake(monkeypatch, extra):
    pytest.importorskip("s3fs")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AIRFLOW_CONN_LAKE", json.dumps({"conn_type": "aws", "extra": extra}))
    with pytest.raises(LakeError, match="s3://lake@bucket/rap' cannot be opened") as caught:
        open_lake("s3://lake@bucket/rap")
    assert not caught.value.retryable
    assert "credentials" in caught.value.todo
