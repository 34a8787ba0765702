"""docs/growth.md, whole."""

from __future__ import annotations

from typing import Any

from peers.document import as_table, commit, machine

from graph_bench.serving import DIM, RAW

COST_COLUMNS = ("entries", "to fill, s", "then until the graph serves, s", "rows", "graph", "build at most", "resident at most")
TIME_COLUMNS = ("entries", "anchors", "scan", "graph", "recall", "chosen by itself", "quartiles", "by", "of the better")
TITLES = {
    ("nearest", 64): "The nearest 64",
    ("nearest", 10): "The nearest ten",
    ("own label left out", 64): "The nearest 64, not of the anchor's label",
    ("one label of a thousand", 64): "The nearest 64 of one label of a thousand",
}

HEAD = """# negbank as a bank grows

Written by `make bench-growth`, whole; don't edit it.

- Machine: {machine}. Other work may have been running on it.
- Source: commit {commit}.
- Keyed cosine banks of {dim} floats in power-law clusters, a label is a cluster; each size has a server of its own, with
  compute threads: {threads}. Anchors are no entries. Asked through gRPC over loopback from the Python package, for ids alone.
- Every way is asked in turn, round after round; times are microseconds an anchor, transport and all: medians, and quartiles of
  what the server chose by itself.
- *recall*: of the graph when it is asked for, against the scan of the same round. *by*: what the server chose by itself; *of
  the better*: its time over that of the better way of the same round, median, so **1.2 means a fifth lost by the choice**.
- Sizes without a graph were scanned only (`index.enabled=false`).

![Time and memory by the number of entries]({picture})
"""

COST_NOTE = "Memory in bytes an entry, of {raw} raw: what the server tells of itself, and resident memory of its process.\n"


def page(report: dict[str, Any], picture: str) -> str:
    """The page's text, with its picture at `picture`."""
    threads = report["compute_threads"] or "one a core"
    parts = [HEAD.format(machine=machine(), commit=commit(), dim=DIM, threads=threads, picture=picture)]
    parts.append("## Below its bars\n")
    missed = [f"- {name}" for name, met in report["bars"].items() if not met]
    parts.append(("\n".join(missed) if missed else "Nothing: each choice is within its bar.") + "\n")
    parts += [
        "## Time and memory\n",
        COST_NOTE.format(raw=RAW),
        as_table(COST_COLUMNS, [cost(size) for size in report["sizes"]]),
    ]
    for (name, k), title in TITLES.items():
        cases = [(size, case) for size in report["sizes"] for case in size["cases"] if (case["name"], case["k"]) == (name, k)]
        exact = cases[0][1]["ways"][0].replace("_", " ")
        parts += [f"## {title}\n", as_table((*TIME_COLUMNS[:2], exact, *TIME_COLUMNS[3:]), [line(*pair) for pair in cases])]
    parts.append(f"The whole run took {report['seconds'] / 60:.1f} minutes.\n")
    return "\n".join(parts)


def cost(size: dict[str, Any]) -> tuple[str, ...]:
    """A size's line of what it took."""
    there, most = size["bytes_per_entry"], size["peak_bytes_per_entry"]
    figures = (there["rows"], there.get("graphs"), most.get("builds"), size["peak_resident_bytes_per_entry"])
    seconds = (size["fill_s"], size.get("until_graph_serves_s"))
    return (f"{size['entries']:,}", *(shown(took, 1) for took in seconds), *(shown(taken, 0) for taken in figures))


def line(size: dict[str, Any], case: dict[str, Any]) -> tuple[str, ...]:
    """A case's line."""
    times, exact = case["us_per_anchor"], case["ways"][0]
    low, chosen, high = times["default"]
    return (
        f"{size['entries']:,}",
        str(case["batch"]),
        shown(times[exact][1], 1),
        shown(times["graph"][1] if "graph" in times else None, 1),
        shown(case["recall"].get("graph"), 3),
        shown(chosen, 1),
        f"{low:.1f} - {high:.1f}",
        case["plan"].replace("_", " "),
        f"{case['default_over'][case['better']]['median']:.2f}",
    )


def shown(figure: float | None, digits: int) -> str:
    """A cell; what was not measured is a dash."""
    return "-" if figure is None else f"{figure:,.{digits}f}"
