"""Every rule of the guide has a test that is marked with it."""

import re
from pathlib import Path

import pytest

from ..guide import RULES, rules_of, write_page

TESTS = Path(__file__).parents[1]
MARKER = re.compile(r"pytest\.mark\.guide\((.*?)\)", re.DOTALL)


def test_each_rule_has_a_test_and_each_marker_a_rule() -> None:
    files = [path for path in TESTS.rglob("test_*.py") if path != Path(__file__)]
    markers = [marker for path in files for marker in MARKER.findall(path.read_text())]
    marked = {rule for marker in markers for rule in re.findall(r'"(.+?)"', marker)}
    assert marked == RULES.keys()


def test_every_section_with_a_rule_for_a_client_is_there() -> None:
    sections = "2.1, 2.2, 3.1, 3.2, 3.2.1, 3.2.2, 4.1, 4.2, 4.3, 5, 6, 6.1, 6.2, 6.3, 7, 7.1"
    assert list(dict.fromkeys(rule.partition(" ")[0] for rule in RULES)) == sections.split(", ")


def test_the_page_names_each_test_below_its_rule(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    request.node.add_marker(pytest.mark.guide(*RULES))
    write_page(tmp_path / "page.md", [request.node])
    page = (tmp_path / "page.md").read_text()
    assert page.count("- the page names each test below its rule\n") == len(RULES)
    assert all(f"## §{rule}" in page and text in page for rule, text in RULES.items())


def test_a_rule_without_a_test_and_a_marker_without_a_rule_are_errors(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with pytest.raises(pytest.UsageError, match="No test keeps"):
        write_page(tmp_path / "page.md", [request.node])
    request.node.add_marker(pytest.mark.guide("9.9 nothing"))
    with pytest.raises(pytest.UsageError, match=r"9\.9 nothing"):
        rules_of(request.node)
