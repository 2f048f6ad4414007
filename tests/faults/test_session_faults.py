"""Faults of a session: each ends in bounded time, with an error of its own.

The numbers are those of the list in ``tests/faults/__init__.py``.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import asyncssh
import pytest

from airflow_provider_hkex_rap.rap.errors import (
    RapAlgorithmError,
    RapAuthenticationError,
    RapHostKeyError,
    RapSessionSuperseded,
    RapUnavailable,
)
from airflow_provider_hkex_rap.rap.folders import Folder
from airflow_provider_hkex_rap.testing import Fault, RapSimulator, ServerBehaviour
from airflow_provider_hkex_rap.transport.session import open_session

from ..simulated_rap import MTIME, NOW, connection_to, fetch, login_to

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.transport.login import Login


def test_a_stalled_read_ends_the_session(rap: RapSimulator) -> None:
    """Fault 5: stall in a file."""
    rap.put(Folder.DCASS, "stalls", 500_000, MTIME)
    rap.faults.add(Fault("stall", path="*/stalls", at_byte=100_000))
    with pytest.raises(RapUnavailable, match=r"no answer for 0\.5 s"):
        asyncio.run(fetch(login_to(rap.connection("DCXYZ001"), idle_timeout=0.5)))


@pytest.mark.parametrize("stage", ["banner", "kex", "auth"])
def test_a_login_stalled_at_any_stage_times_out(rap: RapSimulator, stage: str) -> None:
    """Fault 6: stall in the banner, the key exchange and the authentication."""
    rap.faults.add(Fault("stall_at", stage=stage, times=None))
    with pytest.raises(RapUnavailable, match=r"no answer within 0\.3 s") as caught:
        asyncio.run(fetch(login_to(rap.connection("DCXYZ001"), connect_timeout=0.3)))
    assert len(caught.value.attempts) == 1


@pytest.mark.parametrize("supersede", ["disconnect", "cut"])
@pytest.mark.guide("4.3 one login")
def test_a_second_login_supersedes_the_first(supersede: Any) -> None:
    """Fault 7: a second login closes our session, with a disconnect message or without."""

    async def two_logins(login: Login) -> None:
        async with open_session(login) as first, open_session(login) as second:
            assert await second.list_folder(Folder.DCASS) == []
            await first.list_folder(Folder.DCASS)

    with RapSimulator(now=NOW, server=ServerBehaviour(supersede=supersede)) as rap:
        with pytest.raises(RapSessionSuperseded) as caught:
            asyncio.run(two_logins(login_to(rap.connection("DCXYZ001"))))
        assert caught.value.announced == (supersede == "disconnect")
        assert caught.value.account == "DCXYZ001"


@pytest.mark.guide("7.1 addresses")
def test_the_next_address_is_tried_if_one_fails_before_authentication(
    rap: RapSimulator, unused_port: int
) -> None:
    """Fault 10: the first address refuses or stalls."""
    connection = {**rap.connection("DCXYZ001"), "host": f"127.0.0.1:{unused_port},127.0.0.1:{rap.port}"}
    assert asyncio.run(fetch(login_to(connection))) == {}
    rap.faults.add(Fault("stall_at", stage="kex"))
    connection["host"] = f"127.0.0.1:{rap.port},127.0.0.1:{rap.port}"
    assert asyncio.run(fetch(login_to(connection, connect_timeout=0.5))) == {}


@pytest.mark.guide("2.2 sites")
def test_a_failed_login_does_not_switch_the_site(rap: RapSimulator, unused_port: int) -> None:
    """Fault 10: every address of the site refuses."""
    connection = {**rap.connection("DCXYZ001"), "host": f"127.0.0.1:{unused_port}"}
    with pytest.raises(RapUnavailable, match="primary site"):
        asyncio.run(fetch(login_to(connection, secondary_hosts=f"127.0.0.1:{rap.port}")))
    assert not rap.events
    assert (
        asyncio.run(fetch(login_to(connection, secondary_hosts=f"127.0.0.1:{rap.port}", site="secondary")))
        == {}
    )


@pytest.mark.guide("3.2 public key")
def test_a_refused_key_is_offered_in_one_connection_only(rap: RapSimulator) -> None:
    """Fault 11: RAP rejects the key."""
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


class Abrupt(asyncssh.SSHServer):
    """A server that closes the connection when a client offers a key, instead of rejecting the key."""

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._conn = conn

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        self._conn.abort()
        return False


def test_a_server_that_hangs_up_on_a_key_gets_no_second_connection() -> None:
    """Fault 11: RAP closes the connection instead of rejecting the key."""
    with pytest.raises(RapUnavailable, match=r"with key (..:){15}.. from 127\.0\.0\.1 broke off") as caught:
        asyncio.run(fetch_from(server_factory=Abrupt))
    assert len(caught.value.attempts) == 1


def test_a_changed_host_key_is_refused_before_authentication(rap: RapSimulator) -> None:
    """Fault 12: the host key has changed."""
    with RapSimulator(now=NOW, name="another") as other, pytest.raises(RapHostKeyError) as caught:
        asyncio.run(fetch(login_to(rap.connection("DCXYZ001"), host_key=other.host_key)))
    assert caught.value.received != caught.value.expected[0]
    assert caught.value.received in str(caught.value)
    assert caught.value.expected[0] in str(caught.value)
    assert not rap.events.of("login", "refused")


async def fetch_from(**options: Any) -> None:
    """Fetch from a server of asyncssh that listens with these options."""
    key = asyncssh.generate_private_key("ssh-rsa", key_size=2048)
    async with asyncssh.listen("127.0.0.1", 0, server_host_keys=[key], **options) as server:
        await fetch(login_to(connection_to(server.get_port(), key, key)))


@pytest.mark.guide("2.1 algorithms")
def test_no_common_algorithm_has_its_own_error() -> None:
    """Fault 13: no common algorithm."""
    with pytest.raises(RapAlgorithmError, match="chacha20"):
        asyncio.run(fetch_from(encryption_algs=["chacha20-poly1305@openssh.com"]))


def test_a_cut_listing_is_never_taken_for_complete(rap: RapSimulator) -> None:
    """Fault 14: the connection is cut in a listing."""
    for number in range(500):
        rap.put(Folder.DCASS, f"report{number}", b"", MTIME)
    rap.faults.add(Fault("listing_cut", entries=250))
    with pytest.raises(RapSessionSuperseded):
        asyncio.run(fetch(login_to(rap.connection("DCXYZ001"))))


def test_a_full_disk_ends_the_read_and_not_the_session(rap: RapSimulator) -> None:
    """Fault 22: no space for the bytes that were read."""
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


def test_a_task_cancelled_during_its_logout_does_not_overlap_the_next_login(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Fault 24: the task is cancelled during its logout."""

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
