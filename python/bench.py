"""Rows a second into numpy: 256 anchors x 64 of a bank of 65,536 x 128, one call at a time and several in flight.

With --reports FOLDER the figures are added to FOLDER/bench.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import negbank

sys.path.append(str(Path(__file__).parent / "tests"))

from server_process import ServerProcess  # noqa: E402

ENTRIES, DIM, ANCHORS, K = 65_536, 128, 256, 64
ROWS = ANCHORS * K
CALLS = 200
FLYING = 4


def main() -> None:
    """Prints a line a case, and reports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reports", type=Path)
    reports = parser.parse_args().reports
    rates = {}
    server = ServerProcess()
    try:
        bank = filled(negbank.connect(server.address))
        anchors = np.random.default_rng(1).standard_normal((ANCHORS, DIM), dtype=np.float32)
        print(f"{'':<44} {'p50 ms':>7} {'best':>6} {'M rows/s':>9} {'best':>6} {'CPU ms':>7}")
        for name, options in CASES.items():
            rates[name] = report(name, partial(draw, bank, anchors, options))
        shared = negbank.Uniform(4_096, scope="shared")
        report("shared, 4,096 rows", lambda seed: drawn(bank.sample(anchors, shared, seed=seed)), rows=4_096)
        flight(bank, anchors)
    finally:
        server.stop()
    if reports:
        add_to(reports / "bench.json", {"python_rows_s": rates["embeddings, by anchor"], "python": rates})


def add_to(path: Path, figures: dict[str, Any]) -> None:
    """Adds figures to a report, which may be there already."""
    known = json.loads(path.read_text()) if path.exists() else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(known | figures, indent=2) + "\n")


CASES: dict[str, dict[str, Any]] = {
    "all columns, pooled": {},
    "embeddings, pooled": {"columns": ["embeddings"]},
    "embeddings, by anchor": {"columns": ["embeddings"], "layout": "per_anchor"},
    "embeddings, by anchor, float16": {"columns": ["embeddings"], "layout": "per_anchor", "dtype": "float16"},
}


def filled(client: negbank.Client) -> negbank.Bank:
    """A bank of random rows."""
    bank = client.create_bank("bench", dim=DIM)
    rng = np.random.default_rng(0)
    for start in range(0, ENTRIES, 8_192):
        ids = np.arange(start, start + 8_192)
        bank.write(ids, rng.standard_normal((ids.size, DIM), dtype=np.float32), labels=ids % 100, step=1)
    return bank


def draw(bank: negbank.Bank, anchors: Any, options: dict[str, Any], seed: int) -> Any:
    """One call, waited for."""
    return drawn(bank.sample(anchors, negbank.Uniform(K), seed=seed, **options))


def drawn(negs: negbank.Negatives) -> Any:
    """What a trainer reads of an answer."""
    return negs.embeddings


def report(name: str, call: Callable[[int], Any], rows: int = ROWS) -> float:
    """Times one call after the other, and returns rows a second at the median."""
    for seed in range(CALLS // 10):
        call(seed)
    took, before = [], cpu()
    for seed in range(CALLS):
        start = time.perf_counter()
        call(seed)
        took.append(time.perf_counter() - start)
    line(name, statistics.median(took), min(took), rows, (cpu() - before) / CALLS)
    return rows / statistics.median(took)


def flight(bank: negbank.Bank, anchors: Any) -> None:
    """Keeps several calls in flight, as a trainer that draws ahead does."""
    start, before = time.perf_counter(), cpu()
    flying = [ahead(bank, anchors, seed) for seed in range(FLYING)]
    for seed in range(CALLS):
        drawn(flying.pop(0).result())
        flying.append(ahead(bank, anchors, seed))
    for one in flying:
        one.result()
    each = (time.perf_counter() - start) / (CALLS + FLYING)
    line(f"embeddings, pooled, {FLYING} in flight", each, each, ROWS, (cpu() - before) / (CALLS + FLYING))


def ahead(bank: negbank.Bank, anchors: Any, seed: int) -> negbank.Pending[negbank.Negatives]:
    """A call that has just begun."""
    return bank.sample_async(anchors, negbank.Uniform(K), seed=seed, columns=["embeddings"])


def line(name: str, median: float, best: float, rows: int, cpu_each: float) -> None:
    """One case."""
    rate = [f"{rows / took / 1e6:.2f}" for took in (median, best)]
    print(f"{name:<44} {median * 1e3:>7.2f} {best * 1e3:>6.2f} {rate[0]:>9} {rate[1]:>6} {cpu_each * 1e3:>7.2f}")


def cpu() -> float:
    """Seconds of CPU that this process has taken."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
