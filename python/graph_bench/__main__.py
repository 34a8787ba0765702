"""What the graph of a large keyed bank costs and brings: growth with the bank, own labels left out, and a bank that moves.

Rows are 128 floats in power-law clusters, a label is a cluster, anchors are no entries. Every size has a real server of its
own, asked through gRPC for ids alone. A scan, a walk and what the server chooses by itself are measured in turns, each first as
often as the others; medians and quartiles of the rounds are reported, and ratios are of the times of one round. Recall is
against the scan of the same round. `cases` in graph.json are as in index.json and peers.json: below a ratio of 1 the
peer is slower.

Then rows of another bank are replaced and moved while a sampler draws, graphs are built beside that, and the same anchors are
asked for exact answers at the same sequence. Sizes of --scan-entries have no graph: they show how a scan grows beyond what a
graph can be built of in a few minutes. Fails below its bars.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from graph_bench.document import page
from graph_bench.growth import Effort, bars_of, beside_peers, grown
from graph_bench.moving import bars_of_churn, moved
from graph_bench.picture import draw_picture


def main() -> None:
    """Prints a line a figure, and reports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reports", type=Path)
    parser.add_argument("--entries", type=int, nargs="+", default=[10_000, 30_000, 100_000])
    parser.add_argument("--scan-entries", type=int, nargs="*", default=[], help="sizes that are scanned only")
    parser.add_argument("--churn-entries", type=int, default=100_000, help="0: that part is left out")
    parser.add_argument("--seconds", type=float, default=6.0, help="of a case, once it has had 15 rounds")
    parser.add_argument("--churn-seconds", type=float, default=40.0, help="over which rows are replaced, and are moved")
    parser.add_argument("--page", type=Path, help="writes the sizes to this document, and their picture beside it")
    parser.add_argument("--threads", type=int, default=1, help="compute.threads of the growing banks' server; 0: one a core")
    arguments = parser.parse_args()
    began = time.perf_counter()
    bars: dict[str, bool] = {}
    report: dict[str, Any] = {"cpus": os.cpu_count(), "compute_threads": arguments.threads, "sizes": [], "cases": []}
    efforts = {entries: (Effort(arguments.seconds), True) for entries in arguments.entries}
    # One of these takes seconds to answer, and varies the less.
    efforts |= {entries: (Effort(arguments.seconds, warm_up=1, least=5), False) for entries in arguments.scan_entries}
    for entries, (effort, has_graph) in sorted(efforts.items()):
        size = grown(entries, arguments.threads, effort, has_graph=has_graph)
        report["sizes"].append(size)
        report["cases"] += [shown for case in size["cases"] for shown in beside_peers(entries, case)]
        bars |= bars_of(size, largest=entries == max(arguments.entries))
        keep(report | {"seconds": time.perf_counter() - began, "bars": bars}, arguments)
    if arguments.churn_entries:
        report["churn"] = moved(arguments.churn_entries, arguments.churn_seconds)
        bars |= bars_of_churn(report["churn"])
        keep(report | {"seconds": time.perf_counter() - began, "bars": bars}, arguments)
    sys.exit("".join(f"*** {name} misses its bar ***\n" for name, met in bars.items() if not met) or None)


def keep(report: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Writes what is known: a run of an hour that ends early has shown the sizes it came to."""
    if arguments.reports:
        arguments.reports.mkdir(parents=True, exist_ok=True)
        (arguments.reports / "graph.json").write_text(json.dumps(report, indent=2) + "\n")
        draw_picture(arguments.reports / "graph-growth.png", report)
    if arguments.page:
        draw_picture(arguments.page.with_suffix(".svg"), report)
        arguments.page.write_text(page(report, f"{arguments.page.stem}.svg"))


if __name__ == "__main__":
    main()
