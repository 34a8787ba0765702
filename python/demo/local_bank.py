"""A keyed cosine bank in process, searched by brute force: what arm F compares the service with.

The module stands in for the package `negbank` as far as the demo uses it: `Nearest`, `Uniform`, and a bank
with `write` and `sample`. Meanings are the service's: momentum on a rewrite, filters before score rules, scores
from the stored rows, ties by id.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Nearest:
    k: int
    max_positive_fraction: float | None = None


@dataclass(frozen=True)
class Uniform:
    k: int


@dataclass(frozen=True)
class Negatives:
    """Rows: ids u64 [U], embeddings f32 [U, d]. Picks: indices i64 [B, K] into the rows, -1 where mask is False."""

    ids: np.ndarray
    embeddings: np.ndarray
    indices: np.ndarray
    mask: np.ndarray


class LocalBank:
    """Ids are row numbers below `ids_max` here, so that the entries can lie in one array."""

    def __init__(self, dim: int, momentum: float, ids_max: int) -> None:
        self.momentum = momentum
        self.rows = np.zeros((ids_max, dim), dtype=np.float32)
        self.present = np.zeros(ids_max, dtype=bool)
        self.groups = np.zeros(ids_max, dtype=np.uint64)

    def write(self, ids, embeddings, labels=None, groups=None, step=None, momentum=None) -> None:
        """ids u64 [R] without repeats, embeddings f32 [R, d]: v <- norm(m*v + (1-m)*x), x where v is new."""
        weight = np.float32(self.momentum if momentum is None else momentum)
        ids, fresh = np.asarray(ids, dtype=np.int64), _unit(embeddings)
        known = self.present[ids]
        fresh[known] = _unit(weight * self.rows[ids[known]] + (1 - weight) * fresh[known])
        self.rows[ids] = fresh
        self.present[ids] = True
        if groups is not None:
            self.groups[ids] = groups

    def sample(
        self, anchors, draw, anchor_groups=None, positive_ids=None, exclude_same_group=None, seed=None, step=None,
        columns=None, pad=True,
    ) -> Negatives:  # fmt: skip
        """anchors f32 [B, d], positive_ids and anchor_groups u64 [B]: k picks an anchor, best first or at random."""
        eligible = self.eligible(positive_ids, anchor_groups if exclude_same_group is not False else None)
        if isinstance(draw, Uniform):
            rank = np.random.default_rng(seed).random(eligible.shape, dtype=np.float32)
        else:
            rank = self.scores(anchors)
            if draw.max_positive_fraction is not None:
                positive = rank[np.arange(len(rank)), np.asarray(positive_ids, dtype=np.int64)]
                eligible &= rank <= (positive - np.abs(positive) * (1 - draw.max_positive_fraction))[:, None]
        picked = _best(np.where(eligible, rank, np.float32(-np.inf)), draw.k)
        mask = picked >= 0
        ids, places = np.unique(np.where(mask, picked, picked.max()), return_inverse=True)
        return Negatives(ids.astype(np.uint64), self.rows[ids], np.where(mask, places.reshape(mask.shape), -1), mask)

    def scores(self, anchors: np.ndarray) -> np.ndarray:
        """f32 [B, ids_max]: dots of unit vectors, summed in double precision."""
        return (_unit(anchors).astype(np.float64) @ self.rows.T.astype(np.float64)).astype(np.float32)

    def eligible(self, positive_ids, anchor_groups) -> np.ndarray:
        """bool [B, ids_max]: present, not the anchor's positive, not of the anchor's group where one is given."""
        eligible = np.tile(self.present, (len(positive_ids), 1))
        eligible[np.arange(len(positive_ids)), np.asarray(positive_ids, dtype=np.int64)] = False
        if anchor_groups is not None:
            eligible &= self.groups[None, :] != np.asarray(anchor_groups)[:, None]
        return eligible


def _best(rank: np.ndarray, k: int) -> np.ndarray:
    """i64 [B, k]: columns of the k highest in each row of rank f32 [B, n], ties by column; -1 instead of any -inf."""
    floor = np.partition(rank, -k, axis=1)[:, -k]
    best = np.full((len(rank), k), -1, dtype=np.int64)
    for row, picks, least in zip(rank, best, floor, strict=True):
        near = np.flatnonzero((row >= least) & (row > -np.inf))
        chosen = near[np.lexsort((near, -row[near]))][:k]
        picks[: len(chosen)] = chosen
    return best


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
