"""The tests that docs/testing.md shows pass."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()


def test_the_tests_shown_pass_without_a_database(tmp_path: Path) -> None:
    shown = re.findall(r"<!-- (\S+) -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    assert [name for name, _ in shown] == ["conftest.py", "test_my_dag.py", "test_templates.py"]
    for name, text in shown:
        (tmp_path / name).write_text(text)
    users_own = {
        name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW_", "PYTEST"))
    }
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--rootdir",
            str(tmp_path),
            str(tmp_path),
        ],
        env=users_own | {"AIRFLOW_HOME": str(tmp_path / "airflow")},
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
    )
    assert run.returncode == 0, run.stdout
    assert "5 passed" in run.stdout
