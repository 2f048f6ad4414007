"""Key stores whose parts fail, one call after another: no key that was not read is ever replaced."""

from __future__ import annotations

import codecs
import errno
import fcntl
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import Variable
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time import comms, task_runner

from airflow_provider_hkex_rap.keystore.directory import DirectoryKeyStore
from airflow_provider_hkex_rap.keystore.record import KeyRecord
from airflow_provider_hkex_rap.keystore.store import AccountKeys, KeyStore, KeyStoreConflict, KeyStoreError
from airflow_provider_hkex_rap.keystore.variable import PREFIX, VariableKeyStore

from .model import ACCOUNT, stored

NAME = f"{PREFIX}{ACCOUNT}"
ONE, ANOTHER = stored(1), stored(2)
KEPT = KeyRecord(account=ACCOUNT.name, current=ONE).to_json()


def add_a_key(store: KeyStore) -> None:
    """Read the account's record and add a second key to it, as a login or a renewal does."""
    keys = AccountKeys(store, ACCOUNT, mask=lambda secret: None)
    keys.save(replace(keys.record, unregistered=ANOTHER))


def has_the_kept_key(text: str | None) -> bool:
    return text is not None and KeyRecord.from_json(text, ACCOUNT).current == ONE


# Variables, as a task reads them.


def server_error(message: object) -> Any:
    raise AirflowRuntimeError(comms.ErrorResponse(error=ErrorType.API_SERVER_ERROR))


def cut_line(message: object) -> Any:
    raise EOFError("Request socket closed before length")


def not_found(message: object) -> Any:
    # Airflow 3.2 answers so to every error; newer ones if the server's database fails.
    return comms.ErrorResponse(error=ErrorType.VARIABLE_NOT_FOUND)


def nothing(message: object) -> Any:
    return None


class Supervisor:
    """The variables of Airflow as a task's process asks for them; some calls fail.

    :param failing: whether the n-th call fails.
    :param failure: what a failing call does.
    """

    def __init__(
        self,
        failing: Callable[[int], bool] = lambda n: False,
        failure: Callable[[object], Any] = nothing,
        **texts: str,
    ) -> None:
        self.texts = texts
        self.calls = 0
        self.team = False
        self._failing, self._failure = failing, failure

    def send(self, message: object) -> Any:
        self.calls += 1
        if self._failing(self.calls - 1):
            return self._failure(message)
        if isinstance(message, comms.GetVariable):
            if message.key in self.texts:
                return comms.VariableResult(key=message.key, value=self.texts[message.key])
            return comms.ErrorResponse(error=ErrorType.VARIABLE_NOT_FOUND)
        if isinstance(message, comms.GetVariableKeys):
            keys = [] if self.team else [key for key in self.texts if key.startswith(message.prefix or "")]
            return comms.VariableKeysResult(keys=keys, total_entries=len(keys))
        if isinstance(message, comms.PutVariable):
            self.texts[message.key] = str(message.value)
        return comms.OKResponse(ok=True)


def in_a_task(monkeypatch: pytest.MonkeyPatch, supervisor: Supervisor) -> Supervisor:
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)
    return supervisor


def once(at: int) -> Callable[[int], bool]:
    return lambda n: n == at


def twice(at: int) -> Callable[[int], bool]:
    return lambda n: at <= n <= at + 1


def thrice(at: int) -> Callable[[int], bool]:
    return lambda n: at <= n <= at + 2


def from_then_on(at: int) -> Callable[[int], bool]:
    return lambda n: n >= at


@pytest.mark.parametrize("failing", [once, twice, thrice, from_then_on])
@pytest.mark.parametrize("failure", [server_error, cut_line, not_found, nothing])
@pytest.mark.parametrize("lists_names", [True, False], ids=["3.3", "3.2"])
def test_no_failing_call_lets_a_variable_be_replaced_that_was_not_read(
    monkeypatch: pytest.MonkeyPatch,
    failing: Callable[[int], Callable[[int], bool]],
    failure: Callable[[object], Any],
    lists_names: bool,
) -> None:
    if not lists_names:
        monkeypatch.delattr(Variable, "keys")
    for at in count():
        supervisor = in_a_task(monkeypatch, Supervisor(failing(at), failure, **{NAME: KEPT}))
        with suppress(KeyStoreError):
            add_a_key(VariableKeyStore())
        assert has_the_kept_key(supervisor.texts[NAME]), f"call {at} failed"
        if supervisor.calls <= at:
            break
    assert at >= 4


def test_a_first_record_is_written_in_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor = in_a_task(monkeypatch, Supervisor())
    add_a_key(VariableKeyStore())
    assert KeyRecord.from_json(supervisor.texts[NAME], ACCOUNT).unregistered == ANOTHER


def test_a_task_of_airflow_3_2_does_not_take_no_answer_for_no_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    supervisor = in_a_task(monkeypatch, Supervisor())
    monkeypatch.delattr(Variable, "keys")
    with pytest.raises(KeyStoreError, match=r"cannot prove.*from version 3\.3 on.*'key_store'") as caught:
        VariableKeyStore().read(ACCOUNT.name)
    assert (caught.value.account, supervisor.texts) == (ACCOUNT.name, {})
    # A record that was made outside a task is read and written.
    supervisor.texts[NAME] = KEPT
    add_a_key(VariableKeyStore())
    assert has_the_kept_key(supervisor.texts[NAME])


def test_a_task_of_a_team_is_not_shown_the_variables_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names are unique in the database: setting the team's variable would replace that of all."""
    supervisor = in_a_task(monkeypatch, Supervisor(once(0), not_found, **{NAME: KEPT}))
    supervisor.team = True
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
    with pytest.raises(KeyStoreError, match="multi_team"):
        add_a_key(VariableKeyStore())
    assert has_the_kept_key(supervisor.texts[NAME])


class FailingBackend:
    """A secrets backend, such as a vault, that does not answer."""

    def get_variable(self, key: str) -> str | None:
        raise ConnectionError("a secret")


class SlowBackend:
    """A secrets backend that answers the second time."""

    asked = 0

    def get_variable(self, key: str) -> str | None:
        self.asked += 1
        return KEPT if self.asked > 1 else None


@pytest.mark.parametrize("place", ["task", "command"])
def test_a_secrets_backend_that_fails_may_have_the_variable(
    monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    from airflow import configuration
    from airflow.models import variable as stored_variable
    from airflow.sdk.execution_time import supervisor

    from airflow_provider_hkex_rap.keystore import variable

    if place == "task":
        in_a_task(monkeypatch, Supervisor())
    else:
        monkeypatch.setattr(variable, "_has_database", lambda: True)
        monkeypatch.setattr(variable, "_is_in_database", lambda name: False)

    def use(backend: object) -> None:
        monkeypatch.setattr(supervisor, "ensure_secrets_backend_loaded", lambda: [backend])
        for module in (configuration, stored_variable):
            monkeypatch.setattr(module, "ensure_secrets_loaded", lambda: [backend])

    use(FailingBackend())
    with pytest.raises(KeyStoreError, match=r"Cannot read .*: ConnectionError") as caught:
        VariableKeyStore().read(ACCOUNT.name)
    assert "a secret" not in str(caught.value)
    use(SlowBackend())
    assert VariableKeyStore().read(ACCOUNT.name) == KEPT


# A directory.


class FailingCalls:
    """Counts the calls of the operating system below a directory, and lets some of them fail."""

    def __init__(self, failing: Callable[[int], bool], error: int) -> None:
        self.calls = 0
        self._failing, self._error = failing, error

    def instead_of(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self._failing(self.calls - 1):
                raise OSError(self._error, os.strerror(self._error))
            return call(*args, **kwargs)

        return counted


CALLS = [
    (os, "open"),
    (io, "open"),
    (os, "fdopen"),
    (os, "mkdir"),
    (os, "replace"),
    (os, "fsync"),
    (os, "unlink"),
    (os, "scandir"),
    (os, "lstat"),
    (fcntl, "flock"),
]


@pytest.mark.parametrize("failing", [once, twice, thrice, from_then_on])
@pytest.mark.parametrize("error", [errno.EACCES, errno.EIO, errno.ENOSPC, errno.ESTALE])
@pytest.mark.parametrize("leftover", [False, True])
def test_no_failing_call_lets_a_file_be_replaced_that_was_not_read(
    tmp_path: Path, failing: Callable[[int], Callable[[int], bool]], error: int, leftover: bool
) -> None:
    for at in count():
        directory = tmp_path / str(at)
        store = DirectoryKeyStore(directory)
        store.write(ACCOUNT.name, KEPT, replacing=None)
        if leftover:
            (directory / f".{ACCOUNT}.json.abcd_123").write_text(KEPT)
        counted = FailingCalls(failing(at), error)
        with pytest.MonkeyPatch.context() as patched:
            for module, name in CALLS:
                patched.setattr(module, name, counted.instead_of(getattr(module, name)))
            with suppress(KeyStoreError):
                add_a_key(store)
        assert has_the_kept_key(store.read(ACCOUNT.name)), f"call {at} failed"
        assert sorted(path.name for path in directory.iterdir()) == [f".{ACCOUNT}.lock", f"{ACCOUNT}.json"]
        if counted.calls <= at:
            break
    assert at >= 9


def test_a_link_to_a_disk_that_is_not_mounted_is_not_taken_for_no_file(tmp_path: Path) -> None:
    (tmp_path / f"{ACCOUNT}.json").symlink_to("/not/mounted/keys.json")
    with pytest.raises(KeyStoreError, match=r"Cannot read .*No such file"):
        add_a_key(DirectoryKeyStore(tmp_path))
    assert (tmp_path / f"{ACCOUNT}.json").is_symlink()


# The temporary files of killed writes.

WRITER = """
import os, pathlib, sys
from airflow_provider_hkex_rap.keystore.directory import DirectoryKeyStore
os.replace = lambda *paths: (print("written", flush=True), sys.stdin.read())
DirectoryKeyStore(pathlib.Path(sys.argv[1])).write("DCXYZ001", sys.argv[2], replacing=None)
"""


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has written its temporary file and does not go on."""
    command = [sys.executable, "-c", WRITER, str(tmp_path), KEPT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "written\n"
        yield process
        process.kill()


def temporary(directory: Path) -> list[Path]:
    return [path for path in directory.iterdir() if ".json." in path.name]


def test_the_temporary_file_of_a_killed_write_is_removed(
    tmp_path: Path, writer: subprocess.Popen[str]
) -> None:
    store = DirectoryKeyStore(tmp_path)
    assert store.read(ACCOUNT.name) is None
    (kept,) = temporary(tmp_path)
    assert kept.read_text() == KEPT, "a write in progress"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert temporary(tmp_path) == [kept]
    assert store.read("DCXYZ002") is None
    assert temporary(tmp_path) == [kept], "of another account"
    assert store.read(ACCOUNT.name) is None
    assert temporary(tmp_path) == []


def test_a_write_removes_the_temporary_file_of_a_killed_write(
    tmp_path: Path, writer: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.kill()
    writer.wait()
    store = DirectoryKeyStore(tmp_path)
    monkeypatch.setattr(store, "_sweep_unless_locked", lambda account: None)
    store.write(ACCOUNT.name, "next", replacing=None)
    assert temporary(tmp_path) == []


def test_a_read_does_not_wait_for_a_write_in_progress(tmp_path: Path, writer: subprocess.Popen[str]) -> None:
    assert DirectoryKeyStore(tmp_path).read(ACCOUNT.name) is None
    assert writer.poll() is None


def test_other_files_beside_the_record_stay(tmp_path: Path) -> None:
    names = [f".{ACCOUNT}.json.swp", f"{ACCOUNT}.json.bak", ".DCXYZ002.json.abcd_123", f".{ACCOUNT}.json.~"]
    for name in names:
        (tmp_path / name).write_text("x")
    DirectoryKeyStore(tmp_path).write(ACCOUNT.name, KEPT, replacing=None)
    assert set(names) < {path.name for path in tmp_path.iterdir()}


def test_a_directory_that_cannot_be_written_is_read_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = DirectoryKeyStore(tmp_path)
    store.write(ACCOUNT.name, KEPT, replacing=None)
    leftover = tmp_path / f".{ACCOUNT}.json.abcd_123"
    leftover.write_text(KEPT)

    def read_only(*args: object, **kwargs: object) -> Any:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for name in ("open", "unlink"):
        monkeypatch.setattr(os, name, read_only)
    assert store.read(ACCOUNT.name) == KEPT
    monkeypatch.setattr(os, "scandir", read_only)
    assert store.read(ACCOUNT.name) == KEPT


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
    ],
)
def test_a_byte_order_mark_is_called_that(tmp_path: Path, mark: bytes, encoding: str) -> None:
    path = tmp_path / f"{ACCOUNT}.json"
    path.write_bytes(mark + KEPT.encode(encoding))
    before = path.read_bytes()
    with pytest.raises(KeyStoreError, match=r"begins with a byte order mark.*[Ss]ave it without") as caught:
        add_a_key(DirectoryKeyStore(tmp_path))
    assert not isinstance(caught.value, KeyStoreConflict)
    assert path.read_bytes() == before


def test_another_encoding_is_called_that(tmp_path: Path) -> None:
    (tmp_path / f"{ACCOUNT}.json").write_bytes(KEPT.encode("utf-8") + b"\xe9")
    with pytest.raises(KeyStoreError, match="not ASCII text"):
        add_a_key(DirectoryKeyStore(tmp_path))
