"""The parts of the SFTP provider beyond its documentation: these tests fail when one of them changes."""

from __future__ import annotations

import asyncio
import inspect

import pytest
from airflow.providers.sftp.hooks.sftp import SFTPHookAsync

from airflow_provider_hkex_rap.hooks.rap import RapHook
from airflow_provider_hkex_rap.hooks.undocumented import REMOTE_PATHS, SessionSFTPHook


def test_a_managed_connection_is_made_and_used_by_the_two_methods_that_we_replace() -> None:
    assert inspect.iscoroutinefunction(SFTPHookAsync._get_conn)
    assert list(inspect.signature(SFTPHookAsync._get_conn).parameters) == ["self"]
    assert list(inspect.signature(SFTPHookAsync._get_open_conn).parameters) == ["self"]
    source = inspect.getsource(SFTPHookAsync.get_managed_conn)
    assert "_get_conn()" in source
    assert "start_sftp_client()" in source


WRITING = {"store_file", "store_directory", "mkdir", "create_directory", "delete_file", "delete_directory"}
READING = {
    "get_files_and_attrs_by_pattern",
    "get_managed_conn",
    "get_mod_time",
    "get_tree_map",
    "isdir",
    "list_directory",
    "path_exists",
    "read_directory",
    "retrieve_directory",
    "retrieve_file",
    "sense_files_by_pattern",
    "sense_path",
    "walktree",
}
# It calls the methods above.
COMPOSED = {"get_conn_count", "transfer"}
WITHOUT_PATHS = {"get_conn_count", "get_managed_conn"}


def test_every_method_that_changes_rap_is_overridden() -> None:
    own = {name for name, member in vars(SFTPHookAsync).items() if callable(member) and name[0] != "_"}
    assert own == WRITING | READING | COMPOSED, "a new or renamed method: does it write?"
    assert set(vars(RapHook)) >= WRITING


def test_each_path_on_the_server_is_a_parameter_that_is_judged() -> None:
    for name in WRITING | READING | COMPOSED:
        parameters = set(inspect.signature(getattr(SFTPHookAsync, name)).parameters)
        remote = {it for it in parameters if "path" in it and not it.startswith("local")}
        assert remote <= set(REMOTE_PATHS), "a new parameter for a path on the server"
        assert bool(remote) != (name in WITHOUT_PATHS), name


def recorded(judged: list[object]) -> type[SessionSFTPHook]:
    class Judging(SessionSFTPHook):
        def judge_path(self, path: object) -> object:
            judged.append(path)
            raise PermissionError

    return Judging


@pytest.mark.parametrize("name", sorted((WRITING | READING | COMPOSED) - WITHOUT_PATHS))
def test_the_methods_of_the_provider_judge_each_path_before_they_connect(name: str) -> None:
    judged: list[object] = []
    hook = recorded(judged)("nothing")
    parameters = inspect.signature(getattr(SFTPHookAsync, name)).parameters
    (remote,) = set(parameters) & set(REMOTE_PATHS)
    given = {
        it: f"{it} given"
        for it, parameter in parameters.items()
        if it not in ("self", remote) and parameter.default is inspect.Parameter.empty
    }
    for path in ("given", ["given", "too"]) if name == "transfer" else ("given",):
        with pytest.raises(PermissionError):
            asyncio.run(getattr(hook, name)(**given, **{remote: path}))
    assert judged[0] == "given"
    if parameters[remote].default == "":
        with pytest.raises(PermissionError):
            asyncio.run(getattr(hook, name)(**given))
        assert judged[-1] == ""
