"""What this machine denies to a login: its home directory, and the connection."""

from __future__ import annotations

import asyncio
import errno
import getpass
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_hkex_rap.rap.errors import RapConfigurationError, RapError, RapUnavailable
from airflow_provider_hkex_rap.transport.probe import probe
from airflow_provider_hkex_rap.transport.session import open_session

from ..simulated_rap import fetch, login_to

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.testing import RapSimulator
    from airflow_provider_hkex_rap.transport.login import Login


async def log_in(login: Login) -> None:
    async with open_session(login):
        pass


async def probe_each(login: Login) -> None:
    for address in login.addresses:
        await probe(login, address)


CONNECT = pytest.mark.parametrize("connect", [log_in, probe_each])

# The home directory.


@contextmanager
def unreadable(home: Path) -> Iterator[list[str]]:
    """Let nobody look below a directory, root neither, and yield the paths that somebody looked for."""
    looked: list[str] = []

    def guarded(call: Any) -> Any:
        def refuse(path: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(path, str | Path) and str(path).startswith(str(home)):
                looked.append(str(path))
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return call(path, *args, **kwargs)

        return refuse

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("HOME", str(home))
        for name in ("access", "open", "stat", "lstat", "scandir", "listdir"):
            patched.setattr(f"os.{name}", guarded(getattr(sys.modules["os"], name)))
        for name in ("io.open", "builtins.open"):
            patched.setattr(name, guarded(open))
        yield looked


@CONNECT
def test_a_login_looks_for_no_file_in_the_home_directory(
    rap: RapSimulator, tmp_path: Path, connect: Any
) -> None:
    login = login_to(rap.connection("DCXYZ001"))
    with unreadable(tmp_path) as looked:
        asyncio.run(connect(login))
    assert looked == []


@CONNECT
def test_a_user_without_a_name_is_an_error_of_the_configuration(
    rap: RapSimulator, monkeypatch: pytest.MonkeyPatch, connect: Any
) -> None:
    def no_entry() -> str:
        raise KeyError("getpwuid(): uid not found: 1234")

    login = login_to(rap.connection("DCXYZ001"))
    monkeypatch.setattr(getpass, "getuser", no_entry)
    with pytest.raises(RapConfigurationError, match="LOGNAME and HOME"):
        asyncio.run(connect(login))


# The connection.


def deny(monkeypatch: pytest.MonkeyPatch, number: int, *ports: int) -> None:
    """Let a local firewall deny the connections to some ports."""
    connect = asyncio.selector_events.BaseSelectorEventLoop.sock_connect

    async def denied(loop: Any, sock: socket.socket, address: Any) -> None:
        if address[1] in ports:
            raise OSError(number, f"Connect call failed {address}")
        await connect(loop, sock, address)

    monkeypatch.setattr(asyncio.selector_events.BaseSelectorEventLoop, "sock_connect", denied)


def refused(rap: RapSimulator, connect: Any, host: str) -> RapError:
    login = login_to({**rap.connection("DCXYZ001"), "host": host})
    with pytest.raises(RapError) as caught:
        asyncio.run(connect(login))
    return caught.value


@CONNECT
@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_connection_that_this_machine_denies_is_not_raps(
    rap: RapSimulator, monkeypatch: pytest.MonkeyPatch, connect: Any, number: int, host: str
) -> None:
    several = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", rap.port)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", rap.port)),
    ]
    if host == "localhost":
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: several)
    deny(monkeypatch, number, rap.port)
    error = refused(rap, connect, host)
    assert isinstance(error, RapConfigurationError)
    assert f"This machine does not permit the connection to RAP ({host}:{rap.port}: " in str(error)
    assert not list(rap.events)


def test_an_address_that_is_permitted_is_tried_after_one_that_is_not(
    rap: RapSimulator, monkeypatch: pytest.MonkeyPatch, unused_port: int
) -> None:
    deny(monkeypatch, errno.EPERM, unused_port)
    both = f"127.0.0.1:{unused_port},127.0.0.1:{rap.port}"
    assert asyncio.run(fetch(login_to({**rap.connection("DCXYZ001"), "host": both}))) == {}
    rap.stop()
    error = refused(rap, log_in, both)
    assert isinstance(error, RapUnavailable)
    assert "Operation not permitted by this machine" in error.attempts[0]
