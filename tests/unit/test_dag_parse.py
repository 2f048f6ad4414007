"""What Airflow imports when it parses a DAG file or loads the plugin: nothing heavy."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
DAG_FILES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "dags").glob("*.py"))
PLUGIN = "airflow_provider_hkex_rap.plugins.hkex_rap"
HEAVY = (
    *("asyncssh", "cryptography", "fastapi", "fsspec", "holidays", "pyarrow"),
    *("adlfs", "gcsfs", "s3fs"),
    "airflow_provider_hkex_rap.board",
)

# Each file is loaded in a process of its own, which `import airflow.sdk` has prepared.
ADDED = """
import importlib, json, multiprocessing, runpy, sys
import airflow.sdk

def added(name):
    before = set(sys.modules)
    runpy.run_path(name) if name.endswith(".py") else importlib.import_module(name)
    return sorted(set(sys.modules) - before)

with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
    names = sys.argv[1:]
    print(json.dumps(dict(zip(names, pool.map(added, names, chunksize=1)))))
"""


def added_modules(*names):
    """Return by file or module the modules that it imports beyond those of `airflow.sdk`."""
    command = [sys.executable, "-c", ADDED, *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def heavy(modules):
    return [name for name in modules if any(name == it or name.startswith(f"{it}.") for it in HEAVY)]


def test_dag_files_and_the_plugin_import_nothing_heavy(tmp_path):
    careless = tmp_path / "careless.py"
    careless.write_text("import asyncssh\n")
    added = added_modules(*DAG_FILES, PLUGIN, str(careless))
    assert "asyncssh" in heavy(added.pop(str(careless)))
    assert all(
        any(name.startswith("airflow_provider_hkex_rap.") for name in names) for names in added.values()
    )
    assert {name: found for name, names in added.items() if (found := heavy(names))} == {}
