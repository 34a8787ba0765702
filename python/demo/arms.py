"""The arms of the experiment: what each asks the service for at a step."""

from __future__ import annotations

import numpy as np

IN_BATCH, IN_BATCH_EQUAL_TIME = "A", "A'"
SERVED = ("B", "C", "G", "D")
ALL = (IN_BATCH, IN_BATCH_EQUAL_TIME, *SERVED)
REPLAYED = "G"
CONTRASTS = (("B", "A"), ("C", "A"), ("G", "A"), ("G", "C"), ("D", "G"), ("A'", "A"), ("G", "A'"))
TITLES = {
    "A": "in-batch only",
    "A'": "in-batch only, equal wall time",
    "B": "+ served at random",
    "C": "+ served top-k, unfiltered",
    "G": "+ served top-k, no copies",
    "D": "G, below 0.95 of the positive",
}


def draw(arm: str, api, bank, anchors: np.ndarray, ids: np.ndarray, groups: np.ndarray, k: int, seed: int, step: int):
    """Negatives for anchors f32 [B, d] whose positives are the bank's entries `ids` u64 [B], of `groups` u64 [B].

    `api` is the package `negbank`, or `local_bank` in its place. No arm is served its positive. Copies of it under
    other names are kept away only where the anchor's group goes with the request.
    """
    common = dict(positive_ids=ids, seed=seed, step=step, columns=["ids", "embeddings"], pad=True)
    match arm:
        case "B":
            return bank.sample(anchors, api.Uniform(k), **common)
        case "C":
            return bank.sample(anchors, api.Nearest(k), **common)
        case "G":
            return bank.sample(anchors, api.Nearest(k), anchor_groups=groups, exclude_same_group=True, **common)
        case "D":
            below = api.Nearest(k, max_positive_fraction=0.95)
            return bank.sample(anchors, below, anchor_groups=groups, exclude_same_group=True, **common)
    raise ValueError(f"arm {arm} asks the service for nothing")
