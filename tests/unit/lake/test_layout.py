"""The paths of a lake, and the names that may enter it."""

import posixpath
import time
import unicodedata
from itertools import islice
from urllib.parse import unquote

import pendulum
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_hkex_rap.lake.layout import (
    VERSIONS,
    Refused,
    landing_name,
    manifest_path,
    manifest_stamp,
    rap_name_of,
    relative_path,
    report_code_directory,
    report_directory,
    run_stamp,
    safe_name,
    versions,
)
from airflow_provider_hkex_rap.rap.errors import LakeConflict
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
        (b"..x", "%2E.x"),
        (b".hidden.csv", "%2Ehidden.csv"),
        (b"_SUCCESS", "%5FSUCCESS"),
        (b"a?b.csv", "a?b.csv"),
        (b"a?versionId=1.csv", "a?versionId=1.csv"),
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


@pytest.mark.parametrize(
    ("name", "third"),
    [
        ("TP001_20261120.csv", "TP001_20261120.v3.csv"),
        ("x.csv.gz", "x.v3.csv.gz"),
        ("x.TAR.BZ2", "x.v3.TAR.BZ2"),
        ("x.gz", "x.v3.gz"),
        ("README", "README.v3"),
        ("a.b.csv", "a.b.v3.csv"),
        ("x.v2.csv", "x.v2.v3.csv"),
        ("Report 1. final", "Report 1. final.v3"),
        ("ends.", "ends..v3"),
        (".csv", "%2Ecsv.v3"),
        ("報表.txt", "報表.v3.txt"),
    ],
)
def test_a_version_stands_in_front_of_the_extension(name, third):
    assert list(islice(versions(name), 3))[2] == third


@given(st.binary(min_size=1, max_size=255), st.integers(0, 20))
@example(b"x" * 251 + b".csv", 1)
@example(b"." + b"x" * 254, 0)
@example("é".encode() * 127, 2)
@example(b"x." + b"y" * 253, 1)
def test_every_version_is_a_name_that_common_file_systems_accept(name, number):
    safe = safe_name(listed(name))
    if not isinstance(safe, Refused):
        names = list(islice(versions(safe), number + 1))
        assert all(0 < len(name.encode()) <= 255 for name in names)
        assert len(set(names)) == number + 1
        assert not any(name.startswith((".", "_")) for name in names)
        assert names == list(islice(versions(listed(name).text), number + 1))


@pytest.mark.parametrize("name", [".hidden.csv", "_temporary", "._x", "plain.csv", "%25x"])
def test_the_name_on_rap_is_read_from_the_name_in_the_lake(name):
    assert rap_name_of(landing_name(name)) == name


def test_long_names_stay_distinct_and_keep_their_extension():
    names = ["x" * 250 + f"{letter}.csv" for letter in "ab"]
    first, second = (list(islice(versions(name), 2))[1] for name in names)
    assert first != second
    assert first.endswith(".v2.csv")


def test_versions_end():
    found = versions("a.csv")
    assert len(list(islice(found, VERSIONS))) == VERSIONS
    with pytest.raises(LakeConflict, match=r"a\.csv has 10000 versions"):
        list(found)


@given(st.datetimes(pendulum.naive(1980, 1, 1), pendulum.naive(2100, 1, 1)), st.integers(1, 10**6))
def test_a_manifest_file_says_when_its_run_started(moment, sequence):
    now = pendulum.instance(moment, tz="Asia/Hong_Kong")
    path = manifest_path("CXYZ", "DCASS", "2026-11-20", run_stamp(now, "1a2b3c"), sequence)
    assert path.startswith("manifest/CXYZ/DCASS/2026-11-20/")
    assert manifest_stamp(path) == now.in_timezone("UTC").format("YYYYMMDD[T]HHmmss[Z]")


@pytest.mark.parametrize(
    "name", ["notes.txt", ".rap-1.part", "x.jsonl", "20261120T173000Z-1a2b3c-1.jsonl.bak"]
)
def test_other_files_are_no_manifest(name):
    assert manifest_stamp(f"manifest/{name}") is None


def test_a_landed_file_is_found_wherever_its_lake_moves():
    path = f"{report_directory('CXYZ', Folder.DCASS, 'TP001', NOW.date())}/a.csv"
    assert path == "reports/customer=CXYZ/folder=DCASS/report=TP001/business_date=2026-11-20/a.csv"
    assert relative_path(f"s3://bucket/deep/er/{path}") == path


@pytest.mark.parametrize(
    ("report", "directory"),
    [
        ("TP001", "TP001"),
        ("tp001", "tp001"),
        ("RX_AUDIT", "RX_AUDIT"),
        ("DCASS.REF DATA", "DCASS.REF DATA"),
        ("持倉報告", "持倉報告"),
        ("e\u0301", "e\u0301"),
        ("TP001-A+B(C)", "TP001-A+B(C)"),
        ("a/b\\c=d%e", "a%2Fb%5Cc%3Dd%25e"),
        ('a:*?"<>|b', "a%3A%2A%3F%22%3C%3E%7Cb"),
        ("a#b[c]{d}^~'", "a%23b%5Bc%5D%7Bd%7D%5E%7E%27"),
        ("a\0b\nc\x7fd\x85e\u2028", "a%00b%0Ac%7Fd%C2%85e%E2%80%A8"),
        (".hidden", "%2Ehidden"),
        ("_hidden", "%5Fhidden"),
        ("..", "%2E%2E"),
        ("TP001.", "TP001%2E"),
        ("TP001 ", "TP001%20"),
        ("caf%E9", "caf%25E9"),
        ("\udcff", "%ED%B3%BF"),
    ],
)
def test_a_report_code_is_escaped_for_a_hive_directory(report, directory):
    assert report_code_directory(report) == directory


codes = st.text(min_size=1) | st.text("aé報/%~._ =", min_size=1, max_size=300) | st.text("/%", min_size=60)


@given(codes)
@example("x" * 200)
@example("報" * 66)
@example("/" * 66)
def test_the_directory_of_a_report_code_is_valid_and_gives_the_code_back(report):
    directory = report_code_directory(report)
    assert 0 < len(directory.encode()) <= 200
    assert not set(directory) & set('/\\:*?"<>|=')
    assert not any(unicodedata.category(character) == "Cc" for character in directory)
    assert directory[0] not in "._"
    assert directory[-1] not in ". "
    if "~" not in directory:
        assert unquote(directory, errors="surrogatepass") == report


@given(st.lists(codes, min_size=2, max_size=2, unique=True))
@example(["x" * 201, "x" * 202])
@example(["a/b", "a%2Fb"])
@example([unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é")])
@example(["x" * 201, report_code_directory("x" * 201)])
@example(["/" * 67, "/" * 68])
def test_two_report_codes_never_share_a_directory(reports):
    one, other = map(report_code_directory, reports)
    assert one != other


@pytest.mark.parametrize("report", ["x" * 201, "報" * 67, "/" * 67, "x" * 182 + "é" * 40])
def test_a_long_report_code_is_cut_between_characters(report):
    start, _, digest = report_code_directory(report).partition("~")
    assert report.startswith(unquote(start, errors="strict"))
    assert len(start) > 170 // len("報".encode())
    assert len(digest) == 16


def test_a_report_code_of_any_length_is_cut_in_linear_time():
    began = time.process_time()
    assert len(report_code_directory("N" * 100_000)) == 200
    assert time.process_time() - began < 5
