"""docs/operations.md agrees with the DAGs, errors and settings of the project."""

import re
from configparser import ConfigParser
from pathlib import Path
from typing import Any

from airflow_provider_hkex_rap.get_provider_info import get_provider_info
from airflow_provider_hkex_rap.rap import errors

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "operations.md").read_text()
KEY_ERRORS = {"RapKeyRejected", "RapKeyVerificationError"}
"""The errors that docs/keys.md explains."""


def test_the_dag_shown_is_one() -> None:
    (shown,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(shown, names)
    assert names["arrived"].dag.task_dict["arrived"].downstream_task_ids == {"land"}


def test_every_error_is_in_the_table_with_whether_airflow_tries_again() -> None:
    shown = dict(re.findall(r"^\| `(\w+)` \| (yes|no)", PAGE, re.MULTILINE))
    kinds = {
        name: kind
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.RapError) and kind is not errors.RapError
    }
    assert shown.keys() == kinds.keys() - KEY_ERRORS
    assert {name: kinds[name].retryable for name in shown} == {k: v == "yes" for k, v in shown.items()}
    assert all(name in (DOCS / "keys.md").read_text() for name in KEY_ERRORS)


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
