"""The board in a real browser, in Airflow's UI behind a prefix, with reports of the simulated RAP.

With the environment variable ``BOARD_IMAGES``, the path of a directory, the test writes the images of the
README and of docs/board.md.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pendulum
import pytest

from airflow_provider_hkex_rap.rap.folders import Folder
from airflow_provider_hkex_rap.testing import RapSimulator

from ..manifest_history import at
from ..simulated_rap import download, use
from .api_server import api_server

pytestmark = pytest.mark.slow

DAYS = [pendulum.date(2026, 11, day) for day in (11, 12, 13, 16, 17, 18, 19, 20)]
FRIDAY = DAYS[-1]
EVENING, NOW = at(FRIDAY, 23.7), at(FRIDAY, 25.6)
"""The times of the runs of CCMS and DCASS; the board is looked at after the second."""
PREFIX = "/airflow"
DAG = "hkex_rap_daily_dcass"
HOSTILE = "TP777_CXYZ_20261120_<img src=x onerror=document.title='injected'>.csv"
_SECONDS = 30
_IMAGE_HEIGHT = 1180
_FRAME_HEIGHT = 143
"""The height of the browser's own frame."""


def missing_browser() -> str | None:
    """Return which packages the tests lack; None if they are installed."""
    found = shutil.which("chromium") and shutil.which("chromedriver")
    return None if found else "The board's tests need Debian's packages chromium and chromium-driver."


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    """Yield the directory of the lakes ``lake`` and ``other``, and the settings of an API server."""
    if why := missing_browser():
        pytest.skip(why)
    home = tmp_path_factory.mktemp("browser")
    lake = home / "lake"
    with RapSimulator(accounts=["DCXYZ001"], now=EVENING) as rap, pytest.MonkeyPatch.context() as patch:
        for day in DAYS:
            rap.publish_day(day, reports=30)
        missing = next(
            file for file in rap.files(Folder.DCASS) if file.text.startswith(f"TP001_CXYZ_{FRIDAY:%Y%m%d}")
        )
        rap.remove(Folder.DCASS, missing.name)
        rap.put(Folder.DCASS, HOSTILE, b"x", at(FRIDAY, 19))
        connection = rap.connection("DCXYZ001")
        extra = connection["extra"] | {
            "key_store": (home / "keys").as_uri(),
            "key_expires": f"{FRIDAY.add(days=9)}",
        }
        run = SimpleNamespace(
            dag_id=DAG, run_id=f"scheduled__{FRIDAY}", task_id="land", map_index=3, try_number=1
        )
        for time, folders in ((EVENING, [Folder.HKCC_SEOCH_CCMS_GLOB]), (NOW, ["DCASS", "DCASS_OTHERS"])):
            rap.clock.set(time)
            use(patch, connection | {"extra": extra}, time)
            context = {"ti": run, "dag_run": SimpleNamespace(conf={}, run_after=time)}
            download(lake, context, folders=folders)
        download(home / "other", context, folders=["DCASS"], include=["TP777_*"])
        environment = {
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__HKEX_RAP__CLOCK_OFFSET": os.environ["AIRFLOW__HKEX_RAP__CLOCK_OFFSET"],
            "AIRFLOW_CONN_HKEX_RAP_DEFAULT": json.dumps(connection | {"extra": extra}),
            "AIRFLOW__HKEX_RAP__BOARD_LAKES": lake.as_uri(),
        }
        yield home, environment


@pytest.fixture(scope="module")
def url(served: tuple[Path, dict[str, str]]) -> Iterator[str]:
    home, environment = served
    with api_server(home, environment, PREFIX) as url:
        add_dag(home / "airflow.db")
        yield url


@pytest.fixture
def url_of_two_lakes(served: tuple[Path, dict[str, str]]) -> Iterator[str]:
    home, environment = served
    lakes = f"{(home / 'lake').as_uri()}, {(home / 'other').as_uri()}/"
    with api_server(home, environment | {"AIRFLOW__HKEX_RAP__BOARD_LAKES": lakes}, PREFIX) as url:
        yield url


def add_dag(database: Path) -> None:
    """Add the DAG, so that the user may read it and the board links to its runs."""
    with sqlite3.connect(database) as connection:
        columns = connection.execute("PRAGMA table_info(dag)").fetchall()
        required = {name: 0 for _, name, _, not_null, default, _ in columns if not_null and default is None}
        connection.execute("INSERT OR IGNORE INTO dag_bundle (name) VALUES ('dags-folder')")
        values = required | {"dag_id": DAG, "is_stale": 0, "bundle_name": "dags-folder"}
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        connection.execute(f"INSERT INTO dag ({names}) VALUES ({marks})", list(values.values()))


@pytest.fixture
def browser() -> Iterator[Any]:
    if why := missing_browser():
        pytest.skip(why)
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,900"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(str(shutil.which("chromedriver")))
    driver = webdriver.Chrome(options, service)
    try:
        yield driver
        refused = [entry for entry in driver.get_log("browser") if "Content Security" in entry["message"]]
        assert not refused
    finally:
        driver.quit()


def wait(browser: Any, condition: Any) -> Any:
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, _SECONDS).until(condition)


def open_board(browser: Any, url: str, query: str = "") -> None:
    browser.get(f"{url}/hkex-rap/{query}")
    wait(browser, lambda page: page.execute_script("return document.documentElement.dataset.loaded"))


def find(browser: Any, selector: str) -> Any:
    return wait(browser, lambda page: page.find_elements("css selector", selector))[0]


def cell(browser: Any, folder: str = "DCASS", day: object = FRIDAY) -> Any:
    return find(browser, f'[data-cell="CXYZ {folder} {day}"]')


def files_of(browser: Any) -> str:
    return str(find(browser, "#detail table").text)


def save(browser: Any, name: str) -> None:
    if directory := os.environ.get("BOARD_IMAGES"):
        # An image in the documentation shows one lake, and no temporary directory.
        browser.execute_script(
            "document.querySelectorAll('[aria-labelledby*=\"/other\"], #lakes h2 + .quiet')"
            ".forEach((each) => each.remove());"
            "for (const each of document.querySelectorAll('code'))"
            " each.textContent = each.textContent.replace(/file:.*\\/lake\\//, 'file:///data/rap/')"
        )
        browser.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
        height = browser.execute_script("return document.documentElement.scrollHeight")
        browser.set_window_size(1280, min(height, _IMAGE_HEIGHT) + _FRAME_HEIGHT)
        browser.execute_script("document.querySelector('#detail:not([hidden])')?.scrollIntoView()")
        browser.save_screenshot(str(Path(directory) / name))


def theme(browser: Any, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def test_the_grid_names_the_missing_report_and_the_ending_key(browser: Any, url: str) -> None:
    theme(browser, "light")
    open_board(browser, url)
    friday = cell(browser).text
    assert "✗ Incomplete" in friday
    assert "missing: TP001" in friday
    attention = find(browser, "#attention").text
    assert f"DCASS of CXYZ, Fri {FRIDAY} missing: TP001" in attention
    assert f"DCXYZ001: the current key is valid through {FRIDAY.add(days=9)}" in attention
    assert "✓ Complete" in cell(browser, day=DAYS[-2]).text
    assert "? Not judged" in cell(browser, day=DAYS[0]).text
    account = find(browser, ".account").text
    assert "DCXYZ001" in account
    assert f"⚠ through {FRIDAY.add(days=9)}" in account
    assert browser.find_elements("css selector", ".timeline .bar.ending")
    assert find(browser, "table.grid tbody th[scope=row]").text.startswith("Fri 2026-11-20")
    save(browser, "board.png")


def test_a_click_and_a_key_open_the_files_of_a_cell(browser: Any, url: str) -> None:
    from selenium.webdriver.common.keys import Keys

    theme(browser, "light")
    open_board(browser, url)
    cell(browser).click()
    assert "TP777_CXYZ_20261120_<img" in files_of(browser)
    assert browser.title == "RAP board"
    assert not browser.find_elements("css selector", "main img")
    assert "folder=DCASS&day=2026-11-20" in browser.current_url
    assert browser.switch_to.active_element.get_attribute("id") == "detail-heading"
    save(browser, "board-detail.png")
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert browser.switch_to.active_element == cell(browser)
    assert not find(browser, "#detail").is_displayed()
    browser.switch_to.active_element.send_keys(Keys.TAB)
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert "of CXYZ on 2026-11-20" in find(browser, "#detail-heading").text
    assert "DCASS_OTHERS" in find(browser, "#detail-heading").text


def test_a_line_that_needs_attention_opens_its_cell(browser: Any, url: str) -> None:
    open_board(browser, url)
    find(browser, "#attention button").click()
    assert "TP777_CXYZ_20261120" in files_of(browser)
    assert cell(browser).get_attribute("aria-expanded") == "true"


def test_nothing_of_the_page_is_wider_than_the_window(browser: Any, url: str) -> None:
    for width in (1280, 600, 420):
        browser.set_window_size(width, 900)
        open_board(browser, url, f"?customer=CXYZ&folder=DCASS&day={FRIDAY}")
        files_of(browser)
        wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert browser.execute_script(wide) == 0


def test_the_address_of_a_cell_opens_it(browser: Any, url: str) -> None:
    open_board(browser, url, "?customer=CXYZ&folder=DCASS_OTHERS&day=2026-11-19")
    assert "RPI03_CXYZ_20261119" in files_of(browser)
    assert cell(browser, "DCASS_OTHERS", DAYS[-2]).get_attribute("aria-expanded") == "true"


def test_a_line_and_the_address_of_a_cell_of_another_lake_open_that_one(
    browser: Any, url_of_two_lakes: str
) -> None:
    url = url_of_two_lakes
    open_board(browser, url)
    find(browser, "#attention button").click()
    (chosen,) = browser.find_elements("css selector", '[data-cell][aria-expanded="true"]')
    row = chosen.find_element("xpath", "ancestor::tr").get_attribute("id")
    assert row.endswith(f"/other/-CXYZ-{DAYS[0]}")
    other = find(browser, f'[id^="day-file:"][id$="other/-CXYZ-{FRIDAY}"] button')
    other.click()
    assert "1 file" in files_of(browser)
    address = browser.current_url
    # As an operator that has the path of the lake links to it.
    for query in (address.partition("?")[2], address.partition("?")[2].replace("file%3A%2F%2F", "")):
        assert f"folder=DCASS&day={FRIDAY}&lake=" in query
        open_board(browser, url, f"?{query}")
        assert "1 file" in files_of(browser)
    open_board(browser, url, f"?customer=CXYZ&folder=DCASS&day={FRIDAY}&lake=file:///elsewhere")
    assert "does not show this lake" in find(browser, "#detail .error").text


def test_the_address_of_a_day_marks_its_row(browser: Any, url: str) -> None:
    open_board(browser, url, f"?customer=CXYZ&day={DAYS[1]}")
    (chosen,) = browser.find_elements("css selector", ".chosen")
    assert str(DAYS[1]) in chosen.text
    assert browser.switch_to.active_element.text.startswith(f"Thu {DAYS[1]}")
    assert not find(browser, "#detail").is_displayed()
    open_board(browser, url, "?customer=CXYZ&day=2026-10-02")
    assert "no row of CXYZ for 2026-10-02" in find(browser, "#status").text


def test_the_board_is_dark_if_the_browser_or_airflow_is(browser: Any, url: str) -> None:
    def brightness() -> int:
        colour = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        return int(colour.removeprefix("rgb(").split(",")[0])

    theme(browser, "light")
    open_board(browser, url)
    assert brightness() > 200
    theme(browser, "dark")
    assert brightness() < 60
    save(browser, "board-dark.png")
    browser.execute_script("localStorage.setItem('theme', 'light')")
    open_board(browser, url)
    assert brightness() > 200


def test_airflows_navigation_leads_to_the_board_and_its_links_to_the_runs(browser: Any, url: str) -> None:
    browser.get(f"{url}/plugin/hkex_rap")
    frame = wait(browser, lambda page: page.find_elements("css selector", "iframe[title='RAP board']"))[0]
    browser.switch_to.frame(frame)
    cell(browser).click()
    find(browser, "#detail table a").click()
    browser.switch_to.default_content()
    wait(browser, lambda page: f"/dags/{DAG}/runs/" in page.current_url)
    assert browser.current_url.startswith(f"{url}/dags/{DAG}/runs/scheduled__2026-11-20/tasks/land/mapped/3?")


@pytest.mark.parametrize(
    ("map_index", "path"),
    [(-1, "runs/b%20c/tasks/d?"), (0, "runs/b%20c/tasks/d/mapped/0?"), (None, "runs/b%20c?")],
)
def test_a_file_links_to_the_task_that_landed_it(
    browser: Any, url: str, map_index: int | None, path: str
) -> None:
    open_board(browser, url)
    run = {"dag": "a", "run": "b c", "task": "d", "map_index": map_index, "try": 1}
    link = browser.execute_script("return runLink(arguments[0]).getAttribute('href')", run)
    assert link.startswith(f"../dags/a/{path}")


def test_another_customer_is_a_link_away(browser: Any, url: str, served: tuple[Path, dict[str, str]]) -> None:
    manifest = served[0] / "lake" / "manifest"
    other = manifest / "CZZZ"
    shutil.copytree(manifest / "CXYZ", other)
    try:
        open_board(browser, url)
        assert cell(browser).is_displayed()
        find(browser, "nav a").click()
        wait(browser, lambda page: page.find_elements("css selector", f'[data-cell="CZZZ DCASS {FRIDAY}"]'))
        assert not browser.find_elements("css selector", '[data-cell^="CXYZ"]')
        assert find(browser, "nav").text == "Other customers: CXYZ"
        find(browser, f'[data-cell="CZZZ DCASS {FRIDAY}"]').click()
        find(browser, "#detail header button").click()
        # A reload shows the same customer.
        assert browser.current_url.endswith("?customer=CZZZ")
    finally:
        shutil.rmtree(other)
