"""Show the results: tables, the targets, and a plot."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measure import Measured

OURS = "ours"


@dataclass
class Row:
    """The runs of one peer in one case.

    :param title: what the peer is.
    :param runs: its measurements.
    :param logins: how often it logged in during one run.
    :param problem: why it has no measurements; else empty.
    :param is_limit: whether it is a limit, and no peer.
    :param earlier: whether the measurements are of an earlier run of the benchmark.
    """

    title: str
    runs: list[Measured] = field(default_factory=list)
    logins: int = 0
    problem: str = ""
    is_limit: bool = False
    earlier: bool = False

    @property
    def seconds(self) -> float:
        """The median of the seconds."""
        return statistics.median(run.seconds for run in self.runs)

    def median(self, name: str) -> float:
        """Return the median of another measurement, by its name."""
        return statistics.median(
            getattr(run, name) if hasattr(run, name) else run.details[name] for run in self.runs
        )


Results = dict[str, dict[str, Row]]
"""The rows by case, such as ``S-20``, and by the name of the peer."""


@dataclass(frozen=True)
class Target:
    """How much faster than a peer the provider should be."""

    case: str
    peer: str
    ratio: float


TARGETS = (
    Target("S-0", "sftp", 1),
    Target("S-20", "sftp", 80),
    Target("S-20", "rclone16", 6),
    Target("B-0", "sftp", 1),
    Target("B-20", "sftp", 3),
    Target("S3-0", "aws", 1),
)
MOST_MEMORY = 150.0
"""MB above an interpreter with Airflow imported."""


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table in Markdown; the first column is text, the others are numbers."""
    cells = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]

    def line(row: Sequence[str]) -> str:
        first, *others = zip(row, widths, strict=True)
        padded = [first[0].ljust(first[1]), *(one.rjust(width) for one, width in others)]
        return f"| {' | '.join(padded)} |"

    rule = "|" + "|".join("-" * (width + 1) + ("-" if not i else ":") for i, width in enumerate(widths)) + "|"
    return "\n".join([line(cells[0]), rule, *map(line, cells[1:])])


def case_table(rows: Mapping[str, Row]) -> str:
    """Return the table of one case, with the ratio of each peer's time to ours."""
    ours = rows.get(OURS)
    cells = []
    for row in rows.values():
        if not row.runs:
            cells.append([row.title, 0, row.problem, "", "", "", "", ""])
            continue
        times = [run.seconds for run in row.runs]
        ratio = f"{row.seconds / ours.seconds:.2f}" if ours and ours.runs else ""
        cells.append(
            [
                row.title + (" (earlier run)" if row.earlier else ""),
                len(times),
                f"{row.seconds:.2f}",
                f"{min(times):.2f}–{max(times):.2f}",
                ratio,
                f"{row.median('cpu'):.2f}",
                f"{row.median('rss'):.0f}",
                row.logins,
            ]
        )
    header = ["", "runs", "median s", "range s", "× ours", "CPU s", "peak MB", "logins"]
    return table(header, cells)


def own_table(results: Results) -> str:
    """Return the table of our own times: the first call, the second, and one that finds nothing new."""
    rows = []
    for case, peers in results.items():
        ours = peers.get(OURS)
        if ours and ours.runs and "second" in ours.runs[0].details:
            names = ("import_seconds", "seconds", "second", "nothing")
            rows.append([case, *(f"{ours.median(name):.2f}" for name in names), f"{ours.median('rss'):.0f}"])
    return table(["", "DAG import s", "first call s", "second call s", "nothing new s", "peak MB"], rows)


def phase_table(runs: Sequence[Mapping[str, Mapping[str, float]]]) -> str:
    """Return the table of the phases of a download, of the run whose time is the median."""
    run = sorted(runs, key=lambda run: run["whole"]["ends"])[len(runs) // 2]
    rows = [
        [
            name,
            f"{span['begins']:.3f}",
            f"{span['ends']:.3f}",
            f"{span['busy']:.3f}" if span["busy"] else "",
            span["calls"],
        ]
        for name, span in run.items()
    ]
    return table(["phase", "begins s", "ends s", "in calls s", "calls"], rows)


def parse_table(seconds: Mapping[str, float]) -> str:
    """Return the table of the DAG files: the seconds of parsing beyond the import of `airflow.sdk`."""
    rows = [[f"`{name}`", f"{one:.3f}"] for name, one in seconds.items()]
    return table(["DAG file", "parse s"], rows)


def scale_table(steps: Iterable[Mapping[str, Any]]) -> str:
    """Return the table of the work that grows."""
    names = ("name", "amount", "seconds", "cpu", "rss")
    forms = ("", "", ".2f", ".2f", ".0f")
    rows = [[format(step[name], form) for name, form in zip(names, forms, strict=True)] for step in steps]
    return table(["work", "amount", "seconds", "CPU s", "peak MB"], rows)


def target_table(results: Results, limits: Iterable[tuple[str, float, float]] = ()) -> str:
    """Return the targets, and whether they are met.

    :param results: the results.
    :param limits: further targets: a name, the most that is allowed, and the value.
    """
    rows = []
    for target in TARGETS:
        rows_of_case = results.get(target.case, {})
        ours, peer = rows_of_case.get(OURS), rows_of_case.get(target.peer)
        if not ours or not peer or not ours.runs or not peer.runs:
            continue
        ratio = peer.seconds / ours.seconds
        met = "met" if ratio >= target.ratio else "not met"
        rows.append([f"{target.case}: {peer.title}", f"≥ {target.ratio:g}×", f"{ratio:.2f}×", met])
    for case, peers in results.items():
        if (ours := peers.get(OURS)) and ours.runs:
            most = max(run.rss for run in ours.runs)
            met = "met" if most <= MOST_MEMORY else "not met"
            rows.append(
                [f"{case}: peak memory above Airflow", f"≤ {MOST_MEMORY:g} MB", f"{most:.0f} MB", met]
            )
    for name, allowed, value in limits:
        rows.append([name, f"≤ {allowed:g}", f"{value:.3g}", "met" if value <= allowed else "not met"])
    return table(["target", "", "measured", ""], rows)


def plot(results: Results, path: Path) -> None:
    """Draw the medians of each case as bars.

    :param results: the results.
    :param path: the file to write, whose extension names the format.
    """
    import matplotlib as mpl

    mpl.use("svg")
    # The same results give the same file.
    mpl.rcParams["svg.hashsalt"] = "benchmarks"
    from matplotlib import pyplot

    cases = {case: [row for row in peers.values() if row.runs] for case, peers in results.items()}
    figure, axes = pyplot.subplots(
        len(cases), figsize=(9, sum(len(rows) for rows in cases.values()) * 0.28 + len(cases)), squeeze=False
    )
    for (case, rows), axis in zip(cases.items(), axes[:, 0], strict=True):
        titles = [row.title.replace("`", "") for row in rows]
        colors = ["tab:gray" if row.is_limit else "tab:blue" for row in rows]
        for number, row in enumerate(rows):
            if row.title == results[case].get(OURS, row).title:
                colors[number] = "tab:green"
        bars = axis.barh(titles, [row.seconds for row in rows], color=colors)
        axis.bar_label(bars, fmt="%.2f s", padding=3)
        axis.invert_yaxis()
        axis.set_xscale("log")
        axis.margins(x=0.15)
        axis.set_title(case, loc="left", fontsize="medium")
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def as_json(results: Results) -> dict[str, Any]:
    """Return results as JSON can hold them."""
    return {
        case: {name: {**vars(row), "runs": [vars(run) for run in row.runs]} for name, row in peers.items()}
        for case, peers in results.items()
    }


def from_json(stored: Mapping[str, Any]) -> Results:
    """Return the results that `as_json` has returned."""
    return {
        case: {
            name: Row(**{**row, "runs": [Measured(**run) for run in row["runs"]]})
            for name, row in peers.items()
        }
        for case, peers in stored.items()
    }
