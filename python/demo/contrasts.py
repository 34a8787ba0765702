"""Paired contrasts between arms, with t intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Contrast:
    mean: float
    low: float
    high: float

    def sign(self) -> str:
        """ "positive" or "negative" where the interval lies off zero, otherwise "about zero"."""
        if self.low > 0:
            return "positive"
        return "negative" if self.high < 0 else "about zero"


def paired(first: list[float], second: list[float]) -> Contrast:
    """first - second, seed by seed; at least two seeds."""
    differences = np.asarray(first) - np.asarray(second)
    mean = differences.mean()
    half = stats.t.ppf(0.5 + CONFIDENCE / 2, len(differences) - 1) * stats.sem(differences)
    return Contrast(float(mean), float(mean - half), float(mean + half))
