"""The provider, other ways to fetch the same files, and the limits of asyncssh."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pendulum

from benchmarks import storage
from benchmarks.measure import FailedError, Measured, run
from benchmarks.work import NOW, Work, file_name

if TYPE_CHECKING:
    from tests.integration.openssh import OpenSSH


@dataclass(frozen=True)
class Site:
    """A server, as a peer of the benchmark sees it.

    :param server: the server.
    :param port: the port of the server, or of a proxy before it.
    :param home: a directory for settings and logs.
    :param s3: the URL of the S3 server that the files are for; empty for the local disk.
    """

    server: OpenSSH
    port: int
    home: Path
    s3: str = ""

    def prepare(self) -> None:
        """Write the files that OpenSSH and rclone read."""
        self.key.write_text(self.server.private_key)
        self.key.chmod(0o600)
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {self.server.host_key}\n")

    @property
    def key(self) -> Path:
        """The file of the private key."""
        return self.home / "key"

    @property
    def known_hosts(self) -> Path:
        """The file of the host key."""
        return self.home / f"known_hosts-{self.port}"

    @property
    def ssh_options(self) -> list[str]:
        """The options of OpenSSH's programs."""
        return [
            *("-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"),
            *("-o", f"IdentityFile={self.key}", "-o", f"UserKnownHostsFile={self.known_hosts}"),
            *("-o", f"Port={self.port}"),
        ]

    @property
    def environment(self) -> dict[str, str]:
        """The variables of a process with Airflow: its own home, and the connections."""
        extra = {"host_key": self.server.host_key, "private_key": self.server.private_key}
        stock = {"login": self.server.account, "host": "127.0.0.1", "port": self.port, "extra": extra}
        # A task asks Airflow for the key's Variable. Outside of a task, the import of Airflow's database
        # would count, which no task does.
        ours = {**stock, "extra": extra | {"key_store": (self.home / "keys").as_uri()}}
        return {
            "AIRFLOW_HOME": str(self.home / "airflow"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__HKEX_RAP__CLOCK_OFFSET": str((NOW - pendulum.now()).total_seconds()),
            "AIRFLOW__HKEX_RAP__LOCK_DIR": str(self.home / "locks"),
            "AIRFLOW_CONN_HKEX_RAP_DEFAULT": json.dumps({"conn_type": "hkex_rap", **ours}),
            "AIRFLOW_CONN_RAP_SFTP": json.dumps({"conn_type": "sftp", **stock}),
            **(storage.environment(self.s3) if self.s3 else {}),
        }


@dataclass(frozen=True)
class Peer:
    """One way to fetch the files of a work.

    :param name: its name on the command line and in the tables.
    :param title: what it is, for the tables.
    :param fetch: fetches the files of a work into a directory that does not exist.
    :param program: the program that it needs; empty if it needs none.
    :param is_limit: whether it is a limit, and no peer that a user would run.
    """

    name: str
    title: str
    fetch: Callable[[Site, Work, Path], Measured]
    program: str = ""
    is_limit: bool = False

    @property
    def missing(self) -> str:
        """Why it cannot run here; empty if it can."""
        return f"{self.program} is not installed" if self.program and not shutil.which(self.program) else ""


def run_child(
    site: Site, job: Mapping[str, Any], targets: Sequence[str], environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Run a job of `benchmarks.child` in a fresh process, and return what it measured.

    :param site: the server.
    :param job: the job, without its targets and its result.
    :param targets: one for each call.
    :param environment: variables to set beside those of the site.
    """
    result = site.home / "result.json"
    command = [sys.executable, "-m", "benchmarks.child"]
    text = json.dumps({**job, "targets": targets, "result": str(result)})
    run([*command, text], site.home / "child.log", site.environment | dict(environment or {}))
    return dict(json.loads(result.read_text()))


def arguments_of(site: Site, work: Work) -> dict[str, Any]:
    """Return the arguments of the operator for a work."""
    include = ["*"] if work.fetched == len(work.sizes) else [file_name(site.server.account[1:5], 0)]
    return {"folders": [work.folder.value], "include": include}


def fetch_with_operator(site: Site, work: Work, target: Path, *, phases: bool = False) -> Measured:
    """Land a work with the operator, twice in one process, and then let it look for new files."""
    root = f"s3://lake@{storage.BUCKET}" if site.s3 else target.as_uri()
    lakes = [f"{root}/first", *[f"{root}/second"] * 2]
    job = {"kind": "ours", "arguments": arguments_of(site, work), "phases": phases}
    result = run_child(site, job, lakes[:1] if phases else lakes)
    first, *later = result["calls"]
    if (first["landed"], first["bytes"]) != (work.fetched, work.bytes):
        raise FailedError(f"{first['landed']} files of {first['bytes']} bytes landed.")
    details = {"import_seconds": result["import_seconds"], "base_rss": result["base_rss"]}
    if later:
        details |= {"second": later[0]["seconds"], "nothing": later[1]["seconds"]}
    if phases:
        details["phases"] = first["phases"]
    return Measured(first["seconds"], first["cpu"], first["rss"], details)


def _stock(kind: str) -> Callable[[Site, Work, Path], Measured]:
    def fetch(site: Site, work: Work, target: Path) -> Measured:
        job = {"kind": kind, "path": work.path, "list_only": _list_only(work)}
        result = run_child(site, job, [str(target / "files")])
        call = result["calls"][0]
        _check(work, target, call.get("listed"))
        return Measured(call["seconds"], call["cpu"], call["rss"])

    return fetch


def _raw(site: Site, work: Work, target: Path) -> Measured:
    job = {
        "kind": "raw",
        "path": work.path,
        "port": site.port,
        "account": site.server.account,
        "private_key": site.server.private_key,
        "fetched": work.fetched,
    }
    call = run_child(site, job, [""])["calls"][0]
    if (call["listed"], call["bytes"]) != (len(work.sizes), work.bytes):
        raise FailedError(f"{call['listed']} files were listed, and {call['bytes']} bytes read.")
    return Measured(call["seconds"], call["cpu"], call["rss"])


def _one_file(site: Site, work: Work, target: Path) -> Measured:
    """Log in, list a folder without other files, and read one small file."""
    job = {
        "kind": "raw",
        "path": "/submission",
        "port": site.port,
        "account": site.server.account,
        "private_key": site.server.private_key,
        "fetched": 1,
    }
    (site.server.root / "submission/one.csv").write_bytes(b"1")
    call = run_child(site, job, [""])["calls"][0]
    return Measured(call["seconds"], call["cpu"], call["rss"])


def _aws(site: Site, work: Work, target: Path) -> Measured:
    """Copy the files to S3 from the local disk."""
    files = site.server.root / work.path[1:]
    command = [
        "aws",
        "s3",
        "cp",
        "--recursive",
        "--only-show-errors",
        str(files),
        f"s3://{storage.BUCKET}/copy",
    ]
    measured = run(command, site.home / "aws.log", storage.environment(site.s3))
    if storage.count_objects(site.s3, "copy/") != (work.fetched, work.bytes):
        raise FailedError(f"{storage.count_objects(site.s3, 'copy/')} objects and bytes arrived.")
    return measured


def _sftp(site: Site, work: Work, target: Path) -> Measured:
    batch = site.home / "batch"
    command = "ls -ln" if _list_only(work) else "get -r"
    batch.write_text(f"{command} {work.path}" + ("\n" if _list_only(work) else f" {target}/files\n"))
    log = site.home / "sftp.log"
    measured = run(
        ["sftp", "-q", *site.ssh_options, "-b", str(batch), f"{site.server.account}@127.0.0.1"], log
    )
    _check(work, target, _lines(log))
    return measured


def _lftp(site: Site, work: Work, target: Path) -> Measured:
    connect = " ".join(["ssh", "-a", "-x", *site.ssh_options])
    command = f"cls -l {work.path}/" if _list_only(work) else f"mirror {work.path} {target}/files"
    log = site.home / "lftp.log"
    script = (
        f"set cmd:fail-exit yes; set sftp:connect-program '{connect}';"
        f" open -u {site.server.account},none sftp://127.0.0.1:{site.port}; {command}"
    )
    measured = run(["lftp", "--norc", "-c", script], log, {"HOME": str(site.home)})
    _check(work, target, _lines(log))
    return measured


def _rclone(logins: int) -> Callable[[Site, Work, Path], Measured]:
    def fetch(site: Site, work: Work, target: Path) -> Measured:
        options = [
            *("--config", os.devnull, "--sftp-host", "127.0.0.1", "--sftp-port", str(site.port)),
            *("--sftp-user", site.server.account, "--sftp-key-file", str(site.key)),
            *("--sftp-known-hosts-file", str(site.known_hosts)),
            # The server has no shell, in which rclone would compute checksums.
            *("--sftp-shell-type", "none", "--sftp-disable-hashcheck"),
            # It logs in as often as it has to do things at once.
            *("--transfers", str(logins), "--checkers", str(logins), "--check-first"),
        ]
        log = site.home / "rclone.log"
        if _list_only(work):
            measured = run(["rclone", "lsf", "--format", "pst", f":sftp:{work.path}", *options], log)
        else:
            measured = run(["rclone", "copy", f":sftp:{work.path}", f"{target}/files", *options], log)
        _check(work, target, _lines(log))
        return measured

    return fetch


def _list_only(work: Work) -> bool:
    return work.fetched < len(work.sizes)


def _lines(log: Path) -> int:
    with log.open("rb") as lines:
        return sum(b".csv" in line for line in lines)


def _check(work: Work, target: Path, listed: int | None) -> None:
    """Check that a peer has listed or fetched every file.

    :raises FailedError: if not.
    """
    if _list_only(work):
        if listed != len(work.sizes):
            raise FailedError(f"{listed} files were listed.")
        return
    sizes = [path.stat().st_size for path in target.rglob("*.csv")]
    if (len(sizes), sum(sizes)) != (work.fetched, work.bytes):
        raise FailedError(f"{len(sizes)} files of {sum(sizes)} bytes arrived.")


OURS = Peer("ours", "RapDownloadOperator", fetch_with_operator)
PEERS = (
    Peer("sftp", "OpenSSH `sftp -b`", _sftp, "sftp"),
    Peer("lftp", "`lftp mirror`", _lftp, "lftp"),
    Peer("rclone", "`rclone copy`, 1 login", _rclone(1), "rclone"),
    Peer("rclone16", "`rclone copy`, 16 logins", _rclone(16), "rclone"),
    Peer("hook", "stock `SFTPHook`", _stock("stock")),
    Peer("async-hook", "stock `SFTPHookAsync`", _stock("stock-async")),
)
S3_PEERS = (Peer("aws", "`aws s3 cp --recursive` from the local disk", _aws, "aws"),)
LIMITS = (
    Peer("raw", "raw asyncssh reads, nothing kept", _raw, is_limit=True),
    Peer("one-file", "raw asyncssh, one file of one byte", _one_file, is_limit=True),
)


def version_of(command: Sequence[str]) -> str:
    """Return the first line that a command prints about its version; empty if it is not installed.

    :param command: the command.
    """
    if not shutil.which(command[0]):
        return ""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.stdout.strip().splitlines()[0] if done.stdout.strip() else ""
