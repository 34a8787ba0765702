"""Sampling by brute force, in numpy and double precision: what the service is compared with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

import negbank

# Scores this close may be ranked either way: the server's are single precision.
TIE = 1e-5


@dataclass
class Corpus:
    """A bank's entries, with the bank's own embeddings."""

    ids: npt.NDArray[np.uint64]
    embeddings: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    groups: npt.NDArray[np.uint64]

    def scores(self, anchors: npt.NDArray[np.float32], metric: str) -> npt.NDArray[np.float64]:
        """[B, n], higher is closer."""
        rows, queries = self.embeddings.astype(np.float64), anchors.astype(np.float64)
        if metric == "l2":
            differences = queries[:, None, :] - rows[None, :, :]
            distances: npt.NDArray[np.float64] = np.einsum("bnd,bnd->bn", differences, differences)
            return -distances
        if metric == "cosine":
            queries /= np.linalg.norm(queries, axis=1, keepdims=True)
        scores: npt.NDArray[np.float64] = queries @ rows.T
        return scores


def filled(bank: negbank.Bank, rng: np.random.Generator, rows: int, labels: int = 5, groups: int = 40) -> Corpus:
    """Fills a keyed bank with `rows` random entries and reads their embeddings back."""
    ids = rng.integers(0, 2**64, rows, dtype=np.uint64)
    corpus = Corpus(
        ids=ids,
        embeddings=rng.standard_normal((rows, bank.dim)).astype(np.float32),
        labels=rng.integers(-1, labels - 1, rows),
        groups=rng.integers(0, groups, rows).astype(np.uint64),
    )
    bank.write(ids, corpus.embeddings, labels=corpus.labels, groups=corpus.groups, step=1)
    corpus.embeddings = bank.fetch(ids).embeddings
    return corpus


def assert_best(
    picks: negbank.Picks, corpus: Corpus, scores: npt.NDArray[np.float64], eligible: npt.NDArray[np.bool_], k: int
) -> None:
    """The picks are the k best of the eligible entries, best first, and carry their scores [n] (ties aside)."""
    places = np.searchsorted(np.sort(corpus.ids), picks.ids)
    places = np.argsort(corpus.ids)[places]
    assert (corpus.ids[places] == picks.ids).all()
    assert eligible[places].all(), "a filter was violated"
    assert len(set(places)) == len(places)
    best = np.sort(scores[eligible])[::-1][:k]
    np.testing.assert_allclose(picks.scores, best, atol=TIE)
    np.testing.assert_allclose(scores[places], best, atol=TIE)
