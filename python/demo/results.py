"""The figures of the whole experiment: per arm, per contrast, and whether the promises were kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from .arms import ALL, CONTRASTS
from .contrasts import CONFIDENCE, Contrast, paired
from .seed_run import SeedRun
from .settings import Settings


@dataclass(frozen=True)
class ArmResult:
    """Means over seeds; `half` is half the width of the t interval of the mean MRR@10."""

    mrr10: float
    half: float
    steps: float
    seconds: float
    served: int
    false_negatives: int

    @property
    def false_negative_rate(self) -> float:
        return self.false_negatives / self.served if self.served else 0.0


@dataclass(frozen=True)
class Results:
    arms: dict[str, ArmResult]
    contrasts: dict[str, Contrast]
    seeds: int
    seconds: float
    served_equals_local: bool

    def broken_promises(self) -> list[str]:
        """What must hold whatever the seeds say; empty when all does."""
        broken = []
        if not self.served_equals_local:
            broken.append("what the service served is not what the local search finds")
        for arm in ("G", "D"):
            if self.arms[arm].false_negatives:
                broken.append(f"{arm} was served {self.arms[arm].false_negatives} copies of its positives")
        if not self.arms["C"].false_negatives:
            broken.append("C was served no copy of its positives, so the filters had nothing to do")
        return broken

    def as_json(self) -> dict:
        return {
            "arms": {
                name: {"mrr10": arm.mrr10, "false_negative_rate": arm.false_negative_rate} for name, arm in self.arms.items()
            },
            "contrasts": {
                name: {"mean": contrast.mean, "ci95": [contrast.low, contrast.high]}
                for name, contrast in self.contrasts.items()
            },
            "served_equals_local": self.served_equals_local,
            "seeds": self.seeds,
            "seconds": self.seconds,
        }


def summarise(runs: list[SeedRun], settings: Settings, seconds: float) -> Results:
    scores = {arm: [run.arms[arm].mrr10 for run in runs] for arm in ALL}
    return Results(
        arms={arm: _arm_result([run.arms[arm] for run in runs], values) for arm, values in scores.items()},
        contrasts={f"{left}-{right}": paired(scores[left], scores[right]) for left, right in CONTRASTS},
        seeds=len(runs),
        seconds=seconds,
        served_equals_local=_replay_holds(runs, settings),
    )


def _arm_result(runs: list, scores: list[float]) -> ArmResult:
    return ArmResult(
        mrr10=float(np.mean(scores)),
        half=float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(scores) - 1) * stats.sem(scores)),
        steps=float(np.mean([run.steps for run in runs])),
        seconds=float(np.mean([run.seconds for run in runs])),
        served=sum(run.served for run in runs),
        false_negatives=sum(run.false_negatives for run in runs),
    )


def _replay_holds(runs: list[SeedRun], settings: Settings) -> bool:
    """F was run, every pick agreed, and it ended at the same score as the run of G that it replays."""
    replays = [run for run in runs if run.comparison is not None]
    return bool(replays) and all(
        run.comparison.holds(settings.steps) and run.replay_mrr10 == run.arms["G"].mrr10 for run in replays
    )
