"""A two-tower text encoder: one table of word vectors a tower, from a random start."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array


@dataclass
class Encoding:
    """What the backward pass of one tower needs: features [R, V], unit rows [R, d], their lengths before [R, 1]."""

    features: csr_array
    unit: np.ndarray
    length: np.ndarray


class Tower:
    """Unit-length sums of word vectors, trained by Adagrad on the rows of the table that a batch touches."""

    def __init__(self, vocabulary: int, dim: int, rng: np.random.Generator) -> None:
        self.table = rng.standard_normal((vocabulary, dim), dtype=np.float32) / np.float32(np.sqrt(dim))
        self.squares = np.full((vocabulary, 1), 1e-8, dtype=np.float32)

    def copy(self) -> Tower:
        twin = object.__new__(Tower)
        twin.table, twin.squares = self.table.copy(), self.squares.copy()
        return twin

    def encode(self, features: csr_array) -> Encoding:
        """Unit rows [R, d] of features [R, V]."""
        sums = features @ self.table
        length = np.linalg.norm(sums, axis=1, keepdims=True) + np.float32(1e-12)
        return Encoding(features, sums / length, length)

    def descend(self, encoding: Encoding, gradient: np.ndarray, rate: float) -> None:
        """One step against the gradient [R, d] of the loss with respect to the unit rows."""
        inward = (gradient * encoding.unit).sum(axis=1, keepdims=True)
        through = (gradient - inward * encoding.unit) / encoding.length
        touched, columns = np.unique(encoding.features.indices, return_inverse=True)
        compact = csr_array((encoding.features.data, columns, encoding.features.indptr), shape=(through.shape[0], len(touched)))
        slope = compact.T @ through
        self.squares[touched] += (slope * slope).mean(axis=1, keepdims=True)
        self.table[touched] -= np.float32(rate) * slope / np.sqrt(self.squares[touched])


class TwoTowers:
    """One tower for queries (summaries), one for documents (bodies)."""

    def __init__(self, vocabulary: int, dim: int, rng: np.random.Generator) -> None:
        self.query = Tower(vocabulary, dim, rng)
        self.document = Tower(vocabulary, dim, rng)

    def copy(self) -> TwoTowers:
        twin = object.__new__(TwoTowers)
        twin.query, twin.document = self.query.copy(), self.document.copy()
        return twin
