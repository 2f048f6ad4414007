"""Write `RESULTS.md` and its plot from the results that were kept."""

from __future__ import annotations

import datetime
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import parse, report
from benchmarks.peers import version_of

_PACKAGES = ("apache-airflow", "apache-airflow-providers-sftp", "asyncssh", "paramiko", "fsspec", "s3fs")
_PROGRAMS = (["ssh", "-V"], ["lftp", "--version"], ["rclone", "version"], ["aws", "--version"])


def write(kept: dict[str, Any], directory: Path) -> None:
    """Write the page and the plot.

    :param kept: the results that were kept.
    :param directory: the directory of the files.
    """
    results = report.from_json({case: it["rows"] for case, it in kept["cases"].items()})
    page = [_head(), *_targets(results, kept)]
    page += ["## The provider alone", report.own_table(results)]
    for case, rows in results.items():
        page += [f"## {case}", report.case_table(rows)]
        if phases := kept["cases"][case]["phases"]:
            page += [
                "The phases of our first call, slowed a little by timing them:",
                report.phase_table(phases),
            ]
    if times := kept.get("parse"):
        page += ["## Parsing of DAG files, beyond the import of `airflow.sdk`", report.parse_table(times)]
    if steps := kept.get("scale"):
        page += ["## Work that grows", report.scale_table(steps)]
    (directory / "RESULTS.md").write_text("\n\n".join(page) + "\n")
    if results:
        report.plot(results, directory / "results.svg")


def _head() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    versions = [text for command in _PROGRAMS if (text := version_of(command))]
    # The AWS CLI adds the versions of Python and of the kernel.
    programs = "; ".join(text.split(" Python/")[0] for text in versions)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return f"""# Results

Written by `make bench` on {datetime.date.today():%Y-%m-%d}. [README.md](README.md) says what is measured.
Seconds are medians. "× ours" is the time of a peer divided by ours: above 1, the provider is faster.

- Machine: {os.cpu_count()} processors ({platform.machine()}), {memory:.0f} GB,
  Linux {platform.release().split("-")[0]}, Python {platform.python_version()}.
- Packages: {packages}.
- Programs: {programs}.

![The medians of each case](results.svg)"""


def _targets(results: report.Results, kept: dict[str, Any]) -> list[str]:
    limits = []
    if times := kept.get("parse"):
        limits.append(("slowest DAG file: parse s", parse.MOST_SECONDS, max(times.values())))
    if steps := kept.get("scale"):
        limits.append(
            ("all work that grows: peak MB", report.MOST_MEMORY, max(step["rss"] for step in steps))
        )
    return ["## Targets", report.target_table(results, limits)]
