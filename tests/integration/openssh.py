"""A real OpenSSH sshd, limited to the guide's algorithms: a second server for tests, beside the simulator."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import string
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import asyncssh

from airflow_provider_hkex_rap.rap import algorithms
from airflow_provider_hkex_rap.rap.folders import KEY_FOLDER, Folder

from ..ports import free_port

SSHD = "/usr/sbin/sshd"


def missing() -> str | None:
    """Return what this machine lacks to run the server; None if it lacks nothing."""
    if not Path(SSHD).exists():
        return "needs Debian's openssh-server"
    if os.geteuid() != 0:
        return "needs root: sshd confines an account to its folders with chroot"
    return None


@dataclass(frozen=True)
class OpenSSH:
    """A running sshd that serves one RAP account out of a directory."""

    account: str
    port: int
    root: Path
    log: Path
    host_key: str
    private_key: str

    def put(self, folder: Folder, name: str | bytes, content: bytes, mtime: int) -> None:
        """Put a report into a folder of the account."""
        path = os.fsencode(self.root) + folder.path.encode() + b"/" + os.fsencode(name)
        with open(path, "wb") as file:
            file.write(content)
        os.utime(path, (mtime, mtime))

    def connection(self, **extra: object) -> dict[str, object]:
        """Return the fields of an Airflow connection to this server."""
        return {
            "conn_type": "hkex_rap",
            "login": self.account,
            "host": "127.0.0.1",
            "port": self.port,
            "extra": {"host_key": self.host_key, "private_key": self.private_key, **extra},
        }


def _supported(kind: str, wanted: tuple[str, ...]) -> str:
    """Return the guide's algorithms that this OpenSSH still supports."""
    known = subprocess.run(["ssh", "-Q", kind], capture_output=True, text=True, check=True).stdout.split()
    return ",".join(name for name in wanted if name in known)


@contextlib.contextmanager
def _user(name: str) -> Iterator[None]:
    """Create a system user with the account's name, and delete it when the block ends."""
    subprocess.run(
        [
            "useradd",
            "--badname",
            "--password",
            "*",
            "--no-create-home",
            "--home-dir",
            "/",
            "--shell",
            "/usr/sbin/nologin",
            name,
        ],
        check=True,
        capture_output=True,
    )
    try:
        yield
    finally:
        subprocess.run(["userdel", "--force", name], check=True, capture_output=True)


@cache
def _host_and_client_key() -> tuple[asyncssh.SSHKey, asyncssh.SSHKey]:
    """Generate the two keys once for all servers: that takes seconds on a busy machine."""
    return (
        asyncssh.generate_private_key("ssh-rsa", key_size=2048),
        asyncssh.generate_private_key("ssh-rsa", key_size=2048),
    )


@contextlib.contextmanager
def openssh(
    *,
    accepted: tuple[str, ...] = algorithms.PUBLIC_KEY,
    settings: str = "",
    host_key: asyncssh.SSHKey | None = None,
) -> Iterator[OpenSSH]:
    """Run sshd on a port of localhost until the block ends.

    :param accepted: the signature algorithms that the server accepts from the account.
    :param settings: lines of sshd_config that override those of RAP.
    :param host_key: the server's only host key; None for an RSA key.
    """
    # sshd demands that only root can write to each directory above a chroot, which rules out /tmp.
    base = Path(tempfile.mkdtemp(dir="/run", prefix="rap-sshd-"))
    base.chmod(0o755)
    root = base / "root"
    for path in (*(folder.path for folder in Folder), KEY_FOLDER, "/submission"):
        (root / path[1:]).mkdir(parents=True)
    rsa_key, client_key = _host_and_client_key()
    host_key = host_key or rsa_key
    host_key.write_private_key(base / "host_key")
    (base / "host_key").chmod(0o600)
    (base / "authorized_keys").write_bytes(client_key.export_public_key())
    port, log = free_port(), base / "sshd.log"
    (base / "sshd_config").write_text(
        f"""
        {settings}
        ListenAddress 127.0.0.1
        Port {port}
        PidFile none
        UsePAM no
        StrictModes no
        HostKey {base}/host_key
        AuthorizedKeysFile {base}/authorized_keys
        AuthenticationMethods publickey
        ChrootDirectory {root}
        Subsystem sftp internal-sftp
        ForceCommand internal-sftp -R
        AllowTcpForwarding no
        LogLevel VERBOSE
        KexAlgorithms {_supported("kex", algorithms.KEY_EXCHANGE)}
        Ciphers {_supported("cipher", algorithms.CIPHERS)}
        MACs {_supported("mac", algorithms.MACS)}
        HostKeyAlgorithms {_supported("key-sig", algorithms.PUBLIC_KEY)}
        PubkeyAcceptedAlgorithms {",".join(accepted)}
        """
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, base)
        # A random name, since several of these servers may run at the same time.
        account = "DC" + "".join(random.choices(string.ascii_uppercase, k=3)) + "001"
        stack.enter_context(_user(account))
        server = subprocess.Popen([SSHD, "-D", "-f", base / "sshd_config", "-E", log])
        stack.callback(server.wait)
        stack.callback(server.terminate)
        _until_listening(port, server)
        yield OpenSSH(
            account,
            port,
            root,
            log,
            host_key.export_public_key().decode().strip(),
            client_key.export_private_key().decode(),
        )


def _until_listening(port: int, server: subprocess.Popen[bytes]) -> None:
    while server.poll() is None:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 5):
            return
    raise RuntimeError(f"sshd ended at once with status {server.returncode}")
