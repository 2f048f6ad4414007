"""The DAG of dags/ for intraday margin: forty minutes of Wednesday 27 January 2027, from 10:05."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pendulum
import pytest

from airflow_provider_hkex_rap.rap.clock import HONG_KONG
from airflow_provider_hkex_rap.rap.folders import Folder

from .real_airflow import missing_faketime
from .trial import ACCOUNT, Trial, name_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing_faketime() is not None, reason=str(missing_faketime())),
    pytest.mark.timeout(300),
]

AT = pendulum.datetime(2027, 1, 27, 10, tz=HONG_KONG)
INTRADAY = "hkex_rap_intraday_margin"
MARGIN = "INTRADAY_MARGIN_CXYZ_20270127.csv"
YESTERDAYS = "INTRADAY_MARGIN_CXYZ_20270126.csv"
"""Without it, the patterns of the DAG would match nothing at first, which is an error."""
OTHER = "TP001_CXYZ_20270127.csv"


@dataclass
class Morning:
    """The runs of the morning.

    :param opened: by the run's HH:MM, how often the run opened each file.
    :param runs: the runs, by HH:MM.
    :param logins: the number of logins of each run.
    """

    trial: Trial
    opened: dict[str, Counter[str]] = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    logins: list[int] = field(default_factory=list)


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    with Trial(tmp_path_factory.mktemp("intraday"), AT.add(minutes=5)) as trial:
        yield trial


@pytest.fixture(scope="module")
def morning(trial: Trial) -> Morning:
    played = Morning(trial)

    def publish(content: bytes, minute: int) -> None:
        trial.rap.put(Folder.DCASS, MARGIN, content, AT.add(minutes=minute), account=ACCOUNT)

    def note(minute: int) -> None:
        logical_date = AT.add(minutes=minute).in_timezone("UTC").strftime("%Y-%m-%dT%H:%M:00Z")

        def run() -> dict[str, Any] | None:
            runs = trial.airflow.runs(INTRADAY)
            found = [run for run in runs if (run["logical_date"], run["state"]) == (logical_date, "success")]
            return found[0] if found else None

        played.runs[f"10:{minute:02}"] = trial.airflow.wait_until(run, f"the run of 10:{minute:02}")
        played.opened[f"10:{minute:02}"] = trial.fetched(ACCOUNT)
        played.logins.append(len(trial.rap.events.of("login", account=ACCOUNT)))
        trial.airflow.wait_until_idle()
        trial.rap.events.clear()

    trial.rap.put(Folder.DCASS, YESTERDAYS, b"of yesterday", AT.subtract(days=1), account=ACCOUNT)
    trial.airflow.unpause(INTRADAY)
    note(0)
    trial.rap.put(Folder.DCASS, OTHER, b"other", AT, account=ACCOUNT)
    publish(b"first", 8)
    trial.move_to(1, 27, 10, 10)
    note(10)
    trial.move_to(1, 27, 10, 20)
    note(20)
    publish(b"second, longer", 28)
    trial.move_to(1, 27, 10, 30)
    note(30)
    # Published again with the same content.
    publish(b"second, longer", 38)
    trial.move_to(1, 27, 10, 40)
    note(40)
    trial.airflow.pause(INTRADAY)
    return played


def test_every_new_version_lands_beside_the_last(morning: Morning) -> None:
    entries = [e for e in morning.trial.landed("CXYZ") if name_of(e) == MARGIN]
    runs = {run["dag_run_id"]: when for when, run in morning.runs.items()}
    assert [(runs[e["run"]], e["uri"].rpartition("/")[2], e["supersedes"]) for e in entries] == [
        ("10:10", MARGIN, None),
        ("10:30", MARGIN.replace(".csv", ".v2.csv"), entries[0]["uri"]),
    ]
    directory = next(morning.trial.lake.glob(f"reports/customer=CXYZ/**/{MARGIN}")).parent
    assert {path.name: path.read_bytes() for path in directory.glob("INTRADAY*")} == {
        MARGIN: b"first",
        MARGIN.replace(".csv", ".v2.csv"): b"second, longer",
    }


@pytest.mark.guide("4.1 once")
def test_unchanged_reports_are_not_opened_again_and_other_reports_never(morning: Morning) -> None:
    assert morning.opened == {
        "10:00": Counter([YESTERDAYS]),
        "10:10": Counter([MARGIN]),
        "10:20": Counter(),
        "10:30": Counter([MARGIN]),
        # The new mtime may mean new content; the bytes prove to be the same and do not land again.
        "10:40": Counter([MARGIN]),
    }
    # The first number may be 2: unpausing the DAG also creates the last run that was due before.
    assert morning.logins[1:] == [1, 1, 1, 1]
    assert OTHER in {file.text for file in morning.trial.rap.files(Folder.DCASS, account=ACCOUNT)}
    assert {name_of(e) for e in morning.trial.landed("CXYZ") if e["dag"] == INTRADAY} == {MARGIN, YESTERDAYS}
