"""An API server of Airflow by itself, without a scheduler."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pendulum
import psutil

from ..ports import free_port
from .real_airflow import migrated_database

_START_SECONDS = 90


@contextlib.contextmanager
def api_server(home: Path, environment: Mapping[str, str], prefix: str = "") -> Iterator[str]:
    """Run an API server on localhost, and yield its URL, without a slash at the end.

    :param home: a directory for everything that Airflow writes; it may have Airflow's database already.
    :param environment: settings, connections and variables, as environment variables.
    :param prefix: the path under which a reverse proxy would serve Airflow, such as ``/airflow``.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}{prefix}"
    if not (home / "airflow.db").exists():
        shutil.copy(migrated_database(), home / "airflow.db")
    settings = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")} | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
    }
    command = ["api-server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    log = home / "api-server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "airflow", *command],
            env=settings | dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            _wait_until_up(url, process, log)
            yield url
        finally:
            # The workers of the server are its children.
            for each in [*psutil.Process(process.pid).children(recursive=True), process]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
            process.wait()


def _wait_until_up(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = pendulum.now().add(seconds=_START_SECONDS)
    while process.poll() is None and pendulum.now() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/api/v2/version", timeout=10).is_success:
                return
    raise AssertionError(log.read_text()[-3000:])
