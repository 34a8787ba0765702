"""What is asked of everybody."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .clustered import Clustered

ANCHORS = 256
BATCHES = 4  # batches of anchors that recall is taken over
DIM = 128


@dataclass(frozen=True)
class Case:
    """Nearest entries for a batch of anchors; `recall` is what a setting must reach to be timed as the choice."""

    name: str
    k: int
    recall: float
    exclude_own: bool = False
    one_label: bool = False


HARD = Case("hard", 64, 0.975)
OWN_LABEL = Case("hard, not the anchor's label", 64, 0.975, exclude_own=True)
TEN = Case("nearest ten", 10, 0.99)
ONE_LABEL = Case("hard, one label only", 64, 0.975, one_label=True)
NEAREST = (HARD, OWN_LABEL, TEN, ONE_LABEL)
RANDOM = "random, 64 rows an anchor"


def batch(data: Clustered, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Anchors and their labels."""
    part = slice(number % BATCHES * ANCHORS, (number % BATCHES + 1) * ANCHORS)
    return data.anchors[part], data.anchor_labels[part]


def exact(data: Clustered, case: Case) -> np.ndarray:
    """[BATCHES * ANCHORS, k] ids of the true answer; -1 where fewer entries pass."""
    found = np.full((len(data.anchors), case.k), -1)
    for start in range(0, len(data.anchors), ANCHORS):
        part = slice(start, start + ANCHORS)
        scores = data.anchors[part] @ data.rows.T
        if case.exclude_own:
            scores[data.anchor_labels[part, None] == data.labels[None]] = -np.inf
        if case.one_label:
            scores[:, data.labels != data.one_label] = -np.inf
        top = np.argpartition(-scores, case.k, axis=1)[:, : case.k]
        top[np.isneginf(np.take_along_axis(scores, top, 1))] = -1
        found[part] = top
    return found


def recall(found: np.ndarray, truth: np.ndarray) -> float:
    """The share of the true answer that was found."""
    hits = sum(np.intersect1d(f[f >= 0], t[t >= 0]).size for f, t in zip(found, truth, strict=True))
    return hits / int((truth >= 0).sum())
