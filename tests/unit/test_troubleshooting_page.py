"""docs/troubleshooting.md has a section for each error, and no other."""

import re
from pathlib import Path

from airflow_provider_hkex_rap.rap import errors

PAGE = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text()
SECTIONS = dict(re.findall(r"^## (\w+)\n\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
KINDS = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.RapError)
}


def test_each_error_has_a_section_and_each_section_an_error() -> None:
    assert len(KINDS) > 15
    assert list(SECTIONS) == list(KINDS)


def test_each_section_but_that_of_the_base_says_if_airflow_tries_again() -> None:
    said = {name: re.match(r"\*Retried: (yes|no)", text) for name, text in SECTIONS.items()}
    assert said.pop("RapError") is None
    assert {name: found and found[1] for name, found in said.items()} == {
        name: "yes" if KINDS[name].retryable else "no" for name in said
    }


def test_the_facts_that_a_section_names_are_those_of_its_error() -> None:
    facts = {name: set(getattr(kind, "__annotations__", ())) for name, kind in KINDS.items()}
    of_any = set().union(*facts.values())
    for name in KINDS.keys() - {"RapError"}:
        named = set(re.findall(r"`(\w+)`", SECTIONS[name])) & of_any
        assert named <= facts[name], name
