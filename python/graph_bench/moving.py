"""A bank whose rows are replaced, and then all moved, while a sampler draws and graphs are built."""

from __future__ import annotations

import math
import statistics
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from peers.clustered import CLUSTERS, clustered

import negbank
from graph_bench.serving import ANCHORS, DIM, FILL, TIMEOUT, WAYS, fill, hits_of, ids_of, serving, told, until
from graph_bench.watching import Beside

CHURN_BATCH, CHURN_K, PROBES, PAUSE = 8, 64, 64, 0.002
REPLACED, WRITES, PASSES, MOMENTUM = 0.2, 40, 4, 0.7
RECALL_MOVING, SLOWER_BESIDE = 0.97, 2.0
QUIET = 10.0
LEAST_CALLS = 200  # of which a 99th percentile tells something


def moved(entries: int, seconds: float) -> dict[str, Any]:
    """A fifth of the rows replaced, then all rows moved, with a sampler beside it."""
    print(f"{entries:,} entries that move", flush=True)
    data = clustered(entries, ANCHORS, DIM, seed=2)
    others = clustered(int(entries * REPLACED), ANCHORS, DIM, seed=2)
    targets = shifted(data.rows, data.labels)
    anchors = np.concatenate([data.anchors, shifted(data.anchors, data.anchor_labels)])
    with serving(f"index.min_entries={entries}") as server:
        bank = negbank.connect(server.address, timeout=TIMEOUT).create_bank("moving", dim=DIM, momentum=MOMENTUM)
        phases: list[Phase] = []
        probes = Probes(bank, entries)
        within = 300 + entries / 100

        @contextmanager
        def phase(name: str, *, writing: bool) -> Iterator[None]:
            began = time.perf_counter()
            yield
            phases.append(Phase(name, writing, began, time.perf_counter()))

        def settled() -> None:
            until(bank, lambda index: index.state == "serving" and index.scanned < 0.08 * entries, within)
            # A build that is due begins within a tenth of a second.
            time.sleep(0.5)
            until(bank, lambda index: index.state == "serving", within)

        with Watcher(bank) as watcher:
            fill(bank, data)
            probes.write_all()
            until(bank, lambda index: index.state == "serving", within)
            settled()
            with Sampler(bank, np.random.default_rng(3).permutation(anchors)) as sampler:
                with phase("quiet", writing=False):
                    time.sleep(QUIET)
                with phase("replaced", writing=True):
                    rewritten = np.random.default_rng(4).choice(entries, len(others.rows), replace=False)
                    for part in paced(len(rewritten), -(-len(rewritten) // WRITES), seconds):
                        bank.write(rewritten[part], others.rows[part], labels=others.labels[part], step=2, momentum=0.0)
                        probes.check()
                with phase("after replacing", writing=False):
                    settled()
                    time.sleep(QUIET)
                with phase("drifting", writing=True):
                    order = np.random.default_rng(5).permutation(entries)
                    size = min(FILL, -(-entries // WRITES))
                    for number in range(PASSES):
                        for part in paced(entries, size, seconds / PASSES):
                            bank.write(order[part], targets[order[part]], step=3 + number)
                            probes.check()
                with phase("after drifting", writing=False):
                    settled()
                    time.sleep(QUIET)
    return churn_report(entries, phases, watcher, sampler, probes)


def shifted(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Where rows drift to: each cluster its own way, and each row a little by itself. Unit rows, at a mean cosine of 0.6."""
    rng = np.random.default_rng(6)
    spread = (np.arange(DIM) + 1.0).astype(np.float32) ** -0.5
    ways = rng.standard_normal((CLUSTERS, DIM), dtype=np.float32) * spread
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    own = rng.standard_normal(rows.shape, dtype=np.float32) * spread / np.linalg.norm(spread)
    moved_rows = rows + 1.2 * ways[labels] + 0.3 * own
    unit: np.ndarray = moved_rows / np.linalg.norm(moved_rows, axis=1, keepdims=True)
    return unit


def paced(rows: int, size: int, seconds: float) -> Iterator[slice]:
    """Parts of `size` rows, evenly over the time, as trainers write them."""
    began = time.perf_counter()
    for start in range(0, rows, size):
        time.sleep(max(0.0, began + seconds * start / rows - time.perf_counter()))
        yield slice(start, min(rows, start + size))


@dataclass(frozen=True)
class Phase:
    """A stretch of time."""

    name: str
    writing: bool
    began: float
    ended: float


@dataclass
class Probes:
    """Entries like no others: each is replaced by another such row and must be what is nearest to that, at once."""

    bank: negbank.Bank
    entries: int
    asked: list[tuple[float, str, bool]] = field(default_factory=list)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(7))

    def write_all(self) -> None:
        """Their first rows."""
        self.bank.write(np.arange(self.entries, self.entries + PROBES), self._rows(PROBES), step=1)

    def check(self) -> None:
        """Writes one, and asks."""
        which, row = self.entries + len(self.asked) // 2 % PROBES, self._rows(1)
        self.bank.write([which], row, momentum=0.0)
        for way in ("default", "graph"):
            answer = self.bank.sample(row, negbank.Nearest(1, **WAYS[way]), columns=["ids"])
            self.asked.append((time.perf_counter(), way, np.asarray(answer.ids).tolist() == [which]))

    def _rows(self, count: int) -> np.ndarray:
        return self.rng.standard_normal((count, DIM), dtype=np.float32)


class Watcher(Beside):
    """What GetBank tells of the index, over time."""

    def __init__(self, bank: negbank.Bank) -> None:
        super().__init__(0.025)
        self._bank = bank
        self._times: list[float] = []
        self.seen: list[tuple[float, negbank.IndexInfo]] = []

    def once(self) -> None:
        index = self._bank.info().index
        assert index is not None
        now = time.perf_counter()
        self._times.append(now)
        self.seen.append((now, index))

    def building(self, began: float, ended: float) -> bool | None:
        """Whether a build ran all the while; None: for a part of it, or nobody knows."""
        first, last = bisect_left(self._times, began) - 1, bisect_left(self._times, ended)
        if first < 0 or last >= len(self._times):
            return None
        states = {index.state == "building" for _, index in self.seen[first : last + 1]}
        return states.pop() if len(states) == 1 else None


class Sampler(Beside):
    """Draws as a trainer does; every fourth time also by the graph and exactly, to compare them."""

    def __init__(self, bank: negbank.Bank, anchors: np.ndarray) -> None:
        super().__init__(PAUSE)
        self._bank, self._anchors, self._number = bank, anchors, 0
        self.calls: list[tuple[float, float, str, str]] = []
        self.recalls: list[tuple[float, float, float, float | None]] = []
        self.apart = 0  # comparisons that a write came between

    def once(self) -> None:
        first = self._number * CHURN_BATCH
        anchors = self._anchors[np.arange(first, first + CHURN_BATCH) % len(self._anchors)]
        began = time.perf_counter()
        default = self._ask(anchors)
        self.calls.append((began, time.perf_counter(), default.info.plans[0], default.info.plan_reasons[0]))
        if self._number % 4 == 0:
            graph, exact = self._ask(anchors, plan="graph"), self._ask(anchors, accuracy="exact")
            ended = time.perf_counter()
            answers = (default, graph, exact)
            if len({at for answer in answers for at in (answer.info.sequence_first, answer.info.sequence_last)}) == 1:
                by_graph = recall_of(graph, exact) if graph.info.plans == ["graph"] else None
                self.recalls.append((began, ended, recall_of(default, exact), by_graph))
            else:
                self.apart += 1
        self._number += 1

    def _ask(self, anchors: np.ndarray, **how: Any) -> negbank.Negatives:
        return self._bank.sample(anchors, negbank.Nearest(CHURN_K, **how), columns=["ids"], pad=True)


def recall_of(answer: negbank.Negatives, exact: negbank.Negatives) -> float:
    """The share of the exact answer that was found."""
    truth = ids_of(exact)
    return hits_of(ids_of(answer), truth) / max(1, int((truth >= 0).sum()))


def churn_report(entries: int, phases: list[Phase], watcher: Watcher, sampler: Sampler, probes: Probes) -> dict[str, Any]:
    """What the threads noted, by phase and by whether a graph was built."""
    report: dict[str, Any] = {"entries": entries, "batch": CHURN_BATCH, "k": CHURN_K, "momentum": MOMENTUM, "phases": {}}
    tagged = [(call, watcher.building(call[0], call[1])) for call in sampler.calls]
    compared = [(pair, watcher.building(pair[0], pair[1])) for pair in sampler.recalls]
    for phase in phases:
        inside = [(call, building) for call, building in tagged if phase.began <= call[0] and call[1] <= phase.ended]
        pairs = [(pair, building) for pair, building in compared if phase.began <= pair[0] and pair[1] <= phase.ended]
        report["phases"][phase.name] = {
            "seconds": phase.ended - phase.began,
            "writing": phase.writing,
            "plans": dict(Counter(call[2] for call, _ in inside)),
            "recall": spread([pair[2] for pair, _ in pairs]),
            "recall_of_graph": spread([pair[3] for pair, _ in pairs if pair[3] is not None]),
            "recall_beside_builds": spread([pair[2] for pair, building in pairs if building]),
            "recall_of_graph_beside_builds": spread([pair[3] for pair, building in pairs if building and pair[3] is not None]),
        }
        for of in ("recall", "recall_of_graph", "recall_beside_builds"):
            if report["phases"][phase.name][of]["of"]:
                told(f"{phase.name}: {of.replace('_', ' ')}, mean", report["phases"][phase.name][of]["mean"])
    report["comparisons_apart"] = sampler.apart
    report["freshness"] = {
        "asked": len(probes.asked),
        "asked_beside_builds": sum(watcher.building(at, at) is True for at, _, _ in probes.asked),
        "unseen": Counter(way for _, way, seen in probes.asked if not seen),
    }
    told("acknowledged writes that were asked for", len(probes.asked))
    told("of these beside a build", report["freshness"]["asked_beside_builds"])
    told("of these not seen", sum(report["freshness"]["unseen"].values()))
    report["latency"] = {
        "without writes": latency("without writes", False, phases, tagged),
        "beside writes": latency("beside writes", True, phases, tagged),
    }
    report["builds"] = len({index.generation for _, index in watcher.seen if index.generation is not None}) - 1
    report |= reasons(watcher, sampler)
    return report


def spread(shares: list[float]) -> dict[str, float]:
    """Mean, 5th percentile and least."""
    if not shares:
        return {"of": 0}
    return {"of": len(shares), "mean": statistics.fmean(shares), "p5": float(np.percentile(shares, 5)), "least": min(shares)}


def latency(name: str, writing: bool, phases: list[Phase], tagged: list[tuple[Any, bool | None]]) -> dict[str, Any]:
    """Milliseconds of sampling without a build and beside one, in phases of one kind."""
    of_kind = [phase for phase in phases if phase.writing == writing]
    figures: dict[str, Any] = {}
    for key, wanted in (("without_build", False), ("beside_build", True)):
        taken = [
            1e3 * (call[1] - call[0])
            for call, building in tagged
            if building is wanted and any(phase.began <= call[0] and call[1] <= phase.ended for phase in of_kind)
        ]
        figures[key] = {"calls": len(taken)}
        if taken:
            for percent in (50, 99):
                figures[key][f"p{percent}_ms"] = float(np.percentile(taken, percent))
                told(f"sampling {name}, {key.replace('_', ' ')}, p{percent} ms", figures[key][f"p{percent}_ms"])
    if all(figures[key]["calls"] >= LEAST_CALLS for key in figures):
        ratio = figures["beside_build"]["p99_ms"] / figures["without_build"]["p99_ms"]
        figures["p99_ratio"] = told(f"sampling {name}, beside a build to without, p99 ratio", ratio)
    return figures


def reasons(watcher: Watcher, sampler: Sampler) -> dict[str, Any]:
    """What GetBank said, when it said something new, and why draws were scanned for."""
    told_before, by_time = None, []
    for at, index in watcher.seen:
        now = (index.state, index.generation is not None, index.reason)
        if now != told_before:
            seconds = round(at - watcher.seen[0][0], 2)
            by_time.append({"at_s": seconds, "state": index.state, "graph_serves": now[1], "reason": index.reason})
        told_before = now
    by_scan = list(dict.fromkeys(index.reason for _, index in watcher.seen if index.generation is None))
    for reason in by_scan[-3:]:
        print(f"    GetBank while the scan serves: {reason}", flush=True)
    of_draws = list(dict.fromkeys(reason for _, _, plan, reason in sampler.calls if plan == "scan"))
    return {"index": by_time[:500], "reasons_while_the_scan_serves": by_scan[:50], "reasons_of_draws_by_scan": of_draws[:20]}


def bars_of_churn(churn: dict[str, Any]) -> dict[str, bool]:
    """What is demanded of a bank that moves. What could not be measured misses its bar too."""
    bars = {"moving: every acknowledged write is seen": not churn["freshness"]["unseen"]}
    bars["moving: a write that is asked for beside a build"] = churn["freshness"]["asked_beside_builds"] > 0
    for name, phase in churn["phases"].items():
        # What costs less may be a scan: the graph must be as good by itself.
        for of in ("recall", "recall_of_graph"):
            bars[f"moving, {name}: {of.replace('_', ' ')}"] = phase[of].get("mean", 0.0) >= RECALL_MOVING
        for of in ("recall_beside_builds", "recall_of_graph_beside_builds"):
            if phase[of]["of"]:
                bars[f"moving, {name}: {of.replace('_', ' ')}"] = phase[of]["mean"] >= RECALL_MOVING
    asked = sum(phase["recall_beside_builds"]["of"] for phase in churn["phases"].values())
    bars["moving: recall that is asked for beside a build"] = asked > 0
    for name, figures in churn["latency"].items():
        calls = f"{figures['without_build']['calls']} calls without a build, {figures['beside_build']['calls']} beside one"
        bars[f"moving, sampling {name}: p99 ({calls})"] = figures.get("p99_ratio", math.inf) <= SLOWER_BESIDE
    return bars
