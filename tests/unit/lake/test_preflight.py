"""An unusable lake is found before the login."""

import errno
import os
import pickle

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_hkex_rap.lake.preflight import check_lake, is_missing
from airflow_provider_hkex_rap.lake.refusals import refusal
from airflow_provider_hkex_rap.lake.store import Lake
from airflow_provider_hkex_rap.rap.errors import LakeConflict, LakeError


def test_a_usable_lake_is_left_as_it_was(lake):
    for _ in range(2):
        assert check_lake(lake) == ""
        assert lake.fs.find(lake.root) == []


def test_a_local_lake_that_does_not_exist_is_proven_above_it_and_not_made(local_lake):
    above = os.path.dirname(os.path.dirname(local_lake.root))
    os.makedirs(above, exist_ok=True)
    before = sorted(os.listdir(above))
    lake = Lake(local_lake.fs, f"{above}/new/deeper/lake")
    assert is_missing(lake)
    assert check_lake(lake) == ""
    assert sorted(os.listdir(above)) == before


def test_a_local_lake_that_does_not_exist_is_a_warning(local_lake, caplog):
    check_lake(local_lake)
    assert f"{local_lake.uri} does not exist" in caplog.text
    caplog.clear()
    os.makedirs(local_lake.root)
    check_lake(local_lake)
    assert caplog.text == ""


def test_the_place_of_a_probe_that_fails_is_removed(local_lake, monkeypatch):
    above = os.path.dirname(local_lake.root)
    os.makedirs(above, exist_ok=True)
    before = os.listdir(above)

    def refuse(descriptor):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(LakeError) as caught:
        check_lake(Lake(local_lake.fs, f"{above}/new"))
    assert os.listdir(above) == before
    assert f"{above}/new" in str(caught.value)


def test_a_file_is_no_lake(local_lake):
    os.makedirs(os.path.dirname(local_lake.root), exist_ok=True)
    open(local_lake.root, "wb").close()
    for lake in (local_lake, Lake(local_lake.fs, f"{local_lake.root}/below")):
        with pytest.raises(LakeError, match="A part of its path is a file") as caught:
            check_lake(lake)
        assert not caught.value.retryable
        assert caught.value.uri == lake.uri


@pytest.mark.parametrize(
    ("number", "words", "retryable"),
    [
        (errno.EROFS, "read-only", False),
        (errno.EACCES, "Grant it the rights", False),
        (errno.ENOSPC, "Free space", True),
        (errno.EIO, "A later try may succeed", True),
    ],
)
def test_the_error_of_a_disk_names_lake_cause_and_next_step(
    local_lake, monkeypatch, number, words, retryable
):
    def refuse(path, *arguments, **options):
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(os, "makedirs", refuse)
    with pytest.raises(LakeError, match=words) as caught:
        check_lake(local_lake)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert copy.retryable is retryable
    assert local_lake.uri in str(copy)
    assert errno.errorcode[number] in copy.cause


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.EXDEV, errno.EMLINK])
def test_a_disk_without_hard_links_is_a_lake(local_lake, monkeypatch, number):
    def refuse(source, target, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    assert check_lake(local_lake) == ""


class Overwriting(MemoryFileSystem):
    store, pseudo_dirs = {}, [""]

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        super().pipe_file(path, value, **kwargs)


def test_a_storage_that_overwrites_is_refused():
    with pytest.raises(LakeError, match="lets files be overwritten") as caught:
        check_lake(Lake(Overwriting(), "/overwriting"))
    assert not caught.value.retryable
    assert not Overwriting.store


class Forgetful(MemoryFileSystem):
    store, pseudo_dirs = {}, [""]

    def ls(self, path, detail=True, **kwargs):
        return []


def test_a_storage_that_does_not_list_its_files_is_refused():
    with pytest.raises(LakeError, match="does not list a file"):
        check_lake(Lake(Forgetful(), "/forgetful"))


class Keeping(MemoryFileSystem):
    store, pseudo_dirs = {}, [""]

    def rm_file(self, path):
        raise PermissionError(path)


def test_a_storage_without_the_right_to_delete_keeps_one_probe():
    lake = Lake(Keeping(), "/keeping")
    assert check_lake(lake).endswith("/.rap-probe.part/probe")
    assert check_lake(lake) == ""
    assert list(Keeping.store) == ["/keeping/.rap-probe.part/probe"]
    assert lake.walk("") == []


class Vanishing(MemoryFileSystem):
    """Another run removes its probe while this one looks at it."""

    store, pseudo_dirs = {}, [""]

    def ls(self, path, detail=True, **kwargs):
        self.store.pop("/vanishing/.rap-probe.part/probe", None)
        return super().ls(path, detail, **kwargs)


@pytest.mark.parametrize("before", [True, False])
def test_a_probe_that_another_run_removes_is_no_fault(before):
    lake = Lake(Vanishing(), "/vanishing")
    if before:
        lake.create(".rap-probe.part/probe", b"of another run")
    assert check_lake(lake) == ""


def test_a_conflict_is_a_lake_error_that_a_retry_may_solve():
    assert issubclass(LakeConflict, LakeError)
    assert (LakeError.retryable, LakeConflict.retryable) == (False, True)


@pytest.mark.parametrize("code", ["ExpiredToken", "RequestTimeTooSkewed"])
def test_credentials_that_have_expired_are_worth_a_retry(code):
    error = PermissionError(13, "The token has expired.")
    error.__cause__ = type("ClientError", (Exception,), {"response": {"Error": {"Code": code}}})()
    assert refusal("It was not written", "s3://bucket/rap", error).retryable
