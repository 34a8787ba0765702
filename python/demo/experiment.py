"""Seeds side by side in worker processes; progress comes back through a queue."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from queue import Empty

from .corpus import Corpus
from .features import hashed_words
from .seed_run import Progress, Seed, SeedRun
from .service import LocalBanks, ServedBanks
from .settings import Settings
from .trainer import Pairs

_context = multiprocessing.get_context("spawn")  # a forked gRPC client would hang


@dataclass
class _Worker:
    pairs: Pairs
    banks: ServedBanks | LocalBanks
    progress: Progress


_worker: _Worker | None = None


def pairs_of(corpus: Corpus, settings: Settings) -> Pairs:
    return Pairs(
        summaries=hashed_words(corpus.summaries, settings.summary_words),
        bodies=hashed_words(corpus.bodies, settings.body_words),
        groups=corpus.groups,
        clusters=corpus.clusters,
        labels=corpus.labels,
    )


def run_seeds(
    pairs: Pairs, settings: Settings, seeds: Iterable[int], chosen: tuple[str, ...], address: str | None,
    replayed: int | None, workers: int, progress: Progress,
) -> list[SeedRun]:  # fmt: skip
    """Runs each seed against the service at `address` (None: in process), G of seed `replayed` once more as arm F."""
    events = _context.Queue()
    with ProcessPoolExecutor(workers, _context, _start_worker, (pairs, address, events)) as pool:
        waiting = [pool.submit(_run_seed, seed, settings, chosen, seed == replayed) for seed in seeds]
        try:
            while not (all(future.done() for future in waiting) and events.empty()):
                try:
                    progress(*events.get(timeout=0.1))
                except Empty:
                    pass
                for future in [future for future in waiting if future.done() and future.exception()]:
                    future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        runs = sorted((future.result() for future in as_completed(waiting)), key=lambda run: run.seed)
    return runs


def _start_worker(pairs: Pairs, address: str | None, events) -> None:
    global _worker
    banks = ServedBanks(address) if address else LocalBanks()
    _worker = _Worker(pairs, banks, lambda *event: events.put(event))


def _run_seed(seed: int, settings: Settings, chosen: tuple[str, ...], replay: bool) -> SeedRun:
    assert _worker is not None
    return Seed(seed, _worker.pairs, settings, _worker.progress).run(_worker.banks, chosen, replay)
