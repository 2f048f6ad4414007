"""The internals of asyncssh that the simulated RAP uses are still there.

If one of these tests fails, asyncssh has changed: adapt `testing/_asyncssh_internals.py` to the new release,
then correct the tables below. The upper bound of asyncssh in `pyproject.toml` protects users in the meantime.
"""

import ast
import asyncio
import inspect
from pathlib import Path

import asyncssh
import pytest
from asyncssh.packet import SSHPacket

from airflow_provider_hkex_rap import testing
from airflow_provider_hkex_rap.testing import RapSimulator, _asyncssh_internals
from airflow_provider_hkex_rap.testing._asyncssh_internals import HookedConnection
from airflow_provider_hkex_rap.testing._server import RapConnection, RapServer

KEY = asyncssh.generate_private_key("ssh-rsa")

OVERRIDDEN = {
    "_send_version": ["self"],
    "_send_kexinit": ["self"],
    "_send_ext_info": ["self"],
    "_get_extra_kex_algs": ["self"],
    "data_received": ["self", "data", "datatype"],
    "_packet_handlers": None,
}
"""Methods of asyncssh's connection that are overridden, with their parameters; None for a table."""

CALLED = {
    "_process_kexinit": ["self", "_pkttype", "_pktid", "packet"],
    "_process_userauth_request": ["self", "_pkttype", "_pktid", "packet"],
    "_send_disconnect": ["self", "code", "reason", "lang"],
    "send_userauth_failure": ["self", "partial_success"],
    "create_task": ["self", "coro", "task_logger"],
}
"""Methods of asyncssh's connection that are called, and are not in its documentation."""

HANDLERS = {20: "_process_kexinit", 50: "_process_userauth_request"}
"""The methods that handle the messages SSH_MSG_KEXINIT and SSH_MSG_USERAUTH_REQUEST."""

REPLACED = {
    "_server_host_keys": dict,
    "_server_host_key_algs": list,
    "_strict_kex": bool,
    "_can_send_ext_info": bool,
}
"""Attributes of asyncssh's connection that are set, with their types."""

READ = {"_session_id": bytes, "_extensions_to_send": dict, "_transport": type(None)}
"""Attributes of asyncssh's connection that are read, with their types in a new connection."""

PACKET = {"get_string": ["self"], "get_boolean": ["self"], "get_remaining_payload": ["self"]}


def parameters(owner: type, name: str) -> list[str] | None:
    method = getattr(owner, name, None)
    return list(inspect.signature(method).parameters) if inspect.isfunction(method) else None


def connect(connection: type[asyncssh.SSHServerConnection]) -> asyncssh.SSHServerConnection:
    """Return a connection without a network."""

    async def made() -> asyncssh.SSHServerConnection:
        options = asyncssh.SSHServerConnectionOptions(config=[], server_host_keys=[KEY])
        return connection(asyncio.get_running_loop(), options)

    return asyncio.run(made())


def changes(connection: type[asyncssh.SSHServerConnection]) -> list[str]:
    """Return how *connection* differs from the tables above, one line for each difference."""
    found = [
        f"{owner.__name__}.{name} takes {parameters(owner, name)}, not {expected}"
        for owner, methods in ((connection, OVERRIDDEN | CALLED), (SSHPacket, PACKET))
        for name, expected in methods.items()
        if parameters(owner, name) != expected
    ]
    for message, name in HANDLERS.items():
        handler = getattr(connection._packet_handlers.get(message), "__name__", None)
        if handler != name:
            found.append(f"message {message} is handled by {handler}, not {name}")
    new = connect(connection)
    for name, kind in (REPLACED | READ).items():
        if not isinstance(getattr(new, name, ...), kind):
            found.append(f"{connection.__name__}.{name} is not a {kind.__name__}")
    return found


def test_asyncssh_has_the_internals_that_the_simulator_uses() -> None:
    found = changes(asyncssh.SSHServerConnection)
    message = f"asyncssh {asyncssh.__version__} has changed; adapt testing/_asyncssh_internals.py:"
    assert not found, "\n  ".join([message, *found])


def test_every_change_of_asyncssh_is_named() -> None:
    class Changed(asyncssh.SSHServerConnection):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)
            del self._strict_kex

        def _send_version(self, banner: bytes) -> None:
            raise NotImplementedError

        def _process_key_exchange(self) -> None:
            raise NotImplementedError

        _packet_handlers = {  # noqa: RUF012
            **asyncssh.SSHServerConnection._packet_handlers,
            20: _process_key_exchange,
        }

    assert changes(Changed) == [
        "Changed._send_version takes ['self', 'banner'], not ['self']",
        "message 20 is handled by _process_key_exchange, not _process_kexinit",
        "Changed._strict_kex is not a bool",
    ]


def assigned(owner: type) -> set[str]:
    """Return the attributes that the methods of *owner* set."""
    return {
        node.attr
        for node in ast.walk(ast.parse(inspect.getsource(owner)))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }


def test_nothing_else_of_asyncssh_is_overridden_or_replaced() -> None:
    """An attribute of the simulator must not hide one of asyncssh by accident."""
    taken = {*dir(asyncssh.SSHServerConnection), *vars(connect(asyncssh.SSHServerConnection))}
    ours = {name for owner in (HookedConnection, RapConnection) for name in (*vars(owner), *assigned(owner))}
    hidden = {name for name in ours & taken if not name.startswith("__")}
    assert hidden == OVERRIDDEN.keys() | REPLACED.keys()


def test_the_modules_of_asyncssh_are_imported_in_one_place() -> None:
    folder = Path(testing.__file__).parent
    importing = {
        path.name
        for path in folder.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("asyncssh."))
        or (isinstance(node, ast.Import) and any(it.name.startswith("asyncssh.") for it in node.names))
    }
    assert importing == {Path(_asyncssh_internals.__file__).name}


@pytest.mark.parametrize("markers", [True, False])
def test_extension_markers_are_asyncsshs_own_or_none(markers: bool) -> None:
    rap = RapSimulator(server=testing.ServerBehaviour(extension_markers=markers))

    async def extra() -> list[bytes]:
        options = asyncssh.SSHServerConnectionOptions(config=[], server_host_keys=[KEY])
        server = RapServer(rap._facility, rap._host_key)
        return RapConnection(server, asyncio.get_running_loop(), options)._get_extra_kex_algs()

    assert asyncio.run(extra()) == ([b"ext-info-s", b"kex-strict-s-v00@openssh.com"] if markers else [])
