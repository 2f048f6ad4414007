"""What the board says of each day and folder, and of lakes that cannot be read."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_hkex_rap.board.accounts import accounts
from airflow_provider_hkex_rap.board.files import files
from airflow_provider_hkex_rap.board.grid import board
from airflow_provider_hkex_rap.board.security import VisibleAccounts
from airflow_provider_hkex_rap.lake.store import Lake
from airflow_provider_hkex_rap.rap.errors import LakeError, RapConfigurationError
from airflow_provider_hkex_rap.rap.folders import Folder

from ...manifest_history import at, landed, write, write_history

NOBODY_HIDDEN = VisibleAccounts((), (), ())
DAYS = [date(2026, 11, day) for day in (12, 13, 16, 17, 18, 19, 20)]
FRIDAY = DAYS[-1]
NIGHT = at(FRIDAY, 25.6)
"""After the last report of Friday, and after the run of its night."""


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    lake = tmp_path / "lake"
    monkeypatch.setenv("AIRFLOW_VAR_HKEX_RAP_LAKE", lake.as_uri())
    return lake


def customer(answer: dict[str, Any]) -> dict[str, Any]:
    (shown,) = answer["lakes"]
    assert shown["error"] is None, shown["error"]
    (found,) = shown["customers"]
    return dict(found)


def cell(answer: dict[str, Any], day: date, folder: str = "DCASS") -> dict[str, Any]:
    (found,) = (
        each for each in customer(answer)["cells"] if (each["day"], each["folder"]) == (f"{day}", folder)
    )
    return dict(found)


def test_a_day_is_complete_incomplete_or_not_judged(lake: Path) -> None:
    write_history(lake, DAYS, without={(FRIDAY, "R001")})
    answer = board(NIGHT)
    assert cell(answer, DAYS[0])["state"] == "not judged"
    assert "too few" in cell(answer, DAYS[0])["reason"]
    assert cell(answer, DAYS[5]) | {"first": None, "last": None} == {
        "day": "2026-11-19",
        "folder": "DCASS",
        "state": "complete",
        "reason": "",
        "files": 3,
        "bytes": 3000,
        "first": None,
        "last": None,
        "missing": [],
        "awaited": [],
        "excused": [],
    }
    friday = cell(answer, FRIDAY)
    assert friday["state"] == "incomplete"
    (missing,) = friday["missing"]
    assert (missing["report"], missing["usual_time"]) == ("R001", "19:30")
    assert missing["seen_on"][0] == "2026-11-19"


def test_a_report_is_awaited_until_its_usual_time(lake: Path) -> None:
    write_history(lake, DAYS[:-1])
    write(lake, [landed(lake, FRIDAY, Folder.DCASS, "R000_20261120.csv")])
    evening = cell(board(at(FRIDAY, 19)), FRIDAY)
    assert evening["state"] == "awaited"
    assert {each["report"] for each in evening["awaited"]} == {"R001", "R002"}
    assert evening["awaited"][0]["due"].startswith("2026-11-20T19:30")
    assert cell(board(at(FRIDAY, 20)), FRIDAY)["state"] == "incomplete"


def test_a_folder_without_a_file_names_its_usual_reports_alone(lake: Path) -> None:
    write_history(lake, DAYS[:-1])
    assert [each["report"] for each in cell(board(NIGHT), FRIDAY)["missing"]] == ["R000", "R001", "R002"]


def test_a_folder_of_which_too_little_is_known_lacks_any_file(lake: Path) -> None:
    write_history(lake, DAYS[:1])
    assert [each["report"] for each in cell(board(at(DAYS[1], 27.6)), DAYS[1])["missing"]] == ["any file"]


def test_a_missing_report_on_a_public_holiday_is_no_error_and_no_completeness(lake: Path) -> None:
    # 28 September 2026 follows days of which everything is known; 1 October is a public holiday.
    days = [date(2026, 9, day) for day in (22, 23, 24, 25, 28, 29, 30)]
    holiday = date(2026, 10, 1)
    write_history(lake, days)
    write(lake, [landed(lake, holiday, Folder.DCASS, "R000_20261001.csv")])
    shown = cell(board(at(holiday, 25.6)), holiday)
    assert shown["state"] == "not judged"
    assert {each["report"] for each in shown["excused"]} == {"R001", "R002"}
    assert "public holiday" in shown["reason"]


def test_a_folder_from_which_nothing_has_landed_is_named_and_not_judged(lake: Path) -> None:
    write_history(lake, DAYS)
    shown = customer(board(NIGHT))
    assert shown["folders"] == ["DCASS"]
    assert shown["unused_folders"] == ["DCASS_OTHERS", "HKCC_SEOCH_CCMS_GLOB"]


def move(lake: Path, customer: str) -> None:
    """Make the manifest of CXYZ that of another customer."""
    shutil.move(lake / "manifest/CXYZ", lake / "manifest" / customer)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Callable[[], set[str]]:
    """Return a function that returns the customers whose manifest was read since its last call."""
    paths: list[str] = []
    really_read = Lake.read

    def recorded(lake: Lake, relative: str) -> bytes:
        paths.append(relative)
        return really_read(lake, relative)

    def taken() -> set[str]:
        found = {path.split("/")[1] for path in paths}
        paths.clear()
        return found

    monkeypatch.setattr(Lake, "read", recorded)
    return taken


def test_the_manifest_of_one_customer_is_read_and_the_others_are_named(
    lake: Path, read: Callable[[], set[str]]
) -> None:
    write_history(lake, DAYS)
    move(lake, "CABC")
    write_history(lake, DAYS)
    for asked, shown, other in ((None, "CABC", "CXYZ"), ("CXYZ", "CXYZ", "CABC")):
        answer = board(NIGHT, asked)
        assert (customer(answer)["customer"], answer["lakes"][0]["others"]) == (shown, [other])
        assert read() == {shown}


def test_a_customer_that_no_lake_has_is_an_error(lake: Path) -> None:
    write_history(lake, DAYS)
    answer = board(NIGHT, "CNON")
    assert answer["error"] == "No lake of the board has a manifest of CNON."
    assert (answer["lakes"][0]["customers"], answer["lakes"][0]["others"]) == ([], ["CXYZ"])


def test_the_accounts_are_those_of_one_customer_and_read_no_manifest_again(
    lake: Path, read: Callable[[], set[str]]
) -> None:
    times = ["2026-11-20T18:00:00.000Z", "2026-11-20T19:00:00.000Z", "2026-11-20T17:00:00.000Z"]
    for number, time in enumerate(times):
        write(lake, [landed(lake, FRIDAY, Folder.DCASS, f"R{number}_20261120.csv", downloaded=time)], number)
    move(lake, "CABC")
    write(lake, [landed(lake, FRIDAY, Folder.DCASS, "R000_20261120.csv", account="DCXYZ002")])
    board(NIGHT, "CABC")
    assert read() == {"CABC"}
    (account,) = accounts(NIGHT, NOBODY_HIDDEN, "CABC")["accounts"]
    assert (account["account"], account["last_download"]["at"]) == ("DCXYZ001", max(times))
    assert read() == set()
    (account,) = accounts(NIGHT, NOBODY_HIDDEN, "CXYZ")["accounts"]
    assert account["account"] == "DCXYZ002"


def test_a_later_look_reads_new_manifest_files_and_leaves_out_those_that_are_gone(
    lake: Path, read: Callable[[], set[str]]
) -> None:
    write_history(lake, DAYS)
    assert cell(board(NIGHT), FRIDAY)["files"] == 3
    assert read() == {"CXYZ"}
    assert cell(board(NIGHT), FRIDAY)["files"] == 3
    assert read() == set()
    new = write(lake, [landed(lake, FRIDAY, Folder.DCASS, "R009_20261120.csv")], number=2)
    assert cell(board(NIGHT), FRIDAY)["files"] == 4
    new.unlink()
    assert cell(board(NIGHT), FRIDAY)["files"] == 3


def test_a_manifest_file_that_was_copied_in_part_is_read_again(
    lake: Path, read: Callable[[], set[str]]
) -> None:
    write_history(lake, DAYS)
    path = next((lake / "manifest/CXYZ/DCASS").glob(f"{FRIDAY}/*.jsonl"))
    whole = path.read_bytes()
    path.write_bytes(whole.splitlines(keepends=True)[0])
    assert cell(board(NIGHT), FRIDAY)["files"] == 1
    path.write_bytes(whole)
    assert cell(board(NIGHT), FRIDAY)["files"] == 3
    read()
    assert cell(board(NIGHT), FRIDAY)["files"] == 3
    assert read() == set()


def test_a_new_folder_is_judged_once_enough_of_its_days_are_known(lake: Path) -> None:
    write_history(lake, DAYS)
    write_history(lake, DAYS[3:6], [Folder.DCASS_OTHERS])
    answer = board(at(FRIDAY, 28))
    others = {day: cell(answer, day, "DCASS_OTHERS") for day in DAYS}
    # Files of DCASS came on the first days, so DCASS_OTHERS did not exist yet.
    assert [others[day]["state"] for day in DAYS[:6]] == ["not judged"] * 6
    assert "too few ordinary days" in others[DAYS[5]]["reason"]
    assert others[FRIDAY]["state"] == "incomplete"
    assert cell(answer, DAYS[5])["state"] == "complete"


@pytest.mark.parametrize(("known", "state"), [(3, "not judged"), (4, "incomplete")])
def test_a_folder_is_complete_only_if_its_reports_can_be_usual(lake: Path, known: int, state: str) -> None:
    write_history(lake, DAYS)
    write_history(lake, DAYS[-1 - known : -1], [Folder.DCASS_OTHERS])
    write(lake, [landed(lake, FRIDAY, Folder.DCASS_OTHERS, f"R000_{FRIDAY:%Y%m%d}.csv")], number=9)
    assert cell(board(at(FRIDAY, 28)), FRIDAY, "DCASS_OTHERS")["state"] == state


def test_a_day_without_any_file_lacks_every_folder(lake: Path) -> None:
    write_history(lake, DAYS[2:])
    write_history(lake, DAYS[4:5], [Folder.DCASS_OTHERS])
    answer = board(at(FRIDAY, 28))
    for folder in ("DCASS", "DCASS_OTHERS"):
        assert cell(answer, DAYS[1], folder)["state"] == "incomplete"
    # The folder is not new any more.
    assert cell(answer, DAYS[5], "DCASS_OTHERS")["state"] == "incomplete"


def test_a_day_says_how_long_rap_keeps_it(lake: Path) -> None:
    write_history(lake, DAYS)
    left = {day["day"]: day["days_left"] for day in customer(board(at(FRIDAY, 12)))["days"]}
    assert left["2026-11-20"] == 11
    assert left["2026-11-12"] == 3


def test_a_missing_variable_is_an_error_with_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_VAR_HKEX_RAP_LAKE", raising=False)
    monkeypatch.setattr("airflow.models.variable.Variable.get", lambda key, default_var: default_var)
    answer = board(NIGHT)
    assert answer["lakes"] == []
    assert "hkex_rap_lake" in answer["error"]
    assert "Set hkex_rap_lake" in answer["error"]


def test_the_option_names_several_lakes(tmp_path: Path, lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    second = tmp_path / "second"
    write_history(second, DAYS)
    monkeypatch.setenv("AIRFLOW__HKEX_RAP__BOARD_LAKES", f"{lake.as_uri()},\n {second.as_uri()}")
    empty, full = board(NIGHT)["lakes"]
    assert "no manifest" in empty["error"]
    assert full["customers"][0]["folders"] == ["DCASS"]


def test_a_lake_without_a_manifest_is_no_empty_grid(lake: Path) -> None:
    (shown,) = board(NIGHT)["lakes"]
    assert shown["customers"] == []
    assert "does not have the disk" in shown["error"]


def test_a_lake_that_is_no_lake_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_HKEX_RAP_LAKE", "relative/path")
    (shown,) = board(NIGHT)["lakes"]
    assert "is not the root of a lake" in shown["error"]


def test_a_manifest_that_cannot_be_read_is_an_error(lake: Path) -> None:
    write_history(lake, DAYS)
    # A directory in place of a manifest file fails for every user, root included.
    directory = lake / "manifest/CXYZ/DCASS/2026-11-20"
    path = next(directory.iterdir())
    path.unlink()
    path.symlink_to(directory / "loop")
    (directory / "loop").symlink_to(path)
    (found,) = board(NIGHT)["lakes"][0]["customers"]
    assert "cannot read the manifest" in found["error"]
    assert found["cells"] == []


def test_a_damaged_line_is_named(lake: Path) -> None:
    write_history(lake, DAYS)
    path = write(lake, [landed(lake, FRIDAY, Folder.DCASS, "R009_20261120.csv")], number=2)
    path.write_bytes(path.read_bytes() + b"{damaged\n")
    (problem,) = customer(board(NIGHT))["problems"]
    assert f"{path.name}, line 2" in problem
    path.write_bytes(path.read_bytes().removesuffix(b"{damaged\n"))
    assert not customer(board(NIGHT))["problems"]


def test_the_files_of_a_cell_have_their_versions_and_runs(lake: Path) -> None:
    old = landed(lake, FRIDAY, Folder.DCASS, "R000_20261120.csv")
    new = landed(
        lake,
        FRIDAY,
        Folder.DCASS,
        "R000_20261120.csv",
        uri=str(old.uri).replace(".csv", ".v2.csv"),
        supersedes=old.uri,
        committed="2026-11-20T18:00:00.000Z",
        sha256="f" * 64,
    )
    write(lake, [old, new])
    shown = files("CXYZ", "DCASS", "2026-11-20", dags={"hkex_rap_daily_dcass"}, accounts={"DCXYZ001"})[
        "files"
    ]
    assert [(file["current"], file["supersedes"]) for file in shown] == [(False, None), (True, old.uri)]
    assert shown[0]["run"] == {
        "dag": "hkex_rap_daily_dcass",
        "run": "scheduled__2026-11-20",
        "task": "land",
        "map_index": -1,
        "try": 1,
    }
    assert shown[0]["login"]["account"] == "DCXYZ001"


def test_a_user_sees_no_runs_of_other_dags_and_no_logins_without_the_permission(lake: Path) -> None:
    write_history(lake, [FRIDAY])
    answer = files("CXYZ", "DCASS", "2026-11-20", dags={"another_dag"})
    assert all(file["run"] is None and file["login"] is None for file in answer["files"])
    shown = repr(answer)
    for hidden in ("DCXYZ001", "hkex_rap_daily_dcass", "10.151.14.141", "c1:b1:30"):
        assert hidden not in shown


def test_a_quarantined_file_is_listed_with_its_reason(lake: Path) -> None:
    write(
        lake,
        [
            landed(
                lake, FRIDAY, Folder.DCASS, "a\\b.csv", uri=None, sha256=None, disposition="quarantined",
                reason="Its name contains a path separator.",
            )
        ],
    )  # fmt: skip
    (shown,) = files("CXYZ", "DCASS", "2026-11-20")["files"]
    assert (shown["uri"], shown["reason"]) == (None, "Its name contains a path separator.")


def test_no_address_opens_a_lake_that_is_not_configured(lake: Path, tmp_path: Path) -> None:
    write_history(tmp_path / "other", DAYS)
    with pytest.raises(RapConfigurationError, match="does not show this lake"):
        files("CXYZ", "DCASS", "2026-11-20", lake=(tmp_path / "other").as_uri())


@pytest.mark.parametrize(
    ("customer", "folder", "day"),
    [
        ("../..", "DCASS", "2026-11-20"),
        ("CXYZ", "../x", "2026-11-20"),
        ("CXYZ", "DCASS", "../../x"),
        ("CXYZ", "DCASS", ""),
    ],
)
def test_an_address_that_is_not_of_the_form_is_refused(
    lake: Path, customer: str, folder: str, day: str
) -> None:
    with pytest.raises(RapConfigurationError):
        files(customer, folder, day)


def test_the_files_of_an_unreadable_lake_are_an_error(lake: Path) -> None:
    lake.parent.mkdir(exist_ok=True)
    lake.write_text("a file")
    with pytest.raises((LakeError, RapConfigurationError)):
        files("CXYZ", "DCASS", "2026-11-20")


def test_the_plugin_loads_without_the_board() -> None:
    code = (
        "import sys, airflow_provider_hkex_rap.plugins.hkex_rap as module;"
        "found = [name for name in sys.modules if name.split('.')[0] in ('fastapi', 'starlette', 'holidays',"
        " 'asyncssh') or name.startswith('airflow_provider_hkex_rap.board')];"
        "assert module.HkexRapPlugin.fastapi_apps and module.HkexRapPlugin.external_views;"
        "sys.exit(str(found) if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
