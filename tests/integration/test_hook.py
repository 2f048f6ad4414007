"""The hook: what SFTPHookAsync reads it reads, over one login, and what RAP denies it does not send."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pendulum
import pytest
from airflow.providers_manager import ProvidersManager
from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime

from airflow_provider_hkex_rap.hooks.rap import RapHook
from airflow_provider_hkex_rap.rap.errors import RapPermissionDenied, RapUnavailable
from airflow_provider_hkex_rap.rap.folders import Folder
from airflow_provider_hkex_rap.testing import Fault, RapSimulator

NOW = pendulum.datetime(2026, 11, 20, 23, 40, tz="Asia/Hong_Kong")
REPORT = "/download/DCASS/TP001_20261120.csv"


@pytest.fixture
def rap(monkeypatch: pytest.MonkeyPatch) -> Iterator[RapSimulator]:
    with RapSimulator(now=NOW) as rap:
        monkeypatch.setenv("AIRFLOW_CONN_HKEX_RAP_DEFAULT", json.dumps(rap.connection("DCXYZ001")))
        rap.put(Folder.DCASS, "TP001_20261120.csv", b"content", NOW.subtract(hours=1))
        yield rap


def test_what_users_know_of_the_sftp_hook_reads_over_one_login(rap: RapSimulator) -> None:
    async def read() -> tuple[Any, ...]:
        hook = RapHook()
        async with hook.get_managed_conn():
            names = await hook.list_directory("/download/DCASS")
            matching = await hook.get_files_and_attrs_by_pattern("/download/DCASS", "TP*")
            changed = await hook.get_mod_time(REPORT)
            content = io.BytesIO()
            await hook.retrieve_file(REPORT, content)
        return names, [str(file.filename) for file in matching], changed, content.getvalue()

    names, matching, changed, content = asyncio.run(read())
    assert "TP001_20261120.csv" in names
    assert matching == ["TP001_20261120.csv"]
    assert changed.startswith("20261120")
    assert content == b"content"
    assert len(rap.events.of("login")) == 1
    rap.events.wait_for("logout")


def test_a_session_is_one_login(rap: RapSimulator) -> None:
    async def read() -> bytes:
        content = bytearray()
        async with RapHook().session() as session:
            (file,) = await session.list_folder(Folder.DCASS)
            await session.read(file, content.extend)
        return bytes(content)

    assert asyncio.run(read()) == b"content"
    assert len(rap.events.of("login")) == 1
    rap.events.wait_for("logout")


def test_no_inherited_call_can_hang(rap: RapSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = rap.connection("DCXYZ001")
    connection["extra"]["idle_timeout"] = 0.5
    monkeypatch.setenv("AIRFLOW_CONN_HKEX_RAP_DEFAULT", json.dumps(connection))
    rap.faults.add(Fault("stall", path=REPORT))
    with pytest.raises(RapUnavailable):
        asyncio.run(RapHook().retrieve_file(REPORT, io.BytesIO()))
    rap.faults.add(Fault("listing_stall"))
    with pytest.raises(RapUnavailable):
        asyncio.run(RapHook().list_directory("/download/DCASS"))


def test_within_a_session_the_hooks_methods_share_its_login(rap: RapSimulator, tmp_path: Path) -> None:
    async def read() -> None:
        hook = RapHook()
        async with hook.session():
            await hook.retrieve_file(REPORT, tmp_path / "report")

    asyncio.run(read())
    assert (tmp_path / "report").read_bytes() == b"content"
    assert len(rap.events.of("login")) == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda hook: hook.store_file("/download/DCASS/x", io.BytesIO(b"")),
        lambda hook: hook.store_directory("/submission", "."),
        lambda hook: hook.mkdir("/download/new"),
        lambda hook: hook.create_directory("/download/new"),
        lambda hook: hook.delete_file(REPORT),
        lambda hook: hook.delete_directory("/download/DCASS"),
    ],
)
def test_what_rap_denies_is_refused_before_the_network(rap: RapSimulator, call: Any) -> None:
    with pytest.raises(RapPermissionDenied):
        asyncio.run(call(RapHook()))
    assert not rap.events


def test_the_test_button_logs_in_and_says_what_it_found(rap: RapSimulator) -> None:
    works, message = RapHook().test_connection()
    assert works, message
    assert "DCXYZ001" in message
    assert len(rap.events.of("login")) == 1
    rap.faults.add(Fault("refuse_login", times=None))
    works, message = RapHook().test_connection()
    assert not works
    assert "127.0.0.1 is not registered" in message


def test_airflow_knows_the_connection_type_and_its_form() -> None:
    manager = ProvidersManager()
    hook = ProvidersManagerTaskRuntime().hooks["hkex_rap"]
    assert hook is not None
    assert hook.hook_name == "HKEX RAP"
    fields = {name for name in manager.connection_form_widgets if name.startswith("extra__hkex_rap__")}
    wanted = {
        "site",
        "secondary_hosts",
        "host_key",
        "no_host_key_check",
        "key_file",
        "private_key",
        "private_key_passphrase",
        "connect_timeout",
        "idle_timeout",
    }
    assert {f"extra__hkex_rap__{name}" for name in wanted} <= fields
    assert manager.field_behaviours["hkex_rap"]["relabeling"]["login"] == "RAP user account"
