"""What durability costs: ingest by policy beside raw appends, calls beside a checkpoint, a restart, and room on disk.

The data lie in a new folder below --scratch, which should be on the disk that is meant: not a tmpfs. Writes go to rows that are
there, so that memory stays at --entries rows however much is written. A turn of a policy stands between two in memory, whose
mean it is held against, and beside the median of raw appends. On a machine that others share one such share tells little: they
differ by a third, with what the machine's owner takes away meanwhile (told as stolen, where the system tells it). So there are
--rounds of all of it, and --more pairs of interval and memory; medians count, and all shares are reported. A log that is synced
once a second is synced beside the next appends, and so is the raw one; of both ways to append, through the page cache and past
it, the faster counts.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

import negbank

sys.path.append(str(Path(__file__).parent / "tests"))

from server_process import ServerProcess  # noqa: E402

DIM, BATCH, WRITERS = 128, 2_048, 8
ROW_BYTES = DIM * 4
SETTLE = 5.0
RAW = ("raw_append", "raw_append_synced")

T = TypeVar("T")


def main() -> None:
    """Prints a line a figure, and reports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reports", type=Path)
    parser.add_argument("--scratch", type=Path, default=Path("../target"))
    parser.add_argument("--gib", type=float, default=4.0, help="written by each policy")
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--more", type=int, default=8, help="pairs of interval and memory beyond the rounds")
    parser.add_argument("--spool", type=Path, help="a folder on another disk, from which checkpoints are copied: measured too")
    arguments = parser.parse_args()
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    rows = int(arguments.gib * (1 << 30)) // ROW_BYTES
    figures: dict[str, Any] = {"gib": arguments.gib, "entries": arguments.entries, "cpus": os.cpu_count()}
    measured: dict[str, list[float]] = {}
    beside: dict[str, list[float]] = {}
    policies = {"memory": "memory", "interval": "interval", "always_8_writers": "always"}
    turns: dict[str, Callable[[], float]] = {
        name: partial(fresh, arguments.scratch, partial(ingest, durability, rows, arguments.entries))
        for name, durability in policies.items()
    }
    peaks: list[int] = []
    logging = partial(ingest, "interval", rows, arguments.entries)
    turns["interval"] = partial(fresh, arguments.scratch, partial(watched, logging, peaks))
    turns |= {name: partial(append, arguments.scratch, rows, name == "raw_append_synced") for name in RAW}

    def turn(name: str) -> float:
        was = stolen()
        began = time.perf_counter()
        rate = turns[name]()
        away = (stolen() - was) / (time.perf_counter() - began) / (os.cpu_count() or 1)
        measured.setdefault(name, []).append(told(f"{name}, rows/s", rate, f"   {away:.0%} stolen"))
        return rate

    def between(before: float, *names: str) -> float:
        """Each of these with a turn in memory after it; returns the last of those."""
        for name in names:
            turn(name)
            after = turn("memory")
            beside.setdefault(name, []).append((before + after) / 2)
            before = after
        return before

    logged = [name for name in policies if name != "memory"]
    last = turn("memory")
    for number in range(arguments.rounds):
        # Each comes first as often as the other.
        last = between(last, *logged[:: 1 if number % 2 == 0 else -1])
        for name in RAW:
            turn(name)
        last = turn("memory")
    for _ in range(arguments.more):
        last = between(last, "interval")
    figures["ingest_rows_s"] = {name: statistics.median(rates) for name, rates in measured.items()}
    figures["ingest_rows_s_all"] = measured
    for name, raw in (("interval", "raw_append"), ("always_8_writers", "raw_append_synced")):
        bound = statistics.median(measured[raw])
        shares = [rate / min(memory, bound) for rate, memory in zip(measured[name], beside[name], strict=True)]
        among = f"   {min(shares):.2f} to {max(shares):.2f}, {len(shares)} times"
        figures[f"{name}_share"] = told(f"{name} of what memory and {raw} allow", statistics.median(shares), among)
        figures[f"{name}_shares"] = shares
    rooms = [most / (arguments.entries * ROW_BYTES) for most in peaks]
    among = f"   {min(rooms):.2f} to {max(rooms):.2f}, {len(rooms)} times"
    figures["disk_peak_bytes_per_bank_byte"] = told("interval, bytes on disk at most for one of the bank", max(rooms), among)
    figures |= fresh(arguments.scratch, partial(around, arguments.entries, arguments.rounds))
    if arguments.spool:
        copied = fresh(arguments.scratch, partial(around, arguments.entries, arguments.rounds), arguments.spool)
        figures |= {"checkpoint_copied": copied["checkpoint"], "checkpoint_copied_longest": copied["checkpoint_longest"]}
    if arguments.reports:
        arguments.reports.mkdir(parents=True, exist_ok=True)
        (arguments.reports / "durability.json").write_text(json.dumps(figures, indent=2) + "\n")
    bars = {"interval": figures["interval_share"] >= 0.8, "always": figures["always_8_writers_share"] >= 0.5}
    for kind in ("checkpoint", "checkpoint_copied"):
        bars |= {f"{kind} {name}": ratio <= 2.0 for name, ratio in figures.get(kind, {}).items()}
    sys.exit("".join(f"*** {name} misses its bar ***\n" for name, met in bars.items() if not met) or None)


def told(what: str, figure: float, beside: str = "") -> float:
    """Prints a figure."""
    print(f"{what:<60} {figure:>10,.4g}{beside}", flush=True)
    return figure


def stolen() -> float:
    """Seconds of CPU so far that the machine's owner gave to others; 0 where the system does not tell."""
    try:
        with open("/proc/stat") as figures:
            ticks = figures.readline().split()
    except OSError:
        return 0.0
    return int(ticks[8]) / os.sysconf("SC_CLK_TCK") if len(ticks) > 8 else 0.0


class Scratch:
    """A folder of data, and servers of it."""

    def __init__(self, folder: Path, spool: Path | None) -> None:
        self.folder = folder
        self.spool = [f"checkpoints.spool={spool}"] if spool else []
        self.server = self.start()

    def start(self, *, index: bool = False) -> ServerProcess:
        """A server of the folder; no graph is built beside what is measured, unless that is asked for."""
        data, kept = self.folder / "data", self.folder / "checkpoints"
        settings = [f"durability.dir={data}", f"checkpoints.location={kept}", f"index.enabled={str(index).lower()}"]
        return ServerProcess(*settings, *self.spool)


def fresh(below: Path, work: Callable[[Scratch], T], spool: Path | None = None) -> T:
    """Runs `work` with a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="durability-", dir=below))
    scratch = Scratch(folder, spool)
    try:
        return work(scratch)
    finally:
        scratch.server.stop()
        shutil.rmtree(folder)


def batches(entries: int, writer: int) -> tuple[np.ndarray, np.ndarray]:
    """A writer's rows, and where its ids begin by turn."""
    rng = np.random.default_rng(writer)
    return rng.standard_normal((BATCH, DIM), dtype=np.float32), rng.integers(0, max(1, entries - BATCH), 4_096)


def ingest(durability: str, rows: int, entries: int, scratch: Scratch) -> float:
    """Rows a second of eight writers, each with one batch in flight."""
    client = negbank.connect(scratch.server.address, timeout=120)
    bank = client.create_bank("b", dim=DIM, durability=durability)  # type: ignore[arg-type]
    prepared = [batches(entries, writer) for writer in range(WRITERS)]
    each = rows // BATCH // WRITERS

    def write(writer: int) -> None:
        embeddings, starts = prepared[writer]
        for number in range(each):
            start = int(starts[number % len(starts)])
            bank.write(np.arange(start, start + BATCH), embeddings, step=number)

    began = time.perf_counter()
    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(write, range(WRITERS)))
    return each * WRITERS * BATCH / (time.perf_counter() - began)


def watched(work: Callable[[Scratch], T], peaks: list[int], scratch: Scratch) -> T:
    """Runs `work`, and notes the most bytes that the data took meanwhile."""
    over = threading.Event()

    def look() -> int:
        most, last = 0, False
        while not last:
            last = over.wait(0.2)
            data = scratch.folder / "data"
            most = max(most, bytes_on_disk(data) + bytes_being_freed(scratch.server.pid, data))
        return most

    with ThreadPoolExecutor(1) as beside:
        looking = beside.submit(look)
        try:
            result = work(scratch)
        finally:
            over.set()
    peaks.append(looking.result())
    return result


def bytes_on_disk(folder: Path) -> int:
    """What a folder's files are long together; one that is removed meanwhile does not count."""
    total = 0
    for within, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.stat(os.path.join(within, name)).st_size
    return total


def bytes_being_freed(pid: int, folder: Path) -> int:
    """What files of a folder still take that a process has removed and not closed yet."""
    total = 0
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            name = os.readlink(file)
            if name.startswith(f"{folder.resolve()}/") and name.endswith(" (deleted)"):
                total += file.stat().st_size
    return total


def append(scratch: Path, rows: int, synced: bool) -> float:
    """Rows a second of one writer that appends as many bytes to a file, the faster way of the two."""
    ways = [appended(scratch, rows, synced, straight) for straight in (False, True)]
    print(f"    {ways[0]:,.0f} through the page cache, {ways[1]:,.0f} past it", flush=True)
    return max(ways)


def appended(scratch: Path, rows: int, synced: bool, straight: bool) -> float:
    """Rows a second of appends that are synced with every eight batches, or once a second beside the next ones."""
    # A mapping of its own, since straight writes want aligned memory.
    batches = mmap.mmap(-1, WRITERS * BATCH * ROW_BYTES)
    batches.write(np.random.default_rng(0).bytes(len(batches)))
    folder = Path(tempfile.mkdtemp(prefix="durability-", dir=scratch))
    file = os.open(folder / "appended", os.O_WRONLY | os.O_CREAT | os.O_EXCL | (os.O_DIRECT if straight else 0))
    over = threading.Event()

    def sync_each_second() -> None:
        while not over.wait(1.0):
            os.fdatasync(file)

    try:
        with ThreadPoolExecutor(1) as beside:
            syncing = None if synced else beside.submit(sync_each_second)
            began = time.perf_counter()
            for _ in range(rows // BATCH // WRITERS):
                rest = memoryview(batches)
                while rest:
                    rest = rest[os.write(file, rest) :]
                if synced:
                    os.fdatasync(file)
            took = time.perf_counter() - began
            over.set()
            if syncing:
                syncing.result()
        return rows // BATCH // WRITERS * WRITERS * BATCH / took
    finally:
        over.set()
        os.close(file)
        shutil.rmtree(folder)


def around(entries: int, rounds: int, scratch: Scratch) -> dict[str, Any]:
    """A bank beside its checkpoints, its restart, and its room on disk."""
    client = negbank.connect(scratch.server.address, timeout=120)
    bank = client.create_bank("b", dim=DIM, durability="interval")
    rng = np.random.default_rng(0)
    for start in range(0, entries, BATCH):
        ids = np.arange(start, min(entries, start + BATCH))
        bank.write(ids, rng.standard_normal((ids.size, DIM), dtype=np.float32), step=1)
    quiet: dict[str, list[float]] = {"read": [], "write": []}
    during: dict[str, list[float]] = {"read": [], "write": []}
    for number in range(2 * rounds):
        latencies(bank, entries, lambda: time.sleep(SETTLE), quiet)
        latencies(bank, entries, partial(bank.checkpoint, str(number)), during)
    told("calls beside checkpoints", len(during["read"]) + len(during["write"]))
    ratios: dict[str, float] = {}
    for kind in quiet:
        before, after = (float(np.percentile(taken[kind], 99)) for taken in (quiet, during))
        told(f"{kind}s without a checkpoint, p99 ms", before * 1e3)
        told(f"{kind}s beside one, p99 ms", after * 1e3)
        ratios[f"{kind}_p99_ratio"] = told(f"{kind}s beside a checkpoint, p99 ratio", after / before)
    # A checkpoint's cut stops one call of them all, which no p99 shows.
    longest = {
        "write_longest_ms": told("longest write beside a checkpoint, ms", max(during["write"]) * 1e3),
        "write_longest_without_ms": told("longest write without one, ms", max(quiet["write"]) * 1e3),
    }
    on_disk = bytes_on_disk(scratch.folder / "data")
    scratch.server.kill()
    began = time.perf_counter()
    # As servers are by default: the graph is built anew behind the first draws.
    scratch.server = scratch.start(index=True)
    again = negbank.connect(scratch.server.address).bank("b")
    again.sample(np.ones((1, DIM), np.float32), negbank.Uniform(1))
    return {
        "checkpoint": ratios,
        "checkpoint_longest": longest,
        "restart_first_draw_s": told("restart to the first draw, s", time.perf_counter() - began),
        "disk_bytes_per_raw_byte": told("bytes on disk of one raw", on_disk / (entries * ROW_BYTES)),
    }


def latencies(bank: negbank.Bank, entries: int, meanwhile: Callable[[], object], noted: dict[str, list[float]]) -> None:
    """Notes what small reads and small writes take, in seconds, while `meanwhile` runs."""
    over = threading.Event()
    rng = np.random.default_rng(1)
    anchors, rows = (rng.standard_normal((size, DIM), dtype=np.float32) for size in (16, 64))

    def repeated(call: Callable[[int], object]) -> list[float]:
        taken, number = [], 0
        while not over.is_set():
            began = time.perf_counter()
            call(number)
            taken.append(time.perf_counter() - began)
            number += 1
            # A trainer computes between its calls.
            time.sleep(0.005)
        return taken

    def read(number: int) -> object:
        return bank.sample(anchors, negbank.Uniform(64), seed=number)

    def write(number: int) -> object:
        start = number * 7_919 % max(1, entries - 64)
        return bank.write(np.arange(start, start + 64), rows, step=2)

    with ThreadPoolExecutor(2) as pool:
        measured = [pool.submit(repeated, call) for call in (read, write)]
        meanwhile()
        over.set()
        for kind, taken in zip(("read", "write"), measured, strict=True):
            noted[kind] += taken.result()


if __name__ == "__main__":
    main()
