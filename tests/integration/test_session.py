"""One login: against the simulator, and against a real OpenSSH sshd with the guide's algorithms."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import asyncssh
import pendulum
import pytest

from airflow_provider_hkex_rap.rap.errors import (
    RapAlgorithmError,
    RapAuthenticationError,
    RapHostKeyError,
    RapPermissionDenied,
    RapSessionSuperseded,
    RapTransferError,
    RapUnavailable,
)
from airflow_provider_hkex_rap.rap.files import Kind, RemoteFile
from airflow_provider_hkex_rap.rap.folders import Folder, Service
from airflow_provider_hkex_rap.testing import Access, Fault, RapSimulator, ServerBehaviour
from airflow_provider_hkex_rap.transport.login import Login, read_login
from airflow_provider_hkex_rap.transport.session import open_session

from .openssh import missing, openssh

NOW = pendulum.datetime(2026, 11, 20, 23, 40, tz="Asia/Hong_Kong")
MTIME = NOW.subtract(hours=2).int_timestamp


def login_to(connection: dict[str, Any], **extra: object) -> Login:
    return read_login(
        login=connection["login"],
        host=connection["host"],
        port=connection["port"],
        extra={**connection["extra"], **extra},
        mask=lambda secret: None,
    )


def connection_to(port: int, host_key: asyncssh.SSHKey, client_key: asyncssh.SSHKey) -> dict[str, Any]:
    """Return a connection to a server of asyncssh."""
    return {
        "conn_type": "hkex_rap",
        "login": "DCXYZ001",
        "host": "127.0.0.1",
        "port": port,
        "extra": {
            "host_key": host_key.export_public_key().decode(),
            "private_key": client_key.export_private_key().decode(),
        },
    }


async def fetch(login: Login, folder: Folder = Folder.DCASS) -> dict[bytes, bytes]:
    """Read every file of a folder, all at once."""
    contents: dict[bytes, bytearray] = {}

    async with open_session(login) as session:

        async def read(file: RemoteFile) -> None:
            contents[file.name] = bytearray()
            after = await session.read(file, contents[file.name].extend)
            assert after.size == len(contents[file.name])

        await asyncio.gather(*(read(file) for file in await session.list_folder(folder)))
    return {name: bytes(content) for name, content in contents.items()}


@pytest.fixture
def rap() -> Iterator[RapSimulator]:
    with RapSimulator(now=NOW) as rap:
        yield rap


FILES = {b"empty_20261120.csv": b"", b"one_20261120.csv": b"1", b"R\xe9sum\xe9.txt": b"latin-1" * 9}
FILES[b"large_20261120.zip"] = hashlib.sha256(b"seed").digest() * 200_000


@pytest.mark.parametrize(
    "variant",
    [
        {},
        {"read_limit": 32 * 1024},
        {"announce_limits": True, "read_limit": 100_000},
        {"list_dots": False},
        {"attributes": "none"},
        {"attributes": "no_size"},
        {"client_signatures": ("ssh-rsa",)},
        {"client_signatures": ("ssh-rsa",), "server_sig_algs": False},
        {"client_signatures": ("rsa-sha2-512",)},
        {"client_signatures": ("rsa-sha2-512",), "server_sig_algs": False},
        {"client_signatures": ("rsa-sha2-256",), "extension_markers": False},
    ],
    ids=str,
)
def test_reads_what_was_listed_from_any_server_of_the_guide(variant: dict[str, Any]) -> None:
    with RapSimulator(now=NOW, server=ServerBehaviour(**variant)) as rap:
        for name, content in FILES.items():
            rap.put(Folder.DCASS, name, content, MTIME)
        assert asyncio.run(fetch(login_to(rap.connection("DCXYZ001")))) == FILES
        assert len(rap.events.of("login")) == 1
        assert [event.path for event in rap.events.of("list")] == ["/download/DCASS"]
        assert len(rap.events.of("open")) == len(FILES)
        assert not rap.events.of("denied")
        rap.events.wait_for("logout")


def test_the_login_of_a_task_that_is_killed_while_it_takes_its_leave_does_not_meet_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def leave(rap: RapSimulator) -> None:
        leaving = asyncio.Event()

        async def no_end(self: asyncssh.SFTPClient) -> None:
            leaving.set()
            await asyncio.Event().wait()

        login = login_to(rap.connection("DCXYZ001"))

        async def task() -> None:
            async with open_session(login):
                patch.setattr(asyncssh.SFTPClient, "wait_closed", no_end)

        with monkeypatch.context() as patch:
            running = asyncio.create_task(task())
            await leaving.wait()
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
        async with open_session(login):
            pass

    with RapSimulator(now=NOW) as rap:
        asyncio.run(leave(rap))
        assert len(rap.events.of("login")) == 2
        assert rap.events.peak_sessions("DCXYZ001") == 1


@pytest.mark.parametrize("accepted", [("ssh-rsa",), ("rsa-sha2-512",), ("rsa-sha2-256",)], ids=str)
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_reads_what_was_listed_from_openssh(accepted: tuple[str, ...]) -> None:
    with openssh(accepted=accepted) as server:
        for name, content in FILES.items():
            server.put(Folder.DCASS, name, content, MTIME)
        assert asyncio.run(fetch(login_to(server.connection()))) == FILES
        assert server.log.read_text().count(f"Accepted publickey for {server.account} ") == 1


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_the_errors_of_a_login_are_those_of_openssh_too() -> None:
    other_key = asyncssh.generate_private_key("ssh-rsa", key_size=2048)
    with openssh() as server:
        host_key = other_key.export_public_key().decode()
        with pytest.raises(RapHostKeyError):
            asyncio.run(fetch(login_to(server.connection(), host_key=host_key)))
        assert server.account not in server.log.read_text()
        private_key = other_key.export_private_key().decode()
        with pytest.raises(RapAuthenticationError, match=r"127\.0\.0\.1 is not registered"):
            asyncio.run(fetch(login_to(server.connection(), private_key=private_key)))
        (server.root / "download/DCASS_OTHERS").rmdir()
        with pytest.raises(RapPermissionDenied, match="DCASS_OTHERS"):
            asyncio.run(fetch(login_to(server.connection()), Folder.DCASS_OTHERS))


def test_a_listing_says_what_each_entry_is(rap: RapSimulator) -> None:
    rap.put(Folder.DCASS, "report", b"12", MTIME)
    rap.put(Folder.DCASS, "link", b"", MTIME, kind=Kind.SYMLINK)
    rap.put(Folder.DCASS, "archive", b"", MTIME, kind=Kind.DIRECTORY)

    async def listing() -> set[RemoteFile]:
        async with open_session(login_to(rap.connection("DCXYZ001"))) as session:
            return set(await session.list_folder(Folder.DCASS))

    found = {file.name: file.kind for file in asyncio.run(listing())}
    assert found == {b"report": Kind.FILE, b"link": Kind.SYMLINK, b"archive": Kind.DIRECTORY}


def test_another_host_key_is_refused_before_authentication(rap: RapSimulator) -> None:
    with RapSimulator(now=NOW, name="another") as other, pytest.raises(RapHostKeyError) as caught:
        asyncio.run(fetch(login_to(rap.connection("DCXYZ001"), host_key=other.host_key)))
    assert caught.value.received != caught.value.expected[0]
    assert caught.value.received in str(caught.value)
    assert caught.value.expected[0] in str(caught.value)
    assert not rap.events.of("login", "refused")


def test_one_of_several_pinned_host_keys_is_enough(rap: RapSimulator) -> None:
    with RapSimulator(now=NOW, name="another") as other:
        keys = f"{other.host_key}\n{rap.host_key}"
        assert asyncio.run(fetch(login_to(rap.connection("DCXYZ001"), host_key=keys))) == {}


def test_a_refused_key_is_offered_in_one_connection_only(rap: RapSimulator) -> None:
    fault = rap.faults.add(Fault("refuse_login", times=None))
    hosts = f"127.0.0.1:{rap.port},localhost:{rap.port}"
    connection = {**rap.connection("DCXYZ001"), "host": hosts}
    with pytest.raises(RapAuthenticationError) as caught:
        asyncio.run(fetch(login_to(connection)))
    assert len(rap.events.of("connect")) == 1
    assert caught.value.source_address == "127.0.0.1"
    assert caught.value.fingerprints[0] in str(caught.value)
    rap.faults.release(fault)
    assert asyncio.run(fetch(login_to(connection))) == {}


def test_the_next_address_is_tried_where_one_fails_before_authentication(
    rap: RapSimulator, unused_port: int
) -> None:
    connection = {**rap.connection("DCXYZ001"), "host": f"127.0.0.1:{unused_port},127.0.0.1:{rap.port}"}
    assert asyncio.run(fetch(login_to(connection))) == {}
    rap.faults.add(Fault("stall_at", stage="kex"))
    connection["host"] = f"127.0.0.1:{rap.port},127.0.0.1:{rap.port}"
    assert asyncio.run(fetch(login_to(connection, connect_timeout=0.5))) == {}


@pytest.mark.parametrize("stage", ["banner", "kex", "auth"])
def test_no_stage_of_a_login_can_hang(rap: RapSimulator, stage: str) -> None:
    rap.faults.add(Fault("stall_at", stage=stage, times=None))
    with pytest.raises(RapUnavailable, match=r"no answer within 0\.3 s") as caught:
        asyncio.run(fetch(login_to(rap.connection("DCXYZ001"), connect_timeout=0.3)))
    assert len(caught.value.attempts) == 1


def test_nothing_crosses_to_the_other_site(rap: RapSimulator, unused_port: int) -> None:
    connection = {**rap.connection("DCXYZ001"), "host": f"127.0.0.1:{unused_port}"}
    with pytest.raises(RapUnavailable, match="primary site"):
        asyncio.run(fetch(login_to(connection, secondary_hosts=f"127.0.0.1:{rap.port}")))
    assert not rap.events
    assert (
        asyncio.run(fetch(login_to(connection, secondary_hosts=f"127.0.0.1:{rap.port}", site="secondary")))
        == {}
    )


async def fetch_from(**options: Any) -> None:
    """Fetch from a server of asyncssh with these options."""
    key = asyncssh.generate_private_key("ssh-rsa", key_size=2048)
    async with asyncssh.listen("127.0.0.1", 0, server_host_keys=[key], **options) as server:
        await fetch(login_to(connection_to(server.get_port(), key, key)))


def test_no_common_algorithm_is_an_error_of_its_own() -> None:
    with pytest.raises(RapAlgorithmError, match="chacha20"):
        asyncio.run(fetch_from(encryption_algs=["chacha20-poly1305@openssh.com"]))


class Abrupt(asyncssh.SSHServer):
    """Hangs up on whoever offers a key, instead of refusing it."""

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._conn = conn

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        self._conn.abort()
        return False


def test_a_server_that_hangs_up_on_a_key_may_not_know_it() -> None:
    with pytest.raises(RapUnavailable, match=r"with key (..:){15}.. from 127\.0\.0\.1 broke off") as caught:
        asyncio.run(fetch_from(server_factory=Abrupt))
    assert len(caught.value.attempts) == 1


@pytest.mark.parametrize("supersede", ["disconnect", "cut"])
def test_the_newest_login_wins(supersede: Any) -> None:
    async def two_logins(login: Login) -> None:
        async with open_session(login) as first, open_session(login) as second:
            assert await second.list_folder(Folder.DCASS) == []
            await first.list_folder(Folder.DCASS)

    with RapSimulator(now=NOW, server=ServerBehaviour(supersede=supersede)) as rap:
        with pytest.raises(RapSessionSuperseded) as caught:
            asyncio.run(two_logins(login_to(rap.connection("DCXYZ001"))))
        assert caught.value.announced == (supersede == "disconnect")
        assert caught.value.account == "DCXYZ001"


@pytest.mark.parametrize("unsubscribed", ["missing", "denied"])
def test_a_folder_without_subscription_is_an_error_of_its_own(unsubscribed: Any) -> None:
    subscriptions = {"DCXYZ001": (Service.DCASS,)}
    with RapSimulator(
        now=NOW, access=Access(subscriptions=subscriptions), server=ServerBehaviour(unsubscribed=unsubscribed)
    ) as rap:
        with pytest.raises(RapPermissionDenied) as caught:
            asyncio.run(fetch(login_to(rap.connection("DCXYZ001")), Folder.HKCC_SEOCH_CCMS_GLOB))
        assert caught.value.path == "/download/HKCC_SEOCH_CCMS_GLOB"


def test_a_stalled_read_ends_the_session(rap: RapSimulator) -> None:
    rap.put(Folder.DCASS, "stalls", 500_000, MTIME)
    rap.faults.add(Fault("stall", path="*/stalls", at_byte=100_000))
    with pytest.raises(RapUnavailable, match=r"no answer for 0\.5 s"):
        asyncio.run(fetch(login_to(rap.connection("DCXYZ001"), idle_timeout=0.5)))


def test_a_cut_listing_is_never_whole(rap: RapSimulator) -> None:
    for number in range(500):
        rap.put(Folder.DCASS, f"report{number}", b"", MTIME)
    rap.faults.add(Fault("listing_cut", entries=250))
    with pytest.raises(RapSessionSuperseded):
        asyncio.run(fetch(login_to(rap.connection("DCXYZ001"))))


def test_one_denied_file_leaves_the_session_alone(rap: RapSimulator) -> None:
    rap.put(Folder.DCASS, "denied", b"x", MTIME)
    rap.put(Folder.DCASS, "fine", b"y", MTIME)
    rap.faults.add(Fault("deny", path="*/denied"))

    async def read_both() -> bytes:
        async with open_session(login_to(rap.connection("DCXYZ001"))) as session:
            files = {file.name: file for file in await session.list_folder(Folder.DCASS)}
            with pytest.raises(RapTransferError) as caught:
                await session.read(files[b"denied"], lambda block: None)
            assert caught.value.path == "/download/DCASS/denied"
            content = bytearray()
            await session.read(files[b"fine"], content.extend)
            return bytes(content)

    assert asyncio.run(read_both()) == b"y"


def test_what_the_reader_writes_to_may_fail_without_blaming_rap(rap: RapSimulator) -> None:
    rap.put(Folder.DCASS, "report", 500_000, MTIME)

    def full(block: bytes) -> None:
        raise OSError(28, "No space left on device")

    async def read() -> None:
        async with open_session(login_to(rap.connection("DCXYZ001"))) as session:
            (file,) = await session.list_folder(Folder.DCASS)
            with pytest.raises(OSError, match="No space left"):
                await session.read(file, full)
            assert await session.list_folder(Folder.DCASS)

    asyncio.run(read())
