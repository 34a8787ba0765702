"""The losses once more: loops over anchors in float64, written from the papers' formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def info_nce(p: Floats, n: Floats, counted: Bools, t: float) -> float:
    def of(i: int) -> float:
        return float(-np.log(np.exp(p[i] / t) / (np.exp(p[i] / t) + np.exp(n[i][counted[i]] / t).sum())))

    return float(np.mean([of(i) for i in range(len(p))]))


def nce(p: Floats, n: Floats, counted: Bools, t: float, pool: int) -> float:
    """InstDisc, eqs. 4-8; Z from this batch."""
    z = pool * np.exp(n[counted] / t).mean()

    def of(i: int) -> float:
        drawn = n[i][counted[i]]
        noise = len(drawn) / pool

        def h(s: Any) -> Any:
            return np.exp(s / t) / z / (np.exp(s / t) / z + noise)

        return float(-np.log(h(p[i])) - np.log(1 - h(drawn)).sum())

    return float(np.mean([of(i) for i in range(len(p))]))


def dcl(p: Floats, n: Floats, counted: Bools, t: float, sigma: float | None) -> float:
    w = np.ones(len(p)) if sigma is None else 2 - np.exp(p / sigma) / np.exp(p / sigma).mean()
    return float(np.mean([-w[i] * p[i] / t + np.log(np.exp(n[i][counted[i]] / t).sum()) for i in range(len(p))]))


def hcl(p: Floats, n: Floats, counted: Bools, t: float, tau: float, beta: float) -> float:
    """Robinson 2020; beta = 0 is Chuang 2020."""

    def of(i: int) -> float:
        pos, neg = np.exp(p[i] / t), np.exp(n[i][counted[i]] / t)
        importance = neg**beta
        r = (importance * neg).sum() / importance.mean()
        ng = max((r - tau * len(neg) * pos) / (1 - tau), len(neg) * np.exp(-1 / t))
        return float(-np.log(pos / (pos + ng)))

    return float(np.mean([of(i) for i in range(len(p))]))


def sup_con(s: Floats, positives: Bools, counted: Bools, t: float) -> float:
    def of(i: int) -> float:
        total = np.log(np.exp(s[i][counted[i]] / t).sum())
        return float(np.mean(total - s[i][positives[i]] / t))

    return float(np.mean([of(i) for i in range(len(s)) if positives[i].any()]))


def triplet(p: Floats, n: Floats, margin: float) -> float:
    terms = [x - p[i] + margin for i in range(len(p)) for x in n[i] if p[i] - margin < x < p[i]]
    return float(np.mean(terms)) if terms else 0.0


def sampled_softmax(p: Floats, n: Floats, log_q: Floats, t: float) -> float:
    k = n.shape[1]

    def of(i: int) -> float:
        total = np.exp(p[i] / t) + sum(np.exp(n[i, j] / t) / (k * np.exp(log_q[i, j])) for j in range(k))
        return float(-p[i] / t + np.log(total))

    return float(np.mean([of(i) for i in range(len(p))]))
