"""The time that Airflow takes to parse each DAG file of the project, beyond the import of `airflow.sdk`."""

from __future__ import annotations

import importlib
import json
import os
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MOST_SECONDS = 0.3
_DAGS = Path(__file__).parents[1] / "dags"


def parse_seconds(runs: int) -> dict[str, float]:
    """Return by DAG file the median of the seconds that it takes in a fresh process.

    :param runs: how often each file is parsed, in turn.
    """
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "AIRFLOW_HOME": home}
        for _ in range(runs):
            for path in sorted(_DAGS.glob("*.py")):
                command = [sys.executable, "-m", "benchmarks.parse", str(path)]
                done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
                seconds.setdefault(path.name, []).append(json.loads(done.stdout.splitlines()[-1]))
    return {name: statistics.median(times) for name, times in seconds.items()}


if __name__ == "__main__":
    importlib.import_module("airflow.sdk")
    started = time.perf_counter()
    runpy.run_path(sys.argv[1])
    print(json.dumps(time.perf_counter() - started))
