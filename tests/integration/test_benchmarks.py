"""The benchmarks in miniature, so that they keep working; no test judges a time."""

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import work

from .openssh import missing

pytestmark = pytest.mark.skipif(bool(missing()), reason=str(missing()))

WORKS = {
    "S": lambda: work.small(5, 5_000),
    "B": lambda: work.big(1, 100_000),
    "L": lambda: work.listing(120),
    "S3": lambda: work.small(5, 5_000),
}


def run(store: Path, *arguments: str, peers: str) -> str:
    command = ["--runs", "1", "--store", str(store), "--peers", peers, "--no-phases", *arguments]
    assert benchmarks.main(command, WORKS) == 0
    return store.read_text()


def rows(store: Path, case: str) -> dict[str, dict[str, object]]:
    return json.loads(store.read_text())["peers"][case]


def test_a_case_compares_the_operator_with_a_peer_and_keeps_the_peer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store.json"
    run(store, "--only", "S-20", peers="sftp")
    ours, sftp = rows(store, "S-20")["ours"], rows(store, "S-20")["sftp"]
    assert ours["problem"] == sftp["problem"] == ""
    assert ours["logins"] == sftp["logins"] == 1
    assert ours["runs"][0]["rss"] > 0
    # The proxy delays: a round trip of each of the five files alone takes longer than this.
    assert sftp["runs"][0]["seconds"] > 5 * 0.02
    assert "| OpenSSH `sftp -b` " in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_kind_of_case_runs_with_all_peers_and_makes_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    store = tmp_path / "store.json"
    every = [peer.name for peer in (*benchmarks.PEERS, *benchmarks.S3_PEERS, *benchmarks.LIMITS)]
    cases = ["S-0", "B-20", "L-0", "S3-0"]
    command = ["--runs", "1", "--only", ",".join(cases), "--store", str(store), "--peers", ",".join(every)]
    assert benchmarks.main(["--scale", "--tiny", "--store", str(store)], WORKS) == 0
    assert benchmarks.main([*command, "--parse", "--write", str(tmp_path)], WORKS) == 0
    for case in cases:
        problems = {name: row["problem"] for name, row in rows(store, case).items()}
        assert all(not problem or problem.endswith("is not installed") for problem in problems.values()), (
            problems
        )
    page = (tmp_path / "RESULTS.md").read_text()
    assert "## S3-0" in page
    assert "| read " in page
    assert "## Work that grows" in page
    assert (tmp_path / "results.svg").stat().st_size > 1_000
