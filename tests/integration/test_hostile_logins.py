"""Servers that log in without a key, ask for more than a key, or refuse only while they open (§3.2, §4.1)."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncssh
import pendulum
import pytest

from airflow_provider_hkex_rap.hooks.login_source import AirflowLoginSource
from airflow_provider_hkex_rap.keystore.record import KeyRecord, PendingKey
from airflow_provider_hkex_rap.rap import algorithms
from airflow_provider_hkex_rap.rap.errors import (
    RapAuthenticationError,
    RapClosed,
    RapError,
    RapKeyVerificationError,
    RapSessionSuperseded,
)
from airflow_provider_hkex_rap.rap.folders import Service
from airflow_provider_hkex_rap.rap.service_hours import KEY_WORK
from airflow_provider_hkex_rap.runner.policy import ATTENDED, unattended
from airflow_provider_hkex_rap.runner.runner import SessionRunner
from airflow_provider_hkex_rap.testing import Fault, RapSimulator
from airflow_provider_hkex_rap.transport.session import open_session

from ..simulated_rap import NOW, connection_to, login_to
from ..simulated_rap import use as use_connection
from .openssh import missing, openssh
from .test_other_servers import _host_and_client_key, serving

if TYPE_CHECKING:
    from airflow_provider_hkex_rap.transport.login import Login

OPENING = pendulum.datetime(2026, 11, 23, 7, tz="Asia/Hong_Kong")
UNATTENDED = unattended(0.01)


class Open(asyncssh.SSHServer):
    """A server that accepts authentication "none"."""

    def begin_auth(self, username: str) -> bool:
        return False


@pytest.fixture(autouse=True)
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a key store in a directory, for connections that `use` sets."""
    (tmp_path / "keys").mkdir(mode=0o700)
    monkeypatch.setenv("HKEX_RAP_TEST_KEYS", (tmp_path / "keys").as_uri())


def use(monkeypatch: pytest.MonkeyPatch, connection: dict[str, Any], now: pendulum.DateTime = NOW) -> None:
    extra = {**connection["extra"], "key_store": os.environ["HKEX_RAP_TEST_KEYS"]}
    use_connection(monkeypatch, {**connection, "extra": extra}, now)


def source() -> AirflowLoginSource:
    return AirflowLoginSource("hkex_rap_default")


def run(policy: Any, wanted: Any = Service.DCASS, **arguments: Any) -> None:
    runner = SessionRunner(source(), policy)

    async def log_in() -> None:
        async with runner.session(**arguments):
            pass

    runner.run(log_in, wanted=[wanted])


def record() -> KeyRecord:
    return source().keys.read().record


async def refused(login: Login) -> RapAuthenticationError:
    with pytest.raises(RapAuthenticationError) as caught:
        async with open_session(login):
            pass
    return caught.value


@pytest.mark.guide("3.2 public key")
def test_a_login_without_a_key_ends_with_an_error_and_is_not_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(tmp_path, asyncssh.SFTPServer, Open) as connection:
        use(monkeypatch, connection)
        for policy in (ATTENDED, UNATTENDED):
            with pytest.raises(RapAuthenticationError, match="without asking for its key") as caught:
                run(policy)
            assert not caught.value.retryable
            assert not caught.value.keys_refused
        assert record().current is None
        assert record().refused == ()


def test_a_key_that_was_accepted_without_its_signature_is_not_proven(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def accept(auth: Any, packet: object) -> None:
        await auth.send_success()

    monkeypatch.setattr("asyncssh.auth._ServerPublicKeyAuth._start", accept)
    with serving(tmp_path, asyncssh.SFTPServer) as connection:
        use(monkeypatch, connection)
        with pytest.raises(RapAuthenticationError, match="without asking for its key") as caught:
            run(UNATTENDED)
        assert caught.value.fingerprints
        assert record().current is None
        assert record().refused == ()


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
@pytest.mark.parametrize(
    ("methods", "settings"),
    [
        ("password", "PasswordAuthentication yes"),
        ("keyboard-interactive", "KbdInteractiveAuthentication yes"),
        ("publickey", ""),
    ],
)
def test_a_second_factor_is_not_a_refused_key(
    methods: str, settings: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = f"AuthenticationMethods publickey,{methods}\n{settings}"
    with openssh(settings=settings) as server:
        error = asyncio.run(refused(login_to(server.connection())))
        (key,) = login_to(server.connection()).client_keys
        assert f"accepted key {key.fingerprint}" in str(error)
        assert f"second factor ({methods})" in str(error)
        assert "not registered" not in str(error)
        assert not error.retryable
        use(monkeypatch, server.connection())
        with pytest.raises(RapAuthenticationError, match="second factor"):
            run(UNATTENDED)
        assert record().refused == ()


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_a_new_key_that_is_asked_for_a_second_factor_is_not_uploaded_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The renewal takes a refused login with the new key for a key that has not arrived."""
    settings = "AuthenticationMethods publickey,password\nPasswordAuthentication yes"
    with openssh(settings=settings) as server:
        use(monkeypatch, server.connection())
        (key,) = login_to(server.connection()).client_keys
        pending = PendingKey(fingerprint=key.fingerprint, private_key=key.to_openssh(None), public_key="")
        with pytest.raises(RapKeyVerificationError, match="second factor"):
            run(UNATTENDED, only=pending)


@pytest.mark.parametrize("minutes", [-4, 0, 4])
@pytest.mark.parametrize("wanted", [Service.DCASS, KEY_WORK])
def test_a_refusal_at_an_opening_is_asked_again_and_not_remembered(
    minutes: int, wanted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = OPENING.add(minutes=minutes + (15 if wanted is KEY_WORK else 0), seconds=10)
    with RapSimulator(now=now) as rap:
        use(monkeypatch, rap.connection("DCXYZ001"), now)
        if minutes < 0:
            with pytest.raises(RapClosed):
                run(UNATTENDED, wanted)
            return
        rap.faults.add(Fault("refuse_login", times=None))
        with pytest.raises(RapClosed, match=r"may be opening.* refused the login") as caught:
            run(UNATTENDED, wanted)
        assert 0 < (caught.value.opens_at - source().clock()).total_seconds() <= 60
        with pytest.raises(RapAuthenticationError):
            run(ATTENDED, wanted)
        assert record().refused == ()


@pytest.mark.parametrize("after", [{"minutes": 6}, {"hours": 20, "minutes": 27}])
def test_a_refusal_after_the_opening_or_at_a_closing_is_final(
    after: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = OPENING.add(**after)
    with RapSimulator(now=now) as rap:
        use(monkeypatch, rap.connection("DCXYZ001"), now)
        rap.faults.add(Fault("refuse_login", times=None))
        with pytest.raises(RapAuthenticationError, match="is not registered"):
            run(UNATTENDED)
        assert len(record().refused) == 1


class OnlyPasswords(asyncssh.SSHServer):
    """A server that takes passwords, and no keys."""

    def public_key_auth_supported(self) -> bool:
        return False

    def password_auth_supported(self) -> bool:
        return True


class Explaining(asyncssh.SSHServer):
    """A server that ends a login with a text."""

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._conn = conn

    def begin_auth(self, username: str) -> bool:
        code = asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE
        self._conn._send_disconnect(code, "the account is locked\x1b", "en")
        return True


@pytest.mark.parametrize(
    ("server", "text", "keys_refused"),
    [
        (OnlyPasswords, r"takes no key.*it offers keyboard-interactive, password", False),
        (Explaining, r": the account is locked\\x1b\.", False),
    ],
)
def test_a_refused_login_says_what_the_server_says(
    server: type[asyncssh.SSHServer], text: str, keys_refused: bool
) -> None:
    host_key, client_key = _host_and_client_key()

    async def log_in() -> RapAuthenticationError:
        listener = await asyncssh.listen(
            "127.0.0.1", 0, server_factory=server, server_host_keys=[host_key], mac_algs=algorithms.MACS
        )
        async with listener:
            return await refused(login_to(connection_to(listener.get_port(), host_key, client_key)))

    error = asyncio.run(log_in())
    assert re.search(text, str(error))
    assert error.keys_refused is keys_refused


def test_an_error_of_the_login_is_printable() -> None:
    """The reason, the banner and the version of a server are text from outside."""
    hostile = "\x1b]0;owned\x07\x1b[2J\u202egpj.exe\r\nINFO forged\u2028" + "x" * 180_000

    class Rude(asyncssh.SSHServer):
        def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
            self._conn = conn

        def begin_auth(self, username: str) -> bool:
            self._conn.send_auth_banner(hostile[:30_000])
            self._conn._send_disconnect(asyncssh.DISC_SERVICE_NOT_AVAILABLE, hostile, "en")
            return True

    host_key, client_key = _host_and_client_key()

    async def log_in() -> RapError:
        server = await asyncssh.listen(
            "127.0.0.1", 0, server_factory=Rude, server_host_keys=[host_key], mac_algs=algorithms.MACS
        )
        async with server:
            with pytest.raises(RapError) as caught:
                async with open_session(login_to(connection_to(server.get_port(), host_key, client_key))):
                    pass
        return caught.value

    error = asyncio.run(log_in())
    assert "\\x1b[2J" in str(error)
    assert str(error).isprintable()
    assert len(str(error)) < 2000


class InUse(asyncssh.SSHServer):
    """A server that accepts a key, and then disconnects with a text."""

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._conn = conn

    def auth_completed(self) -> None:
        self._conn.disconnect(asyncssh.DISC_TOO_MANY_CONNECTIONS, "DCXYZ001 is in use")


def test_a_disconnect_between_login_and_sftp_says_what_the_server_says(tmp_path: Path) -> None:
    async def log_in(connection: dict[str, Any]) -> None:
        async with open_session(login_to(connection)):
            pass

    with (
        serving(tmp_path, asyncssh.SFTPServer, InUse) as connection,
        pytest.raises(RapSessionSuperseded, match="sent a disconnect message: DCXYZ001 is in use"),
    ):
        asyncio.run(log_in(connection))
