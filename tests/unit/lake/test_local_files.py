"""Files of a local lake that are written before they are named."""

import contextlib
import errno
import hashlib
import os
import shutil

import pytest

from airflow_provider_hkex_rap.lake.local_files import NewFile, sync_directory
from airflow_provider_hkex_rap.rap.errors import LakeConflict

from .limits import failing_with

CONTENT = os.urandom(100_000)
MTIME = 1_800_000_000


@pytest.fixture
def directory(tmp_path):
    return str(tmp_path / "not" / "made")


def once(monkeypatch, name, failing, of=os):
    """Let the next call of a function of a module be *failing*."""
    real = getattr(of, name)

    def fail(*arguments):
        monkeypatch.setattr(of, name, real)
        return failing(real, *arguments)

    monkeypatch.setattr(of, name, fail)


def fail_with(number):
    return failing_with(OSError(number, os.strerror(number)))


def write_half(write, descriptor, content):
    write(descriptor, content[: len(content) // 2])
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def lose_bytes(fsync, descriptor):
    os.truncate(descriptor, 1)
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def other_bytes(copy, source, target):
    with open(target, "wb") as file:
        file.write(b"other")


def read(path):
    with open(path, "rb") as file:
        return file.read()


def test_a_file_that_is_written_has_no_name_yet(directory):
    with NewFile(directory, CONTENT, MTIME) as new:
        new.write_ahead()
        (part,) = os.listdir(directory)
        assert part.startswith(".")
        assert new.publish("a.csv") == len(CONTENT)
    assert os.listdir(directory) == ["a.csv"]
    assert read(f"{directory}/a.csv") == CONTENT
    assert os.stat(f"{directory}/a.csv").st_mtime == MTIME


def test_a_file_that_gets_no_name_leaves_nothing(directory):
    with NewFile(directory, CONTENT, MTIME) as new:
        new.write_ahead()
    assert os.listdir(directory) == []


def test_a_file_whose_name_is_taken_can_have_another(directory):
    os.makedirs(directory)
    with open(f"{directory}/a.csv", "wb") as taken:
        taken.write(b"taken")
    with NewFile(directory, CONTENT, MTIME) as new:
        with pytest.raises(FileExistsError):
            new.publish("a.csv")
        new.publish("a.v2.csv")
    assert (read(f"{directory}/a.csv"), read(f"{directory}/a.v2.csv")) == (b"taken", CONTENT)


@pytest.mark.parametrize("is_written", [True, False])
def test_a_disk_that_was_full_for_a_moment_gets_the_whole_file(directory, monkeypatch, is_written):
    once(monkeypatch, "write", write_half)
    with NewFile(directory, CONTENT, MTIME) as new:
        with pytest.raises(OSError, match="No space"):
            new.write_ahead() if is_written else new.publish("a.csv")
        assert os.listdir(directory) == []
        new.publish("a.csv")
    assert read(f"{directory}/a.csv") == CONTENT


def test_bytes_that_fsync_has_lost_are_written_again(directory, monkeypatch):
    once(monkeypatch, "fsync", lose_bytes)
    with NewFile(directory, CONTENT, MTIME) as new:
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            new.publish("a.csv")
        assert os.listdir(directory) == []
        new.publish("a.csv")
    assert read(f"{directory}/a.csv") == CONTENT


def test_an_unfinished_file_that_cannot_be_removed_does_not_hide_the_error(directory, monkeypatch):
    once(monkeypatch, "write", fail_with(errno.EIO))
    once(monkeypatch, "unlink", fail_with(errno.EIO))
    with NewFile(directory, CONTENT, MTIME) as new:
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            new.write_ahead()
        new.publish("a.csv")
    assert read(f"{directory}/a.csv") == CONTENT


@pytest.fixture
def spool(tmp_path):
    path = tmp_path / "spool"
    path.write_bytes(CONTENT)
    return str(path)


def test_a_spool_file_is_published_without_a_copy(directory, spool):
    with NewFile(directory, spool, MTIME, hashlib.sha256(CONTENT).hexdigest()) as new:
        new.write_ahead()
        assert not os.path.exists(directory)
        assert new.publish("a.csv") == len(CONTENT)
    assert os.path.samefile(spool, f"{directory}/a.csv")


def test_a_spool_on_another_file_system_is_copied_and_compared(directory, spool, monkeypatch):
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    once(monkeypatch, "link", fail_with(errno.EXDEV))
    with NewFile(directory, spool, MTIME, sha256) as new:
        new.publish("a.csv")
    assert read(f"{directory}/a.csv") == CONTENT

    once(monkeypatch, "link", fail_with(errno.EXDEV))
    once(monkeypatch, "copyfile", other_bytes, of=shutil)
    with NewFile(directory, spool, MTIME, sha256) as new, pytest.raises(LakeConflict, match="other bytes"):
        new.publish("b.csv")
    assert os.listdir(directory) == ["a.csv"]


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP])
def test_a_disk_that_lets_nobody_set_a_time_takes_the_file(directory, monkeypatch, number):
    once(monkeypatch, "utime", fail_with(number))
    with NewFile(directory, CONTENT, MTIME) as new:
        new.publish("a.csv")
    assert read(f"{directory}/a.csv") == CONTENT
    assert os.stat(f"{directory}/a.csv").st_mtime != MTIME


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_only_a_disk_that_cannot_store_a_directory_may_refuse_that(tmp_path, monkeypatch, number):
    once(monkeypatch, "fsync", fail_with(number))
    is_refused = number == errno.EIO
    with pytest.raises(OSError, match=os.strerror(number)) if is_refused else contextlib.nullcontext():
        sync_directory(str(tmp_path))
