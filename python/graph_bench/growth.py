"""Searches, filters and memory as a bank grows."""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from peers.clustered import Clustered, clustered

import negbank
from graph_bench.serving import ANCHORS, DIM, RAW, TIMEOUT, WAYS, fill, hits_of, ids_of, serving, told, until
from graph_bench.watching import Memory

BATCHES, KS = (1, 32, 256), (10, 64)
LEAST_CALLED = 32
SLOWER, SLOWER_FILTERED, SLOWER_LISTED, RECALL_FILTERED = 1.2, 1.05, 2.0, 0.98


@dataclass(frozen=True)
class Effort:
    """Rounds of everything, after `warm_up` of them: `least`, and more until `seconds` are over, `most` at most."""

    seconds: float
    warm_up: int = 3
    least: int = 15
    most: int = 200


@dataclass(frozen=True)
class Case:
    """A question, and the ways to answer it; the first of them is exact, the last is what the server chooses."""

    name: str
    batch: int
    k: int
    ways: tuple[str, ...] = ("scan", "graph", "default")
    own_label_away: bool = False
    label: int | None = None

    def asked(self, bank: negbank.Bank, data: Clustered, which: np.ndarray, way: str) -> negbank.Negatives:
        """An answer for those anchors."""
        draw = negbank.Nearest(self.k, **WAYS.get(way, {"plan": way}))
        filters: dict[str, Any] = {}
        if self.own_label_away:
            filters = {"anchor_labels": data.anchor_labels[which], "exclude_same_label": True}
        if self.label is not None:
            filters = {"only_labels": [self.label]}
        return bank.sample(data.anchors[which], draw, columns=["ids"], pad=True, **filters)


def cases_of(data: Clustered, *, has_graph: bool) -> Iterator[Case]:
    """What is asked of a bank."""
    ways = ("scan", "graph", "default") if has_graph else ("scan", "default")
    for k in KS:
        for batch in BATCHES:
            yield Case("nearest", batch, k, ways)
    for batch in BATCHES:
        yield Case("own label left out", batch, 64, ways, own_label_away=True)
    counts = np.bincount(data.labels)
    label = int(np.argmin(np.abs(counts - len(data.rows) / 1_000)))
    for batch in (1, 256):
        yield Case("one label of a thousand", batch, 64, ("posting_list", "scan", "default"), label=label)


def grown(entries: int, threads: int, effort: Effort, *, has_graph: bool = True) -> dict[str, Any]:
    """One size."""
    print(f"{entries:,} entries", flush=True)
    data = clustered(entries, ANCHORS, DIM, seed=1)
    index = [f"index.min_entries={entries}", f"index.enabled={str(has_graph).lower()}"]
    with serving(*index, f"compute.threads={threads}") as server:
        bank = negbank.connect(server.address, timeout=TIMEOUT).create_bank("growing", dim=DIM)
        memory = Memory(server)
        before = memory.resident("VmRSS")
        with memory:
            began = time.perf_counter()
            fill(bank, data)
            filled = time.perf_counter()
            figures: dict[str, Any] = {"entries": entries, "has_graph": has_graph}
            figures["fill_s"] = told("filled, s", filled - began)
            if has_graph:
                figures |= built(bank, entries)
        parts = ("rows", "graphs") if has_graph else ("rows",)
        figures |= remembered(bank, memory, entries, parts, before)
        figures["cases"] = [measured(bank, data, case, effort) for case in cases_of(data, has_graph=has_graph)]
    return figures


def built(bank: negbank.Bank, entries: int) -> dict[str, Any]:
    """How long the graph of a bank that was just filled takes to serve, and what it is."""
    filled = time.perf_counter()
    index = until(bank, lambda index: index.state == "serving", 600 + entries / 100)
    took = told("from then until the graph serves, s", time.perf_counter() - filled)
    assert (index.indexed, index.lag) == (entries, 0), index
    return {"until_graph_serves_s": took, "reason": index.reason, "unreachable": index.unreachable}


def remembered(
    bank: negbank.Bank, memory: Memory, entries: int, parts: tuple[str, ...], resident_before: int
) -> dict[str, Any]:
    """Memory an entry: what is there, what was there at most, and what the bank had said it would take."""
    info, taken = bank.info(), memory.parts()
    peaks = (*parts, "builds") if "graphs" in parts else parts
    figures: dict[str, Any] = {
        "bytes_per_entry": {part: taken[part] / entries for part in parts},
        "peak_bytes_per_entry": {part: memory.most[part] / entries for part in peaks},
        "resident_bytes_per_entry": (memory.resident("VmRSS") - resident_before) / entries,
        "peak_resident_bytes_per_entry": (memory.resident("VmHWM") - resident_before) / entries,
        "raw_bytes_per_entry": RAW,
        "promised_bytes_per_entry": {"rows": info.bytes_per_entry, "peak": info.peak_bytes_per_entry},
    }
    for part, size in figures["bytes_per_entry"].items():
        told(f"{part}, bytes an entry of {RAW} raw", size)
    for part in peaks[len(parts) :]:
        told(f"{part} at most, bytes an entry of {RAW} raw", figures["peak_bytes_per_entry"][part])
    told("resident at most, bytes an entry", figures["peak_resident_bytes_per_entry"])
    return figures


def measured(bank: negbank.Bank, data: Clustered, case: Case, effort: Effort) -> dict[str, Any]:
    """Every way of a case, round after round in another order."""
    calls = max(1, LEAST_CALLED // case.batch)
    times: dict[str, list[float]] = {way: [] for way in case.ways}
    plans: dict[str, Counter[str]] = {way: Counter() for way in case.ways}
    hits, short, wanted, reason = Counter[str](), Counter[str](), 0, ""
    give_up, number = math.inf, 0
    warm_up = effort.warm_up
    while number < warm_up + effort.least or (time.perf_counter() < give_up and number < warm_up + effort.most):
        if number == warm_up:
            give_up = time.perf_counter() + effort.seconds
        first = number * calls * case.batch
        which = [np.arange(first + call * case.batch, first + (call + 1) * case.batch) % ANCHORS for call in range(calls)]
        found: dict[str, np.ndarray] = {}
        turn = number % len(case.ways)
        for way in case.ways[turn:] + case.ways[:turn]:
            began = time.perf_counter()
            answers = [case.asked(bank, data, part, way) for part in which]
            ids = [ids_of(answer) for answer in answers]
            took = time.perf_counter() - began
            found[way] = np.concatenate(ids)
            if number >= warm_up:
                times[way].append(1e6 * took / (calls * case.batch))
                plans[way].update(answer.info.plans[0] for answer in answers)
            if way == "default":
                reason = answers[-1].info.plan_reasons[0]
        if number >= warm_up:
            truth = found[case.ways[0]]
            wanted += int((truth >= 0).sum())
            for way, ids_found in found.items():
                hits[way] += hits_of(ids_found, truth)
                short[way] += int(np.maximum((ids_found < 0).sum(1) - (truth < 0).sum(1), 0).sum())
        number += 1
    medians = {way: statistics.median(times[way]) for way in case.ways}
    better = min(case.ways[:-1], key=lambda way: medians[way])
    figures: dict[str, Any] = {
        "name": case.name,
        "batch": case.batch,
        "k": case.k,
        "ways": list(case.ways),
        "rounds": number - warm_up,
        "us_per_anchor": {way: quartiles(times[way]) for way in case.ways},
        "recall": {way: hits[way] / max(1, wanted) for way in case.ways},
        "short": dict(short),
        "plans": {way: dict(plans[way]) for way in case.ways},
        "plan": plans["default"].most_common(1)[0][0],
        "plan_reason": reason,
        "better": better,
        "default_over": {way: paired(times["default"], times[way]) for way in case.ways[:-1]},
    }
    shown = "  ".join(f"{way} {medians[way]:.1f} us ({figures['recall'][way]:.3f})" for way in case.ways)
    ratio = figures["default_over"][better]["median"]
    print(f"{case.name}, {case.batch} x {case.k}: {shown}; by {figures['plan']}, {ratio:.2f} of {better}", flush=True)
    return figures


def quartiles(figures: list[float]) -> list[float]:
    """First quartile, median, third quartile."""
    return [float(bound) for bound in np.percentile(figures, [25, 50, 75])]


def paired(mine: list[float], others: list[float]) -> dict[str, Any]:
    """Ratios within rounds: median, quartiles, and where the median lies with 95 % (percentile bootstrap)."""
    ratios = np.array(mine) / np.array(others)
    drawn = np.random.default_rng(1).choice(ratios, (2_000, ratios.size))
    low, middle, high = quartiles(list(ratios))
    sure = [float(bound) for bound in np.percentile(np.median(drawn, axis=1), [2.5, 97.5])]
    return {"median": middle, "quartiles": [low, high], "median_95": sure}


def beside_peers(entries: int, case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """As `make bench-index` writes them: what the server chose beside what was asked for, and the graph beside the scan."""
    times = {way: found[1] for way, found in case["us_per_anchor"].items()}
    pairs = [("default", peer) for peer in times if peer != "default"]
    if "graph" in times:
        pairs.append(("graph", "scan"))
    for mine, peer in pairs:
        yield {
            "name": case["name"] if mine == "default" else f"{case['name']}, {mine} asked for",
            "n": entries,
            "batch": case["batch"],
            "k": case["k"],
            "plan": max(case["plans"][mine], key=case["plans"][mine].__getitem__),
            "us_per_anchor": times[mine],
            "recall": case["recall"][mine],
            "peer": peer,
            "peer_us_per_anchor": times[peer],
            "peer_recall": case["recall"][peer],
            "ratio": times[mine] / times[peer],
        }


def bars_of(size: dict[str, Any], largest: bool) -> dict[str, bool]:
    """What is demanded of a size. With own labels left out the default may be no slower than the scan: noise apart."""
    bars = {}
    for case in size["cases"]:
        name = f"{size['entries']:,} entries, {case['name']}, {case['batch']} x {case['k']}: "
        if case["name"] == "nearest" and largest:
            bars[f"{name}the default beside {case['better']}"] = case["default_over"][case["better"]]["median"] <= SLOWER
        if case["name"] == "own label left out":
            bars[f"{name}recall"] = case["recall"]["default"] >= RECALL_FILTERED
            # What costs less may be a scan: the graph must be as good by itself.
            bars[f"{name}recall of the graph"] = case["recall"]["graph"] >= RECALL_FILTERED
            bars[f"{name}whole answers"] = case["short"]["default"] == 0
            bars[f"{name}the default beside the scan"] = case["default_over"]["scan"]["median_95"][0] <= SLOWER_FILTERED
        if case["name"] == "one label of a thousand":
            bars[f"{name}the default beside the list"] = case["default_over"]["posting_list"]["median"] <= SLOWER_LISTED
    return bars
