"""Settings of every test: a private Airflow home, and the options ``--no-skips`` and ``--guide-page``."""

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import pytest

from .guide import rules_of, write_page

# Airflow reads its environment once, when it is first imported. The user's settings must not reach a test.
for name in [name for name in os.environ if name.startswith("AIRFLOW_")]:
    del os.environ[name]
AIRFLOW_HOME = tempfile.mkdtemp(prefix="airflow-")
os.environ |= {
    "AIRFLOW_HOME": AIRFLOW_HOME,
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    # Seconds; the default is five minutes.
    "AIRFLOW__HKEX_RAP__SUPERSEDED_WAIT": "0.1",
}

# No test judges a time: a busy machine would fail it.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# If a shell has started the tests in the background, every command under test would ignore SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="Fail if a test would be skipped.")
    parser.addoption("--guide-page", type=Path, help="Write the page of the guide's rules and their tests.")


def pytest_collection_finish(session: pytest.Session) -> None:
    for item in session.items:
        rules_of(item)
    if page := session.config.getoption("guide_page"):
        write_page(page, session.items)


def pytest_unconfigure() -> None:
    shutil.rmtree(AIRFLOW_HOME, ignore_errors=True)


@pytest.fixture(autouse=True)
def empty_secrets_masker() -> Iterator[None]:
    """Let Airflow's log masker forget the secrets of each test.

    The masker compiles one regular expression out of all secrets each time that it learns a new one. With the
    keys of hundreds of tests, one key took half a second, and each log line was searched for all of them.
    """
    yield
    for name in ("airflow._shared.secrets_masker", "airflow.sdk._shared.secrets_masker"):
        if module := sys.modules.get(name):
            module.reset_secrets_masker()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _forbid_skip(report, item.config)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _forbid_skip(report, collector.config)
    return report


def _forbid_skip(report: pytest.TestReport | pytest.CollectReport, config: pytest.Config) -> None:
    if report.skipped and not hasattr(report, "wasxfail") and config.getoption("no_skips"):
        report.outcome = "failed"
        report.longrepr = f"Skipped, which --no-skips forbids: {report.longrepr[2]}"
