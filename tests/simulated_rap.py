"""A simulated RAP and a lake for tests: connections to it, downloads from it, and the files that landed."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pendulum
import pytest

from airflow_provider_hkex_rap.keystore.variable import PREFIX
from airflow_provider_hkex_rap.operators.download import RapDownloadOperator
from airflow_provider_hkex_rap.rap.folders import Folder
from airflow_provider_hkex_rap.testing import RapSimulator
from airflow_provider_hkex_rap.transport.login import Login, read_login
from airflow_provider_hkex_rap.transport.session import open_session

from .ports import free_port

if TYPE_CHECKING:
    import asyncssh

    from airflow_provider_hkex_rap.rap.files import RemoteFile

NOW = pendulum.datetime(2026, 11, 20, 23, 40, tz="Asia/Hong_Kong")
MTIME = NOW.subtract(hours=2)
ACCOUNTS = ("DCXYZ001", "DCXYZ002")
FOLDERS = list(Folder)


# Fixtures, which the conftest.py of a folder imports.


@pytest.fixture
def rap(monkeypatch: pytest.MonkeyPatch) -> Iterator[RapSimulator]:
    """Run a simulated RAP; the default connection is that of its first account."""
    with RapSimulator(accounts=ACCOUNTS, now=NOW) as rap:
        use(monkeypatch, rap.connection("DCXYZ001"))
        yield rap


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Return the root of an empty lake."""
    return tmp_path / "lake"


@pytest.fixture
def unused_port() -> int:
    """Return a port of localhost on which no process listens."""
    return free_port()


@pytest.fixture(autouse=True)
def empty_key_store() -> Iterator[None]:
    """Empty the default key store after each test: each simulator has its own keys for the same accounts."""
    yield
    if "airflow.models.variable" not in sys.modules:
        return
    from airflow.models import Variable
    from airflow.utils.session import create_session
    from sqlalchemy import delete, inspect

    with create_session() as session:
        if inspect(session.connection()).has_table(Variable.__tablename__):
            session.execute(delete(Variable).where(Variable.key.startswith(PREFIX)))


# Connections.


def use(monkeypatch: pytest.MonkeyPatch, connection: dict[str, Any], now: pendulum.DateTime = NOW) -> None:
    """Set the default connection, and the provider's clock to *now*."""
    monkeypatch.setenv("AIRFLOW_CONN_HKEX_RAP_DEFAULT", json.dumps(connection))
    monkeypatch.setenv("AIRFLOW__HKEX_RAP__CLOCK_OFFSET", str((now - pendulum.now()).total_seconds()))


def login_to(connection: dict[str, Any], **extra: object) -> Login:
    """Return the login of a connection; *extra* overrides fields of its extra."""
    return read_login(
        login=connection["login"],
        host=connection["host"],
        port=connection["port"],
        extra={**connection["extra"], **extra},
        mask=lambda secret: None,
    )


def connection_to(port: int, host_key: asyncssh.SSHKey, client_key: asyncssh.SSHKey) -> dict[str, Any]:
    """Return the fields of a connection to a server on localhost, such as one of asyncssh."""
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


# Transfers.


async def fetch(login: Login, folder: Folder = Folder.DCASS) -> dict[bytes, bytes]:
    """Log in, read every file of a folder concurrently, and return the contents by name."""
    contents: dict[bytes, bytearray] = {}

    async with open_session(login) as session:

        async def read(file: RemoteFile) -> None:
            contents[file.name] = bytearray()
            after = await session.read(file, contents[file.name].extend)
            assert after.attributes.size == len(contents[file.name])

        await asyncio.gather(*(read(file) for file in await session.list_folder(folder)))
    return {name: bytes(content) for name, content in contents.items()}


def download(lake: Path, context: Any = None, **arguments: Any) -> dict[str, Any]:
    """Execute a download operator and return its summary; by default it downloads every folder, unjudged."""
    arguments = {"folders": FOLDERS, "lake": lake.as_uri(), "expect": [], **arguments}
    return RapDownloadOperator(task_id="land", **arguments).execute(context or {})


def in_a_run() -> Any:
    """Return a minimal task context: the operator then behaves as in a DAG run, and not as in a notebook."""
    return {
        "ti": SimpleNamespace(dag_id="daily", run_id="run", task_id="land", map_index=-1, try_number=1),
        "dag_run": SimpleNamespace(conf={}, run_after=NOW),
    }


# Results.


def landed(lake: Path) -> dict[str, str]:
    """Return by path the SHA-256 of every file in the lake, manifests excepted."""
    return {
        str(path.relative_to(lake)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in lake.rglob("*")
        if path.is_file() and "manifest" not in path.parts
    }


def entries(lake: Path) -> list[dict[str, Any]]:
    """Return every entry of the manifest."""
    paths = sorted((lake / "manifest").rglob("*.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def published(rap: RapSimulator) -> dict[tuple[str, str], str]:
    """Return by folder and name the SHA-256 of every report on RAP."""
    return {
        (folder.value, file.name.decode()): file.sha256 for folder in Folder for file in rap.files(folder)
    }


def by_name(lake: Path) -> dict[tuple[str, str], str]:
    """Return by folder and name the SHA-256 of every file that landed, manifests excepted."""
    parts = {path: path.split("/") for path in landed(lake)}
    return {
        (parts[path][2].removeprefix("folder="), parts[path][-1]): digest
        for path, digest in landed(lake).items()
    }
