"""One seed of the experiment: the shared warm-up, then every arm from there."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from . import arms, local_bank
from .encoder import TwoTowers
from .evaluation import mrr_at_10
from .features import BUCKETS
from .replay import Comparison, Recorder, ReplayBank, picked_ids
from .settings import Settings
from .trainer import Pairs, Served, batches, split, train_step

CURVE_EVERY = 100
Progress = Callable[[int, str, int], None]  # seed, arm, steps done since the last call


@dataclass
class ArmRun:
    """MRR@10 at the end and along the way (steps, MRR@10), steps made, seconds of training, negatives served."""

    mrr10: float = 0.0
    curve: list[tuple[int, float]] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0
    served: int = 0
    false_negatives: int = 0


@dataclass
class SeedRun:
    seed: int
    warm_mrr10: float
    arms: dict[str, ArmRun]
    comparison: Comparison | None = None
    replay_mrr10: float | None = None


class Seed:
    """What all arms of a seed share: the split, the order of the batches and the warmed-up towers."""

    def __init__(self, seed: int, pairs: Pairs, settings: Settings, progress: Progress) -> None:
        self.seed, self.pairs, self.settings, self.progress = seed, pairs, settings, progress
        self.train, self.held_out = split(pairs, settings.held_out, seed)
        self.warm = TwoTowers(BUCKETS, settings.dim, np.random.default_rng([seed, 2]))
        order = batches(self.train, settings.batch, [seed, 3])
        for step in range(settings.warm_up_steps):
            train_step(self.warm, pairs, next(order), step, settings)
        progress(seed, "warm-up", settings.warm_up_steps)

    def run(self, banks, chosen=arms.ALL, replay: bool = False) -> SeedRun:
        result = SeedRun(self.seed, self.score(self.warm), {})
        if arms.IN_BATCH in chosen:
            result.arms[arms.IN_BATCH] = self.train_arm(arms.IN_BATCH, None, None)
        for arm in (arm for arm in arms.SERVED if arm in chosen):
            with banks.bank(f"{arm}-{self.seed}", self.settings, len(self.pairs.groups)) as bank:
                recorder = Recorder(bank) if replay and arm == arms.REPLAYED else None
                result.arms[arm] = self.train_arm(arm, banks.api, recorder or bank)
            if recorder:
                local = local_bank.LocalBank(self.settings.dim, self.settings.bank_momentum, len(self.pairs.groups))
                mirror = ReplayBank(local, recorder.answers)
                result.replay_mrr10 = self.train_arm(arm, local_bank, mirror, shown="F").mrr10
                result.comparison = mirror.comparison
        if arms.IN_BATCH_EQUAL_TIME in chosen:
            seconds = float(np.mean([result.arms[arm].seconds for arm in arms.SERVED]))
            result.arms[arms.IN_BATCH_EQUAL_TIME] = self.train_arm(arms.IN_BATCH_EQUAL_TIME, None, None, seconds)
        return result

    def train_arm(self, arm: str, api, bank, seconds: float | None = None, shown: str | None = None) -> ArmRun:
        """Trains from the warm towers: `settings.steps` steps, or as many as fit in `seconds` (and no curve)."""
        towers, run = self.warm.copy(), ArmRun()
        order = batches(self.train, self.settings.batch, [self.seed, 4])
        exchange = None
        started = time.perf_counter()
        if bank is not None:
            rows = towers.document.encode(self.pairs.bodies[self.train]).unit
            bank.write(self.train.astype(np.uint64), rows, momentum=0.0, **self._columns(self.train, 0))
            exchange = self._exchange(arm, api, bank, run)
        run.seconds = time.perf_counter() - started
        while run.seconds < seconds if seconds is not None else run.steps < self.settings.steps:
            started = time.perf_counter()
            step = self.settings.warm_up_steps + run.steps
            train_step(towers, self.pairs, next(order), step, self.settings, exchange)
            run.seconds += time.perf_counter() - started
            run.steps += 1
            if seconds is None and run.steps % CURVE_EVERY == 0:
                run.curve.append((run.steps, self.score(towers)))
                self.progress(self.seed, shown or arm, CURVE_EVERY)
        run.mrr10 = self.score(towers)
        self.progress(self.seed, shown or arm, run.steps % CURVE_EVERY if seconds is None else self.settings.steps)
        return run

    def score(self, towers: TwoTowers) -> float:
        return mrr_at_10(towers, self.pairs, self.held_out)

    def _exchange(self, arm: str, api, bank, run: ArmRun):
        """One round with the bank: negatives for the batch are drawn, then the batch's own documents are written."""

        def exchange(queries: np.ndarray, rows: np.ndarray, documents: np.ndarray, step: int) -> Served:
            ids, groups = rows.astype(np.uint64), self.pairs.groups[rows]
            seed = self.seed * 1_000_000 + step
            answer = arms.draw(arm, api, bank, queries, ids, groups, self.settings.served, seed, step)
            bank.write(ids, documents, **self._columns(rows, step))
            picked = picked_ids(answer)
            mask = picked >= 0
            run.served += int(mask.sum())
            run.false_negatives += int((mask & (self.pairs.groups[picked] == groups[:, None])).sum())
            return Served(np.asarray(answer.embeddings)[np.where(mask, answer.indices, 0)], mask)

        return exchange

    def _columns(self, rows: np.ndarray, step: int) -> dict:
        return dict(labels=self.pairs.labels[rows], groups=self.pairs.groups[rows], step=step)
