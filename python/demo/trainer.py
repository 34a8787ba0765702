"""Training: batches of pairs, and one step of the two towers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from .encoder import TwoTowers
from .loss import in_batch_loss, served_loss
from .settings import Settings


@dataclass(frozen=True)
class Pairs:
    """Features of N (summary, body) pairs, f32 CSR [N, V], and their columns [N]."""

    summaries: csr_array
    bodies: csr_array
    groups: np.ndarray
    clusters: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Served:
    """What the bank gave a batch: embeddings f32 [B, K, d], and mask bool [B, K] of the places that are filled."""

    embeddings: np.ndarray
    mask: np.ndarray


# Given queries f32 [B, d], their rows i64 [B], their documents f32 [B, d] and the step.
Exchange = Callable[[np.ndarray, np.ndarray, np.ndarray, int], Served]


def split(pairs: Pairs, held_out: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and rows held out, i64; a cluster is wholly on one side."""
    clusters = int(pairs.clusters.max()) + 1
    chosen = np.random.default_rng([seed, 1]).permutation(clusters) < int(clusters * held_out)
    held = chosen[pairs.clusters]
    return np.flatnonzero(~held), np.flatnonzero(held)


def batches(rows: np.ndarray, size: int, seed: list[int]) -> Iterator[np.ndarray]:
    """Endless batches of distinct rows i64 [size], epoch by epoch in a new order."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(rows)
        yield from (order[start : start + size] for start in range(0, len(order) - size + 1, size))


def train_step(
    towers: TwoTowers, pairs: Pairs, rows: np.ndarray, step: int, settings: Settings, exchange: Exchange | None = None
) -> float:
    """One step on the pairs `rows` i64 [B]; returns its loss.

    Served negatives are used as the bank gave them, as constants: re-encoding them by id with gradients cost more
    and scored less on the tuning seeds (an entry that many anchors find hard is pushed about by all of them).
    """
    queries = towers.query.encode(pairs.summaries[rows])
    documents = towers.document.encode(pairs.bodies[rows])
    groups = pairs.groups[rows]
    counted = (groups[:, None] != groups[None, :]) | np.eye(len(rows), dtype=bool)
    loss, to_queries, to_documents = in_batch_loss(queries.unit, documents.unit, counted, settings.temperature)
    if exchange:
        served = exchange(queries.unit, rows, documents.unit, step)
        more, more_to_queries, more_to_documents = served_loss(
            queries.unit, documents.unit, served.embeddings, served.mask, settings.served_temperature
        )
        loss += settings.served_weight * more
        to_queries = to_queries + np.float32(settings.served_weight) * more_to_queries
        to_documents = to_documents + np.float32(settings.served_weight) * more_to_documents
    towers.query.descend(queries, to_queries, settings.rate)
    towers.document.descend(documents, to_documents, settings.rate)
    return loss
