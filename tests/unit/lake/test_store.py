"""A lake keeps its files and never overwrites them."""

import contextlib
import errno
import os
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_hkex_rap.lake import local_files
from airflow_provider_hkex_rap.lake.refusals import same_cause
from airflow_provider_hkex_rap.lake.spool import MEMORY_BYTES, Spool
from airflow_provider_hkex_rap.lake.store import Lake
from airflow_provider_hkex_rap.rap.errors import LakeConflict, LakeError, RapConfigurationError

from ...in_memory_rap import landed
from .limits import failing_with, file_size_limit

DAY = "reports/customer=CXYZ/folder=DCASS/report=TP001/business_date=2026-11-20"
MTIME = 1_795_000_000


@pytest.fixture
def spooled(tmp_path):
    def spooled(content):
        spool = Spool(str(tmp_path / f"spool-{len(os.listdir(tmp_path))}"), len(content))
        spool.write(content)
        spool.finish()
        return spool

    return spooled


def commit(lake, spool, name="a.csv", present=()):
    return lake.commit(DAY, name, spool, MTIME, present)


@pytest.mark.parametrize("size", [0, 1, MEMORY_BYTES, MEMORY_BYTES + 1])
def test_a_file_lands_whole(lake, spooled, size):
    spool = spooled(os.urandom(size))
    result = commit(lake, spool)
    assert (result.name, result.adopted) == ("a.csv", False)
    assert lake.measure(f"{DAY}/a.csv") == (size, spool.sha256)
    assert list(landed(lake)) == [f"{DAY}/a.csv"]


@pytest.mark.parametrize("known", [False, True])
def test_the_same_bytes_are_adopted_and_others_become_a_version(lake, spooled, known):
    for content, name, adopted in [
        (b"one", "a.csv", False),
        (b"one", "a.csv", True),
        (b"two", "a.v2.csv", False),
        (b"three", "a.v3.csv", False),
        (b"two", "a.v2.csv", True),
        (b"one", "a.csv", True),
    ]:
        present = lake.names(DAY) if known else ()
        result = commit(lake, spooled(content), present=present)
        assert (result.name, result.adopted) == (name, adopted)
    assert list(landed(lake).values()) == [b"one", b"two", b"three"]


def test_of_many_at_once_one_creates_and_the_rest_adopt(lake, spooled):
    spools = [spooled(b"same") for _ in range(16)]
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda spool: commit(lake, spool), spools))
    assert {result.name for result in results} == {"a.csv"}
    assert list(landed(lake)) == [f"{DAY}/a.csv"]
    assert sum(not result.adopted for result in results) == 1


def test_a_created_file_is_never_overwritten(lake):
    lake.create("manifest/x.jsonl", b"first")
    with pytest.raises(FileExistsError):
        lake.create("manifest/x.jsonl", b"second")
    assert lake.read("manifest/x.jsonl") == b"first"


def test_a_missing_directory_is_empty(lake):
    assert lake.names("customer=NONE") == frozenset()
    assert lake.walk("customer=NONE") == []
    assert lake.measure("customer=NONE/x") is None


def test_a_local_file_carries_the_time_that_proves_it(local_lake, spooled):
    spool = spooled(b"one")
    commit(local_lake, spool)
    info = local_lake.stat(f"{DAY}/a.csv")
    assert info["size"] == 3
    proven = local_lake.proven(f"{DAY}/a.csv", info)
    assert (proven.landed.sha256, proven.size, proven.mtime) == (spool.sha256, 3, MTIME)
    local_lake.fs.pipe_file(f"{local_lake.root}/{DAY}/stranger", b"two")
    assert local_lake.proven(f"{DAY}/stranger", local_lake.stat(f"{DAY}/stranger")) is None


@pytest.mark.parametrize("mtime", [None, -1, 2**32, 2**70])
def test_an_invalid_mtime_does_not_keep_a_file_from_landing(local_lake, spooled, mtime):
    local_lake.commit(DAY, "a.csv", spooled(b"one"), mtime)
    assert landed(local_lake)


@pytest.mark.parametrize("size", [MEMORY_BYTES, MEMORY_BYTES * 2])
def test_a_full_lake_shows_nothing_half_done(local_lake, tmp_path, size):
    spool = Spool(str(tmp_path / "1"), size)
    spool.write(os.urandom(size))
    spool.finish()
    # A spool on another file system is copied, and the copy does not fit.
    other = tempfile.mkdtemp(dir="/dev/shm") if os.path.isdir("/dev/shm") else None
    lake = Lake(local_lake.fs, other or local_lake.root)
    with file_size_limit(MEMORY_BYTES // 2), pytest.raises(LakeError, match="too large") as caught:
        commit(lake, spool)
    assert caught.value.retryable
    assert not landed(lake)
    assert not [name for _, _, names in os.walk(lake.root) for name in names]
    assert commit(lake, spool).name == "a.csv"
    fsspec.filesystem("file").rm(lake.root, recursive=True)


def test_a_lake_of_several_file_systems_takes_spooled_files(spooled, tmp_path):
    if not os.path.isdir("/dev/shm") or os.stat("/dev/shm").st_dev == os.stat(tmp_path).st_dev:
        pytest.skip("No second file system.")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as root:
        lake = Lake(fsspec.filesystem("file"), root)
        spool = spooled(os.urandom(MEMORY_BYTES * 2))
        commit(lake, spool)
        assert lake.measure(f"{DAY}/a.csv") == (spool.size, spool.sha256)


def test_unfinished_files_of_killed_processes_are_removed_once_they_are_old(local_lake, monkeypatch):
    parts = [f"{local_lake.root}/.rap-1.part/9", f"{local_lake.root}/{DAY}/.rap-2.part"]
    for part in parts:
        os.makedirs(os.path.dirname(part))
        open(part, "wb").close()
    assert local_lake.names(DAY) == {".rap-2.part"}
    assert local_lake.spool_parent() == local_lake.root
    assert all(map(os.path.exists, parts))
    monkeypatch.setattr(local_files, "STALE_SECONDS", -1)
    assert local_lake.names(DAY) == frozenset()
    local_lake.spool_parent()
    assert not any(map(os.path.exists, parts))


def test_a_file_system_that_would_overwrite_is_refused():
    class Careless(MemoryFileSystem):
        def put_file(self, lpath, rpath, **kwargs):
            raise AssertionError

    with pytest.raises(RapConfigurationError, match="Careless"):
        Lake(Careless(), "/lake")


def test_a_file_system_with_another_name_for_exclusive_create_is_accepted():
    class Azure(MemoryFileSystem):
        def put_file(self, lpath, rpath, overwrite=True, **kwargs):
            super().put_file(lpath, rpath, **kwargs)

    assert Lake(Azure(), "/lake").uri == "memory:///lake"


def test_bytes_that_a_storage_mangles_do_not_count_as_landed(spooled):
    class Mangling(MemoryFileSystem):
        def pipe_file(self, path, value, mode="overwrite", **kwargs):
            super().pipe_file(path, value[:-1] + b"?", mode, **kwargs)

    with pytest.raises(LakeConflict) as caught:
        commit(Lake(Mangling(), "/mangled"), spooled(b"bytes"))
    assert caught.value.uri.endswith(f"{DAY}/a.csv")


def test_a_local_disk_that_keeps_less_than_it_was_given_is_a_conflict(tmp_path, spooled, monkeypatch):
    write = os.write
    lake, spool = Lake(fsspec.filesystem("file"), str(tmp_path / "lake")), spooled(b"bytes")
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:-1]) + 1)
    with pytest.raises(LakeConflict) as caught:
        commit(lake, spool)
    monkeypatch.undo()
    assert caught.value.uri.endswith(f"{DAY}/a.csv")


def test_a_link_that_reports_success_without_effect_is_an_error(tmp_path, spooled, monkeypatch):
    lake, spool = Lake(fsspec.filesystem("file"), str(tmp_path / "lake")), spooled(b"bytes")
    monkeypatch.setattr(os, "link", lambda source, target: None)
    with pytest.raises(LakeError, match=r"a\.csv was not written"):
        commit(lake, spool)


def test_if_the_file_system_looks_before_it_writes_no_other_thread_writes_in_between(spooled):
    both_have_looked = threading.Barrier(2)

    class Hesitant(MemoryFileSystem):
        def open(self, path, mode="rb", **kwargs):
            free = mode != "xb" or not self.exists(path)
            if mode == "xb":
                with contextlib.suppress(threading.BrokenBarrierError):
                    both_have_looked.wait(timeout=0.2)
            if not free:
                raise FileExistsError(path)
            return super().open(path, mode.replace("x", "w"), **kwargs)

    lake = Lake(Hesitant(), "/hesitant")
    spools = [spooled(b"one"), spooled(b"two")]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda spool: commit(lake, spool), spools))
    assert sorted(result.name for result in results) == ["a.csv", "a.v2.csv"]
    assert sorted(landed(lake).values()) == [b"one", b"two"]


def test_an_answer_that_is_lost_after_success_is_no_failure(spooled):
    class Deaf(MemoryFileSystem):
        def pipe_file(self, path, value, mode="overwrite", **kwargs):
            super().pipe_file(path, value, mode, **kwargs)
            raise ConnectionResetError

    result = commit(Lake(Deaf(), "/deaf"), spooled(b"bytes"))
    assert (result.name, result.adopted) == ("a.csv", True)


NO_LINKS = [errno.EPERM, errno.ENOTSUP, errno.EXDEV, errno.EMLINK]


def refuse_links(monkeypatch, number):
    def refuse(source, target, **options):
        raise OSError(number, os.strerror(number), source, None, target)

    monkeypatch.setattr(os, "link", refuse)


def refuse_renames(source, target):
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


@pytest.mark.parametrize("renames", [True, False], ids=["renameat2", "O_EXCL"])
@pytest.mark.parametrize("number", NO_LINKS, ids=errno.errorcode.get)
@pytest.mark.parametrize("size", [0, MEMORY_BYTES + 1])
def test_a_disk_without_hard_links_takes_files_and_keeps_them(
    local_lake, spooled, monkeypatch, number, renames, size
):
    refuse_links(monkeypatch, number)
    if not renames:
        monkeypatch.setattr(local_files, "rename_exclusively", refuse_renames)
    one, two = spooled(os.urandom(size) + b"1"), spooled(os.urandom(size) + b"2")
    results = [commit(local_lake, spool) for spool in (one, two, one)]
    assert [(result.name, result.adopted) for result in results] == [
        ("a.csv", False),
        ("a.v2.csv", False),
        ("a.csv", True),
    ]
    assert local_lake.measure(f"{DAY}/a.csv") == (one.size, one.sha256)
    assert local_lake.measure(f"{DAY}/a.v2.csv") == (two.size, two.sha256)
    assert sorted(os.listdir(f"{local_lake.root}/{DAY}")) == ["a.csv", "a.v2.csv"]
    assert local_lake.proven(f"{DAY}/a.csv", local_lake.stat(f"{DAY}/a.csv")).mtime == MTIME


def test_the_turn_of_a_killed_writer_ends(local_lake, spooled, monkeypatch):
    refuse_links(monkeypatch, errno.EPERM)
    monkeypatch.setattr(local_files, "rename_exclusively", refuse_renames)
    monkeypatch.setattr(local_files, "_TURN_SECONDS", 0.01)
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", failing_with(OSError(errno.EIO, "killed")))
        patch.setattr(os, "unlink", lambda path: None)
        with pytest.raises(LakeError):
            commit(local_lake, spooled(b"one"))
    assert commit(local_lake, spooled(b"two")).name == "a.csv"


@pytest.mark.parametrize("renames", [True, False], ids=["renameat2", "O_EXCL"])
def test_of_many_at_once_without_hard_links_none_overwrites(local_lake, spooled, monkeypatch, renames):
    refuse_links(monkeypatch, errno.EPERM)
    if not renames:
        monkeypatch.setattr(local_files, "rename_exclusively", refuse_renames)
    spools = [spooled(b"content %d" % number) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda spool: commit(local_lake, spool), spools))
    for spool, result in zip(spools, results, strict=True):
        assert local_lake.read(f"{DAY}/{result.name}") == spool.content
    assert len(landed(local_lake)) == 8


def test_a_name_that_cannot_be_given_leaves_no_empty_file(local_lake, spooled, monkeypatch):
    def fail(source, target):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    refuse_links(monkeypatch, errno.EPERM)
    monkeypatch.setattr(local_files, "rename_exclusively", refuse_renames)
    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(LakeError):
        commit(local_lake, spooled(b"one"))
    assert not landed(local_lake)


def test_a_directory_or_another_case_that_has_the_name_gives_the_next_one(local_lake, spooled):
    os.makedirs(f"{local_lake.root}/{DAY}/a.csv")
    assert commit(local_lake, spooled(b"one")).name == "a.v2.csv"


def test_a_disk_that_ignores_case_keeps_two_reports(spooled):
    class IgnoresCase(MemoryFileSystem):
        store, pseudo_dirs = {}, [""]

        @classmethod
        def _strip_protocol(cls, path):
            return super()._strip_protocol(path).lower()

    lake = Lake(IgnoresCase(), "/case")
    assert commit(lake, spooled(b"one"), "TP001.csv").name == "TP001.csv"
    assert commit(lake, spooled(b"two"), "tp001.csv", lake.names(DAY)).name == "tp001.v2.csv"


def test_the_longest_name_can_be_republished(local_lake, spooled):
    name = "x" * 251 + ".csv"
    results = [commit(local_lake, spooled(content), name) for content in (b"one", b"two", b"two")]
    assert [result.adopted for result in results] == [False, False, True]
    assert results[0].name == name
    assert results[1].name.endswith(".v2.csv")


def test_a_refused_file_names_the_lake_the_cause_and_the_next_step(local_lake, spooled):
    os.makedirs(os.path.dirname(local_lake.root), exist_ok=True)
    open(local_lake.root, "wb").close()
    errors = []
    for name in ("a.csv", "b.csv"):
        with pytest.raises(LakeError) as caught:
            commit(local_lake, spooled(b"one"), name)
        errors.append(caught.value)
    assert not errors[0].retryable
    assert local_lake.uri in str(errors[0])
    assert "part of its path is a file" in str(errors[0])
    assert str(errors[0]) != str(errors[1])
    assert same_cause(errors[0]) == same_cause(errors[1])
    assert same_cause(errors[0]) != same_cause(OSError(errno.ENOSPC, "No space left on device"))
