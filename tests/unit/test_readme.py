"""The README agrees with the files, commands and fields of the project."""

import json
import re
from pathlib import Path

from airflow_provider_hkex_rap.get_provider_info import get_provider_info

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_each_dag_in_the_readme_is_the_file() -> None:
    shown = dict(re.findall(r"<!-- (\S+) -->\n```python\n(.*?)```", README, re.DOTALL))
    assert shown.keys() == {"dags/hkex_rap_daily_ingest.py", "tests/integration/asset_dag.py"}
    assert shown == {path: (ROOT / path).read_text() for path in shown}


def test_every_path_in_the_readme_exists() -> None:
    paths = re.findall(r"\]\(([^):]+)\)", README)
    assert paths
    assert [path for path in paths if not (ROOT / path.partition("#")[0]).exists()] == []


def test_every_heading_that_the_readme_links_to_exists() -> None:
    links = re.findall(r"\]\(([^):#]*)#([^)]+)\)", README)
    assert links
    for path, anchor in links:
        page = (ROOT / (path or "README.md")).read_text()
        headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
        assert anchor in [re.sub(r"[^\w-]", "", h.lower().replace(" ", "-")) for h in headings], (
            path,
            anchor,
        )


def test_every_make_target_in_the_readme_exists() -> None:
    targets = set(re.findall(r"^    make (\w+)", README, re.MULTILINE))
    assert {"demo", "test"} <= targets
    makefile = (ROOT / "Makefile").read_text()
    assert [target for target in targets if f"\n{target}:" not in makefile] == []


def test_the_connection_in_the_readme_has_the_fields_of_the_form() -> None:
    (shown,) = re.findall(r"--conn-json '(.*?)'", README, re.DOTALL)
    (form,) = get_provider_info()["connection-types"]
    connection = json.loads(shown)
    assert connection["conn_type"] == form["connection-type"]
    assert connection["extra"].keys() <= form["conn-fields"].keys()


def test_the_fields_in_the_readme_have_the_labels_of_the_form() -> None:
    (form,) = get_provider_info()["connection-types"]
    labels = {name: field["label"] for name, field in form["conn-fields"].items()}
    labels |= form["ui-field-behaviour"]["relabeling"]
    cells = re.findall(r"^   \| ([^|]*`\)[^|]*) \|", README, re.MULTILINE)
    shown = [pair for cell in cells for pair in re.findall(r"([A-Z][\w ]+) \(`(\w+)`\)", cell)]
    assert len(shown) >= 8
    assert shown == [(labels[name], name) for _, name in shown]
    in_the_form = [name for _, name in shown if name not in form["conn-fields"]]
    assert in_the_form == [name for _, name in shown[:2]] == ["login", "host"]


def test_no_page_has_a_test_button() -> None:
    # Airflow 3 has an icon in the list of connections, and only if an administrator enables it.
    pages = [README, *(page.read_text() for page in (ROOT / "docs").glob("*.md"))]
    assert not [page for page in pages if re.search(r"\*Test\* button|[Pp]ress \*Test\*", page)]


def test_every_command_in_the_readme_is_documented() -> None:
    commands = set(re.findall(r"airflow hkex-rap ([a-z]+)", README))
    documented = (ROOT / "docs/cli.md").read_text()
    assert {"init", "doctor"} <= commands
    assert [command for command in commands if f"airflow hkex-rap {command}" not in documented] == []
