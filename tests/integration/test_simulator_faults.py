"""Each fault does what its documentation says, and the simulated RAP works again afterwards."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import asyncssh
import pendulum
import pytest

from airflow_provider_hkex_rap.rap.folders import Folder
from airflow_provider_hkex_rap.testing import Fault, RapSimulator

ACCOUNT = "DCXYZ001"
NOW = pendulum.datetime(2026, 11, 20, 23, 40, tz="Asia/Hong_Kong")
FOLDER = Folder.DCASS.path
PATH = f"{FOLDER}/TP001"
CONTENT = bytes(range(256)) * 400
SIZE = len(CONTENT)
GONE = (asyncssh.ConnectionLost, asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection)


@pytest.fixture
def rap() -> Iterator[RapSimulator]:
    with RapSimulator((ACCOUNT,), NOW) as rap:
        rap.put(Folder.DCASS, "TP001", CONTENT, NOW.subtract(hours=1))
        yield rap


def ask(rap: RapSimulator, question: Callable[[asyncssh.SFTPClient], Awaitable[Any]]) -> Any:
    async def answer() -> Any:
        key = asyncssh.import_private_key(rap.private_key(ACCOUNT))
        options: dict[str, Any] = {
            "client_keys": [key],
            "agent_path": None,
            "known_hosts": None,
            "config": [],
        }
        async with (
            asyncssh.connect(rap.host, rap.port, username=ACCOUNT, **options) as connection,
            connection.start_sftp_client() as client,
        ):
            return await question(client)

    return asyncio.run(answer())


async def read(client: asyncssh.SFTPClient) -> bytes:
    """Read to the end, in order, a block at a time."""
    content = b""
    async with client.open(PATH, "rb", block_size=0) as file:
        while block := bytes(await file.read(30_000, len(content))):
            content += block
    return content


async def names(client: asyncssh.SFTPClient) -> list[str]:
    return [str(name) for name in await client.listdir(FOLDER)]


@pytest.mark.parametrize("at_byte", [0, 1, SIZE // 2, SIZE - 1, SIZE])
def test_a_dropped_connection(rap: RapSimulator, at_byte: int) -> None:
    received = b""

    async def read_until_lost(client: asyncssh.SFTPClient) -> None:
        nonlocal received
        async with client.open(PATH, "rb", block_size=0) as file:
            while block := bytes(await file.read(30_000, len(received))):
                received += block

    rap.faults.add(Fault("drop", path=PATH, at_byte=at_byte))
    with pytest.raises(GONE):
        ask(rap, read_until_lost)
    assert received == CONTENT[:at_byte]
    rap.events.wait_for("lost")
    assert [event.path for event in rap.events.of("fault", detail="drop")] == [PATH]
    assert ask(rap, read) == CONTENT


@pytest.mark.parametrize("size", [0, SIZE])
def test_a_connection_dropped_at_the_end_of_a_file_that_is_not_read_past_it(
    rap: RapSimulator, size: int
) -> None:
    async def read_size(client: asyncssh.SFTPClient) -> None:
        async with client.open(PATH, "rb", block_size=0) as file:
            assert not size or len(await file.read(size, 0)) == size

    rap.put(Folder.DCASS, "TP001", CONTENT[:size])
    rap.faults.add(Fault("drop", path=PATH, at_byte=size))
    with pytest.raises(GONE):
        ask(rap, read_size)


@pytest.mark.parametrize("at_byte", [0, 1, SIZE - 1])
def test_a_truncated_file(rap: RapSimulator, at_byte: int) -> None:
    rap.faults.add(Fault("truncate", at_byte=at_byte))
    assert ask(rap, read) == CONTENT[:at_byte]
    assert rap.events.of("fault", detail="truncate")
    assert ask(rap, read) == CONTENT


def test_a_stalled_read_resumes_when_released(rap: RapSimulator) -> None:
    fault = rap.faults.add(Fault("stall", at_byte=50_000))
    release = threading.Thread(target=lambda: rap.events.wait_for("fault") and rap.faults.release(fault))
    release.start()
    assert ask(rap, read) == CONTENT
    release.join()
    assert [event.path for event in rap.events.of("fault", detail="stall")] == [PATH]


def test_a_stalled_session_can_be_ended(rap: RapSimulator) -> None:
    rap.faults.add(Fault("stall"))

    async def give_up(client: asyncssh.SFTPClient) -> None:
        reading = asyncio.create_task(read(client))
        await asyncio.to_thread(rap.events.wait_for, "fault")
        client.exit()
        await client.wait_closed()
        with pytest.raises(asyncssh.SFTPError):
            await reading

    ask(rap, give_up)
    rap.events.wait_for("logout")
    rap.faults.clear()
    assert ask(rap, read) == CONTENT


@pytest.mark.parametrize("at_byte", [0, SIZE // 2])
def test_a_growing_file(rap: RapSimulator, at_byte: int) -> None:
    rap.faults.add(Fault("grow", at_byte=at_byte, by=1_000))
    content = ask(rap, read)
    (file,) = rap.files(Folder.DCASS)
    assert len(content) == SIZE + 1_000
    assert content.startswith(CONTENT)
    assert content == file.content
    assert file.mtime > NOW.subtract(hours=1).int_timestamp


def test_a_rewritten_file(rap: RapSimulator) -> None:
    rap.faults.add(Fault("rewrite", at_byte=1_000))
    content = ask(rap, read)
    (file,) = rap.files(Folder.DCASS)
    assert len(content) == SIZE == file.size
    assert content[:1_000] == CONTENT[:1_000]
    assert content[1_000:] == file.content[1_000:] != CONTENT[1_000:]
    assert file.mtime > NOW.subtract(hours=1).int_timestamp
    assert ask(rap, read) == file.content


@pytest.mark.parametrize(
    ("kind", "error", "question"),
    [
        ("deny", asyncssh.SFTPPermissionDenied, read),
        ("vanish", asyncssh.SFTPNoSuchFile, read),
        ("deny_listing", asyncssh.SFTPPermissionDenied, names),
        ("listing_error", asyncssh.SFTPFailure, names),
        ("listing_cut", GONE, names),
        ("refuse_login", asyncssh.PermissionDenied, names),
    ],
)
def test_a_refusal_is_logged_as_a_fault_and_not_as_denied(
    rap: RapSimulator, kind: str, error: Any, question: Callable[[asyncssh.SFTPClient], Awaitable[Any]]
) -> None:
    rap.faults.add(Fault(kind))
    with pytest.raises(error):
        ask(rap, question)
    assert [event.detail for event in rap.events.of("fault")] == [kind]
    assert not rap.events.of("denied", "missing")
    assert "TP001" in ask(rap, names)
    assert ask(rap, read) == CONTENT


@pytest.mark.parametrize("kind", ["listing_cut", "listing_error"])
@pytest.mark.parametrize("arrive", [0, 1, 127, 128, 300])
def test_a_listing_ends_after_some_entries(rap: RapSimulator, kind: str, arrive: int) -> None:
    for number in range(297):
        rap.put(Folder.DCASS, f"{number}")
    seen = []

    async def scan(client: asyncssh.SFTPClient) -> None:
        async for entry in client.scandir(FOLDER):
            seen.append(entry.filename)

    rap.faults.add(Fault(kind, entries=arrive))
    with pytest.raises((asyncssh.SFTPError, asyncssh.Error)):
        ask(rap, scan)
    assert len(seen) == arrive


def test_a_stalled_listing_resumes_when_released(rap: RapSimulator) -> None:
    fault = rap.faults.add(Fault("listing_stall", entries=1))
    release = threading.Thread(target=lambda: rap.events.wait_for("fault") and rap.faults.release(fault))
    release.start()
    assert set(ask(rap, names)) == {".", "..", "TP001"}
    release.join()


@pytest.mark.parametrize("stage", ["banner", "kex", "auth"])
def test_a_stalled_login_resumes_when_released(rap: RapSimulator, stage: str) -> None:
    fault = rap.faults.add(Fault("stall_at", stage=stage))
    release = threading.Thread(target=lambda: rap.events.wait_for("fault") and rap.faults.release(fault))
    release.start()
    assert ask(rap, read) == CONTENT
    release.join()
    assert [event.detail for event in rap.events.of("fault")] == [f"stall_at {stage}"]


@pytest.mark.parametrize("stage", ["banner", "kex", "auth"])
def test_the_simulator_stops_while_a_login_is_stalled(stage: str) -> None:
    with RapSimulator((ACCOUNT,), NOW) as rap:
        rap.faults.add(Fault("stall_at", stage=stage))
        with ThreadPoolExecutor() as client:
            asked = client.submit(ask, rap, names)
            rap.events.wait_for("fault")
            rap.stop()
    assert isinstance(asked.exception(), (OSError, asyncssh.Error))


def test_a_rule_applies_to_its_path_and_as_often_as_times(rap: RapSimulator) -> None:
    rap.put(Folder.DCASS, "OI002", b"1")
    rap.faults.add(Fault("deny", path="*/TP*", account=ACCOUNT, times=2))
    rap.faults.add(Fault("deny", account="DCABC001"))
    assert ask(rap, lambda client: client.stat(PATH)).size == SIZE
    for _ in range(2):
        with pytest.raises(asyncssh.SFTPPermissionDenied):
            ask(rap, read)
    assert ask(rap, read) == CONTENT
