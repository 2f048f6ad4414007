"""The key commands of ``airflow hkex-rap``, run by Airflow's own command line."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pendulum
import pytest

from airflow_provider_hkex_rap.keystore.directory import DirectoryKeyStore
from airflow_provider_hkex_rap.keystore.record import (
    Happened,
    KeptWarning,
    KeyRecord,
    PendingKey,
    StoredKey,
    TypedDay,
)
from airflow_provider_hkex_rap.rap.account import Account
from airflow_provider_hkex_rap.rap.errors import RapConfigurationError
from airflow_provider_hkex_rap.rap.keys import PrivateKey, PublicKey
from airflow_provider_hkex_rap.rap.registration import FORM
from airflow_provider_hkex_rap.testing import RapSimulator

from . import test_cli
from .openssh import missing, openssh
from .test_cli import Airflow, Result, set_clock, states

airflow, database = test_cli.airflow, test_cli.database

NOW = pendulum.datetime(2026, 11, 20, 9, 0, tz="Asia/Hong_Kong")
TODAY = NOW.date()
ACCOUNTS = ["DCXYZ001", "DCXYZ002"]


@pytest.fixture(autouse=True)
def no_other_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_HKEX_RAP_DEFAULT", raising=False)
    set_clock(monkeypatch, NOW)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    return tmp_path / "kit.zip"


def register(airflow: Airflow, store: Path, kit: Path, *arguments: str) -> Result:
    accounts = [f"--account={account}" for account in ACCOUNTS]
    ips = ["--ip=10.1.1.1", "--ip=10.1.1.2"]
    given = ("--key-store", store.as_uri(), "--output", str(kit))
    # Small keys, where the size is not what is tested.
    size = () if any("--key-size" in it for it in arguments) else ("--key-size=2048",)
    return airflow("hkex-rap", "register", *accounts, *ips, *given, *size, *arguments)


def record(store: Path, account: str = "DCXYZ001") -> KeyRecord:
    return KeyRecord.from_json(DirectoryKeyStore(store).read(account) or "", Account(account))


def keep(store: Path, kept: KeyRecord) -> None:
    found = DirectoryKeyStore(store)
    found.write(kept.account, kept.to_json(), replacing=found.read(kept.account))


def connect(
    monkeypatch: pytest.MonkeyPatch, rap: RapSimulator, store: Path, *, without: str = "", **extra: object
) -> None:
    connection = rap.connection("DCXYZ001")
    connection["extra"] |= {"key_store": store.as_uri(), **extra}
    connection["extra"].pop(without, None)
    monkeypatch.setenv("AIRFLOW_CONN_HKEX_RAP_DEFAULT", json.dumps(connection))


def contents(kit: Path) -> dict[str, str]:
    with ZipFile(kit) as archive:
        return {name: archive.read(name).decode("ascii") for name in archive.namelist()}


def secrets(store: Path) -> set[str]:
    """Return every stretch of the private keys' text, whatever lines it was on."""
    bodies = [key.private_key for path in store.glob("*.json") for key in record(store, path.stem).keys]
    joined = ["".join(line for line in body.splitlines() if "-----" not in line) for body in bodies]
    # The beginning of the text is the public half.
    return {body[at : at + 40] for body in joined for at in range(len(body) // 2, len(body) - 40, 40)}


def assert_no_secret(store: Path, *texts: str) -> None:
    found = secrets(store)
    assert found
    for text in texts:
        assert "PRIVATE KEY" not in text
        assert not any(secret in re.sub(r"\s", "", text) for secret in found)


# The kit.


@pytest.mark.guide("3.2.2 private keys", "5 registration")
def test_register_packs_what_the_form_asks_for_and_keeps_the_private_keys(
    airflow: Airflow, store: Path, kit: Path
) -> None:
    result = register(airflow, store, kit)
    assert (result.status, result.err.splitlines()[1:]) == (0, []), result
    files = contents(kit)
    assert sorted(files) == ["DCXYZ001.pub", "DCXYZ002.pub", FORM]
    for account in ACCOUNTS:
        waiting = record(store, account).unregistered
        public = PublicKey.parse(files[f"{account}.pub"])
        assert files[f"{account}.pub"].startswith("---- BEGIN SSH2 PUBLIC KEY ----\n")
        assert public == PrivateKey.load(waiting.private_key).public_key
        assert public.bits == 2048
        assert f"{account}.pub     {public.fingerprint}\n" in files[FORM]
        assert record(store, account).current is None
    assert files[FORM].endswith("\n10.1.1.1\n10.1.1.2\n")
    assert files[FORM] in result.out
    raw = [kit.read_bytes().decode("latin-1"), *files.values(), *files]
    assert_no_secret(store, *raw, result.out, result.err)


@pytest.mark.guide("3.2.2 fingerprints", "5 registration")
def test_the_kit_shows_the_fingerprints_that_openssh_computes(
    airflow: Airflow, store: Path, kit: Path, tmp_path: Path
) -> None:
    register(airflow, store, kit)
    with ZipFile(kit) as archive:
        archive.extract("DCXYZ001.pub", tmp_path)
    imported = subprocess.run(
        ["ssh-keygen", "-i", "-f", tmp_path / "DCXYZ001.pub"], capture_output=True, check=True
    )
    listed = subprocess.run(
        ["ssh-keygen", "-l", "-E", "md5", "-f", "-"], input=imported.stdout, capture_output=True, check=True
    )
    fingerprint = re.search(r"MD5:(\S+)", listed.stdout.decode())[1]
    assert f"  {fingerprint}\n" in contents(kit)[FORM]


def test_register_again_packs_the_keys_that_wait_and_replace_makes_others(
    airflow: Airflow, store: Path, kit: Path, tmp_path: Path
) -> None:
    register(airflow, store, kit)
    again = register(airflow, store, tmp_path / "again.zip")
    assert "was made before" in again.out
    assert contents(tmp_path / "again.zip") == contents(kit)
    refused = register(airflow, store, tmp_path / "refused.zip", "--key-size=4096")
    assert (refused.status, (tmp_path / "refused.zip").exists()) == (1, False)
    assert "a key of 2048 bits" in refused.err
    register(airflow, store, tmp_path / "others.zip", "--replace")
    others = contents(tmp_path / "others.zip")
    assert not set(others.values()) & set(contents(kit).values())
    assert PublicKey.parse(others["DCXYZ001.pub"]).fingerprint == record(store).unregistered.fingerprint


def test_register_goes_on_where_it_was_interrupted(
    airflow: Airflow, store: Path, kit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = DirectoryKeyStore.write

    def fail_for_the_second(self: DirectoryKeyStore, account: str, *args: Any, **kwargs: Any) -> None:
        if account == "DCXYZ002":
            raise OSError(28, "No space left on device")
        write(self, account, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(DirectoryKeyStore, "write", fail_for_the_second)
        assert register(airflow, store, kit).status == 1
    assert not kit.exists()
    first = record(store).unregistered
    assert register(airflow, store, kit).status == 0
    assert record(store).unregistered == first


def test_the_private_keys_are_encrypted_by_the_passphrase(
    airflow: Airflow, store: Path, kit: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "passphrase"
    secret.write_text("correct horse\n")
    result = register(airflow, store, kit, "--passphrase-file", str(secret))
    kept = record(store).unregistered
    assert PrivateKey.load(kept.private_key, "correct horse").fingerprint == kept.fingerprint
    with pytest.raises(RapConfigurationError, match="no passphrase"):
        PrivateKey.load(kept.private_key)
    without = register(airflow, store, tmp_path / "again.zip")
    assert without.status == 1
    assert "--passphrase-file" in without.err
    assert "correct horse" not in result.out + result.err + without.err
    assert register(airflow, store, tmp_path / "again.zip", "--passphrase-file", str(secret)).status == 0
    # An editor on Windows puts a byte order mark first.
    secret.write_bytes(b"\xef\xbb\xbfcorrect horse\r\n")
    assert register(airflow, store, tmp_path / "mark.zip", "--passphrase-file", str(secret)).status == 0
    refused = {b"": "holds no passphrase", b"\n": "holds no passphrase", b"\xff": "holds no passphrase"}
    for content, reason in {**refused, b" \n": "only white space", b"x" * 1024: "1,023 bytes"}.items():
        secret.write_bytes(content)
        empty = register(airflow, store, tmp_path / "no.zip", "--passphrase-file", str(secret))
        assert (empty.status, reason in empty.err) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--account=dcxyz003",), "is not a RAP user account"),
        (("--account=DCABC001",), "of one clearing participant"),
        (("--account=DCXYZ001",), "Give each account once"),
        (("--ip=10.1.2.1",), "are of several subnets"),
        (("--ip=10.1.1.1",), "each once"),
        (("--ip=10.1.1.3", "--ip=10.1.1.4", "--ip=10.1.1.5"), "At most 4"),
        (("--ip=10.1.1.0/24",), "without a mask"),
        (("--key-store=nowhere",), "is not a key store"),
        (("--output=/nowhere/kit.zip",), "There is no directory"),
        (("--output=/proc/kit.zip",), "/proc/kit.zip cannot be made"),
        (("--output=/sys/kit.zip",), "/sys/kit.zip cannot be made"),
        (("--passphrase-file=/nowhere",), "The passphrase file /nowhere cannot be read: No such file"),
        (("--passphrase-file=/",), "The passphrase file / cannot be read: Is a directory"),
    ],
    ids=str,
)
@pytest.mark.guide("5 registration", "7 workstations")
def test_register_refuses_what_hkex_would_and_makes_nothing(
    airflow: Airflow, store: Path, kit: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = register(airflow, store, kit, *arguments)
    assert (result.status, result.out) == (1, "")
    assert message in result.err
    assert "Traceback" not in result.err
    assert not kit.exists()
    assert not store.exists()


def test_nothing_is_overwritten(airflow: Airflow, store: Path, kit: Path) -> None:
    kit.write_text("of last year")
    result = register(airflow, store, kit)
    assert (result.status, kit.read_text(), store.exists()) == (1, "of last year", False)
    assert "nothing is overwritten" in result.err


def test_keygen_makes_the_key_of_one_account(airflow: Airflow, store: Path, tmp_path: Path) -> None:
    arguments = ("--account", "DCXYZ001", "--key-store", store.as_uri(), "--output", str(tmp_path))
    made = airflow("hkex-rap", "keygen", *arguments, "--verbose")
    path = tmp_path / "DCXYZ001.pub"
    public = PublicKey.parse(path.read_text())
    assert (made.status, public.bits) == (0, 4096)
    assert public.fingerprint in made.out
    assert public == PrivateKey.load(record(store).unregistered.private_key).public_key
    assert_no_secret(store, made.out, made.err, path.read_text())

    again = airflow("hkex-rap", "keygen", *arguments)
    assert (again.status, PublicKey.parse(path.read_text())) == (1, public)
    assert f"waits for its registration: {public.fingerprint}" in again.err
    assert "cannot be made" in airflow("hkex-rap", "keygen", *arguments, "--replace").err
    path.unlink()
    assert airflow("hkex-rap", "keygen", *arguments, "--replace", "--key-size=2048").status == 0
    assert PublicKey.parse(path.read_text()).fingerprint == record(store).unregistered.fingerprint
    assert airflow("hkex-rap", "keygen", *arguments, "--key-size=1024").status == 2


@pytest.mark.parametrize("directory", ["/nowhere", "/proc", "/sys", "/dev/null"])
def test_keygen_makes_no_key_whose_public_half_cannot_be_written(
    airflow: Airflow, store: Path, directory: str
) -> None:
    arguments = ("--account", "DCXYZ001", "--key-store", store.as_uri(), "--output", directory)
    result = airflow("hkex-rap", "keygen", *arguments)
    assert (result.status, result.out, store.exists()) == (1, "", False)
    assert f"{directory}/DCXYZ001.pub cannot be made" in result.err


def test_keys_whose_kit_cannot_be_written_are_packed_by_the_next_command(
    airflow: Airflow, store: Path, kit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_hkex_rap.cli import register as command

    def trial(path: Path) -> Path:
        return path

    with monkeypatch.context() as patched:
        patched.setattr(command, "new_file", trial)
        failed = register(airflow, store, Path("/proc/kit.zip"))
    assert failed.status == 1
    assert "The new keys are in the key store. 'airflow hkex-rap register' packs them" in failed.err
    kept = record(store).unregistered.fingerprint
    assert register(airflow, store, kit).status == 0
    assert PublicKey.parse(contents(kit)["DCXYZ001.pub"]).fingerprint == kept


def test_keys_go_to_airflow_variables_by_default(airflow: Airflow, kit: Path) -> None:
    name = "hkex_rap_private_key_DCVAR001"
    made = airflow(
        "hkex-rap", "register", "--account=DCVAR001", "--ip=10.1.1.1", "--key-size=2048", f"--output={kit}"
    )
    kept = KeyRecord.from_json(airflow("variables", "get", name).out, Account("DCVAR001"))
    airflow("variables", "delete", name)
    assert made.status == 0
    assert kept.unregistered.fingerprint in made.out


# From the kit to a login.


@pytest.fixture
def rap() -> Iterator[RapSimulator]:
    with RapSimulator(now=NOW) as rap:
        yield rap


def test_a_registered_key_logs_in_and_becomes_current(
    airflow: Airflow, rap: RapSimulator, store: Path, kit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hint = re.findall(r"'airflow (hkex-rap status .*?)'", register(airflow, store, kit).out)
    rap.register_key("DCXYZ001", contents(kit)["DCXYZ001.pub"])
    waiting = record(store).unregistered.fingerprint
    unconnected = airflow(*hint[0].split(), "-o", "json")
    connect(monkeypatch, rap, store, without="private_key")
    before = status(airflow)
    for found in (unconnected, before):
        (row,) = found.rows
        assert (found.status, row["key"], row["fingerprint"]) == (1, "unregistered", waiting)
        assert "It has waited since 2026-11-20" in row["warning"]
    assert airflow("hkex-rap", "ls", "--yes", "DCASS").status == 0
    after = status(airflow)
    (row,) = after.rows
    assert (after.status, row["key"], row["fingerprint"]) == (0, "current", waiting)
    again = register(airflow, store, kit.with_name("again.zip"))
    assert f"DCXYZ001 has a current key, {waiting}" in again.out


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_a_key_from_the_kit_logs_in_to_openssh(
    airflow: Airflow, store: Path, kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with openssh() as server:
        given = ("--key-store", store.as_uri(), "--output", str(kit))
        airflow("hkex-rap", "register", "--account", server.account, "--ip=10.1.1.1", *given)
        with ZipFile(kit) as archive:
            public = archive.extract(f"{server.account}.pub", tmp_path)
        imported = subprocess.run(["ssh-keygen", "-i", "-f", public], capture_output=True, check=True)
        (server.root.parent / "authorized_keys").write_bytes(imported.stdout)
        connection = server.connection(key_store=store.as_uri())
        del connection["extra"]["private_key"]
        monkeypatch.setenv("AIRFLOW_CONN_HKEX_RAP_DEFAULT", json.dumps(connection))
        listed = airflow("hkex-rap", "ls", "--yes", "DCASS")
    kept = record(store, server.account)
    assert (listed.status, kept.unregistered) == (0, None), listed
    assert kept.current.fingerprint == PublicKey.parse(Path(public).read_text()).fingerprint


# Status.


def status(airflow: Airflow, *arguments: str) -> Result:
    return airflow("hkex-rap", "status", "-o", "json", *arguments)


@cache
def private_key(passphrase: str | None = None) -> str:
    return PrivateKey.generate(2048).to_openssh(passphrase)


def key(name: str, passphrase: str | None = None, **dates: pendulum.Date | None) -> StoredKey:
    return StoredKey(fingerprint=name, private_key=private_key(passphrase), **dates)


@pytest.mark.parametrize(
    ("left", "warning"),
    [
        (731, ""),
        (31, ""),
        (30, "renewal has been due"),
        (15, "renewal has been due"),
        (14, "renewal has been due since 2026-11-04"),
        (1, "renewal has been due"),
        (0, "It ended on 2026-11-19: register again"),
        (-5, "register again"),
    ],
)
def test_status_counts_the_days_left(
    airflow: Airflow,
    rap: RapSimulator,
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
    left: int,
    warning: str,
) -> None:
    connect(monkeypatch, rap, store, without="private_key")
    keep(store, KeyRecord(account="DCXYZ001", current=key("aa", last_day=TODAY.add(days=left - 1))))
    result = status(airflow)
    (row,) = result.rows
    assert row["days_left"] == max(left, 0)
    assert warning in row["warning"]
    assert bool(row["warning"]) == bool(warning)
    assert result.status == int(left <= 0)
    doctor = states(airflow("hkex-rap", "doctor").out)
    assert doctor["current key"] == ["FAIL" if left <= 0 else "warn" if warning else "ok"]
    assert not rap.events.of("login", "refused")


def test_status_shows_every_key_and_what_happened(
    airflow: Airflow, rap: RapSimulator, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, rap, store)
    kept = KeyRecord(
        account="DCXYZ001",
        current=key("aa", last_day=TODAY.add(years=1), uploaded=TODAY.subtract(days=3)),
        previous=key("bb", last_day=TODAY.add(days=10)),
        pending=PendingKey(fingerprint="cc", private_key=private_key(), public_key="", submitted=TODAY),
        unregistered=key("dd"),
    )
    kept = kept.noted(NOW.subtract(days=3), Happened.PROMOTED, "aa").noted(NOW, Happened.CREATED, "dd")
    kept = kept.noted(NOW, Happened.REJECTED, "ee", note="4007 Bad \x1b[2J name")
    kept = kept.noted(NOW, Happened.UPLOADED_ELSEWHERE, "ff")
    keep(store, kept)
    result = status(airflow)
    rows = {row["key"]: row for row in result.rows}
    assert list(rows) == ["current", "pending", "previous", "unregistered", "connection"]
    assert [rows[role]["fingerprint"] for role in list(rows)[:4]] == ["aa", "cc", "bb", "dd"]
    assert rows["current"]["last_renewal"] == TODAY.subtract(days=3).isoformat()
    assert "RAP rejected its renewal on 2026-11-20: 4007 Bad \\x1b[2J name." in rows["current"]["warning"]
    assert "Somebody else uploaded the key ff on 2026-11-20" in rows["current"]["warning"]
    assert "No renewal before 2026-12-04" in rows["current"]["warning"]
    assert rows["previous"]["days_left"] == 11
    assert "uploaded on 2026-11-20, not accepted yet" in rows["pending"]["warning"]
    assert "offers it first" in rows["connection"]["warning"]
    table = airflow("hkex-rap", "status")
    # Somebody must act before the current key ends.
    assert (result.status, table.status) == (1, 1)
    assert all(role in table.out for role in rows)
    assert private_key().splitlines()[1] not in result.out + result.err + table.out

    # A renewal that succeeded since makes the rejected one history.
    keep(store, replace(kept.noted(NOW, Happened.PROMOTED, "aa"), pending=None))
    assert "rejected" not in status(airflow).out


def test_status_and_doctor_say_what_ends_a_key_and_only_what_is_known(
    airflow: Airflow, rap: RapSimulator, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(kept: KeyRecord, key_expires: str = "") -> tuple[str, int]:
        connect(monkeypatch, rap, store, without="private_key", key_expires=key_expires)
        keep(store, kept)
        result = status(airflow)
        warning = result.rows[0]["warning"]
        assert warning in airflow("hkex-rap", "doctor").out or kept.foreign_upload
        return warning, result.status

    known = KeyRecord(account="DCXYZ001", current=key("aa", last_day=TODAY.add(years=1)))
    assert found(known) == ("", 0)
    past, succeeded = found(known, TODAY.subtract(days=1).isoformat())
    assert past.startswith("'key_expires' of the connection (2026-11-19) has passed: it is ignored.")
    assert succeeded == 0
    later = TODAY.add(days=300)
    bound = replace(known, typed=TypedDay(day=later, fingerprint="bb"))
    assert found(bound, later.isoformat())[0].startswith(
        f"'key_expires' of the connection ({later}) is that of"
    )
    uploaded = replace(known, current=replace(known.current, uploaded=TODAY))
    # The day that was typed for the key that we have renewed needs no correction.
    for typed in (later, TODAY.subtract(days=1)):
        renewed = replace(uploaded, typed=TypedDay(day=typed, fingerprint="bb"))
        assert found(renewed, typed.isoformat()) == ("", 0)
    assert "later than the last day that follows" in found(uploaded, TODAY.add(years=3).isoformat())[0]
    warned = KeptWarning(day=TODAY, text="A key\nexpires \x1b[2J soon.")
    assert found(replace(known, warning=warned)) == (
        "RAP's last warning, of 2026-11-20 (§6.2): A key expires \\x1b[2J soon.",
        0,
    )
    foreign, failed = found(known.with_foreign_upload("ff", NOW.subtract(days=5)))
    assert "Somebody else uploaded the key ff on 2026-11-15, so this key ends on 2026-11-28" in foreign
    assert failed == 1


@pytest.mark.parametrize(
    ("key_expires", "left", "warning"),
    [
        (TODAY.add(days=9), 10, "Its renewal has been due since 2026-10-31"),
        (TODAY.add(days=99), 100, "The next login offers it first"),
        (TODAY.subtract(days=1), None, "(2026-11-19) has passed: it is ignored"),
    ],
)
def test_status_shows_the_last_day_of_a_key_before_its_first_login(
    airflow: Airflow,
    rap: RapSimulator,
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
    key_expires: pendulum.Date,
    left: int | None,
    warning: str,
) -> None:
    connect(monkeypatch, rap, store, key_expires=key_expires.isoformat())
    (row,) = status(airflow).rows
    assert (row["key"], row["days_left"]) == ("connection", left)
    assert row["last_day"] == (key_expires.isoformat() if left else None)
    assert warning in row["warning"]


def test_status_names_a_directory_that_does_not_exist(airflow: Airflow, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    found = status(airflow, "--account", "DCXYZ001", "--key-store", nowhere.as_uri())
    assert found.status == 1
    assert f"There is no directory {nowhere}." in found.err


@pytest.mark.parametrize(
    "command",
    [
        ("status", "--account=nope"),
        ("keygen", "--account=DCXYZ009"),
        ("register", "--account=DCXYZ009", "--ip=10.1.1.1", "--output=kit.zip"),
    ],
)
def test_an_account_that_is_none_is_that_of_the_option(airflow: Airflow, command: tuple[str, ...]) -> None:
    found = airflow("hkex-rap", *command)
    assert found.status == 1
    assert "is not a RAP user account" in found.err
    assert "Give --account the account" in found.err
    assert "connection" not in found.err


def test_a_key_that_the_passphrase_does_not_open_is_no_key_that_logs_in(
    airflow: Airflow, rap: RapSimulator, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = KeyRecord(account="DCXYZ001", current=key("aa", "right", last_day=TODAY.add(years=1)))
    keep(store, kept)
    for passphrase, found in (("right", 0), ("wrong", 1), ("", 1)):
        connect(monkeypatch, rap, store, without="private_key", private_key_passphrase=passphrase)
        result = status(airflow)
        assert result.status == found
        assert ("does not open it" in result.rows[0]["warning"]) is bool(found)


def test_doctor_names_a_date_that_is_none(
    airflow: Airflow, rap: RapSimulator, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, rap, store, key_expires="31/12/2026")
    doctor = airflow("hkex-rap", "doctor")
    assert states(doctor.out)["connection"] == ["FAIL"]
    assert "'key_expires' is not a date" in doctor.out


def test_status_finds_the_connections_and_goes_on_where_one_fails(
    airflow: Airflow, rap: RapSimulator, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "There is no connection of the type hkex_rap" in status(airflow).err
    connect(monkeypatch, rap, store, without="private_key")
    monkeypatch.setenv("AIRFLOW_CONN_ELSEWHERE", "postgres://host")
    added = json.dumps(rap.connection("DCXYZ001") | {"login": "DCXYZ002", "extra": {"key_store": "nowhere"}})
    airflow("connections", "add", "hkex_rap_stored", "--conn-json", added)
    result = status(airflow)
    airflow("connections", "delete", "hkex_rap_stored")
    assert result.status == 1
    assert [(row["conn_id"], row["key"]) for row in result.rows] == [("hkex_rap_default", "none")]
    assert "hkex_rap_stored: The value of 'key_store' is not a key store" in result.err
    assert "airflow connections add" in status(airflow, "--conn-id", "nowhere").err


def test_status_needs_no_key_file_of_the_workers(
    airflow: Airflow, rap: RapSimulator, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, rap, store, without="private_key", key_file="/only/on/the/workers")
    # A shifted clock looks at the whole connection, to see that it does not leave this machine.
    monkeypatch.delenv("AIRFLOW__HKEX_RAP__CLOCK_OFFSET")
    keep(store, KeyRecord(account="DCXYZ001", current=key("aa")))
    result = status(airflow)
    assert (result.status, [row["key"] for row in result.rows]) == (0, ["current"])
    assert "Its last day is not known" in result.rows[0]["warning"]


# Doctor.


def test_doctor_checks_the_keys(
    airflow: Airflow, rap: RapSimulator, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(**extra: object) -> tuple[str, list[str]]:
        connect(monkeypatch, rap, store, without="private_key", **extra)
        doctor = airflow("hkex-rap", "doctor")
        assert "no key of its own" in doctor.out
        assert "Traceback" not in doctor.out + doctor.err
        return doctor.out, states(doctor.out)["key store"]

    out, state = found()
    assert state == ["FAIL"]
    assert "It has no key of DCXYZ001, and neither has the connection" in out

    secret = tmp_path / "passphrase"
    secret.write_text("correct horse")
    register(airflow, store, tmp_path / "kit.zip", "--passphrase-file", str(secret))
    out, state = found(private_key_passphrase="correct horse")
    assert state == ["ok"]
    assert f"{record(store).unregistered.fingerprint} waits for its registration" in out
    out, state = found(private_key_passphrase="wrong")
    assert state == ["FAIL"]
    assert "the passphrase is wrong" in out
    assert found()[1] == ["FAIL"]

    (store / "DCXYZ001.json").write_text("{}")
    assert found()[1] == ["FAIL"]
    assert found(key_store="nowhere")[1] == ["FAIL"]
    out, state = found(key_store=f"{__name__}.BrokenStore")
    assert state == ["FAIL"]
    assert "the words of a secret" not in out
    assert not rap.events.of("login", "refused")


class BrokenStore:
    def read(self, account: str) -> str | None:
        raise LookupError("the words of a secret")

    def write(self, account: str, text: str, *, replacing: str | None) -> None:
        raise LookupError


def test_doctor_warns_of_keys_that_airflow_would_show(
    airflow: Airflow, rap: RapSimulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_HKEX_RAP_DEFAULT", rap.connection_json("DCXYZ001"))
    airflow("hkex-rap", "keygen", "--account=DCXYZ001", "--key-size=2048", f"--output={tmp_path}")
    encrypted = states(airflow("hkex-rap", "doctor").out)["key store"]
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "")
    in_the_clear = airflow("hkex-rap", "doctor").out
    monkeypatch.delenv("AIRFLOW__CORE__FERNET_KEY")
    monkeypatch.setenv("AIRFLOW__LOGGING__LOGGING_LEVEL", "DEBUG")
    logged = airflow("hkex-rap", "doctor").out
    airflow("variables", "delete", "hkex_rap_private_key_DCXYZ001")
    assert encrypted == ["ok"]
    assert states(in_the_clear)["key store"] == states(logged)["key store"] == ["warn"]
    assert "no Fernet key" in in_the_clear
    assert "Log at INFO" in logged


# Renewal by hand.


def test_renew_asks_and_renews_what_is_due(
    airflow: Airflow, rap: RapSimulator, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, rap, store, key_expires=TODAY.add(days=40).isoformat())
    declined = airflow("hkex-rap", "renew", stdin="n\n")
    assert (declined.status, list(rap.events)) == (1, [])
    assert "ends a session of that account" in declined.err
    not_due = airflow("hkex-rap", "renew", stdin="y\n")
    assert (not_due.status, rap.uploads) == (0, [])
    assert "DCXYZ001: not renewed." in not_due.out

    forced = airflow("hkex-rap", "renew", "--force", "--yes")
    assert (forced.status, len(rap.uploads)) == (0, 1)
    first = record(store)
    assert forced.out.startswith("DCXYZ001: renewed. It was forced.")
    assert f"Current key: {first.current.fingerprint}, last day 2028-11-19." in forced.out
    assert f"Previous key: {first.previous.fingerprint}, last day 2026-12-03." in forced.out

    refused = airflow("hkex-rap", "renew", "--force", "--yes")
    assert (refused.status, len(rap.uploads)) == (1, 1)
    assert "before 2026-12-04" in refused.err
    # By then RAP has cleared the first upload away.
    rap.clock.advance(minutes=2)
    set_clock(monkeypatch, NOW.add(minutes=2))
    replaced = airflow("hkex-rap", "renew", "--force", "--replace-second-key", "--yes")
    assert (replaced.status, len(rap.uploads)) == (0, 2), replaced
    assert "it replaces the newer one" in replaced.err
    assert f"Current key: {record(store).current.fingerprint}" in replaced.out
    assert record(store).current != first.current
    assert_no_secret(store, not_due.out, forced.out, forced.err, refused.err, replaced.out, replaced.err)
