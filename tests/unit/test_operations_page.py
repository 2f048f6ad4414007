"""docs/operations.md agrees with the DAGs and settings of the project."""

import re
from configparser import ConfigParser
from pathlib import Path

from airflow_provider_hkex_rap.get_provider_info import get_provider_info

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "operations.md").read_text()


def test_the_dags_are_those_of_the_folder() -> None:
    shown = set(re.findall(r"^\| `(hkex_rap_\w+)`", PAGE, re.MULTILINE))
    texts = "".join(path.read_text() for path in (DOCS.parent / "dags").glob("*.py"))
    assert shown == set(re.findall(r'DAG\(\s*"(hkex_rap_\w+)"', texts))


def test_the_settings_are_declared() -> None:
    (shown,) = re.findall(r"```ini\n(.*?)```", PAGE, re.DOTALL)
    parser = ConfigParser()
    parser.read_string(shown)
    declared = get_provider_info()["config"]["hkex_rap"]["options"]
    assert {*parser["hkex_rap"], *re.findall(r"`\[hkex_rap\] (\w+)`", PAGE)} <= declared.keys()
    # And each declared setting is explained, with its default.
    (table,) = re.findall(r"^\| setting \| default.*?\n\n", PAGE, re.MULTILINE | re.DOTALL)
    rows = dict(re.findall(r"^\| `\[hkex_rap\] (\w+)` \| (.*?) \|", table, re.MULTILINE))
    assert rows.keys() == declared.keys()
    numbers = {name: option["default"] for name, option in declared.items() if option["default"]}
    assert {name: rows[name] for name in numbers} == numbers
