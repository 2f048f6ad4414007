"""The sdist, the wheel, and the wheel in a fresh environment; `make dist` makes all three and runs this."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

import airflow_provider_hkex_rap
from airflow_provider_hkex_rap.get_provider_info import get_provider_info

ROOT = Path(__file__).parents[1]
NAME = f"airflow_provider_hkex_rap-{airflow_provider_hkex_rap.__version__}"
INSTALLED = ROOT / "build" / "installed" / "bin"
PACKAGE = "airflow-provider-hkex-rap"
SETTINGS_OF_THE_REPOSITORY = (".ci/", ".pre-commit-config.yaml")

# In the fresh environment: the answers of Airflow's API that the UI shows.
ASK_THE_API = """
import json, sys
from fastapi.testclient import TestClient
from airflow.api_fastapi.app import create_app

with TestClient(create_app()) as api:
    token = api.get("/auth/token").raise_for_status().json()["access_token"]
    for path in sys.argv[1:]:
        answer = api.get(path, headers={"Authorization": f"Bearer {token}"})
        print(json.dumps(answer.raise_for_status().json()))
"""


def tracked() -> set[str]:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines())


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the environment of a new Airflow that has the DAGs of ``dags/``."""
    users_own = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    return users_own | {
        "AIRFLOW_HOME": str(tmp_path_factory.mktemp("home")),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "COLUMNS": "200",
    }


def run(environment: dict[str, str], *command: str) -> str:
    done = subprocess.run(
        [str(INSTALLED / command[0]), *command[1:]],
        # Not the root, where Python would import the source instead of the installed package.
        cwd=environment["AIRFLOW_HOME"],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def table(environment: dict[str, str], *command: str) -> Any:
    # Airflow may log a warning first.
    return json.loads(run(environment, "airflow", *command, "--output", "json").splitlines()[-1])


def as_text(value: Any) -> Any:
    """Return nested dicts and lists with a text in place of each other value."""
    if isinstance(value, dict):
        return {key: as_text(item) for key, item in value.items()}
    return [as_text(item) for item in value] if isinstance(value, list) else str(value)


def test_the_sdist_is_the_source_and_nothing_else() -> None:
    with tarfile.open(ROOT / "dist" / f"{NAME}.tar.gz") as archive:
        files = {member.name.removeprefix(f"{NAME}/") for member in archive if member.isfile()}
    assert files == {"PKG-INFO"} | {
        path for path in tracked() if not path.startswith(SETTINGS_OF_THE_REPOSITORY)
    }
    assert {"LICENSE", "README.md", "tests/conftest.py"} <= files


def test_the_wheel_is_the_package_and_its_license() -> None:
    with ZipFile(ROOT / "dist" / f"{NAME}-py3-none-any.whl") as archive:
        files = set(archive.namelist())
    metadata = {name for name in files if name.startswith(f"{NAME}.dist-info/")}
    assert files - metadata == {path for path in tracked() if path.startswith("airflow_provider_hkex_rap/")}
    assert {Path(name).name for name in metadata} == {
        "LICENSE",
        "METADATA",
        "RECORD",
        "WHEEL",
        "entry_points.txt",
    }


def test_a_package_index_would_take_both() -> None:
    subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *map(str, (ROOT / "dist").glob(f"{NAME}*"))],
        check=True,
    )


def test_the_package_is_imported_from_the_environment(environment: dict[str, str]) -> None:
    where = run(environment, "python", "-c", "import airflow_provider_hkex_rap as p; print(p.__file__)")
    assert Path(where).is_relative_to(INSTALLED.parent)


def test_airflow_lists_the_provider_with_its_info(environment: dict[str, str]) -> None:
    versions = {row["package_name"]: row["version"] for row in table(environment, "providers", "list")}
    assert versions[PACKAGE] == airflow_provider_hkex_rap.__version__
    (info,) = table(environment, "providers", "get", PACKAGE, "--full")
    # The command shows numbers and booleans as text, and the description without its full stop.
    shown = {key: value for key, value in get_provider_info().items() if key != "description"}
    assert as_text({key: info[key] for key in shown}) == as_text(shown)
    hooks = {row["connection_type"]: row["class"] for row in table(environment, "providers", "hooks")}
    assert hooks["hkex_rap"] == "airflow_provider_hkex_rap.hooks.rap.RapHook"
    assert PACKAGE in run(environment, "airflow", "info")


def test_airflow_loads_the_plugin_with_its_timetable_and_listener(environment: dict[str, str]) -> None:
    plugins = {row["name"]: row for row in table(environment, "plugins")}
    plugin = plugins["hkex_rap"]
    assert plugin["source"].startswith(f"{PACKAGE}==")
    assert [name.rpartition(".")[2] for name in plugin["timetables"]] == ["RapTradingDayTimetable"]
    assert plugin["listeners"]


def test_the_commands_are_those_of_the_provider(environment: dict[str, str]) -> None:
    printed = run(environment, "airflow", "hkex-rap", "--help")
    assert {"doctor", "gaps", "init", "ls", "renew", "simulate"} <= set(printed.split())


def test_an_asset_is_checked_by_the_provider(environment: dict[str, str]) -> None:
    checked = "; ".join(
        [
            "from airflow.sdk import Asset",
            "print(Asset('HKEX-RAP://CXYZ/DCASS/').uri)",
            "Asset('hkex-rap://CXYZ/no-folder')",
        ]
    )
    with pytest.raises(AssertionError, match="no-folder"):
        run(environment, "python", "-c", checked)


@pytest.mark.timeout(300)
def test_the_ui_gets_the_form_and_the_dags(environment: dict[str, str]) -> None:
    run(environment, "airflow", "db", "migrate")
    run(environment, "airflow", "dags", "reserialize")
    assert table(environment, "dags", "list-import-errors") == []
    printed = run(environment, "python", "-c", ASK_THE_API, "/ui/connections/hook_meta", "/api/v2/dags")
    metas, dags = (json.loads(line) for line in printed.splitlines() if line.startswith(("[", "{")))
    (form,) = (meta for meta in metas if meta["connection_type"] == "hkex_rap")
    (declared,) = get_provider_info()["connection-types"]
    assert form["hook_name"] == declared["hook-name"]
    assert form["extra_fields"].keys() == declared["conn-fields"].keys()
    summaries = {dag["dag_id"]: dag["timetable_summary"] for dag in dags["dags"]}
    assert summaries["hkex_rap_daily_dcass"] == "01:30 HKT, DCASS days"
    assert len(summaries) == 6
