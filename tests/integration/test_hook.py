"""The hook: what SFTPHookAsync reads it reads, over one login, and what RAP denies it does not send."""

from __future__ import annotations

import asyncio
import inspect
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pendulum
import pytest
from airflow.providers.sftp.hooks.sftp import SFTPHookAsync
from airflow.providers_manager import ProvidersManager
from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime

from airflow_provider_hkex_rap.hooks.rap import RapHook
from airflow_provider_hkex_rap.hooks.undocumented import SessionSFTPHook
from airflow_provider_hkex_rap.rap.errors import (
    RapConfigurationError,
    RapError,
    RapPermissionDenied,
    RapTransferError,
    RapUnavailable,
)
from airflow_provider_hkex_rap.rap.files import Kind
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


@pytest.mark.guide("4.3 one login")
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
@pytest.mark.guide("4.2 key folder")
def test_what_rap_denies_is_refused_before_the_network(rap: RapSimulator, call: Any) -> None:
    with pytest.raises(RapPermissionDenied):
        asyncio.run(call(RapHook()))
    assert not rap.events


FOLDERS = [
    "/download/DCASS",
    "/download/DCASS_OTHERS",
    "/download/HKCC_SEOCH_CCMS_GLOB",
    "/key_management/publickey",
]
OUTSIDE = [
    "",
    "/",
    ".",
    "/submission",
    "/submission/",
    "/submission/x",
    "//submission",
    "/download",
    "/download/",
    "/download/.",
    "/key_management",
    "/key_management/publickey/..",
    "/download/DCASS/../../submission",
    "/download/DCASS/../../submission/x",
    "/download/DCASS/..",
    "/download/dcass",
    "/download/DCASS2/x",
    "/download/DCASS\n",
    "/download/DCASS/sub/x",
    "download/DCASS",
    "DCASS",
    "../download/DCASS/x",
    "~/download/DCASS",
    b"/submission",
    b"/download/DCASS/../../submission",
    b"\xff",
    "/download/DCASS/\ud800x",
    PurePosixPath("/submission"),
    None,
    7,
]
NO_PATH = {"get_conn_count", "get_managed_conn", "judge_path", "session", "test_connection"}
DENIED = {"store_file", "store_directory", "mkdir", "create_directory", "delete_file", "delete_directory"}


def methods() -> dict[str, list[str]]:
    """Return the public methods of the hook and of the SFTP hook, with their parameters."""
    own = {name for base in (RapHook, SessionSFTPHook, SFTPHookAsync) for name in vars(base)}
    return {
        name: list(inspect.signature(method).parameters)
        for name, method in inspect.getmembers(RapHook, inspect.isfunction)
        if name in own and not name.startswith("_")
    }


def call(name: str, path: object, parameters: list[str]) -> Any:
    """Call a method with a path on RAP, and something for its other parameters."""
    given: dict[str, Any] = {
        "local_full_path": "local",
        "local_filepath": "local",
        "operation": "get",
        "fnmatch_pattern": "*",
        "fcallback": print,
        "dcallback": print,
        "ucallback": print,
    }
    (remote,) = {"path", "remote_full_path", "remote_filepath"} & set(parameters)
    arguments = {it: given[it] for it in parameters if it in given}
    return asyncio.run(getattr(RapHook(), name)(**arguments, **{remote: path}))


@pytest.mark.parametrize("name", sorted(methods().keys() - NO_PATH))
@pytest.mark.guide("4.2 folders")
def test_a_path_outside_of_raps_folders_is_refused_before_the_network(rap: RapSimulator, name: str) -> None:
    error = RapPermissionDenied if name in DENIED else RapConfigurationError
    for path in OUTSIDE:
        for given in (path, [FOLDERS[0], path]) if name == "transfer" else (path,):
            with pytest.raises(error) as caught:
                call(name, given, methods()[name])
            if error is RapConfigurationError:
                assert all(folder in str(caught.value) for folder in FOLDERS), path
    assert not rap.events


@pytest.mark.parametrize("operation", ["put", "delete", "PUT", "other", "", None, 5, b"get"])
def test_a_transfer_only_reads(rap: RapSimulator, operation: Any) -> None:
    with pytest.raises(RapPermissionDenied):
        asyncio.run(RapHook().transfer(operation, "local", REPORT))
    assert not rap.events


@pytest.mark.parametrize(
    "path",
    [
        "/download/DCASS",
        "/download/DCASS/",
        "//download//DCASS/.",
        "/download/DCASS_OTHERS/../DCASS",
        "/download/DCASS/x/..",
        b"/download/DCASS/",
        PurePosixPath("/download/DCASS"),
    ],
)
def test_a_path_is_judged_in_its_shortest_form_and_sent_so(rap: RapSimulator, path: Any) -> None:
    names = asyncio.run(RapHook().list_directory(path))
    assert names is not None
    assert "TP001_20261120.csv" in names
    assert [event.path for event in rap.events.of("list")] == ["/download/DCASS"]


def test_files_of_every_form_of_path_are_read(rap: RapSimulator, tmp_path: Path) -> None:
    rap.put(Folder.DCASS, b"\xff.csv", b"latin", NOW.subtract(hours=1))
    hook = RapHook()

    async def read(path: Any) -> bytes:
        content = io.BytesIO()
        await hook.retrieve_file(path, content)
        return content.getvalue()

    for path in (REPORT, REPORT.encode(), PurePosixPath(REPORT), REPORT.replace("/", "//")):
        assert asyncio.run(read(path)) == b"content"
    assert asyncio.run(read(b"/download/DCASS/\xff.csv")) == b"latin"
    with pytest.raises(RapConfigurationError, match="is a folder of RAP, not a file"):
        asyncio.run(read("/download/DCASS/"))
    asyncio.run(hook.transfer("get", str(tmp_path / "report"), REPORT))
    assert (tmp_path / "report").read_bytes() == b"content"


@pytest.mark.parametrize("kind", ["truncate", "rewrite", "grow", "deny", "drop"])
def test_a_file_that_did_not_arrive_whole_replaces_no_local_file(
    rap: RapSimulator, tmp_path: Path, kind: str
) -> None:
    local = tmp_path / "report"
    local.write_bytes(b"old")
    local.chmod(0o640)
    rap.faults.add(Fault(kind, path=REPORT, at_byte=3))
    with pytest.raises(RapError, match="TP001_20261120"):
        asyncio.run(RapHook().retrieve_file(REPORT, local))
    assert local.read_bytes() == b"old"
    rap.put(Folder.DCASS, "TP001_20261120.csv", b"new", NOW.subtract(hours=1))
    asyncio.run(RapHook().retrieve_file(REPORT, local))
    assert local.read_bytes() == b"new"
    assert local.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["report"]


@pytest.mark.parametrize("local", [None, 5, b"report"])
def test_a_local_path_that_is_none_is_refused_before_the_network(rap: RapSimulator, local: Any) -> None:
    with pytest.raises(RapConfigurationError, match="neither a local path nor a file"):
        asyncio.run(RapHook().retrieve_file(REPORT, local))
    assert not rap.events


def test_a_cut_file_is_an_error_for_a_file_object_too(rap: RapSimulator) -> None:
    rap.faults.add(Fault("truncate", path=REPORT, at_byte=3))
    with pytest.raises(RapTransferError, match="did not arrive whole: 3 bytes arrived"):
        asyncio.run(RapHook().retrieve_file(REPORT, io.BytesIO()))


def test_a_local_link_is_followed_and_a_device_written_to(rap: RapSimulator, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "report")
    asyncio.run(RapHook().retrieve_file(REPORT, tmp_path / "link"))
    asyncio.run(RapHook().retrieve_file(REPORT, os.devnull))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "report").read_bytes() == b"content"


def test_a_directory_is_read_without_the_names_that_lead_out_of_it(rap: RapSimulator, tmp_path: Path) -> None:
    for name in (b"../escaped.csv", b"/escaped.csv", b"a\\b.csv", b"\xff.csv", b"zz.csv"):
        rap.put(Folder.DCASS, name, b"1", NOW.subtract(hours=1))
    rap.put(Folder.DCASS, "link", b"", NOW.subtract(hours=1), kind=Kind.SYMLINK)
    local = tmp_path / "new" / "dcass"
    with pytest.raises(RapTransferError, match=r"4 entries .*escaped\.csv is not read: Its name") as caught:
        asyncio.run(RapHook().retrieve_directory("/download/DCASS", str(local)))
    assert len(caught.value.left_out) == 4
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    names = ("TP001_20261120.csv", "zz.csv", os.fsdecode(b"\xff.csv"))
    assert found == {f"new/dcass/{name}" for name in names}
    assert len(rap.events.of("login")) == 1
    with pytest.raises(FileExistsError):
        asyncio.run(RapHook().retrieve_directory("/download/DCASS", str(local)))
    with pytest.raises(RapConfigurationError, match="not a folder"):
        asyncio.run(RapHook().retrieve_directory(REPORT, str(tmp_path / "x")))


def test_one_file_that_cannot_be_read_leaves_no_other_out_of_a_directory(
    rap: RapSimulator, tmp_path: Path
) -> None:
    rap.put(Folder.DCASS, "ZZ001_20261120.csv", b"1", NOW.subtract(hours=1))
    rap.faults.add(Fault("deny", path=REPORT, times=None))
    with pytest.raises(RapTransferError, match=r"1 entries of /download/DCASS.*TP001_20261120"):
        asyncio.run(RapHook().transfer("get", str(tmp_path / "dcass"), "/download/DCASS"))
    assert [path.name for path in (tmp_path / "dcass").iterdir()] == ["ZZ001_20261120.csv"]


def test_the_key_folder_is_read_as_a_directory(rap: RapSimulator, tmp_path: Path) -> None:
    rap.put("/key_management/publickey", "DCXYZ001.pub.120000.rej", b"4007 no", NOW)
    asyncio.run(RapHook().retrieve_directory("/key_management/publickey", str(tmp_path / "keys")))
    assert (tmp_path / "keys/DCXYZ001.pub.120000.rej").read_bytes() == b"4007 no"
    rap.put("/key_management/publickey", "DCXYZ001.pub.120001.rej", b"x" * 100_000, NOW)
    with pytest.raises(RapTransferError, match="65536 bytes arrived, but 100000 were listed"):
        asyncio.run(
            RapHook().retrieve_file("/key_management/publickey/DCXYZ001.pub.120001.rej", io.BytesIO())
        )


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
