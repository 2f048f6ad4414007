"""The spool: bytes, hashes and a full disk."""

import hashlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_hkex_rap.lake import spool
from airflow_provider_hkex_rap.lake.spool import Spool, spool_directory

from .limits import file_size_limit


@pytest.fixture
def small_memory(monkeypatch):
    monkeypatch.setattr(spool, "MEMORY_BYTES", 100)


@given(chunks=st.lists(st.binary(max_size=60), max_size=8), listed=st.booleans())
def test_bytes_come_back_hashed_from_memory_or_disk(tmp_path_factory, chunks, listed):
    path = str(tmp_path_factory.mktemp("spool") / "1")
    data = b"".join(chunks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool, "MEMORY_BYTES", 100)
        spooled = Spool(path, len(data) if listed else None, md5=True)
        for chunk in chunks:
            spooled.write(chunk)
        spooled.finish()
    content = spooled.content
    assert isinstance(content, str) == (len(data) > 100)
    if isinstance(content, str):
        with open(content, "rb") as file:
            content = file.read()
    assert content == data
    assert spooled.size == len(data)
    assert spooled.sha256 == hashlib.sha256(data).hexdigest()
    assert spooled.md5 == hashlib.md5(data).hexdigest()
    spooled.discard()
    assert not os.path.exists(path)


@pytest.mark.usefixtures("small_memory")
def test_bytes_beyond_the_listed_size_are_kept_on_disk(tmp_path):
    spooled = Spool(str(tmp_path / "1"), 150)
    for _ in range(100):
        spooled.write(bytes(50))
    spooled.finish()
    assert spooled.size == 5000
    assert os.path.getsize(tmp_path / "1") == 5000


def write_and_finish(spooled, pieces):
    for piece in pieces:
        spooled.write(piece)
    spooled.finish()


@pytest.mark.usefixtures("small_memory")
def test_a_disk_that_is_full_at_the_last_byte_fails_the_file(tmp_path):
    spooled = Spool(str(tmp_path / "1"), None)
    with file_size_limit(4096), pytest.raises(OSError, match="too large"):
        write_and_finish(spooled, [bytes(4097)])
    assert spooled.error
    spooled.discard()


@pytest.mark.usefixtures("small_memory")
def test_pieces_reach_the_disk_and_the_checksum_in_order(tmp_path):
    pieces = [os.urandom(1000) for _ in range(200)]
    spooled = Spool(str(tmp_path / "1"), None, md5=True)
    write_and_finish(spooled, pieces)
    content = b"".join(pieces)
    assert (tmp_path / "1").read_bytes() == content
    assert spooled.sha256 == hashlib.sha256(content).hexdigest()
    assert spooled.md5 == hashlib.md5(content).hexdigest()


@pytest.mark.usefixtures("small_memory")
def test_a_full_disk_is_distinguished_from_a_fault_of_rap(tmp_path):
    spooled = Spool(str(tmp_path / "1"), None)
    with file_size_limit(4096), pytest.raises(OSError, match="too large"):
        # More pieces than may wait for the disk: a failed disk must not hold up the reading.
        write_and_finish(spooled, [bytes(10_000)] * 100)
    assert spooled.error
    spooled.discard()
    assert not os.listdir(tmp_path)


@pytest.mark.timeout(10)
@pytest.mark.usefixtures("small_memory")
def test_an_unexpected_error_in_the_thread_reaches_the_writer(tmp_path):
    spooled = Spool(str(tmp_path / "1"), 150)
    with pytest.raises(TypeError):
        write_and_finish(spooled, ["no bytes"] * 50)


def test_the_directory_is_private_and_goes(tmp_path):
    with spool_directory(str(tmp_path)) as directory:
        assert os.stat(directory).st_mode & 0o777 == 0o700
        open(f"{directory}/1", "wb").close()
    assert not os.listdir(tmp_path)
