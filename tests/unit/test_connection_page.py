"""docs/connection.md has each field of the connection form, with its label and default."""

import re
from pathlib import Path

from airflow_provider_hkex_rap.get_provider_info import get_provider_info
from airflow_provider_hkex_rap.rap.sites import RAP_PORT

PAGE = (Path(__file__).parents[2] / "docs" / "connection.md").read_text()
(FORM,) = get_provider_info()["connection-types"]
ROWS = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|", PAGE, re.MULTILINE)


def test_the_fields_are_those_of_the_form_with_their_labels() -> None:
    labels = {name: field["label"] for name, field in FORM["conn-fields"].items()}
    labels |= FORM["ui-field-behaviour"]["relabeling"] | {"port": "Port"}
    assert {name: label for name, label, _ in ROWS} == labels


def test_the_defaults_are_those_of_the_form() -> None:
    schemas = {name: field["schema"] for name, field in FORM["conn-fields"].items()}
    defaults = {
        name: str(schema["default"]).lower() for name, schema in schemas.items() if "default" in schema
    }
    shown = {name: default.strip("`") for name, _, default in ROWS}
    assert {name: shown[name] for name in defaults} == defaults
    assert shown["port"] == str(RAP_PORT)
