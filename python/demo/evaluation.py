"""MRR@10 of held-out pairs, by text."""

from __future__ import annotations

import numpy as np

from .encoder import TwoTowers
from .trainer import Pairs

CUT = 10


def mrr_at_10(towers: TwoTowers, pairs: Pairs, held_out: np.ndarray) -> float:
    """Each held-out summary (rows `held_out` i64 [R]) ranks the bodies of the whole corpus, one candidate a text.

    A candidate with the text of the query's own body is right, whatever its name. Every text weighs the same,
    however many names it has: reciprocal ranks are averaged within a text first. A tie counts against the query.
    """
    distinct, first = np.unique(pairs.groups, return_index=True)
    right = np.searchsorted(distinct, pairs.groups[held_out])
    queries = towers.query.encode(pairs.summaries[held_out]).unit
    candidates = towers.document.encode(pairs.bodies[first]).unit
    scores = queries @ candidates.T
    rank = (scores >= scores[np.arange(len(held_out)), right][:, None]).sum(axis=1)
    reciprocal = np.where(rank <= CUT, 1.0 / rank, 0.0)
    texts = np.unique(right, return_inverse=True)[1]
    return float((np.bincount(texts, reciprocal) / np.bincount(texts)).mean())
