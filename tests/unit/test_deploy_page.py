"""docs/deploy.md agrees with Airflow's settings, the DAGs and the other pages."""

import re
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.configuration import conf
from airflow.providers.celery.get_provider_info import get_provider_info as celery_info
from packaging.version import Version

from airflow_provider_hkex_rap.get_provider_info import get_provider_info

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "deploy.md").read_text()


def shown(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def declared() -> dict[str, dict[str, Any]]:
    """Return the options of Airflow, of its Celery provider and of ours, by section and name."""
    core = {section: content["options"] for section, content in conf.configuration_description.items()}
    for info in (celery_info(), get_provider_info()):
        core |= {section: content["options"] for section, content in info["config"].items()}
    return core


def test_the_settings_are_declared() -> None:
    parser = ConfigParser()
    parser.read_string(shown("ini")[0])
    named = {(section, name) for section in parser.sections() for name in parser[section]}
    named |= set(re.findall(r"`\[(\w+)\]\s+(\w+)`", PAGE))
    named |= {
        (section.lower(), name.lower()) for section, name in re.findall(r"AIRFLOW__(\w+?)__(\w+)", PAGE)
    }
    assert ("hkex_rap", "pools") in named
    options = declared()
    assert [(section, name) for section, name in sorted(named) if name not in options[section]] == []


@pytest.mark.parametrize("name", ["task_instance_heartbeat_timeout", "task_queued_timeout"])
def test_the_defaults_are_those_of_airflow(name: str) -> None:
    default = float(declared()["scheduler"][name]["default"])
    parser = ConfigParser()
    parser.read_string(shown("ini")[0])
    assert float(parser["scheduler"][name]) == default
    assert re.search(rf"- `{name}`:[^-]*?\b{default:g} s\s+is\s+the\s+default", PAGE)


def test_the_snippets_of_yaml_are_read() -> None:
    chart, compose = map(yaml.safe_load, shown("yaml"))
    (workers,) = chart["workers"]["celery"]["sets"]
    command = compose["services"]["airflow-worker"]["command"]
    assert workers["queue"] in re.split("[ ,]", command)
    assert {volume["name"] for volume in workers["extraVolumes"]} == {
        mount["name"] for mount in workers["extraVolumeMounts"]
    }
    assert workers["terminationGracePeriodSeconds"] == 30 * 60
    assert compose["services"]["airflow-worker"]["stop_grace_period"] == "30m"


def test_the_image_has_a_version_of_airflow_that_the_package_supports() -> None:
    (required,) = re.findall(r'"apache-airflow>=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    versions = re.findall(r'(?:apache/airflow:|airflowVersion: ")([\d.]+)', PAGE)
    assert len(set(versions)) == 1
    assert Version(versions[0]) >= Version(required)


def test_the_default_args_shown_are_those_of_the_daily_dags_and_a_queue() -> None:
    names: dict[str, Any] = {}
    exec(shown("python")[0], names)
    assert names["default_args"].pop("queue") == "rap"
    daily: dict[str, Any] = {}
    exec((ROOT / "dags" / "hkex_rap_daily_ingest.py").read_text(), daily)
    assert names["default_args"] == daily["COMMON"]["default_args"]


def test_every_link_leads_to_a_heading() -> None:
    links = re.findall(r"\]\(([^):#]*)#?([^)]*)\)", PAGE)
    assert links
    for path, anchor in links:
        page = (ROOT / "docs" / (path or "deploy.md")).read_text()
        headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
        assert not anchor or anchor in [re.sub(r"[^\w-]", "", h.lower().replace(" ", "-")) for h in headings]
