"""The paths of a lake, and the names that may enter it."""

import posixpath
import unicodedata
from itertools import islice

import pendulum
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_hkex_rap.lake.layout import (
    Refused,
    manifest_path,
    manifest_stamp,
    relative_path,
    report_directory,
    run_stamp,
    safe_name,
    versions,
)
from airflow_provider_hkex_rap.rap.files import Kind, RemoteFile
from airflow_provider_hkex_rap.rap.folders import Folder

from ...in_memory_rap import NOW


def listed(name, kind=Kind.FILE):
    return RemoteFile(Folder.DCASS, name, 1, 1, kind)


@pytest.mark.parametrize(
    "name",
    [
        b"",
        b".",
        b"..",
        b"../x",
        b"/abs",
        b"a/b",
        b"a\\b",
        b"nul\0",
        b"bell\a",
        b"line\n",
        b"del\x7f",
        b"x" * 256,
        "\u0085".encode(),
        ("é" * 128).encode(),
        b"\xff" * 86,
        b".rap-0.part",
    ],
)
def test_a_name_that_could_leave_its_directory_is_refused(name):
    assert isinstance(safe_name(listed(name)), Refused)


@pytest.mark.parametrize("kind", [Kind.DIRECTORY, Kind.SYMLINK, Kind.OTHER])
def test_only_files_land(kind):
    assert isinstance(safe_name(listed(b"TP001.csv", kind)), Refused)


@pytest.mark.parametrize(
    ("name", "landed"),
    [
        (b"TP001_20261120.csv", "TP001_20261120.csv"),
        ("報表.txt".encode(), "報表.txt"),
        (b"caf\xe9.txt", "caf%E9.txt"),
        (b"..x", "..x"),
        (b"x" * 255, "x" * 255),
    ],
)
def test_any_other_name_stays(name, landed):
    assert safe_name(listed(name)) == landed


def test_names_that_differ_in_normalisation_are_two():
    composed, decomposed = (unicodedata.normalize(form, "é").encode() for form in ("NFC", "NFD"))
    assert safe_name(listed(composed)) != safe_name(listed(decomposed))


@given(st.binary(max_size=300))
@example(b"a\xff/..\xfe")
def test_a_name_that_is_accepted_stays_in_its_directory(name):
    safe = safe_name(listed(name))
    if not isinstance(safe, Refused):
        assert posixpath.dirname(posixpath.normpath(posixpath.join("/lake/day", safe))) == "/lake/day"
        assert len(safe.encode()) <= 255


def test_versions_follow_the_name():
    assert list(islice(versions("a.csv"), 3)) == ["a.csv", "a.csv.v2", "a.csv.v3"]


@given(st.datetimes(pendulum.naive(1980, 1, 1), pendulum.naive(2100, 1, 1)), st.integers(1, 10**6))
def test_a_manifest_file_says_when_its_run_started(moment, sequence):
    now = pendulum.instance(moment, tz="Asia/Hong_Kong")
    path = manifest_path("CXYZ", "DCASS", "2026-11-20", run_stamp(now, "1a2b3c"), sequence)
    assert path.startswith("_manifests/customer=CXYZ/folder=DCASS/business_date=2026-11-20/")
    assert manifest_stamp(path) == now.in_timezone("UTC").format("YYYYMMDD[T]HHmmss[Z]")


@pytest.mark.parametrize("name", ["notes.txt", ".rap-1.part", "x.json", "20261120T173000Z-1a2b3c-1.json.bak"])
def test_other_files_are_no_manifest(name):
    assert manifest_stamp(f"_manifests/{name}") is None


def test_a_landed_file_is_found_wherever_its_lake_moves():
    path = f"{report_directory('CXYZ', Folder.DCASS, NOW.date())}/a.csv"
    assert path == "customer=CXYZ/folder=DCASS/business_date=2026-11-20/a.csv"
    assert relative_path(f"s3://bucket/deep/er/{path}") == path
