"""``airflow hkex-rap``, run by Airflow's own command line against a simulated RAP and a lake."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import asyncssh
import pendulum
import pytest
import yaml

from airflow_provider_hkex_rap.cli.definition import get_cli_commands
from airflow_provider_hkex_rap.cli.reach import source_finding
from airflow_provider_hkex_rap.lake.opening import open_lake
from airflow_provider_hkex_rap.lake.preflight import check_lake
from airflow_provider_hkex_rap.lake.store import Lake
from airflow_provider_hkex_rap.operators.download import RapDownloadOperator
from airflow_provider_hkex_rap.rap.errors import LakeError, RapAlgorithmError
from airflow_provider_hkex_rap.rap.folders import Folder, Service
from airflow_provider_hkex_rap.rap.workstations import parse_registered_addresses
from airflow_provider_hkex_rap.testing import Access, Fault, RapSimulator
from airflow_provider_hkex_rap.transport.probe import probe

from ..simulated_rap import connection_to, login_to
from .openssh import missing, openssh

NOW = pendulum.datetime(2026, 11, 20, 23, 40, tz="Asia/Hong_Kong")
DAYS = [pendulum.date(2026, 11, day) for day in (16, 17, 18, 19, 20)]
DOCS = Path(__file__).parents[2] / "docs"


class Result(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        return json.loads(self.out)


Airflow = Callable[..., Result]


@pytest.fixture(scope="module", autouse=True)
def database() -> None:
    from airflow.utils.db import initdb

    initdb()


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Airflow:
    """Return what runs an airflow command, by Airflow's own entry point."""
    from airflow.__main__ import main

    # The commands set it; it must not outlive the test.
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "")
    monkeypatch.delenv("_AIRFLOW_PROCESS_CONTEXT")

    def run(*arguments: str, stdin: str = "") -> Result:
        monkeypatch.setattr(sys, "argv", ["airflow", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        try:
            main()
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else int(bool(ended.code))
        else:
            status = 0
        return Result(status, *capsys.readouterr())

    return run


def use(monkeypatch: pytest.MonkeyPatch, connection: dict[str, Any], now: pendulum.DateTime = NOW) -> None:
    """Make the default connection, and set the provider's clock to *now*."""
    monkeypatch.setenv("AIRFLOW_CONN_HKEX_RAP_DEFAULT", json.dumps(connection))
    set_clock(monkeypatch, now)


def set_clock(monkeypatch: pytest.MonkeyPatch, now: pendulum.DateTime) -> None:
    monkeypatch.setenv("AIRFLOW__HKEX_RAP__CLOCK_OFFSET", str((now - pendulum.now()).total_seconds()))


@pytest.fixture
def rap(monkeypatch: pytest.MonkeyPatch) -> Iterator[RapSimulator]:
    with RapSimulator(now=NOW) as rap:
        use(monkeypatch, rap.connection("DCXYZ001"))
        yield rap


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return tmp_path / "lake"


def download(lake: Path) -> None:
    RapDownloadOperator(task_id="land", folders=list(Folder), lake=lake.as_uri(), expect=[]).execute({})


@pytest.fixture
def week(rap: RapSimulator, lake: Path) -> Path:
    """Return a lake in which the reports of a week up to now have landed."""
    for day in DAYS:
        rap.publish_day(day, reports=12)
    download(lake)
    return lake


def states(out: str) -> dict[str, list[str]]:
    """Return the states of doctor's checks, by check."""
    found: dict[str, list[str]] = {}
    for line in out.splitlines():
        state, check = re.match(r"(\S+)\s+(.{13})", line).groups()
        found.setdefault(check.strip(), []).append(state)
    return found


def test_init_makes_the_missing_pools_and_keeps_the_others(
    airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__HKEX_RAP__POOLS", "hkex_rap_cli")
    airflow("pools", "delete", "hkex_rap")
    airflow("pools", "set", "hkex_rap_cli", "2", "mine")
    assert airflow("hkex-rap", "init").out.splitlines() == [
        "Pool hkex_rap: made, slots: 1.",
        "Pool hkex_rap_cli: exists, slots: 2.",
    ]
    assert "Pool hkex_rap: exists, slots: 1." in airflow("hkex-rap", "init").out
    doctor = airflow("hkex-rap", "doctor", "--conn-id", "none")
    assert states(doctor.out)["pool"] == ["ok", "warn"]
    assert airflow("pools", "delete", "hkex_rap_cli").status == 0
    assert states(airflow("hkex-rap", "doctor", "--conn-id", "none").out)["pool"] == ["ok", "FAIL"]


def test_doctor_checks_everything_and_does_not_authenticate(
    rap: RapSimulator, airflow: Airflow, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A connection in the database, which a task's own Airflow would not see.
    monkeypatch.delenv("AIRFLOW_CONN_HKEX_RAP_DEFAULT")
    added = airflow("connections", "add", "hkex_rap_cli", "--conn-json", rap.connection_json("DCXYZ001"))
    assert added.status == 0, added
    airflow("hkex-rap", "init")
    doctor = airflow("hkex-rap", "doctor", "--conn-id", "hkex_rap_cli", "--lake", str(lake))
    airflow("connections", "delete", "hkex_rap_cli")
    assert (doctor.status, doctor.err) == (0, "")
    assert states(doctor.out) == {
        "connection": ["ok"],
        "clock": ["warn"],
        "address": ["ok"],
        "algorithms": ["ok"],
        "host key": ["ok"],
        "DCASS hours": ["ok"],
        "CCMS hours": ["ok"],
        "source": ["-"],
        "other site": ["warn"],
        "key store": ["ok"],
        "pool": ["ok"],
        "lock": ["ok"],
        "lake": ["ok"],
        "alerts": ["-"],
    }
    assert "open until Sat 2026-11-21 03:30 HKT" in doctor.out
    assert not lake.exists()
    assert "will be created by the first landing" in doctor.out
    rap.events.wait_for("lost")
    assert [event.kind for event in rap.events] == ["connect", "lost"]
    assert not any(event.account for event in rap.events)


@pytest.mark.parametrize(
    ("change", "check", "todo"),
    [
        ({"login": "dcxyz001"}, "connection", "Set the connection's login"),
        ({"extra": {}}, "connection", "Set the extra 'host_key'"),
        ({"port": "unused"}, "address", "Check the route to SDNet/2 or HSN"),
        ({"host_key": "another"}, "host key", "Confirm the new fingerprint with HKEX"),
    ],
    ids=lambda value: str(value),
)
def test_doctor_says_what_is_wrong_and_what_to_do(
    rap: RapSimulator,
    airflow: Airflow,
    unused_port: int,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    check: str,
    todo: str,
) -> None:
    connection = rap.connection("DCXYZ001") | change
    if connection["port"] == "unused":
        connection["port"] = unused_port
    if connection.pop("host_key", None):
        other = asyncssh.generate_private_key("ssh-rsa", key_size=2048)
        connection["extra"]["host_key"] = other.export_public_key().decode()
    use(monkeypatch, connection)
    doctor = airflow("hkex-rap", "doctor", "--login" if check == "connection" else "-v")
    assert doctor.status == 1
    assert states(doctor.out)[check] == ["FAIL"]
    assert todo in doctor.out
    assert not rap.events.of("login", "refused")


def test_doctor_warns_of_a_connection_of_another_type(
    rap: RapSimulator, airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, rap.connection("DCXYZ001") | {"conn_type": "ssh"})
    doctor = airflow("hkex-rap", "doctor")
    assert states(doctor.out)["connection"] == ["ok", "warn"]
    assert "Its type is 'ssh'. Set it to hkex_rap" in doctor.out


def test_doctor_does_not_hang(rap: RapSimulator, airflow: Airflow, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = rap.connection("DCXYZ001")
    connection["extra"]["connect_timeout"] = 0.3
    use(monkeypatch, connection)
    for stage in ("banner", "kex"):
        rap.faults.add(Fault("stall_at", stage=stage))
        doctor = airflow("hkex-rap", "doctor")
        assert (doctor.status, states(doctor.out)["address"]) == (1, ["FAIL"])
        assert "no answer within 0.3 s" in doctor.out


def test_doctor_names_the_algorithms_that_a_server_lacks() -> None:
    async def serve_and_probe() -> None:
        key = asyncssh.generate_private_key("ssh-rsa", key_size=2048)
        async with asyncssh.listen(
            "127.0.0.1", 0, server_host_keys=[key], encryption_algs=["chacha20-poly1305@openssh.com"]
        ) as server:
            login = login_to(connection_to(server.get_port(), key, key))
            with pytest.raises(RapAlgorithmError, match="chacha20"):
                await probe(login, login.addresses[0])

    asyncio.run(serve_and_probe())


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_doctor_tells_openssh_nothing_of_the_account(
    airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    airflow("hkex-rap", "init")
    with openssh() as server:
        use(monkeypatch, server.connection())
        doctor = airflow("hkex-rap", "doctor")
        assert (doctor.status, states(doctor.out)["host key"]) == (0, ["ok"])
        log = server.log.read_text()
        assert "[preauth]" in log
        assert "DCXYZ001" not in log


def test_doctor_finds_a_lake_that_lets_files_be_overwritten(
    airflow: Airflow, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overwrite(lake: Lake, relative: str, content: bytes) -> None:
        lake.fs.makedirs(lake.root, exist_ok=True)
        lake.fs.pipe_file(f"{lake.root}/{relative}", content)

    monkeypatch.setattr(Lake, "create", overwrite)
    doctor = airflow("hkex-rap", "doctor", "--conn-id", "nowhere", "--lake", str(lake))
    assert (doctor.status, states(doctor.out)["lake"]) == (1, ["FAIL"])
    assert "overwritten" in doctor.out
    assert not lake.exists()


def test_doctor_builds_the_notifiers_of_alerts(airflow: Airflow, monkeypatch: pytest.MonkeyPatch) -> None:
    smtp = "airflow.providers.smtp.notifications.smtp.SmtpNotifier"
    for kwargs, state, said in (
        ({"to": "desk@example.com"}, "ok", f"They go to {smtp}; none was sent."),
        ({"whom": "desk@example.com"}, "FAIL", "does not take these kwargs"),
    ):
        named = json.dumps({"notifier": smtp, "kwargs": kwargs})
        monkeypatch.setenv("AIRFLOW_VAR_HKEX_RAP_NOTIFIER", named)
        doctor = airflow("hkex-rap", "doctor", "--conn-id", "none")
        assert states(doctor.out)["alerts"] == [state]
        assert said in doctor.out


def test_doctor_warns_of_a_notifier_without_its_connection(
    airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = "airflow.providers.smtp.notifications.smtp.SmtpNotifier"
    kwargs = {"to": "a@b.example", "smtp_conn_id": "mail_of_alerts"}
    monkeypatch.setenv("AIRFLOW_VAR_HKEX_RAP_NOTIFIER", json.dumps({"notifier": path, "kwargs": kwargs}))
    said = airflow("hkex-rap", "doctor").out
    assert re.search(r"warn +alerts .*needs the connection 'mail_of_alerts'", said)
    monkeypatch.setenv("AIRFLOW_CONN_MAIL_OF_ALERTS", "smtp://localhost")
    assert "mail_of_alerts" not in airflow("hkex-rap", "doctor").out


def test_doctor_names_each_notifier_that_cannot_be_used(
    airflow: Airflow, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for module, error in (("raises", RuntimeError), ("exits", SystemExit)):
        (tmp_path / f"{module}.py").write_text(f"raise {error.__name__}")
    monkeypatch.syspath_prepend(tmp_path)
    smtp = "airflow.providers.smtp.notifications.smtp.SmtpNotifier"
    usable = {"notifier": smtp, "kwargs": {"to": "desk@example.com"}}
    named = [{"notifier": "raises.Notifier"}, {"notifer": smtp}, {"notifier": "exits.Notifier"}, usable]
    monkeypatch.setenv("AIRFLOW_VAR_HKEX_RAP_NOTIFIER", json.dumps(named))
    doctor = airflow("hkex-rap", "doctor", "--conn-id", "none")
    assert doctor.status == 1
    assert states(doctor.out)["alerts"] == ["FAIL", "FAIL", "FAIL", "ok"]
    for said in ("Entry 2", "raises.Notifier cannot", "exits.Notifier cannot", f"They go to {smtp};"):
        assert said in doctor.out


def test_doctor_names_a_missing_connection_and_an_unusable_lake(airflow: Airflow, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    doctor = airflow("hkex-rap", "doctor", "--conn-id", "nowhere", "--lake", str(tmp_path / "file" / "lake"))
    assert doctor.status == 1
    assert states(doctor.out)["connection"] == states(doctor.out)["lake"] == ["FAIL"]
    with pytest.raises(LakeError, match="A part of its path is a file") as caught:
        check_lake(open_lake(str(tmp_path / "file" / "lake")))
    # The words of the check before a login.
    assert str(caught.value) in doctor.out
    assert "airflow connections add" in doctor.out
    assert "Traceback" not in doctor.out + doctor.err


def test_doctor_only_warns_of_one_address_that_is_down_and_of_an_unpinned_host_key(
    rap: RapSimulator, airflow: Airflow, unused_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = rap.connection("DCXYZ001") | {"host": f"127.0.0.1:{unused_port},127.0.0.1:{rap.port}"}
    del connection["extra"]["host_key"]
    connection["extra"]["no_host_key_check"] = True
    use(monkeypatch, connection)
    airflow("hkex-rap", "init")
    doctor = airflow("hkex-rap", "doctor")
    assert doctor.status == 0
    assert states(doctor.out)["address"] == ["warn", "ok"]
    assert states(doctor.out)["host key"] == ["warn"]
    assert " ".join(rap.host_key.split()[:2]) in doctor.out


def test_doctor_logs_in_when_asked_to(airflow: Airflow, monkeypatch: pytest.MonkeyPatch) -> None:
    with RapSimulator(now=NOW, access=Access(subscriptions={"DCXYZ001": (Service.DCASS,)})) as rap:
        use(monkeypatch, rap.connection("DCXYZ001"))
        airflow("hkex-rap", "init")
        rap.put(Folder.DCASS, "report", b"x", NOW.subtract(hours=1))
        doctor = airflow("hkex-rap", "doctor", "--login")
        assert doctor.status == 0
        found = states(doctor.out)
        assert found["login"] == ["-", "ok"]
        assert found["folder"] == ["ok", "ok", "warn"]
        assert found["clock skew"] == ["ok"]
        assert found["source"] == ["-", "-"]
        assert len(rap.events.of("login")) == 1

        rap.put(Folder.DCASS, "from the future", b"x", NOW.add(hours=1))
        doctor = airflow("hkex-rap", "doctor", "--login")
        assert (doctor.status, states(doctor.out)["clock skew"]) == (1, ["FAIL"])

        rap.events.clear()
        set_clock(monkeypatch, NOW.add(days=1))
        doctor = airflow("hkex-rap", "doctor", "--login")
        assert (doctor.status, states(doctor.out)["login"]) == (0, ["-"])
        assert "closed until Mon 2026-11-23 07:00 HKT" in doctor.out
        assert not rap.events.of("login")


def test_doctor_names_a_key_of_the_connection_that_rap_refuses_while_the_store_has_a_good_one(
    rap: RapSimulator, airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    airflow("hkex-rap", "init")
    assert states(airflow("hkex-rap", "doctor", "--login").out)["login"] == ["-", "ok"]
    other = asyncssh.generate_private_key("ssh-rsa", key_size=2048)
    connection = rap.connection("DCXYZ001")
    connection["extra"]["private_key"] = other.export_private_key().decode()
    use(monkeypatch, connection)
    doctor = airflow("hkex-rap", "doctor", "--login")
    assert (doctor.status, states(doctor.out)["login"]) == (0, ["-", "ok", "warn"])
    (refused,) = (line for line in doctor.out.splitlines() if "RAP refused" in line)
    assert other.get_fingerprint("md5").removeprefix("MD5:") in refused
    assert "out of the connection" in refused


def test_a_database_that_is_not_migrated_is_one_message(tmp_path: Path) -> None:
    environment = os.environ | {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/empty.db",
    }
    command = [sys.executable, "-m", "airflow", "hkex-rap", "status"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "Airflow's database cannot be read (OperationalError). Run airflow db migrate."
    )
    assert "Traceback" not in done.stderr


def test_doctor_distrusts_the_time_of_one_file_more_than_its_own_clock(
    rap: RapSimulator, airflow: Airflow
) -> None:
    airflow("hkex-rap", "init")
    for number in range(3):
        rap.put(Folder.DCASS, f"report{number}", b"x", NOW.subtract(hours=1))
    rap.put(Folder.DCASS, "no time", b"x", 2**32 - 1)
    doctor = airflow("hkex-rap", "doctor", "--login")
    assert (doctor.status, states(doctor.out)["clock skew"]) == (0, ["warn"])
    assert "1 of 4 files" in doctor.out


def test_doctor_probes_the_site_that_is_not_active(
    rap: RapSimulator, airflow: Airflow, unused_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    airflow("hkex-rap", "init")
    connection = rap.connection("DCXYZ001")

    def at(hosts: str) -> tuple[int, list[str], str]:
        connection["extra"]["secondary_hosts"] = hosts
        use(monkeypatch, connection)
        doctor = airflow("hkex-rap", "doctor")
        return doctor.status, states(doctor.out)["other site"], doctor.out

    assert at(f"127.0.0.1:{rap.port}")[:2] == (0, ["ok"])
    status, found, out = at(f"127.0.0.1:{rap.port},127.0.0.1:{unused_port}")
    assert (status, found) == (0, ["ok", "warn"])
    assert f"127.0.0.1:{unused_port}" in out
    with RapSimulator(now=NOW, name="secondary") as other:
        status, found, out = at(f"127.0.0.1:{other.port}")
    assert (status, found) == (0, ["warn"])
    assert "pin it in 'host_key'" in out
    status, found, out = at("")
    assert (status, found) == (0, ["warn"])
    assert "Set 'secondary_hosts'" in out
    # Today's site may be the secondary one.
    connection["extra"] |= {"site": "secondary"}
    assert at(f"127.0.0.1:{rap.port}")[:2] == (0, ["ok"])


@pytest.mark.guide("4.3 addresses")
def test_doctor_compares_this_machines_address_with_the_registered_ones(
    rap: RapSimulator, airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    airflow("hkex-rap", "init")
    connection = rap.connection("DCXYZ001")
    connection["extra"]["registered_addresses"] = "10.1.1.1, 10.1.1.2"
    use(monkeypatch, connection)
    doctor = airflow("hkex-rap", "doctor", "--login")
    assert (doctor.status, states(doctor.out)["source"]) == (0, ["warn", "warn"])
    assert "This machine is 127.0.0.1" in doctor.out
    assert "10.1.1.1, 10.1.1.2" in doctor.out
    assert source_finding("10.1.1.2", parse_registered_addresses("10.1.1.2"), "").state == "ok"
    connection["extra"]["registered_addresses"] = "10.1.1.1, 10.2.1.1"
    use(monkeypatch, connection)
    assert states(airflow("hkex-rap", "doctor").out)["connection"] == ["FAIL"]


def test_doctor_creates_no_lock_directory(
    airflow: Airflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__HKEX_RAP__LOCK_DIR", str(tmp_path / "locks"))
    doctor = airflow("hkex-rap", "doctor", "--conn-id", "none")
    assert states(doctor.out)["lock"] == ["ok"]
    assert not list(tmp_path.iterdir())


DAGS = """
from airflow.sdk import DAG
from airflow_provider_hkex_rap.operators.download import RapDownloadOperator
from airflow_provider_hkex_rap.sensors.report import RapReportSensor

class Mine(RapDownloadOperator):
    pass

with DAG("doctors_patient"):
    RapDownloadOperator(task_id="good", folders=["DCASS"], lake="/lake")
    Mine(task_id="missing", folders=["DCASS"], lake="/lake", pool="no_such_pool")
    RapReportSensor(task_id="wide", folder="DCASS", pool="default_pool")
    RapDownloadOperator.partial(task_id="mapped", lake="/lake", pool="nor_this").expand(folders=["DCASS"])
"""


def test_doctor_checks_the_pools_that_dags_name(
    airflow: Airflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dags.py").write_text(DAGS)
    bundle = {"name": "dags-folder", "kwargs": {"path": str(tmp_path)}}
    bundle["classpath"] = "airflow.dag_processing.bundles.local.LocalDagBundle"
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps([bundle]))
    airflow("hkex-rap", "init")
    assert airflow("dags", "reserialize").status == 0
    try:
        doctor = airflow("hkex-rap", "doctor", "--conn-id", "none")
    finally:
        airflow("dags", "delete", "doctors_patient", "--yes")
    pools = {line.split()[2]: line for line in doctor.out.splitlines() if " pool " in line}
    assert {name: line.split()[0] for name, line in pools.items()} == {
        "hkex_rap": "ok",
        "no_such_pool": "FAIL",
        "nor_this": "FAIL",
        "default_pool": "warn",
    }
    assert "doctors_patient.missing" in pools["no_such_pool"]
    assert "doctors_patient.mapped" in pools["nor_this"]
    assert "doctors_patient.wide" in pools["default_pool"]
    assert doctor.status == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("doctor", "--login"),
        ("init",),
        ("status",),
        ("ls", "--yes", "DCASS"),
        ("gaps", "--lake", "LAKE"),
        ("verify", "--lake", "LAKE"),
        ("manifest", "--lake", "LAKE"),
        ("manifest", "--lake", "LAKE", "-o", "yaml"),
        ("renew",),
    ],
    ids=" ".join,
)
def test_every_command_survives_a_terminal_that_is_not_utf_8(
    week: Path,
    rap: RapSimulator,
    airflow: Airflow,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
) -> None:
    rap.put(Folder.DCASS, "報告_20261120.csv", b"x", NOW.subtract(hours=1))
    download(week)
    expected = airflow("hkex-rap", *(str(week) if it == "LAKE" else it for it in arguments))
    out, err = (io.TextIOWrapper(io.BytesIO(), "ascii", write_through=True) for _ in range(2))
    with monkeypatch.context() as terminal:
        terminal.setattr(sys, "stdout", out)
        terminal.setattr(sys, "stderr", err)
        seen = airflow("hkex-rap", *(str(week) if it == "LAKE" else it for it in arguments))
    assert seen.status == expected.status
    printed = out.buffer.getvalue().decode("ascii")
    assert printed.count("\n") >= expected.out.count("\n")
    assert "Traceback" not in err.buffer.getvalue().decode("ascii")


def test_the_help_of_every_command_is_ascii() -> None:
    (group,) = get_cli_commands()
    for each in group.subcommands:
        helps = [arg.kwargs.get("help", "") for arg in each.args]
        assert all(map(str.isascii, [each.help, each.description or "", *helps])), each.name


def test_ls_asks_before_it_logs_in(rap: RapSimulator, airflow: Airflow) -> None:
    rap.put(Folder.DCASS, "TP001_CXYZ_20261119.csv", b"12345", NOW.subtract(days=1, hours=2))
    rap.put(Folder.DCASS, "\x1b[2J[red]monthly.pdf", b"", pendulum.datetime(2026, 11, 19, 20, 0))
    for answer in ("n\n", "", "\n"):
        declined = airflow("hkex-rap", "ls", "DCASS", stdin=answer)
        assert declined.status == 1
        assert "ends a session of that account" in declined.err
        assert not rap.events
    agreed = airflow("hkex-rap", "ls", "/download/DCASS", stdin="y\n")
    assert agreed.status == 0
    assert "\\x1b[2J[red]monthly.pdf" in agreed.out
    assert airflow("hkex-rap", "ls", "DCASS", "--yes", "-o", "json").rows == [
        {
            "folder": "DCASS",
            "name": "\\x1b[2J[red]monthly.pdf",
            "kind": "file",
            "size": 0,
            "modified_hkt": "2026-11-20 04:00:00",
            "business_date": "2026-11-19",
            "report": "\\x1b[2J[red]monthly",
        },
        {
            "folder": "DCASS",
            "name": "TP001_CXYZ_20261119.csv",
            "kind": "file",
            "size": 5,
            "modified_hkt": "2026-11-19 21:40:00",
            "business_date": "2026-11-19",
            "report": "TP001",
        },
    ]
    assert len(rap.events.of("login")) == 2
    assert not rap.events.of("open", "denied")


def test_ls_lists_the_rest_where_a_folder_is_denied(
    airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RapSimulator(now=NOW, access=Access(subscriptions={"DCXYZ001": (Service.DCASS,)})) as rap:
        use(monkeypatch, rap.connection("DCXYZ001"))
        rap.put(Folder.DCASS, "report", b"x")
        result = airflow("hkex-rap", "ls", "-y", "-o", "json", "HKCC_SEOCH_CCMS_GLOB", "DCASS")
    assert result.status == 1
    assert [row["name"] for row in result.rows] == ["report"]
    assert "does not subscribe to CCMS" in result.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ls", "-y", "dcass"), "'dcass' is not a folder"),
        (("ls", "-y", "--conn-id", "nowhere", "DCASS"), "airflow connections add"),
        (("ls", "-y", "DCASS"), "No login as DCXYZ001"),
        (("gaps", "--customer", "CXYZ"), "neither --lake nor the Airflow Variable hkex_rap_lake"),
        (("gaps", "--lake", "lake", "--customer", "CXYZ"), "'lake' in 'lake' is not the root"),
        (("gaps", "--lake", "/lake", "--customer", "cxyz"), "'cxyz' is not a DCASS customer code"),
        (("gaps", "--lake", "/lake", "--customer", "CXYZ", "--folders", "X"), "'X' is not a folder"),
        (("manifest", "--lake", "/lake", "--customer", "cxyz"), "'cxyz' is not a DCASS customer code"),
        (("manifest", "--lake", "/lake", "--folder", "X"), "'X' is not a folder"),
        (("manifest", "--lake", "/lake", "--business-date", "1", "2", "3"), "not a first and a last"),
        (("manifest", "--lake", "/lake", "--business-date", "today"), "'today' in '--business-date'"),
        (("verify", "--lake", "/lake", "--customer", "CXYZ"), "nothing of CXYZ to verify"),
        (("verify", "--lake", "/lake", "--customer", "CXYZ", "--since", "today"), "'today' in '--since'"),
    ],
    ids=str,
)
def test_an_error_is_one_message(
    rap: RapSimulator, airflow: Airflow, arguments: tuple[str, ...], message: str
) -> None:
    rap.stop()
    result = airflow("hkex-rap", *arguments)
    assert (result.status, result.out) == (1, "")
    assert message in result.err
    assert "Traceback" not in result.err


def gaps(airflow: Airflow, lake: Path, *arguments: str) -> tuple[int, dict[tuple[str, str], dict[str, Any]]]:
    result = airflow("hkex-rap", "gaps", "--lake", str(lake), "--customer", "CXYZ", "-o", "json", *arguments)
    return result.status, {(row["business_date"], row["folder"]): row for row in result.rows}


def test_gaps_says_what_landed_is_missing_and_is_awaited(week: Path, airflow: Airflow) -> None:
    status, rows = gaps(airflow, week, "--expect", "TP001_*", "SERIES_*", "NEVER_*")
    days = ["2026-11-10", "2026-11-11", "2026-11-12", "2026-11-13", *(day.isoformat() for day in DAYS)]
    assert status == 1
    assert list(rows) == [(day, folder.value) for day in days for folder in Folder]
    for (day, folder), row in rows.items():
        landed = list((week / f"reports/customer=CXYZ/folder={folder}").glob(f"*/business_date={day}/*"))
        assert int(row["files"]) == len(landed)
        assert int(row["bytes"]) == sum(path.stat().st_size for path in landed)
        assert int(row["days_left"]) == 11 - (NOW.date() - pendulum.Date.fromisoformat(day)).days
    assert rows["2026-11-13", "DCASS"]["missing"] == ["TP001_*", "NEVER_*"]
    assert all(row["judged"] is True for row in rows.values())
    assert rows["2026-11-13", "DCASS_OTHERS"]["missing"] == ["SERIES_*", "NEVER_*"]
    assert rows["2026-11-19", "DCASS"]["missing"] == ["NEVER_*"]
    # SERIES comes after midnight, and until 03:30 it may.
    assert rows["2026-11-20", "DCASS_OTHERS"]["awaited"] == ["SERIES_*", "NEVER_*"]
    assert not any(rows["2026-11-20", folder.value]["missing"] for folder in Folder)


def test_gaps_is_a_check_that_passes_and_fails(
    rap: RapSimulator, lake: Path, airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = [NOW.date().subtract(days=days) for days in range(10, 0, -1)]
    for day in [day for day in kept if day.weekday() < 5]:
        rap.publish_day(day, reports=12)
    rap.put(Folder.DCASS, "on_a_saturday.txt", b"x", pendulum.datetime(2026, 11, 14, 4, 0))
    download(lake)
    set_clock(monkeypatch, NOW.set(hour=7))
    status, rows = gaps(airflow, lake)
    assert status == 0
    awaited = rows["2026-11-20", "DCASS"]["awaited"]
    assert set(awaited) == {"MS008", "OI002", "TP001", "TP001X1", "TR003"}
    assert rows["2026-11-14", "DCASS"]["files"] == 1
    # Three days before a day must be known to tell which reports are usual.
    judged = {day for (day, _), row in rows.items() if row["judged"]}
    assert judged == {"2026-11-13", "2026-11-16", "2026-11-17", "2026-11-18", "2026-11-19", "2026-11-20"}
    assert not any(row["missing"] for row in rows.values())
    said = airflow("hkex-rap", "gaps", "--lake", str(lake), "--customer", "CXYZ").err
    assert (
        "Rows judged: 18; not judged: 12 (2026-11-10, 2026-11-11, 2026-11-12: too few ordinary days before"
        " have a file of the folder; 2026-11-14: no trading day)" in said
    )

    # In the night, when TP001 has come on all days before. CCMS has closed, and DCASS closes at 03:30.
    set_clock(monkeypatch, NOW.add(hours=1))
    status, rows = gaps(airflow, lake)
    assert status == 1
    dcass, ccms = rows["2026-11-20", "DCASS"], rows["2026-11-20", "HKCC_SEOCH_CCMS_GLOB"]
    assert "TP001" in dcass["missing"]
    assert set(dcass["awaited"]) == {"OI002", "TR003"}
    assert set(ccms["missing"]) == {"CCMS_COLLATERAL", "CCMS_PRICE", "CCMS_STATEMENT"}
    assert not ccms["awaited"]
    # A pattern is due when the folder closes that its reports come in; here, either.
    assert gaps(airflow, lake, "--expect", "CCMS_PRICE_*")[0] == 1
    assert gaps(airflow, lake, "--expect", "[CT]*")[0] == 0
    set_clock(monkeypatch, NOW.add(hours=4))
    assert gaps(airflow, lake, "--expect", "[CT]*")[0] == 1


def test_gaps_judges_a_new_folder_once_enough_of_its_days_are_known(
    rap: RapSimulator, lake: Path, airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in range(10, 21):
        published = pendulum.datetime(2026, 11, day, 20, tz="Asia/Hong_Kong")
        if published.weekday() < 5:
            rap.put(Folder.DCASS, f"TP001_{published:%Y%m%d}.csv", b"x", published)
    rap.put(Folder.DCASS_OTHERS, "RPI03_20261120.csv", b"x", published)
    download(lake)
    set_clock(monkeypatch, NOW.add(hours=4))
    folders = ("--folders", "DCASS", "DCASS_OTHERS")
    status, rows = gaps(airflow, lake, *folders)
    assert status == 0
    assert {day for (day, folder), row in rows.items() if folder == "DCASS_OTHERS" and row["judged"]} == set()
    assert rows["2026-11-20", "DCASS"]["judged"]
    said = airflow("hkex-rap", "gaps", "--lake", str(lake), "--customer", "CXYZ", *folders).err
    assert "2026-11-20 in DCASS_OTHERS: too few ordinary days before" in said


@pytest.mark.parametrize(
    ("glob", "dag"),
    [("[TC]*", "hkex_rap_daily_ccms or hkex_rap_daily_dcass"), ("TP001_*", "hkex_rap_daily_dcass")],
)
def test_gaps_names_the_dag_to_trigger(airflow: Airflow, week: Path, glob: str, dag: str) -> None:
    said = airflow("hkex-rap", "gaps", "--lake", str(week), "--customer", "CXYZ", "--expect", glob).err
    assert f"Trigger the DAG that lands the reports ({dag}," in said


def test_gaps_says_where_a_lake_holds_nothing_of_the_customer(airflow: Airflow, week: Path) -> None:
    found = airflow("hkex-rap", "gaps", "--lake", str(week), "--customer", "CABC")
    assert found.status == 1
    assert f"{week.as_uri()} holds nothing of CABC of these days" in found.err


def test_gaps_counts_the_trading_days_of_either_market(
    lake: Path, airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_clock(monkeypatch, pendulum.datetime(2026, 12, 31, 12, tz="Asia/Hong_Kong"))
    derivatives = {day for day, _ in gaps(airflow, lake)[1]}
    securities = {day for day, _ in gaps(airflow, lake, "--calendar", "securities")[1]}
    assert derivatives - securities == {"2026-12-25"}
    assert not securities - derivatives


def verify(airflow: Airflow, lake: Path, *arguments: str) -> Result:
    return airflow("hkex-rap", "verify", "--lake", str(lake), "--customer", "CXYZ", "-o", "json", *arguments)


def test_verify_proves_the_lake_or_says_what_to_do(week: Path, airflow: Airflow) -> None:
    files = sorted((week / "reports/customer=CXYZ").rglob("*.csv"))
    agreed = verify(airflow, week)
    total = sum(path.is_file() for path in (week / "reports/customer=CXYZ").rglob("*"))
    assert (agreed.status, agreed.err) == (0, f"All {total} files agree with the manifest.\n")

    day = (week / "reports/customer=CXYZ/folder=DCASS").glob("*/business_date=2026-11-17/*.csv")
    removed, changed = sorted(day)[:2]
    removed.unlink()
    changed.write_bytes(changed.read_bytes()[::-1])
    (changed.parent / "stray.csv").touch()
    (manifest,) = (week / "manifest").glob("CXYZ/DCASS/2026-11-18/*.jsonl")
    manifest.write_bytes(manifest.read_bytes().replace(b"{", b"", 1000))
    result = verify(airflow, week)
    assert result.status == 1
    problems = {row["uri"].rpartition("/")[2]: row for row in result.rows}
    assert {removed.name, changed.name, "stray.csv", manifest.name} <= set(problems)
    orphans = {path.name for path in files if path.match("folder=DCASS/*/business_date=2026-11-18/*")}
    assert orphans <= set(problems)
    assert all("download task" in row["todo"] for row in result.rows)
    assert len({row["todo"] for row in result.rows}) == 4

    assert verify(airflow, week, "--since", "2026-11-19").status == 0
    assert verify(airflow, week, "--since", "2026-11-18").status == 1
    assert verify(airflow, week, "--folders", "DCASS_OTHERS").status == 0


@pytest.mark.parametrize("name", ["verify", "gaps", "manifest"])
def test_a_lake_that_cannot_be_read_is_named_with_the_next_step(
    airflow: Airflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unused_port: int, name: str
) -> None:
    (tmp_path / "file").touch()
    found = airflow("hkex-rap", name, "--lake", str(tmp_path / "file"), "--customer", "CXYZ")
    assert found.status == 1
    assert f"The lake file://{tmp_path}/file cannot be read: NotADirectoryError" in found.err
    assert "correct the lake's URI" in found.err

    # The errors of object stores are no OSErrors.
    monkeypatch.setattr(pytest.importorskip("s3fs").S3FileSystem, "retries", 1)
    retries = {"total_max_attempts": 1}
    endpoint = {"endpoint_url": f"http://127.0.0.1:{unused_port}", "config_kwargs": {"retries": retries}}
    connection = {"conn_type": "aws", "login": "key", "password": "secret", "extra": endpoint}
    monkeypatch.setenv(f"AIRFLOW_CONN_NOWHERE_{name.upper()}", json.dumps(connection))
    found = airflow("hkex-rap", name, "--lake", f"s3://nowhere_{name}@bucket/rap", "--customer", "CXYZ")
    assert found.status == 1
    assert "The lake s3://bucket/rap cannot be read: EndpointConnectionError" in found.err
    assert "A later try may succeed; else check it." in found.err


def manifest(airflow: Airflow, lake: Path, *arguments: str) -> Result:
    return airflow("hkex-rap", "manifest", "--lake", str(lake), *arguments)


@pytest.fixture
def republished(rap: RapSimulator, week: Path) -> Path:
    """Return a lake in which TP001 of the last day has landed twice, and a quarantined name has an entry."""
    name = "TP001_CXYZ_20261120.csv"
    assert name.encode() in [file.name for file in rap.files(Folder.DCASS)]
    rap.put(Folder.DCASS, name, b"account,price\n1,2\n", NOW.subtract(minutes=10))
    rap.put(Folder.DCASS, "..", b"x", NOW.subtract(minutes=10))
    rap.put(Folder.DCASS, r"..\[red]outside.csv", b"x", NOW.subtract(minutes=10))
    download(week)
    return week


def test_manifest_shows_the_current_reports_of_the_connections_customer(
    republished: Path, airflow: Airflow
) -> None:
    day = ("--business-date", "2026-11-20", "--report", "TP001", "--folder", "DCASS")
    every = manifest(airflow, republished, *day, "-o", "json")
    current = manifest(airflow, republished, *day, "-o", "json", "--current")
    assert (every.status, current.status, every.err, current.err) == (0, 0, "", "")
    versions = [row for row in every.rows if row["rap_path"].endswith("/TP001_CXYZ_20261120.csv")]
    first, second = sorted(versions, key=lambda row: row["mtime"])
    assert second["supersedes"] == first["uri"]
    assert second["size"] == 18
    assert [row for row in current.rows if row in (first, second)] == [second]
    assert yaml.safe_load(manifest(airflow, republished, *day, "-o", "yaml", "--current").out) == current.rows


def test_manifest_shows_a_row_for_each_entry(republished: Path, airflow: Airflow) -> None:
    rows = manifest(airflow, republished, "-o", "json").rows
    assert {row["disposition"] for row in rows} == {"landed", "quarantined"}
    assert len({row["uri"] for row in rows if row["uri"]}) == sum(
        path.is_file() for path in (republished / "reports").rglob("*")
    )
    days = manifest(airflow, republished, "--business-date", "2026-11-17", "2026-11-18", "-o", "json").rows
    assert {row["business_date"] for row in days} == {"2026-11-17", "2026-11-18"}
    for output in ("table", "plain"):
        shown = manifest(airflow, republished, "-o", output).out
        assert r"..\[red]outside.csv" in shown
        assert all(row["uri"].rpartition("/")[2] in shown for row in rows if row["uri"])


@pytest.mark.parametrize(
    ("dates", "said"),
    [
        (("2026-11-20", "2026-11-16"), "The first date is after the last one."),
        (("2026-11-16", "2026-11-17", "2026-11-18"), "These are more than two dates."),
        (("yesterday",), "'yesterday' in '--business-date'"),
    ],
)
def test_manifest_names_its_option_if_the_dates_are_wrong(
    airflow: Airflow, tmp_path: Path, dates: tuple[str, ...], said: str
) -> None:
    found = manifest(airflow, tmp_path, "--business-date", *dates)
    assert found.status == 1
    assert said in found.err
    assert "--business-date" in found.err
    assert "(" not in found.err


@pytest.mark.parametrize("command", ["gaps", "manifest"])
def test_numbers_and_booleans_keep_their_types(airflow: Airflow, week: Path, command: str) -> None:
    arguments = ("hkex-rap", command, "--lake", str(week), "--customer", "CXYZ", "-o")
    rows = airflow(*arguments, "json").rows
    assert yaml.safe_load(airflow(*arguments, "yaml").out) == rows
    size = "bytes" if command == "gaps" else "size"
    assert {type(row[size]) for row in rows} == {int}
    assert {type(row.get("judged", True)) for row in rows} == {bool}


def test_a_reader_that_goes_ends_a_command_silently(week: Path) -> None:
    command = ["hkex-rap", "manifest", "--lake", str(week), "--customer", "CXYZ", "-o", "yaml"]
    with subprocess.Popen(
        [sys.executable, "-m", "airflow", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        # Nobody reads.
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (141, "")


def test_manifest_says_if_it_has_found_nothing(week: Path, airflow: Airflow) -> None:
    for output, out in (("json", "[]"), ("table", "")):
        found = manifest(airflow, week, "--customer", "CABC", "-o", output)
        assert (found.status, found.out.strip()) == (0, out)
        assert f"{week.as_uri()} has no such entries of CABC" in found.err


def test_manifest_fails_if_a_part_of_it_cannot_be_read(week: Path, airflow: Airflow) -> None:
    (path,) = (week / "manifest/CXYZ/DCASS/2026-11-18").glob("*.jsonl")
    whole = manifest(airflow, week, "--current", "-o", "json").rows
    path.write_bytes(path.read_bytes()[:-9])
    result = manifest(airflow, week, "--current", "-o", "json")
    assert (result.status, len(result.rows)) == (1, len(whole) - 1)
    assert path.as_uri() in result.err
    assert "hkex-rap verify" in result.err


def test_the_customer_is_that_of_the_connections_account(
    week: Path, airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = ("--lake", str(week))
    assert airflow("hkex-rap", "verify", *lake).status == 0
    assert airflow("hkex-rap", "gaps", *lake, "-o", "json").rows == list(gaps(airflow, week)[1].values())
    connection = json.dumps({"conn_type": "hkex_rap", "login": "DCABC001"})
    monkeypatch.setenv("AIRFLOW_CONN_OF_CABC", connection)
    for command in ("verify", "gaps", "manifest"):
        assert "of CABC" in airflow("hkex-rap", command, *lake, "--conn-id", "of_cabc").err
        without = airflow("hkex-rap", command, *lake, "--conn-id", "nowhere")
        assert (without.status, without.out) == (1, "")
        assert "neither --customer nor the Airflow connection nowhere" in without.err


def test_the_customer_is_that_of_the_only_connection(
    week: Path, airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_HKEX_RAP_DEFAULT")
    monkeypatch.setenv("AIRFLOW_CONN_MINE", json.dumps({"conn_type": "hkex_rap", "login": "DCXYZ001"}))
    monkeypatch.setenv("AIRFLOW_CONN_MINE_TOO", json.dumps({"conn_type": "hkex_rap", "login": "DCXYZ002"}))
    for command in ("verify", "gaps", "manifest"):
        result = airflow("hkex-rap", command, "--lake", str(week))
        assert "No customer" not in result.err
        assert "nothing of" not in result.err
    monkeypatch.setenv("AIRFLOW_CONN_ANOTHER", json.dumps({"conn_type": "hkex_rap", "login": "DCABC001"}))
    for command in ("verify", "gaps", "manifest"):
        result = airflow("hkex-rap", command, "--lake", str(week))
        assert (result.status, result.out) == (1, "")
        assert "CABC, CXYZ" in result.err


def test_ls_without_a_folder_lists_all_that_the_account_may_see(
    airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RapSimulator(now=NOW, access=Access(subscriptions={"DCXYZ001": (Service.DCASS,)})) as rap:
        use(monkeypatch, rap.connection("DCXYZ001"))
        for folder in (Folder.DCASS, Folder.DCASS_OTHERS):
            rap.put(folder, "report", b"x", NOW.subtract(hours=1))
        listed = airflow("hkex-rap", "ls", "--yes", "-o", "json")
        assert (listed.status, [row["folder"] for row in listed.rows]) == (0, ["DCASS", "DCASS_OTHERS"])
        assert "Left out: /download/HKCC_SEOCH_CCMS_GLOB" in listed.err
        assert len(rap.events.of("login")) == 1
        # Of a folder that was asked for, the denial is an error.
        assert airflow("hkex-rap", "ls", "--yes", "HKCC_SEOCH_CCMS_GLOB").status == 1


def test_gaps_and_verify_print_a_verdict(rap: RapSimulator, week: Path, airflow: Airflow) -> None:
    for day in range(10, 14):
        rap.publish_day(pendulum.date(2026, 11, day), reports=12)
    download(week)
    found = airflow("hkex-rap", "gaps", "--lake", str(week), "-o", "json")
    assert found.status == 0, found
    judged = sum(row["judged"] for row in found.rows)
    others = len(found.rows) - judged
    assert others
    assert f"Every judged row is complete. Rows judged: {judged}; not judged: {others} (" in found.err
    next(week.rglob("business_date=2026-11-20/*.csv")).unlink()
    proven = airflow("hkex-rap", "verify", "--lake", str(week))
    assert (proven.status, proven.err.splitlines()[-1].split(",")[0]) == (1, "Problems: 1")


def test_gaps_warns_of_a_monthly_report_that_has_not_come(
    rap: RapSimulator, lake: Path, airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    for month, last in ((8, 31), (9, 30)):
        day = pendulum.datetime(2026, month, last, 20, tz="Asia/Hong_Kong")
        rap.clock.set(day.add(hours=2))
        set_clock(monkeypatch, day.add(hours=2))
        rap.put(Folder.DCASS, f"MT001_{day:%Y%m%d}.pdf", b"x", day)
        rap.put(Folder.DCASS, f"TP001_{day:%Y%m%d}.csv", b"x", day)
        RapDownloadOperator(task_id="land", folders=["DCASS"], lake=lake.as_uri(), expect=[]).execute({})
    set_clock(monkeypatch, pendulum.datetime(2026, 11, 6, 20, tz="Asia/Hong_Kong"))
    said = airflow("hkex-rap", "gaps", "--lake", str(lake), "--folders", "DCASS").err
    assert "Warning: MT001 in DCASS came on 2026-08-31 and 2026-09-30" in said
    assert "MT001" not in airflow("hkex-rap", "gaps", "--lake", str(lake), "--folders", "DCASS_OTHERS").err


def documented(command: str = "") -> list[str]:
    text = "".join(path.read_text() for path in sorted(DOCS.glob("*.md")))
    lines = "".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL)).splitlines()
    return [line for line in lines if line.startswith(f"airflow hkex-rap {command}")]


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for line in documented() if " simulate" not in line])
def test_the_documented_commands_run(
    line: str,
    rap: RapSimulator,
    airflow: Airflow,
    lake: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Those that make keys leave them in the store and in the directory, and a second one would meet them.
    forget_keys(airflow)
    monkeypatch.chdir(tmp_path)
    for day in [day for day in (NOW.date().subtract(days=n) for n in range(11)) if day.weekday() < 5]:
        rap.publish_day(day, reports=3)
    download(lake)
    monkeypatch.setenv("AIRFLOW_VAR_HKEX_RAP_LAKE", lake.as_uri())
    airflow("hkex-rap", "init")
    result = airflow(*shlex.split(line.replace("/data/rap", str(lake)))[1:], stdin="y\n")
    forget_keys(airflow)
    assert result.status == 0, result


def forget_keys(airflow: Airflow) -> None:
    for number in range(1, 5):
        airflow("variables", "delete", f"hkex_rap_private_key_DCXYZ00{number}")


@contextmanager
def simulated(monkeypatch: pytest.MonkeyPatch, line: str) -> Iterator[str]:
    """Run a simulated RAP by a command line, and connect to it; yield what it has printed."""
    with subprocess.Popen(
        [sys.executable, "-m", *shlex.split(line)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            said = ""
            while "Press Ctrl-C to stop" not in said:
                text = process.stdout.readline()
                assert text, said
                said += text
            for name, path in re.findall(
                r'^export (AIRFLOW_CONN_\w+)="\$\(cat (\S+)\)"$', said, re.MULTILINE
            ):
                monkeypatch.setenv(name, Path(path).read_text())
            monkeypatch.setenv("AIRFLOW__HKEX_RAP__CLOCK_OFFSET", re.search(r"OFFSET=(\S+)", said)[1])
            yield said
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(20)
    assert process.returncode == 0


def test_the_commands_are_registered_and_a_simulated_rap_can_be_connected_to(
    airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    line, *_ = documented("simulate")
    with simulated(monkeypatch, line):
        listed = airflow("hkex-rap", "ls", "--yes", "DCASS", "-o", "json")
    assert {row["business_date"] for row in listed.rows} == {"2026-11-19", "2026-11-20"}
    assert {type(row["size"]) for row in listed.rows} == {int}


def test_a_simulated_rap_has_a_connection_for_each_account_and_lacks_a_report(
    airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = "airflow hkex-rap simulate --days 2 --now 2026-11-21T01:30 --missing TP001"
    with simulated(monkeypatch, f"{line} --account DCXYZ001 --account DCKEY002") as said:
        assert len(re.findall("^export AIRFLOW_CONN_HKEX_RAP_DCKEY002=", said, re.MULTILINE)) == 1
        for conn_id in ("hkex_rap_default", "hkex_rap_dckey002"):
            rows = airflow("hkex-rap", "ls", "--yes", "DCASS", "-o", "json", "--conn-id", conn_id).rows
            assert {row["business_date"] for row in rows if row["report"] == "TP001"} == {"2026-11-19"}
            assert {row["business_date"] for row in rows if row["report"] == "MS008"} == {
                "2026-11-19",
                "2026-11-20",
            }


def test_a_report_that_cannot_be_missing_is_refused(airflow: Airflow) -> None:
    found = airflow("hkex-rap", "simulate", "--now", "2026-11-21T01:30", "--missing", "TP999")
    assert found.status == 2
    assert "2026-11-20 has no report TP999 that could be missing. Its reports are" in found.err
