"""The parts of the SFTP provider beyond its documentation: these tests fail when one of them changes."""

from __future__ import annotations

import inspect

from airflow.providers.sftp.hooks.sftp import SFTPHookAsync

from airflow_provider_hkex_rap.hooks.rap import RapHook


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


def test_every_method_that_changes_rap_is_overridden() -> None:
    own = {name for name, member in vars(SFTPHookAsync).items() if callable(member) and name[0] != "_"}
    assert own == WRITING | READING | COMPOSED, "a new or renamed method: does it write?"
    assert set(vars(RapHook)) >= WRITING
