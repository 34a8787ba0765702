"""What the graph of a large keyed bank costs and brings: growth with the bank, own labels left out, and a bank that moves.

Rows are 128 floats in power-law clusters, a label is a cluster, anchors are no entries. Every size has a real server of its
own, asked through gRPC for ids alone. A scan, a walk and what the server chooses by itself are measured in turns, each first as
often as the others; medians and quartiles of the rounds are reported, and ratios are of the times of one round. Recall is
against the scan of the same round. `cases` in graph.json are as in index.json: a ratio over 1 there is faster than the peer.

Then rows of another bank are replaced and moved while a sampler draws, graphs are built beside that, and the same anchors are
asked for exact answers at the same sequence. Fails below its bars.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import statistics
import sys
import threading
import time
import urllib.request
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import negbank

sys.path.append(str(Path(__file__).parent / "tests"))

from peers.clustered import CLUSTERS, Clustered, clustered  # noqa: E402

from server_process import ServerProcess  # noqa: E402

DIM, ANCHORS, FILL, TIMEOUT = 128, 1_024, 8_192, 120.0
RAW = DIM * 4
BATCHES, KS = (1, 32, 256), (10, 64)
LEAST_ROUNDS, MOST_ROUNDS, WARM_UP, LEAST_CALLED = 15, 200, 3, 32
SLOWER, SLOWER_FILTERED, RECALL_FILTERED, RECALL_MOVING, SLOWER_BESIDE = 1.2, 1.05, 0.98, 0.97, 2.0
WAYS: dict[str, dict[str, Any]] = {"scan": {"plan": "scan"}, "graph": {"plan": "graph"}, "default": {}}

CHURN_BATCH, CHURN_K, PROBES, PAUSE = 8, 64, 64, 0.002
REPLACED, WRITES, PASSES, MOMENTUM = 0.2, 40, 4, 0.7
QUIET = 10.0
LEAST_CALLS = 200  # of which a 99th percentile tells something


def main() -> None:
    """Prints a line a figure, and reports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reports", type=Path)
    parser.add_argument("--entries", type=int, nargs="+", default=[10_000, 30_000, 100_000])
    parser.add_argument("--churn-entries", type=int, default=100_000, help="0: that part is left out")
    parser.add_argument("--seconds", type=float, default=6.0, help="of a case, once it has had 15 rounds")
    parser.add_argument("--churn-seconds", type=float, default=40.0, help="over which rows are replaced, and are moved")
    parser.add_argument("--threads", type=int, default=1, help="compute.threads of the growing banks' server; 0: one a core")
    arguments = parser.parse_args()
    began = time.perf_counter()
    bars: dict[str, bool] = {}
    report: dict[str, Any] = {"cpus": os.cpu_count(), "compute_threads": arguments.threads, "sizes": [], "cases": []}
    for entries in sorted(arguments.entries):
        size = grown(entries, arguments.threads, arguments.seconds)
        report["sizes"].append(size)
        report["cases"] += [shown for case in size["cases"] for shown in beside_peers(entries, case)]
        bars |= bars_of(size, largest=entries == max(arguments.entries))
    if arguments.churn_entries:
        report["churn"] = moved(arguments.churn_entries, arguments.churn_seconds)
        bars |= bars_of_churn(report["churn"])
    report |= {"seconds": time.perf_counter() - began, "bars": bars}
    if arguments.reports:
        arguments.reports.mkdir(parents=True, exist_ok=True)
        (arguments.reports / "graph.json").write_text(json.dumps(report, indent=2) + "\n")
        draw_picture(arguments.reports / "graph-growth.png", report)
    sys.exit("".join(f"*** {name} misses its bar ***\n" for name, met in bars.items() if not met) or None)


def told(what: str, figure: float) -> float:
    """Prints a figure."""
    print(f"{what:<64} {figure:>14,.4g}", flush=True)
    return figure


# --- growth ------------------------------------------------------------------------------------------------------------------


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


def cases_of(data: Clustered) -> Iterator[Case]:
    """What is asked of a bank."""
    for k in KS:
        for batch in BATCHES:
            yield Case("nearest", batch, k)
    for batch in BATCHES:
        yield Case("own label left out", batch, 64, own_label_away=True)
    counts = np.bincount(data.labels)
    label = int(np.argmin(np.abs(counts - len(data.rows) / 1_000)))
    for batch in (1, 256):
        yield Case("one label of a thousand", batch, 64, ("posting_list", "scan", "default"), label=label)


def grown(entries: int, threads: int, seconds: float) -> dict[str, Any]:
    """One size."""
    print(f"{entries:,} entries", flush=True)
    data = clustered(entries, ANCHORS, DIM, seed=1)
    with serving(f"index.min_entries={entries}", f"compute.threads={threads}") as server:
        bank = negbank.connect(server.address, timeout=TIMEOUT).create_bank("growing", dim=DIM)
        memory = Memory(server)
        before = memory.resident("VmRSS")
        with memory:
            began = time.perf_counter()
            fill(bank, data)
            filled = time.perf_counter()
            index = until(bank, lambda index: index.state == "serving", 600 + entries / 100)
            served = time.perf_counter()
        assert (index.indexed, index.lag) == (entries, 0), index
        info, parts = bank.info(), memory.parts()
        figures: dict[str, Any] = {
            "entries": entries,
            "fill_s": told("filled, s", filled - began),
            "until_graph_serves_s": told("from then until the graph serves, s", served - filled),
            "reason": index.reason,
            "unreachable": index.unreachable,
            "bytes_per_entry": {part: parts[part] / entries for part in ("rows", "graphs")},
            "peak_bytes_per_entry": {part: memory.most[part] / entries for part in ("rows", "graphs", "builds")},
            "resident_bytes_per_entry": (memory.resident("VmRSS") - before) / entries,
            "peak_resident_bytes_per_entry": (memory.resident("VmHWM") - before) / entries,
            "raw_bytes_per_entry": RAW,
            "promised_bytes_per_entry": {"rows": info.bytes_per_entry, "peak": info.peak_bytes_per_entry},
        }
        for part, taken in figures["bytes_per_entry"].items():
            told(f"{part}, bytes an entry of {RAW} raw", taken)
        told(f"builds at most, bytes an entry of {RAW} raw", figures["peak_bytes_per_entry"]["builds"])
        told("resident at most, bytes an entry", figures["peak_resident_bytes_per_entry"])
        figures["cases"] = [measured(bank, data, case, seconds) for case in cases_of(data)]
    return figures


def measured(bank: negbank.Bank, data: Clustered, case: Case, seconds: float) -> dict[str, Any]:
    """Every way of a case, round after round in another order."""
    calls = max(1, LEAST_CALLED // case.batch)
    times: dict[str, list[float]] = {way: [] for way in case.ways}
    plans: dict[str, Counter[str]] = {way: Counter() for way in case.ways}
    hits, short, wanted, reason = Counter[str](), Counter[str](), 0, ""
    give_up, number = math.inf, 0
    while number < WARM_UP + LEAST_ROUNDS or (time.perf_counter() < give_up and number < WARM_UP + MOST_ROUNDS):
        if number == WARM_UP:
            give_up = time.perf_counter() + seconds
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
            if number >= WARM_UP:
                times[way].append(1e6 * took / (calls * case.batch))
                plans[way].update(answer.info.plans[0] for answer in answers)
            if way == "default":
                reason = answers[-1].info.plan_reasons[0]
        if number >= WARM_UP:
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
        "rounds": number - WARM_UP,
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


def ids_of(answer: negbank.Negatives) -> np.ndarray:
    """[B, k] ids; -1 where there is none."""
    ids, indices = np.asarray(answer.ids), np.asarray(answer.indices)
    found: np.ndarray = ids[indices].astype(np.int64)
    found[indices < 0] = -1
    return found


def hits_of(found: np.ndarray, truth: np.ndarray) -> int:
    """How many of the true ids were found."""
    same = (found[:, :, None] == truth[:, None, :]) & (truth[:, None, :] >= 0)
    return int(same.sum())


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
            "ratio": times[peer] / times[mine],
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
            bars[f"{name}whole answers"] = case["short"]["default"] == 0
            bars[f"{name}the default beside the scan"] = case["default_over"]["scan"]["median_95"][0] <= SLOWER_FILTERED
    return bars


# --- a bank that moves -------------------------------------------------------------------------------------------------------


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


class Beside:
    """Something that is done again and again in a thread of its own; what fails there fails when it ends."""

    def __init__(self, every: float) -> None:
        self._every, self._over = every, threading.Event()
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def once(self) -> None:
        """What is done."""
        raise NotImplementedError

    def _run(self) -> None:
        try:
            while not self._over.is_set():
                self.once()
                self._over.wait(self._every)
        except BaseException as fault:
            self._fault = fault

    def __enter__(self) -> Any:
        self._over.clear()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if self._fault:
            raise self._fault


class Memory(Beside):
    """A server's account of its memory, and the most that it told."""

    def __init__(self, server: ServerProcess) -> None:
        super().__init__(0.05)
        self._server, self.most = server, Counter[str]()

    def parts(self) -> dict[str, float]:
        """Bytes by part."""
        text = urllib.request.urlopen(f"http://{self._server.probes}/metrics", timeout=20).read().decode()
        return {part: float(taken) for part, taken in re.findall(r'^negbank_memory_bytes\{part="(\w+)"\} (\S+)$', text, re.M)}

    def resident(self, line: str) -> int:
        """Bytes that the process has (VmRSS), or had at most (VmHWM)."""
        status = Path(f"/proc/{self._server.pid}/status").read_text()
        told_kib = re.search(rf"^{line}:\s+(\d+) kB", status, re.M)
        return int(told_kib[1]) * 1_024 if told_kib else 0

    def once(self) -> None:
        for part, taken in self.parts().items():
            self.most[part] = max(self.most[part], int(taken))


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
        bars[f"moving, {name}: recall"] = phase["recall"].get("mean", 0.0) >= RECALL_MOVING
    for name, figures in churn["latency"].items():
        calls = f"{figures['without_build']['calls']} calls without a build, {figures['beside_build']['calls']} beside one"
        bars[f"moving, sampling {name}: p99 ({calls})"] = figures.get("p99_ratio", math.inf) <= SLOWER_BESIDE
    return bars


# --- servers and the picture -------------------------------------------------------------------------------------------------


@contextmanager
def serving(*settings: str) -> Iterator[ServerProcess]:
    """A server that tells its metrics."""
    server = ServerProcess("http.listen=127.0.0.1:0", *settings)
    try:
        yield server
    finally:
        server.stop()


def fill(bank: negbank.Bank, data: Clustered) -> None:
    """Writes all rows."""
    for start in range(0, len(data.rows), FILL):
        part = slice(start, min(len(data.rows), start + FILL))
        bank.write(np.arange(part.start, part.stop), data.rows[part], labels=data.labels[part], step=1)


def until(bank: negbank.Bank, wanted: Callable[[negbank.IndexInfo], bool], within: float) -> negbank.IndexInfo:
    """Waits until the bank's index is as wanted."""
    give_up = time.monotonic() + within
    while True:
        index = bank.info().index
        assert index is not None
        if wanted(index):
            return index
        if time.monotonic() > give_up:
            raise TimeoutError(f"after {within:.0f} s the index is {index}")
        time.sleep(0.02)


def draw_picture(path: Path, report: dict[str, Any]) -> None:
    """Time and memory by the number of entries."""
    try:
        import matplotlib
    except ImportError:
        print(f"*** {path} WAS NOT DRAWN: there is no matplotlib here ***")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    sizes = report["sizes"]
    entries = [size["entries"] for size in sizes]
    figure, (searches, builds, memory) = pyplot.subplots(1, 3, figsize=(14, 4.4), width_ratios=(5, 3, 4), layout="constrained")
    for colour, batch in zip(("#d62728", "#1f77b4", "#2ca02c"), BATCHES, strict=True):
        cases = [c for size in sizes for c in size["cases"] if (c["name"], c["batch"], c["k"]) == ("nearest", batch, 64)]
        for way, style in {"scan": "--", "graph": ":", "default": "-"}.items():
            low, middle, high = np.array([case["us_per_anchor"][way] for case in cases]).T
            marker = "o" if way == "default" else None
            searches.plot(entries, middle, style, color=colour, marker=marker, markersize=4, label=f"{batch} anchors, {way}")
            searches.fill_between(entries, low, high, color=colour, alpha=0.1, linewidth=0)
    searches.set(
        xscale="log", yscale="log", xlabel="entries", ylabel="us an anchor", title="The nearest 64 (median, quartiles)"
    )
    searches.legend(fontsize=7)
    for key, label in {"fill_s": "to fill", "until_graph_serves_s": "then until the graph serves"}.items():
        builds.plot(entries, [size[key] for size in sizes], marker="o", markersize=4, label=label)
    builds.set(xscale="log", yscale="log", xlabel="entries", ylabel="seconds", title="Time to fill and build")
    builds.legend(fontsize=8)
    places, below = np.arange(len(sizes)), np.zeros(len(sizes))
    for part, label in {"rows": "rows", "graphs": "graph", "builds": "build, while it runs"}.items():
        key = "peak_bytes_per_entry" if part == "builds" else "bytes_per_entry"
        taken = np.array([size[key][part] for size in sizes])
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
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
