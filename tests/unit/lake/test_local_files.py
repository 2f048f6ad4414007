"""Files of a local lake that are written before they are named."""

import errno
import os

import pytest

from airflow_provider_hkex_rap.lake.local_files import NewFile

CONTENT = os.urandom(100_000)
MTIME = 1_800_000_000


@pytest.fixture
def directory(tmp_path):
    return str(tmp_path / "not" / "made")


def once(monkeypatch, name, failing):
    """Let the next call of a function of *os* be *failing*."""
    real = getattr(os, name)

    def fail(*arguments):
        monkeypatch.setattr(os, name, real)
        return failing(real, *arguments)

    monkeypatch.setattr(os, name, fail)


def write_half(write, descriptor, content):
    write(descriptor, content[: len(content) // 2])
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def lose_bytes(fsync, descriptor):
    os.truncate(descriptor, 1)
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def read(path):
    with open(path, "rb") as file:
        return file.read()


def test_a_file_that_is_written_has_no_name_yet(directory):
    with NewFile(directory, CONTENT, MTIME) as file:
        file.write()
        (part,) = os.listdir(directory)
        assert part.startswith(".")
        assert file.name(f"{directory}/a.csv") == len(CONTENT)
    assert os.listdir(directory) == ["a.csv"]
    assert read(f"{directory}/a.csv") == CONTENT
    assert os.stat(f"{directory}/a.csv").st_mtime == MTIME


def test_a_file_that_gets_no_name_leaves_nothing(directory):
    with NewFile(directory, CONTENT, MTIME) as file:
        file.write()
    assert os.listdir(directory) == []


def test_a_file_whose_name_is_taken_can_have_another(directory):
    os.makedirs(directory)
    with open(f"{directory}/a.csv", "wb") as taken:
        taken.write(b"taken")
    with NewFile(directory, CONTENT, MTIME) as file:
        with pytest.raises(FileExistsError):
            file.name(f"{directory}/a.csv")
        file.name(f"{directory}/a.v2.csv")
    assert (read(f"{directory}/a.csv"), read(f"{directory}/a.v2.csv")) == (b"taken", CONTENT)


@pytest.mark.parametrize("is_written", [True, False])
def test_a_disk_that_was_full_for_a_moment_gets_the_whole_file(directory, monkeypatch, is_written):
    once(monkeypatch, "write", write_half)
    with NewFile(directory, CONTENT, MTIME) as file:
        with pytest.raises(OSError, match="No space"):
            file.write() if is_written else file.name(f"{directory}/a.csv")
        assert os.listdir(directory) == []
        file.name(f"{directory}/a.csv")
    assert read(f"{directory}/a.csv") == CONTENT


def test_bytes_that_fsync_has_lost_are_written_again(directory, monkeypatch):
    once(monkeypatch, "fsync", lose_bytes)
    with NewFile(directory, CONTENT, MTIME) as file:
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            file.name(f"{directory}/a.csv")
        assert os.listdir(directory) == []
        file.name(f"{directory}/a.csv")
    assert read(f"{directory}/a.csv") == CONTENT
