"""The command line: ``python -m benchmarks --help``."""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import report, results_page, scale, storage, work
from benchmarks.measure import FailedError, Measured
from benchmarks.parse import parse_seconds
from benchmarks.peers import LIMITS, OURS, PEERS, S3_PEERS, Peer, Site, fetch_with_operator
from benchmarks.proxy import delayed
from tests.integration.openssh import OpenSSH, missing, openssh

if TYPE_CHECKING:
    from benchmarks.work import Work

CASES = ("S-0", "S-20", "B-0", "B-20", "L-0", "L-20", "S3-0")
_PHASE_RUNS = 3
# A run that waits for round trips only takes nearly the same time each time.
_SLOW_SECONDS = 30
_SLOW_RUNS = 2
_KEPT_BYTES = 10**8
"""The files of larger works are removed after each run, those of smaller works at the end."""

WORKS: Mapping[str, Callable[[], Work]] = {
    "S": work.small,
    "B": work.big,
    "L": work.listing,
    "S3": work.small,
}


def main(arguments: Sequence[str], works: Mapping[str, Callable[[], Work]] = WORKS) -> int:
    """Run the benchmarks.

    :param arguments: the arguments of the command line.
    :param works: makes each work, by its name.
    :returns: the exit status.
    """
    options = _parse(arguments)
    if problem := missing():
        print(f"The server {problem}.", file=sys.stderr)
        return 1
    results: report.Results = {}
    phases: dict[str, list[Any]] = {}
    if options.scale:
        return _measure_scale(options)
    with (
        tempfile.TemporaryDirectory(prefix="rap-benchmark-") as home,
        _server({name: works[name]() for name in _works_of(options.only)}) as (server, published),
    ):
        for case in options.only:
            name, _, round_trip = case.partition("-")
            with _site(server, Path(home, case), float(round_trip), with_s3=name == "S3") as site:
                results[case] = _measure(case, site, published[name], options)
                phases[case] = _phases(site, published[name], options)
            _keep(case, results[case], phases[case], options)
            _add_earlier(results[case], case, options.store)
            print(f"\n## {case}\n\n{report.case_table(results[case])}", flush=True)
            if phases[case]:
                print(f"\n{report.phase_table(phases[case])}", flush=True)
    print(f"\n{report.own_table(results)}\n\n{report.target_table(results)}")
    if options.parse:
        times = parse_seconds(options.runs)
        keep(options.store, "parse", times)
        print(f"\n{report.parse_table(times)}")
    if options.write:
        results_page.write(stored(options.store), options.write)
    return 0


def _measure_scale(options: argparse.Namespace) -> int:
    steps = []
    for step in scale.measure(scale.TINY if options.tiny else scale.Size()):
        steps.append(step)
        print(f"{step['name']}, {step['amount']}: {step['seconds']:.2f} s, {step['rss']:.0f} MB", flush=True)
    keep(options.store, "scale", steps)
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks",
        description="Measure the provider beside other ways to fetch the same files from OpenSSH's sshd.",
        epilog="In a minute: --only S-20 --runs 3 --peers none compares with the peers of an earlier run.",
    )
    names = [peer.name for peer in (*PEERS, *S3_PEERS, *LIMITS)]
    parser.add_argument("--runs", type=int, default=5, help="how often each peer runs, in turn (default: 5)")
    parser.add_argument(
        "--only", type=_list_of(CASES), default=CASES, help=f"cases, separated by commas: {', '.join(CASES)}"
    )
    parser.add_argument(
        "--peers",
        type=_list_of([*names, "none"]),
        default=names,
        help=f"peers, separated by commas, or none: {', '.join(names)}",
    )
    parser.add_argument("--no-phases", action="store_true", help="do not time the phases of a download")
    parser.add_argument("--parse", action="store_true", help="time the parsing of the DAG files too")
    parser.add_argument("--scale", action="store_true", help="measure work that grows, and nothing else")
    parser.add_argument("--tiny", action="store_true", help="with --scale: little work, as a test of itself")
    parser.add_argument(
        "--write",
        type=Path,
        help="write RESULTS.md and results.svg, of all kept results, into this directory",
    )
    parser.add_argument(
        "--store",
        type=Path,
        default=Path("build/benchmarks.json"),
        help="the file that keeps the peers' results for later runs (default: %(default)s)",
    )
    return parser.parse_args(arguments)


def _list_of(choices: Sequence[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = [name for name in text.split(",") if name]
        if unknown := set(names) - set(choices):
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}")
        return names

    return parse


def _works_of(cases: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(case.partition("-")[0] for case in cases))


@contextlib.contextmanager
def _server(works: dict[str, Work]) -> Iterator[tuple[OpenSSH, dict[str, Work]]]:
    """Run a server with the files of some works; yield it and them."""
    # By default sshd turns away logins if ten are under way.
    with openssh(settings="MaxStartups 100") as server:
        for one in {one.folder: one for one in works.values()}.values():
            one.publish(server)
        yield server, works


@contextlib.contextmanager
def _site(server: OpenSSH, home: Path, round_trip: float, *, with_s3: bool) -> Iterator[Site]:
    home.mkdir()
    with (
        delayed(server.port, round_trip) as port,
        storage.s3() if with_s3 else contextlib.nullcontext("") as url,
    ):
        site = Site(server, port, home, url)
        site.prepare()
        yield site


def _peers_of(case: str) -> Sequence[Peer]:
    return S3_PEERS if case.startswith("S3") else (*PEERS, *LIMITS)


def _measure(case: str, site: Site, files: Work, options: argparse.Namespace) -> dict[str, report.Row]:
    """Run the peers in turn, so that a change of the machine's speed meets all of them."""
    runs = options.runs
    peers = [OURS, *(peer for peer in _peers_of(case) if peer.name in options.peers)]
    rows = {peer.name: report.Row(peer.title, problem=peer.missing, is_limit=peer.is_limit) for peer in peers}
    for number in range(1, runs + 1):
        for peer in peers:
            row = rows[peer.name]
            if row.problem or (len(row.runs) >= _SLOW_RUNS and row.seconds > _SLOW_SECONDS):
                continue
            _progress(f"{case} {number}/{runs} {peer.name} ...")
            _run(peer, site, files, row)
    _progress("")
    return rows


def _run(peer: Peer, site: Site, files: Work, row: report.Row) -> None:
    before = _logins(site.server)
    try:
        measured = _in_new_directory(site, files, lambda target: peer.fetch(site, files, target))
    except FailedError as error:
        row.problem = f"failed: {error}".replace("\n", " ")
        return
    row.runs.append(measured)
    # The operator runs three times in one process.
    row.logins = (_logins(site.server) - before) // (3 if peer is OURS else 1)


def _in_new_directory(site: Site, files: Work, fetch: Callable[[Path], Measured]) -> Measured:
    target = Path(tempfile.mkdtemp(dir=site.home))
    try:
        return fetch(target)
    finally:
        # For minutes after a file was removed, ext4 creates new ones slowly, each by up to a millisecond.
        if files.bytes > _KEPT_BYTES:
            shutil.rmtree(target)
        if site.s3:
            storage.empty(site.s3)


def _phases(site: Site, files: Work, options: argparse.Namespace) -> list[Any]:
    if options.no_phases:
        return []
    return [
        _in_new_directory(
            site, files, lambda target: fetch_with_operator(site, files, target, phases=True)
        ).details["phases"]
        for _ in range(min(options.runs, _PHASE_RUNS))
    ]


def _logins(server: OpenSSH) -> int:
    return server.log.read_bytes().count(b"Accepted publickey")


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _keep(case: str, rows: dict[str, report.Row], phases: list[Any], options: argparse.Namespace) -> None:
    """Keep a case whole if every peer ran in it, for the page, and each of its peers, for later runs."""
    kept = report.as_json({case: rows})[case]
    known = stored(options.store)
    keep(options.store, "peers", {**known["peers"], case: known["peers"].get(case, {}) | kept})
    if {peer.name for peer in _peers_of(case)} <= set(options.peers):
        keep(options.store, "cases", {**known["cases"], case: {"rows": kept, "phases": phases}})


def keep(store: Path, section: str, content: Any) -> None:
    """Keep results in the file that later runs and the page read.

    :param store: the file.
    :param section: the kind of results.
    :param content: the results, as JSON can hold them.
    """
    store.parent.mkdir(parents=True, exist_ok=True)
    store.write_text(json.dumps({**stored(store), section: content}))


def stored(store: Path) -> dict[str, Any]:
    """Return all results that were kept.

    :param store: the file.
    """
    nothing: dict[str, Any] = {"peers": {}, "cases": {}}
    return nothing | (json.loads(store.read_text()) if store.exists() else {})


def _add_earlier(rows: dict[str, report.Row], case: str, store: Path) -> None:
    """Add the peers that did not run now, as an earlier run has measured them."""
    earlier = report.from_json({case: stored(store)["peers"].get(case, {})})[case]
    for name, row in earlier.items():
        if name not in rows and row.runs:
            row.earlier = True
            rows[name] = row


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
