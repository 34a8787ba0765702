"""Embeddings shaped like real ones: power-law clusters, which are the labels, and noise that is strong in few directions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CLUSTERS = 2_000
POWER = 0.8
NOISE = 0.7  # length of the noise beside a centre of length 1
ONE_LABEL_ROWS = 300  # entries of the label that the filtered case draws from, about
AT_ONCE = 1 << 18  # rows made at a time: ten million take their own memory, not three times that


@dataclass(frozen=True)
class Clustered:
    """Unit vectors, and anchors that are none of them."""

    rows: np.ndarray
    labels: np.ndarray
    anchors: np.ndarray
    anchor_labels: np.ndarray

    @property
    def one_label(self) -> int:
        """The label whose entries are nearest to ONE_LABEL_ROWS in number."""
        counts = np.bincount(self.labels, minlength=CLUSTERS)
        return int(np.argmin(np.abs(counts - ONE_LABEL_ROWS)))


def clustered(entries: int, anchors: int, dim: int, seed: int) -> Clustered:
    """A function of its arguments alone."""
    rng = np.random.default_rng(seed)
    spread = (np.arange(dim) + 1.0) ** -0.5
    spread = (spread / np.linalg.norm(spread)).astype(np.float32)
    centres = _unit(rng.standard_normal((CLUSTERS, dim), dtype=np.float32) * spread)
    shares = (np.arange(CLUSTERS) + 1.0) ** -POWER
    labels = rng.choice(CLUSTERS, entries + anchors, p=shares / shares.sum())
    rows = np.empty((labels.size, dim), np.float32)
    for start in range(0, labels.size, AT_ONCE):
        part = labels[start : start + AT_ONCE]
        noise = rng.standard_normal((part.size, dim), dtype=np.float32)
        rows[start : start + AT_ONCE] = _unit(centres[part] + NOISE * spread * noise)
    return Clustered(rows[:entries], labels[:entries], rows[entries:], labels[entries:])


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
