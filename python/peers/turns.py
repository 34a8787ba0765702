"""Settings chosen by recall, and times taken in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from .cases import ANCHORS, BATCHES, Case, batch, recall
from .clustered import Clustered
from .contender import Contender, Setting


@dataclass(frozen=True)
class Chosen:
    """The first setting that reached the wanted recall; where none did, the one that came nearest."""

    setting: Setting
    recall: float


def choose(contender: Contender, case: Case, data: Clustered, truth: np.ndarray) -> Chosen | None:
    """Tries the settings in order, each once on every batch of anchors."""
    best = None
    for setting in contender.settings(case):
        found = np.concatenate([setting.search(*batch(data, number)) for number in range(BATCHES)])
        reached = Chosen(setting, recall(found, truth))
        if best is None or reached.recall > best.recall:
            best = reached
        if reached.recall >= case.recall:
            break
    return best


def in_turns(
    calls: Mapping[str, Callable[[int], object]], turns: int, before: Mapping[str, Callable[[], object]] | None = None
) -> dict[str, np.ndarray]:
    """Microseconds of each call, by name: turn after turn all are called once, so that a busy moment is everybody's.

    `before`: what is done before a call and not timed.
    """
    took: dict[str, list[float]] = {name: [] for name in calls}
    for name in calls:
        calls[name](turns)
    for turn in range(turns):
        for name, call in calls.items():
            if before and name in before:
                before[name]()
            start = time.perf_counter()
            call(turn)
            took[name].append((time.perf_counter() - start) * 1e6)
    return {name: np.array(times) for name, times in took.items()}


def per_anchor(times: np.ndarray) -> np.ndarray:
    """First quartile, median and third quartile of an anchor's share."""
    return np.percentile(times / ANCHORS, [25, 50, 75])
