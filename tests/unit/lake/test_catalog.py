"""The catalog yields each landed report once, and only current ones unless asked for all."""

import asyncio
import logging
import subprocess
import sys
import threading
from dataclasses import fields
from datetime import date

import fsspec
import pytest

from airflow_provider_hkex_rap.lake.catalog import landed_reports
from airflow_provider_hkex_rap.lake.entry import Disposition, Entry, rap_path, to_lines, utc
from airflow_provider_hkex_rap.lake.layout import manifest_path, marks_directory, report_directory, run_stamp
from airflow_provider_hkex_rap.lake.store import Lake
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.files import RemoteFile
from airflow_provider_hkex_rap.rap.folders import Folder

from ...in_memory_rap import CUSTOMER, NOW, InMemoryRap, run

DAY, NEXT_DAY = "2026-11-20", "2026-11-23"
NAME = "TP001_20261120.csv"
V2 = "TP001_20261120.v2.csv"
MTIME = NOW.int_timestamp
LATER = utc(NOW.add(seconds=1))


class Manifest:
    """Writes manifest files, one for each call of `add`."""

    def __init__(self, lake):
        self.lake = lake
        self.files = 0

    def uri(self, landed_name, folder=Folder.DCASS, day=DAY, report="TP001"):
        return self.lake.uri_of(f"{report_directory(CUSTOMER, folder, report, day)}/{landed_name}")

    def entry(self, landed_name=NAME, *, name=NAME, folder=Folder.DCASS, day=DAY, report="TP001", **changes):
        """Return an entry; *landed_name* None is that of a quarantined file."""
        path, path_base64 = rap_path(RemoteFile(folder, name.encode(), 3, MTIME))
        values = dict.fromkeys((field.name for field in fields(Entry)), None) | {
            "schema_version": 1,
            "customer": CUSTOMER,
            "folder": folder.value,
            "rap_path": path,
            "rap_path_base64": path_base64,
            "report": report,
            "business_date": day,
            "business_date_rule": "name",
            "size": 3,
            "mtime": MTIME,
            "sha256": "0" * 64,
            "uri": self.uri(landed_name, folder, day, report) if landed_name else None,
            "account": "DCXYZ001",
            "site": "primary",
            "address": "10.151.14.141:18801",
            "first_seen": utc(NOW),
            "committed": utc(NOW),
            "package_version": "0.0",
            "disposition": Disposition.LANDED.value,
            "reason": "",
        }
        return Entry(**(values | changes))

    def add(self, *entries, folder=Folder.DCASS, day=DAY):
        self.files += 1
        path = manifest_path(CUSTOMER, folder, day, run_stamp(NOW, "0123"), self.files)
        self.lake.create(path, to_lines(entries))
        return path


@pytest.fixture
def manifest(lake):
    return Manifest(lake)


def names(lake, **arguments):
    """Return the names in the lake of what the catalog yields."""
    return [entry.uri.rpartition("/")[2] for entry in landed_reports(lake, CUSTOMER, **arguments)]


def test_a_republished_report_is_yielded_once_with_its_newest_content(lake, manifest):
    manifest.add(manifest.entry())
    manifest.add(manifest.entry(V2, mtime=MTIME + 60, supersedes=manifest.uri(NAME), sha256="1" * 64))
    assert names(lake) == [V2]
    assert names(lake, current=False) == [NAME, V2]
    (report,) = landed_reports(lake, CUSTOMER)
    assert (report.sha256, report.supersedes) == ("1" * 64, manifest.uri(NAME))


def test_a_superseding_content_is_current_although_rap_gave_it_an_earlier_time(lake, manifest):
    manifest.add(manifest.entry())
    manifest.add(manifest.entry(V2, mtime=MTIME - 60, supersedes=manifest.uri(NAME), committed=LATER))
    assert names(lake) == [V2]


def test_a_content_that_rap_published_again_is_current_again(lake, manifest):
    manifest.add(manifest.entry(), manifest.entry(V2, mtime=MTIME + 60, supersedes=manifest.uri(NAME)))
    again = {"mtime": MTIME + 120, "disposition": "already", "supersedes": manifest.uri(V2)}
    manifest.add(manifest.entry(committed=LATER, **again))
    (report,) = landed_reports(lake, CUSTOMER)
    assert report.uri == manifest.uri(NAME)
    # The entry of the landing has the facts of the file in the lake.
    assert (report.disposition, report.committed) == ("landed", utc(NOW))


def test_a_file_that_two_runs_entered_is_yielded_once(lake, manifest):
    manifest.add(manifest.entry(disposition="already", committed=None))
    manifest.add(manifest.entry())
    manifest.add(manifest.entry(run="another"))
    assert names(lake) == names(lake, current=False) == [NAME]
    assert [entry.disposition for entry in landed_reports(lake, CUSTOMER)] == ["landed"]


def test_the_loser_of_a_race_does_not_make_a_superseded_content_current(lake, manifest):
    manifest.add(manifest.entry())
    manifest.add(manifest.entry(V2, supersedes=manifest.uri(NAME)))
    manifest.add(manifest.entry(disposition="already", committed=None))
    assert names(lake) == [V2]


def test_a_killed_runs_file_that_was_claimed_after_its_successor_is_superseded(lake, manifest):
    manifest.add(manifest.entry(V2, supersedes=manifest.uri(NAME)))
    manifest.add(manifest.entry(committed=utc(NOW.subtract(hours=1)), reason="adopted"))
    assert names(lake) == [V2]


def test_another_report_with_the_name_of_a_version_is_current_too(lake, manifest):
    manifest.add(manifest.entry(), manifest.entry(V2, name=V2))
    assert names(lake) == [NAME, V2]


def test_a_name_without_a_date_is_a_report_of_each_business_date(lake, manifest):
    for day in (DAY, NEXT_DAY):
        manifest.add(manifest.entry("FEES.txt", name="FEES.txt", report="FEES", day=day), day=day)
    assert names(lake) == ["FEES.txt", "FEES.txt"]


def test_bytes_with_entries_on_two_business_dates_are_yielded_once(lake, manifest):
    first = manifest.entry("FEES.txt", name="FEES.txt")
    manifest.add(first)
    repeated = manifest.entry(
        name="FEES.txt", day=NEXT_DAY, uri=first.uri, disposition="already", committed=None
    )
    manifest.add(repeated, day=NEXT_DAY)
    assert list(landed_reports(lake, CUSTOMER)) == [first]
    assert list(landed_reports(lake, CUSTOMER, business_date=NEXT_DAY)) == [repeated]


def test_a_quarantined_entry_is_not_yielded(lake, manifest):
    manifest.add(manifest.entry(None, sha256=None, disposition="quarantined", committed=None))
    assert names(lake) == names(lake, current=False) == []


def test_folder_report_and_date_choose(lake, manifest):
    manifest.add(manifest.entry(), manifest.entry("RX.csv", name="RX.csv", report="RX"))
    manifest.add(manifest.entry("later.csv", name="later.csv", day=NEXT_DAY), day=NEXT_DAY)
    other = manifest.entry("other.csv", name="other.csv", folder=Folder.DCASS_OTHERS)
    manifest.add(other, folder=Folder.DCASS_OTHERS)
    assert names(lake) == ["RX.csv", NAME, "later.csv", "other.csv"]
    assert names(lake, folder="DCASS_OTHERS") == ["other.csv"]
    assert names(lake, folder=Folder.DCASS, report="TP001") == [NAME, "later.csv"]
    assert names(lake, business_date=date(2026, 11, 23)) == ["later.csv"]
    assert names(lake, business_date=(DAY, date(2026, 11, 22)), report="RX") == ["RX.csv"]
    assert names(lake, business_date=("2026-11-21", None)) == ["later.csv"]
    assert names(lake, business_date=[None, DAY], folder="DCASS") == ["RX.csv", NAME]
    assert list(landed_reports(lake, "CABC")) == []
    assert names(lake, report="tp001") == names(lake, business_date="2026-11-19") == []


def test_with_one_date_only_the_directory_of_that_date_is_touched(lake, manifest, monkeypatch):
    for day in (DAY, NEXT_DAY):
        manifest.add(manifest.entry(day=day), day=day)
    touched = []
    for name in ("list_directory", "read"):
        method = getattr(Lake, name)
        monkeypatch.setattr(
            Lake, name, lambda lake, path, method=method: touched.append(path) or method(lake, path)
        )
    assert len(names(lake, folder="DCASS", business_date=DAY)) == 1
    directory = f"manifest/{CUSTOMER}/DCASS/{DAY}"
    assert [touched[0], touched[1].rpartition("/")[0]] == [directory, directory]
    assert len(touched) == 2


def test_many_days_come_in_the_order_of_their_dates(lake, manifest):
    days = [date(2026, month, day).isoformat() for month in (10, 9, 11) for day in range(1, 16)]
    for day in days:
        manifest.add(manifest.entry(day=day), day=day)
    assert [entry.business_date for entry in landed_reports(lake, CUSTOMER)] == sorted(days)


def test_marks_and_other_files_are_no_entries(lake, manifest, caplog):
    lake.create(f"{marks_directory(CUSTOMER, 'DCASS', 'announced')}/{run_stamp(NOW, '0')}.json", b"{}")
    lake.create(f"manifest/{CUSTOMER}/DCASS/{DAY}/notes.jsonl", b"{}")
    manifest.add(manifest.entry())
    # Another test may have set a lower level for fsspec.
    with caplog.at_level(logging.WARNING):
        assert names(lake) == [NAME]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_bad_line_hides_no_other(lake, manifest, caplog):
    path = manifest_path(CUSTOMER, "DCASS", DAY, run_stamp(NOW, "9999"), 1)
    lake.create(path, to_lines([manifest.entry()]) + b"{}\n")
    manifest.add(manifest.entry(V2, supersedes=manifest.uri(NAME), committed=LATER))
    with caplog.at_level(logging.WARNING):
        assert names(lake) == [V2]
    assert lake.uri_of(path) in caplog.text
    assert "line 2" in caplog.text


def test_uris_begin_with_the_lake_as_it_is_given(tmp_path):
    before = Manifest(Lake(fsspec.filesystem("file"), str(tmp_path / "before")))
    before.add(before.entry())
    before.add(before.entry(V2, supersedes=before.uri(NAME)))
    (tmp_path / "before").rename(tmp_path / "after")
    for lake in (str(tmp_path / "after"), (tmp_path / "after").as_uri()):
        (report,) = landed_reports(lake, CUSTOMER)
        directory = f"file://{tmp_path}/after/{report_directory(CUSTOMER, 'DCASS', 'TP001', DAY)}"
        assert (report.uri, report.supersedes) == (f"{directory}/{V2}", f"{directory}/{NAME}")


def test_a_lake_that_does_not_exist_has_no_reports(tmp_path):
    assert list(landed_reports(str(tmp_path / "nothing"), CUSTOMER)) == []


def test_an_object_storage_path_is_a_lake(tmp_path):
    from airflow.sdk import ObjectStoragePath

    manifest = Manifest(Lake(fsspec.filesystem("file"), str(tmp_path)))
    manifest.add(manifest.entry())
    assert names(ObjectStoragePath(tmp_path.as_uri())) == [NAME]


def test_it_works_inside_a_running_event_loop(lake, manifest):
    manifest.add(manifest.entry())

    async def read():
        return names(lake)

    assert asyncio.run(read()) == [NAME]


def test_an_iterator_that_is_not_read_to_its_end_leaves_no_thread(lake, manifest):
    manifest.add(manifest.entry(), manifest.entry("other.csv", name="other.csv"))
    reports = landed_reports(lake, CUSTOMER)
    assert next(reports)
    reports.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("hkex-rap-catalog")]


@pytest.mark.parametrize(
    ("arguments", "valid"),
    [
        ({"customer": "DCXYZ001"}, "C and three of A-Z and 0-9"),
        ({"customer": None}, "C and three of A-Z and 0-9"),
        ({"folder": "dcass"}, "DCASS, DCASS_OTHERS, HKCC_SEOCH_CCMS_GLOB"),
        ({"business_date": "20261120"}, "YYYY-MM-DD"),
        ({"business_date": NOW}, "YYYY-MM-DD"),
        ({"business_date": (DAY, "tomorrow")}, "YYYY-MM-DD"),
        ({"business_date": (NEXT_DAY, DAY)}, "after the last"),
        ({"business_date": (DAY,)}, "('2026-11-16', '2026-11-20')"),
        ({"business_date": 20261120}, "YYYY-MM-DD"),
    ],
    ids=str,
)
def test_a_wrong_argument_is_named_before_anything_is_read(arguments, valid):
    lake = object.__new__(Lake)
    with pytest.raises(RapConfigurationError) as raised:
        landed_reports(lake, **{"customer": CUSTOMER, **arguments})
    assert valid in str(raised.value)


def test_a_wrong_lake_is_named_before_anything_is_read():
    with pytest.raises(RapConfigurationError, match="'lake'"):
        landed_reports("relative/lake", CUSTOMER)


def test_the_schema_has_every_field_of_an_entry_in_order():
    from airflow_provider_hkex_rap.lake.catalog import SCHEMA

    assert SCHEMA.names == [field.name for field in fields(Entry)]


def test_pyarrow_is_imported_only_for_the_schema():
    code = (
        "import sys; from airflow_provider_hkex_rap.lake import catalog; before = 'pyarrow' in sys.modules;"
        " catalog.SCHEMA; print(before, 'pyarrow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_another_name_is_no_attribute_of_the_module():
    from airflow_provider_hkex_rap.lake import catalog

    with pytest.raises(AttributeError, match="schema"):
        _ = catalog.schema


def test_pyarrow_reads_a_manifest_with_a_column_of_nulls(local_lake):
    import pyarrow.dataset

    from airflow_provider_hkex_rap.lake.catalog import SCHEMA

    manifest = Manifest(local_lake)
    manifest.add(manifest.entry())
    manifest.add(manifest.entry(V2, supersedes=manifest.uri(NAME), etag="x"), day=NEXT_DAY)
    lake_marks = f"{marks_directory(CUSTOMER, 'DCASS', 'announced')}/{run_stamp(NOW, '0')}.json"
    local_lake.create(lake_marks, b"[]")
    entries = pyarrow.dataset.dataset(f"{local_lake.uri}/manifest", format="json", schema=SCHEMA).to_table()
    assert entries.schema == SCHEMA
    assert entries["supersedes"].to_pylist() == [None, manifest.uri(NAME)]
    assert entries["committed"].to_pylist() == [NOW, NOW]


def test_pyarrow_reads_the_entry_of_a_file_whose_listed_size_is_beyond_64_bits(local_lake):
    import pyarrow.dataset

    from airflow_provider_hkex_rap.lake.catalog import SCHEMA

    rap = InMemoryRap()
    rap.others += [
        RemoteFile(Folder.DCASS, b"a\\b", 2**64 - 1, MTIME),
        RemoteFile(Folder.DCASS, b"a/b", 5, MTIME),
    ]
    assert run(rap, local_lake).quarantined == 2
    assert not run(rap, local_lake).entries
    rows = pyarrow.dataset.dataset(
        f"{local_lake.uri}/manifest/{CUSTOMER}/DCASS/2026-11-20", format="json", schema=SCHEMA
    )
    table = rows.to_table()
    sizes = dict(zip(table["rap_path"].to_pylist(), table["size"].to_pylist(), strict=True))
    assert sizes == {"/download/DCASS/a\\b": None, "/download/DCASS/a/b": 5}
    (reason,) = [text for text in table["reason"].to_pylist() if str(2**64 - 1) in text]
    assert reason.startswith("Its name contains a path separator.")
