"""The simulated RAP under OpenSSH's own clients, which share no code with this package."""

import json
import re
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pendulum
import pytest

from airflow_provider_hkex_rap.rap.folders import KEY_FOLDER, Folder
from airflow_provider_hkex_rap.testing import RapSimulator, ServerBehaviour

ACCOUNT = "DCXYZ001"
NOW = pendulum.datetime(2026, 11, 20, 23, 40, tz="Asia/Hong_Kong")
CONTENT = bytes(range(256)) * 3000

needs_sftp = pytest.mark.skipif(not shutil.which("sftp"), reason="OpenSSH's sftp is not installed")


@pytest.fixture
def rap() -> Iterator[RapSimulator]:
    with RapSimulator((ACCOUNT,), NOW) as rap:
        rap.put(Folder.DCASS, "TP001", CONTENT, NOW.subtract(days=1))
        yield rap


class Client:
    """OpenSSH's clients, with the key and known_hosts files that they need."""

    def __init__(self, directory: Path, connection: dict[str, Any]) -> None:
        self.directory = directory
        self._address = f"{connection['login']}@{connection['host']}"
        key, known_hosts = directory / "key", directory / "known_hosts"
        key.write_text(connection["extra"]["private_key"])
        key.chmod(0o600)
        known_hosts.write_text(
            f"[{connection['host']}]:{connection['port']} {connection['extra']['host_key']}\n"
        )
        self._options = [
            *("-F", "none", "-o", f"Port={connection['port']}", "-o", f"IdentityFile={key}"),
            *("-o", f"UserKnownHostsFile={known_hosts}", "-o", "StrictHostKeyChecking=yes"),
            *("-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "UpdateHostKeys=no"),
        ]

    def sftp(self, *commands: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Run all commands in one login, even if one of them fails."""
        batch = "".join(f"-{command}\n" for command in commands)
        return self._run("sftp", *self._options, *options, "-b", "-", self._address, given=batch)

    def ssh(self, *command: str) -> subprocess.CompletedProcess[str]:
        return self._run("ssh", *self._options, self._address, *command)

    def _run(self, *command: str, given: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=30, cwd=self.directory, check=False
        )


@pytest.fixture
def client(rap: RapSimulator, tmp_path: Path) -> Client:
    return Client(tmp_path, rap.connection(ACCOUNT))


@needs_sftp
def test_sftp_lists_and_reads(rap: RapSimulator, client: Client, tmp_path: Path) -> None:
    done = client.sftp("ls -1 /download", f"ls -l {Folder.DCASS.path}", f"get -p {Folder.DCASS.path}/TP001")
    assert done.returncode == 0, done.stderr
    assert all(folder.path in done.stdout for folder in Folder)
    assert re.search(rf"{len(CONTENT)}.*TP001", done.stdout)
    fetched = tmp_path / "TP001"
    assert fetched.read_bytes() == CONTENT
    assert fetched.stat().st_mtime == NOW.subtract(days=1).int_timestamp
    rap.events.wait_for("logout")
    assert len(rap.events.of("login")) == 1
    assert not rap.events.of("denied")


@needs_sftp
@pytest.mark.parametrize(
    "command",
    [
        "rm /download/DCASS/TP001",
        "rename /download/DCASS/TP001 /download/DCASS/old",
        "mkdir /download/new",
        "rmdir /submission",
        "chmod 600 /download/DCASS/TP001",
        "put key.pub /download/DCASS/key.pub",
        "put -a key.pub /key_management/publickey/key.pub",
        "put -p key.pub /key_management/publickey/key.pub",
        "ln -s /download/DCASS/TP001 /download/DCASS/link",
    ],
)
def test_sftp_cannot_change_anything(rap: RapSimulator, client: Client, tmp_path: Path, command: str) -> None:
    (tmp_path / "key.pub").write_bytes(CONTENT)
    (tmp_path / "key.pub").chmod(0o600)
    if "put -a" in command:
        rap.put(KEY_FOLDER, "key.pub", CONTENT[:1000])
    done = client.sftp(command)
    assert "permission denied" in done.stderr.lower()
    assert rap.events.of("denied")
    assert [file.content for file in rap.files(Folder.DCASS)] == [CONTENT]


@needs_sftp
def test_sftp_uploads_a_new_key_and_cannot_replace_it(
    rap: RapSimulator, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "key.pub").write_bytes(CONTENT)
    assert client.sftp(f"put key.pub {KEY_FOLDER}/{ACCOUNT}.pub").stderr == ""
    assert "Permission" in client.sftp(f"put key.pub {KEY_FOLDER}/{ACCOUNT}.pub").stderr
    assert [upload.content for upload in rap.uploads] == [CONTENT]
    assert len(rap.events.of("upload")) == 1
    assert len(rap.events.of("denied")) == 1


@needs_sftp
def test_ssh_gets_no_shell(rap: RapSimulator, client: Client) -> None:
    assert client.ssh("id").returncode != 0
    assert client.ssh().returncode != 0
    assert {event.detail for event in rap.events.of("denied")} >= {"exec", "shell"}


@needs_sftp
@pytest.mark.parametrize(
    ("option", "variant"),
    [
        ("rsa-sha2-256", {}),
        ("rsa-sha2-512", {"announce_limits": True, "read_limit": 1000}),
        ("ssh-rsa", {}),
        ("ssh-rsa", {"server_sig_algs": False}),
        ("ssh-rsa", {"extension_markers": False}),
    ],
)
def test_sftp_signs_with_every_algorithm(tmp_path: Path, variant: dict[str, Any], option: str) -> None:
    with RapSimulator((ACCOUNT,), NOW, server=ServerBehaviour(client_signatures=[option], **variant)) as rap:
        rap.put(Folder.DCASS, "TP001", CONTENT)
        options = ("-o", f"PubkeyAcceptedAlgorithms={option}", "-o", f"HostKeyAlgorithms={option}")
        done = Client(tmp_path, rap.connection(ACCOUNT)).sftp(
            f"get {Folder.DCASS.path}/TP001", options=options
        )
        assert done.stderr == ""
        assert (tmp_path / "TP001").read_bytes() == CONTENT


@needs_sftp
def test_the_command_serves_until_it_is_interrupted(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "airflow_provider_hkex_rap.testing"]
    arguments = ["--account", ACCOUNT, "--days", "2", "--now", "2026-11-24T12:00"]
    with subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        lines = []
        while "Ctrl-C" not in (line := process.stdout.readline()):
            assert line, "".join(lines)
            lines.append(line)
        text = "".join(lines)
        found = re.search(r'AIRFLOW_CONN_HKEX_RAP_DEFAULT="\$\(cat (.+)\)"', text)
        assert found, text
        path = Path(found[1])
        try:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert "PRIVATE" not in text
            done = Client(tmp_path, json.loads(path.read_text())).sftp(f"ls {Folder.DCASS.path}")
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    assert "20261123" in done.stdout
    assert "20261120" not in done.stdout
    assert "CLOCK_OFFSET=" in text
    assert not path.parent.exists()


def test_the_command_refuses_a_port_that_is_taken(rap: RapSimulator) -> None:
    command = [sys.executable, "-m", "airflow_provider_hkex_rap.testing", "--port", str(rap.port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert "in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_refuses_an_invalid_account() -> None:
    command = [sys.executable, "-m", "airflow_provider_hkex_rap.testing", "--account", "dcxyz001"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert "'dcxyz001' is not a RAP user account" in done.stderr
