"""The files that the key commands make: it is proven before a key is made that they can be."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_provider_hkex_rap.cli.keygen import new_file, write_new
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError

from .lake.limits import file_size_limit


def write(path: Path) -> object:
    return write_new(path, b"x" * 5000)


BOTH = pytest.mark.parametrize("make", [new_file, write])


@BOTH
@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/nowhere/kit.zip", "There is no directory /nowhere"),
        ("/dev/null/kit.zip", "There is no directory /dev/null"),
        # Root has every right there, and can make nothing.
        ("/proc/kit.zip", "No such file or directory"),
        ("/sys/kit.zip", "Permission denied|Read-only file system"),
        (f"/tmp/{'x' * 300}.zip", "File name too long"),
        ("/", "It is a directory"),
        ("/proc/self/cmdline", "The file exists"),
    ],
    ids=["no directory", "a file as parent", "proc", "sys", "long name", "directory", "file"],
)
def test_a_file_that_cannot_be_made_is_refused(
    make: Callable[[Path], object], path: str, reason: str
) -> None:
    with pytest.raises(RapConfigurationError, match=f"cannot be made.*({reason}).*--output") as caught:
        make(Path(path))
    assert vars(caught.value)["path"] == path


@BOTH
def test_a_file_for_which_there_is_no_room_is_refused_and_none_is_left(
    make: Callable[[Path], object], tmp_path: Path
) -> None:
    with file_size_limit(4000), pytest.raises(RapConfigurationError, match="File too large"):
        make(tmp_path / "kit.zip")
    assert list(tmp_path.iterdir()) == []


@BOTH
def test_a_disk_that_fails_to_sync_is_refused_and_no_file_is_left(
    make: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(RapConfigurationError, match="quota"):
        make(tmp_path / "kit.zip")
    assert list(tmp_path.iterdir()) == []


@BOTH
def test_nothing_is_overwritten(make: Callable[[Path], object], tmp_path: Path) -> None:
    (tmp_path / "kit.zip").symlink_to("nowhere")
    with pytest.raises(RapConfigurationError, match="The file exists"):
        make(tmp_path / "kit.zip")
    assert (tmp_path / "kit.zip").is_symlink()


def test_the_trial_leaves_no_file(tmp_path: Path) -> None:
    assert new_file(tmp_path / "kit.zip") == tmp_path / "kit.zip"
    assert list(tmp_path.iterdir()) == []
