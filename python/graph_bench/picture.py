"""The picture of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from graph_bench.growth import BATCHES
from graph_bench.serving import DIM, RAW


def draw_picture(path: Path, report: dict[str, Any]) -> None:
    """Time and memory by the number of entries."""
    try:
        import matplotlib
    except ImportError:
        print(f"*** {path} WAS NOT DRAWN: there is no matplotlib here ***")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    # Text stays text, and the same figures make the same file.
    pyplot.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "negbank"}

    sizes = report["sizes"]
    entries = [size["entries"] for size in sizes]
    figure, (searches, builds, memory) = pyplot.subplots(1, 3, figsize=(14, 4.4), width_ratios=(5, 3, 4), layout="constrained")
    for colour, batch in zip(("#d62728", "#1f77b4", "#2ca02c"), BATCHES, strict=True):
        cases = [c for size in sizes for c in size["cases"] if (c["name"], c["batch"], c["k"]) == ("nearest", batch, 64)]
        for way, style in {"scan": "--", "graph": ":", "default": "-"}.items():
            asked = [size["entries"] for size in sizes if way != "graph" or size["has_graph"]]
            low, middle, high = np.array([case["us_per_anchor"][way] for case in cases if way in case["us_per_anchor"]]).T
            marker = "o" if way == "default" else None
            searches.plot(asked, middle, style, color=colour, marker=marker, markersize=4, label=f"{batch} anchors, {way}")
            searches.fill_between(asked, low, high, color=colour, alpha=0.1, linewidth=0)
    searches.set(
        xscale="log", yscale="log", xlabel="entries", ylabel="us an anchor", title="The nearest 64 (median, quartiles)"
    )
    searches.legend(fontsize=7)
    for key, label in {"fill_s": "to fill", "until_graph_serves_s": "then until the graph serves"}.items():
        timed = [(size["entries"], size[key]) for size in sizes if key in size]
        builds.plot(*zip(*timed, strict=True), marker="o", markersize=4, label=label)
    builds.set(xscale="log", yscale="log", xlabel="entries", ylabel="seconds", title="Time to fill and build")
    builds.legend(fontsize=8)
    places, below = np.arange(len(sizes)), np.zeros(len(sizes))
    for part, label in {"rows": "rows", "graphs": "graph", "builds": "build, while it runs"}.items():
        key = "peak_bytes_per_entry" if part == "builds" else "bytes_per_entry"
        taken = np.array([size[key].get(part, 0.0) for size in sizes])
        memory.bar(places, taken, bottom=below, width=0.6, label=label)
        below += taken
    memory.axhline(RAW, color="black", linewidth=0.8, linestyle="--", label=f"raw: {RAW} bytes")
    resident = [size["peak_resident_bytes_per_entry"] for size in sizes]
    memory.plot(places, resident, "D", color="black", markersize=4, label="resident at most")
    memory.set_xticks(places, [f"{count:,}" for count in entries])
    memory.set(xlabel="entries", ylabel="bytes an entry", title="Memory", ylim=(0, 1.4 * max(*resident, *below)))
    memory.legend(fontsize=8)
    threads = report["compute_threads"] or "all"
    figure.suptitle(f"Keyed cosine banks of {DIM} floats, {report['cpus']} cores, compute threads: {threads}", fontsize=10)
    figure.savefig(path, dpi=130, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)
