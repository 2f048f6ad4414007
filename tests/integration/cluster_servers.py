"""The servers of an Airflow with several workers: PostgreSQL and Redis, private to one test.

They listen on the loopback interface, ask for a random password, and keep their data in a temporary
directory.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..ports import free_port

_DEBIANS_BINARIES = Path("/usr/lib/postgresql")
_START_SECONDS = 60


def missing_servers() -> str | None:
    """Return which packages a test with several workers lacks; None if they are installed."""
    if shutil.which("redis-server") and _postgres_command("initdb"):
        return None
    return "Airflow with several workers needs Debian's packages postgresql and redis-server."


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """Yield the URL of an empty database of PostgreSQL, without its scheme, while that server runs."""
    # PostgreSQL refuses to run as root.
    user = "postgres" if os.geteuid() == 0 else None
    password, port = secrets.token_hex(16), free_port()

    def run(program: str, *arguments: str) -> None:
        command = [str(_postgres_command(program)), f"--pgdata={directory}/data", *arguments]
        # Not a pipe, which the server would keep open.
        with open(f"{directory}/{program}.log", "w+") as log:
            done = subprocess.run(
                command,
                cwd=directory,
                user=user,
                group=user,
                extra_groups=[] if user else None,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=False,
            )
            log.seek(0)
            assert not done.returncode, log.read()

    with tempfile.TemporaryDirectory(prefix="postgres-") as directory:
        Path(directory, "password").write_text(password)
        if user:
            shutil.chown(directory, user, user)
        access = ("--username=airflow", "--auth=scram-sha-256", f"--pwfile={directory}/password")
        run("initdb", *access, "--encoding=UTF8", "--no-locale", "--no-sync")
        settings = f"-h 127.0.0.1 -p {port} -c unix_socket_directories= -c fsync=off -c max_connections=200"
        run("pg_ctl", "start", "--wait", f"--timeout={_START_SECONDS}", f"--options={settings}")
        try:
            yield f"airflow:{password}@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "stop", "--mode=immediate")


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """Yield the URL of an empty Redis while that server runs."""
    from redis import Redis
    from redis.backoff import ConstantBackoff
    from redis.exceptions import ConnectionError as NotYetListening
    from redis.retry import Retry

    password, port = secrets.token_hex(16), free_port()
    url = f"redis://:{password}@127.0.0.1:{port}/0"
    with tempfile.TemporaryDirectory(prefix="redis-") as directory:
        settings = f'bind 127.0.0.1\nport {port}\nrequirepass {password}\nsave ""\ndir {directory}\n'
        server = subprocess.Popen(
            # Settings come by the standard input, since every user can see the arguments of a process.
            ["redis-server", "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        with server:
            try:
                assert server.stdin
                with server.stdin as stdin:
                    stdin.write(settings)
                retry = Retry(ConstantBackoff(0.1), _START_SECONDS * 10, supported_errors=(NotYetListening,))
                with Redis.from_url(url, retry=retry) as client:
                    client.ping()
                yield url
            finally:
                server.terminate()


def _postgres_command(name: str) -> Path | None:
    """Return the path of a program of PostgreSQL, the newest if there are several; None if there is none.

    Debian keeps most of these programs off the PATH.
    """
    if found := shutil.which(name):
        return Path(found)
    versions = _DEBIANS_BINARIES.glob(f"*/bin/{name}")
    return max(versions, key=lambda path: float(path.parts[-3]), default=None)
