"""One login: against the simulator, and against a real OpenSSH sshd with the guide's algorithms."""

from __future__ import annotations

import asyncio
import hashlib
import os
from typing import Any

import asyncssh
import psutil
import pytest

from airflow_provider_hkex_rap.rap.errors import (
    RapAuthenticationError,
    RapHostKeyError,
    RapPermissionDenied,
    RapTransferError,
)
from airflow_provider_hkex_rap.rap.files import Kind, RemoteFile
from airflow_provider_hkex_rap.rap.folders import Folder, Service
from airflow_provider_hkex_rap.testing import Access, Fault, RapSimulator, ServerBehaviour
from airflow_provider_hkex_rap.transport.session import open_session

from ..simulated_rap import MTIME, NOW, fetch, login_to
from .openssh import missing, openssh

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
@pytest.mark.guide("2.1 algorithms")
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


@pytest.mark.parametrize("accepted", [("ssh-rsa",), ("rsa-sha2-512",), ("rsa-sha2-256",)], ids=str)
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
@pytest.mark.guide("2.1 algorithms")
def test_reads_what_was_listed_from_openssh(accepted: tuple[str, ...]) -> None:
    with openssh(accepted=accepted) as server:
        for name, content in FILES.items():
            server.put(Folder.DCASS, name, content, MTIME.int_timestamp)
        assert asyncio.run(fetch(login_to(server.connection()))) == FILES
        assert server.log.read_text().count(f"Accepted publickey for {server.account} ") == 1


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
@pytest.mark.guide("4.3 addresses")
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


def test_one_of_several_pinned_host_keys_is_enough(rap: RapSimulator) -> None:
    with RapSimulator(now=NOW, name="another") as other:
        keys = f"{other.host_key}\n{rap.host_key}"
        assert asyncio.run(fetch(login_to(rap.connection("DCXYZ001"), host_key=keys))) == {}


@pytest.mark.parametrize("unsubscribed", ["missing", "denied"])
@pytest.mark.guide("4.2 subscription")
def test_a_folder_without_subscription_is_an_error_of_its_own(unsubscribed: Any) -> None:
    subscriptions = {"DCXYZ001": (Service.DCASS,)}
    with RapSimulator(
        now=NOW, access=Access(subscriptions=subscriptions), server=ServerBehaviour(unsubscribed=unsubscribed)
    ) as rap:
        with pytest.raises(RapPermissionDenied) as caught:
            asyncio.run(fetch(login_to(rap.connection("DCXYZ001")), Folder.HKCC_SEOCH_CCMS_GLOB))
        assert caught.value.path == "/download/HKCC_SEOCH_CCMS_GLOB"


def test_one_denied_file_leaves_the_session_alone(rap: RapSimulator) -> None:
    rap.put(Folder.DCASS, "denied", b"x", MTIME)
    rap.put(Folder.DCASS, "fine", b"y", MTIME)
    rap.faults.add(Fault("deny", path="*/denied", times=None))

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


def test_the_session_ends_although_another_process_has_a_copy_of_its_socket(rap: RapSimulator) -> None:
    async def copy_and_abort() -> int:
        async with open_session(login_to(rap.connection("DCXYZ001"))) as session:
            connections = psutil.Process().net_connections()
            (ours,) = [c.fd for c in connections if c.raddr == (rap.host, rap.port)]
            copy = os.dup(ours)
            session.abort()
            return copy

    copy = asyncio.run(copy_and_abort())
    try:
        rap.events.wait_for("lost")
    finally:
        os.close(copy)
