"""Rows a second into numpy, from a real server: added to the report that the Rust benchmarks wrote.

Run by `make bench`. By hand, from `python/`:
    python -m bench --server-binary ../target/release/negbank --reports ../target/reports
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
from demo.service import running_server

import negbank

ENTRIES, DIM = 65_536, 128
ANCHORS, K = 256, 64
WARM_UP, REPEATS = 20, 150


def main() -> None:
    """Measures, prints and reports."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--server-binary", type=Path, required=True)
    parser.add_argument("--reports", type=Path, required=True)
    arguments = parser.parse_args()
    with running_server(arguments.server_binary, arguments.reports / "bench-python.log") as address:
        bank = _filled(negbank.connect(address))
        rates = {layout: _rates(bank, layout) for layout in ("per_anchor", "pooled")}
    report = arguments.reports / "bench.json"
    figures = json.loads(report.read_text()) if report.exists() else {}
    print(f"\nPython: {ANCHORS} anchors x {K} uniform of {ENTRIES} x {DIM} f32, ids and embeddings as numpy arrays, one by one")
    for layout, rows in rates.items():
        low, middle, high = (np.percentile(rows, share) for share in (10, 50, 90))
        print(f"{layout:<12} {middle / 1e6:6.2f} M rows/s (10 % to 90 %: {low / 1e6:.2f} to {high / 1e6:.2f})")
    figures["python_rows_s"] = statistics.median(rates["per_anchor"])
    figures["python_rows_s_pooled"] = statistics.median(rates["pooled"])
    report.write_text(json.dumps(figures, indent=2) + "\n")


def _filled(client: negbank.Client) -> negbank.Bank:
    bank = client.create_bank("bench", dim=DIM)
    rng = np.random.default_rng(0)
    for ids in np.arange(ENTRIES).reshape(8, -1):
        bank.write(ids, rng.standard_normal((ids.size, DIM), dtype=np.float32))
    return bank


def _rates(bank: negbank.Bank, layout: str) -> list[float]:
    """Rows a second of each call; a row is a pick with its embedding of 512 bytes."""
    rates = []
    for turn in range(WARM_UP + REPEATS):
        start = time.perf_counter()
        negatives = bank.sample(ANCHORS, negbank.Uniform(K), columns=["ids", "embeddings"], layout=layout, seed=turn)
        rows = negatives.embeddings
        took = time.perf_counter() - start
        if turn >= WARM_UP:
            picks = ANCHORS * K if layout == "per_anchor" else rows.shape[0]
            rates.append(picks / took)
    return rates


if __name__ == "__main__":
    main()
