"""The parts of Airflow beyond its public interface: these tests fail when one of them changes.

Its public interface is what `airflow.sdk` exports, the exceptions, and the classes of plugins and timetables.
`pyproject.toml` bounds the version of Airflow from below only, so a new one may lack a part.
"""

import inspect
import re
from pathlib import Path
from pkgutil import resolve_name

import airflow.sdk
import pytest

from .test_layers import PACKAGE, ROOT, imports, inside

PUBLIC = (
    *(f"airflow.sdk.{name}" for name in airflow.sdk.__all__),
    "airflow.sdk.exceptions",
    "airflow.configuration.conf",
    "airflow.listeners.hookimpl",
    "airflow.plugins_manager.AirflowPlugin",
    "airflow.timetables.base",
    # Providers have versions, and bounds, of their own.
    "airflow.providers",
)

MODULES = ("airflow.sdk.execution_time.task_runner", "airflow.sdk.log")
"""The modules that we import whole; the table has what we use of them."""

UNDOCUMENTED = {
    # In tasks.
    "airflow.sdk.BaseXCom.get_one": ("key", "dag_id", "task_id", "run_id", "map_index"),
    "airflow.sdk.Variable.keys": ("prefix",),
    "airflow.sdk.configuration.conf": None,
    "airflow.sdk.definitions.mappedoperator.MappedOperator": None,
    "airflow.sdk.execution_time.context.InletEventsAccessor": ("asset_name", "asset_uri"),
    "airflow.sdk.execution_time.context.InletEventsAccessor.ascending": ("ascending",),
    "airflow.sdk.execution_time.context.InletEventsAccessor.limit": ("limit",),
    "airflow.sdk.execution_time.supervisor.InProcessSupervisorComms": None,
    "airflow.sdk.execution_time.supervisor.ensure_secrets_backend_loaded": (),
    "airflow.sdk.execution_time.task_runner.RuntimeTaskInstance": None,
    "airflow.sdk.execution_time.task_runner.RuntimeTaskInstance.get_task_states": ("dag_id", "run_ids"),
    "airflow.sdk.log._secrets_masker": (),
    "airflow.sdk.log.mask_secret": ("secret",),
    "airflow.sdk.log.redact": ("value",),
    "airflow.sdk.observability.stats": None,
    "airflow.sdk.observability.stats.gauge": ("stat", "value", "tags"),
    "airflow.sdk.observability.stats.incr": ("stat", "count", "tags"),
    "airflow.sdk.observability.stats.timing": ("stat", "dt", "tags"),
    "airflow.sdk.types.TaskInstanceKey": None,
    # In the scheduler, the DAG processor and the API server.
    "airflow.api_fastapi.app.get_auth_manager": (),
    "airflow.api_fastapi.auth.managers.base_auth_manager.BaseAuthManager.get_authorized_dag_ids": (
        "user",
        "method",
    ),
    "airflow.api_fastapi.auth.managers.base_auth_manager.BaseAuthManager.is_authorized_connection": (
        "method",
        "details",
        "user",
    ),
    "airflow.api_fastapi.auth.managers.models.base_user.BaseUser": None,
    "airflow.api_fastapi.auth.managers.models.resource_details.ConnectionDetails": ("conn_id", "team_name"),
    "airflow.api_fastapi.core_api.security.GetUserDep": None,
    "airflow.api_fastapi.core_api.security.requires_access_asset": ("method",),
    "airflow.configuration.ensure_secrets_loaded": (),
    "airflow.models.Variable": None,
    "airflow.models.Variable.get": ("key", "default_var"),
    "airflow.models.Variable.set": ("key", "value"),
    "airflow.models.connection.Connection": None,
    "airflow.models.connection.Connection.get_conn_id_to_team_name_mapping": ("connection_ids",),
    "airflow.models.connection.Connection.get_connection_from_secrets": ("conn_id", "team_name"),
    "airflow.models.dag.DagModel": None,
    "airflow.models.dag.DagModel.is_stale": None,
    "airflow.models.pool.Pool": None,
    "airflow.models.pool.Pool.get_pool": ("pool_name", "session"),
    "airflow.models.serialized_dag.SerializedDagModel": None,
    "airflow.models.serialized_dag.SerializedDagModel.get_latest_serialized_dags": ("dag_ids", "session"),
    "airflow.models.variable.Variable": None,
    "airflow.utils.session.create_session": (),
    # In the commands.
    "airflow.cli.cli_config.ARG_OUTPUT": None,
    "airflow.cli.cli_config.ARG_VERBOSE": None,
    "airflow.cli.cli_config.ARG_YES": None,
    "airflow.cli.cli_config.ActionCommand": ("name", "help", "func", "args"),
    "airflow.cli.cli_config.Arg": ("flags", "help"),
    "airflow.cli.cli_config.CLICommand": None,
    "airflow.cli.cli_config.GroupCommand": ("name", "help", "subcommands"),
    "airflow.cli.cli_config.lazy_load_command": ("import_path",),
    "airflow.cli.simple_table.AirflowConsole": None,
    "airflow.cli.simple_table.AirflowConsole.print_as": ("data", "output"),
    "airflow.utils.cli.action_cli": (),
    "airflow.utils.cli.suppress_logs_and_warning": (),
    "airflow.utils.yaml": None,
}
"""What we use, each with the parameters that we pass; None if we do not call it."""


@pytest.mark.parametrize("name", UNDOCUMENTED)
def test_airflow_has_each_part_that_we_use_beyond_its_public_interface(name: str) -> None:
    try:
        found = resolve_name(name)
    except (ImportError, AttributeError) as error:
        pytest.fail(f"This version of Airflow has no {name}, which this package uses: {error}")
    if (passed := UNDOCUMENTED[name]) is None:
        return
    parameters = inspect.signature(found).parameters
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    assert takes_any or set(passed) <= set(parameters), (
        f"{name} of this version of Airflow takes {list(parameters)}, and this package passes {passed}."
    )


def test_a_task_can_ask_its_supervisor() -> None:
    from airflow.sdk.execution_time import task_runner

    # Airflow sets it when a task starts.
    assert "SUPERVISOR_COMMS" in task_runner.__annotations__, "SUPERVISOR_COMMS of the task runner is gone."
    assert "SUPERVISOR_COMMS" in inspect.getsource(task_runner.main)


def test_the_masker_keeps_its_patterns_in_a_set() -> None:
    from airflow.sdk.log import _secrets_masker

    assert isinstance(_secrets_masker().patterns, set), "Masking the lines of a key is slow without it."


def test_the_list_has_only_parts_that_the_package_names() -> None:
    words = {word for path in ROOT.rglob("*.py") for word in re.findall(r"\w+", path.read_text())}
    assert not {name for name in UNDOCUMENTED if name.rpartition(".")[2] not in words}


def test_the_list_has_every_part_that_the_package_imports() -> None:
    def imported(path: Path) -> set[str]:
        return imports(path.read_text(), f"{PACKAGE}.{path.stem}")[0]

    unlisted = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in ROOT.rglob("*.py")
        for name in imported(path)
        if inside(name, "airflow")
        and name not in (*UNDOCUMENTED, *MODULES)
        and not any(inside(name, public) for public in PUBLIC)
    }
    assert not unlisted
