"""Draws that score the whole bank, softmax and bands, against numpy; and the gradient that a softmax draw estimates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import negbank
from reference import Corpus, filled

ROWS, DIM, ANCHORS, K = 300, 8, 12, 20


@pytest.fixture(params=["cosine", "dot", "l2"])
def metric(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def bank(client: negbank.Client, name: str, metric: Any) -> negbank.Bank:
    return client.create_bank(name, dim=DIM, metric=metric)


@pytest.fixture
def corpus(bank: negbank.Bank, rng: np.random.Generator) -> Corpus:
    return filled(bank, rng, ROWS)


@pytest.fixture
def anchors(rng: np.random.Generator) -> Any:
    return rng.standard_normal((ANCHORS, DIM)).astype(np.float32)


def log_sum(logits: Any) -> Any:
    top = logits.max(axis=1, keepdims=True)
    return (top + np.log(np.exp(logits - top).sum(axis=1, keepdims=True)))[:, 0]


def places(corpus: Corpus, negs: negbank.Negatives) -> Any:
    """[B, K] rows of the corpus."""
    return np.argsort(corpus.ids)[np.searchsorted(np.sort(corpus.ids), negs.ids[negs.indices])]


@pytest.mark.parametrize("without_replacement", [False, True])
def test_softmax_is_over_all_that_filters_and_rules_leave(
    bank: negbank.Bank, corpus: Corpus, anchors: Any, metric: str, without_replacement: bool
) -> None:
    labels, beta = np.arange(ANCHORS) % 4, 1.5
    scores = corpus.scores(anchors, metric)
    ceiling = float(np.quantile(scores, 0.8))
    draw = negbank.Softmax(K, beta=beta, without_replacement=without_replacement, max_score=ceiling)
    negs = bank.sample(anchors, draw, anchor_labels=labels, exclude_same_label=True, seed=4)
    eligible = corpus.labels != labels[:, None]
    kept = eligible & (scores <= np.float32(ceiling))
    partition = log_sum(np.where(kept, beta * scores, -np.inf))
    info = negs.info
    assert info.n[0] is not None
    assert info.n_scored[0] is not None
    assert info.log_partition[0] is not None
    np.testing.assert_array_equal(info.n[0], eligible.sum(axis=1))
    np.testing.assert_array_equal(info.n_scored[0], kept.sum(axis=1))
    np.testing.assert_allclose(info.log_partition[0], partition, rtol=1e-5, atol=1e-5)
    at = places(corpus, negs)
    assert np.take_along_axis(kept, at, axis=1).all()
    np.testing.assert_allclose(negs.log_q, beta * np.take_along_axis(scores, at, axis=1) - partition[:, None], atol=1e-4)
    assert (info.kappa[0] is None) != without_replacement
    assert info.plans == ["scan"]
    if without_replacement:
        assert all(len(set(row)) == K for row in at.tolist())
        everything = bank.sample(anchors, negbank.Softmax(ROWS, beta=beta, without_replacement=True), pad=True)
        assert everything.counts.tolist() == [[ROWS]] * ANCHORS
        assert everything.info.kappa[0] is not None
        assert np.isneginf(everything.info.kappa[0]).all()


@pytest.mark.parametrize(("lo", "hi"), [(0.0, 1.0), (0.5, 0.6), (0.9, 1.0), (0.29, 0.29), (0.995, 1.0)])
def test_a_band_holds_the_ranks_of_its_formula(
    bank: negbank.Bank, corpus: Corpus, anchors: Any, metric: str, lo: float, hi: float
) -> None:
    scores = corpus.scores(anchors, metric)
    negs = bank.sample(anchors, negbank.Band(ROWS, lo, hi, with_replacement=True), seed=5)
    first = int(np.floor(lo * ROWS))
    end = max(first + 1, int(np.ceil(hi * ROWS)))
    ranks = np.argsort(np.argsort(scores, axis=1), axis=1)
    assert negs.info.n_band[0] is not None
    np.testing.assert_array_equal(negs.info.n_band[0], np.full(ANCHORS, end - first))
    np.testing.assert_allclose(negs.log_q, -np.log(end - first), rtol=1e-6, atol=1e-7)
    picked = np.take_along_axis(ranks, places(corpus, negs), axis=1)
    assert picked.min() == first
    assert picked.max() == end - 1
    different = bank.sample(anchors, negbank.Band(ROWS, lo, hi), seed=5, pad=True)
    assert different.counts[:, 0].tolist() == [end - first] * ANCHORS
    if end - first < ROWS:
        assert different.info.shortfalls == {"window": (ROWS - (end - first)) * ANCHORS}


def test_one_correction_serves_a_mixture_with_softmax_and_band(
    bank: negbank.Bank, corpus: Corpus, anchors: Any, metric: str
) -> None:
    scores = corpus.scores(anchors, metric)
    draws = (negbank.Softmax(10, beta=1.0), negbank.Band(5, 0.8, 0.9), negbank.Uniform(5))
    negs = bank.sample(anchors, *draws, log_q_mix=True, seed=6)
    ranks = np.argsort(np.argsort(scores, axis=1), axis=1)
    band = (ranks >= 240) & (ranks < 270)
    q = 0.5 * np.exp(scores - log_sum(scores)[:, None]) + 0.25 * band / 30 + 0.25 / ROWS
    expected = np.log(np.take_along_axis(q, places(corpus, negs), axis=1))
    np.testing.assert_allclose(negs.log_q_mix, expected, atol=1e-4)


@pytest.mark.parametrize("metric", ["dot"], indirect=True)
def test_the_mean_of_what_is_drawn_is_the_gradient_of_the_log_partition(
    bank: negbank.Bank, corpus: Corpus, anchors: Any
) -> None:
    """NegativeCache (Lindgren et al. 2021): entries drawn by exp(beta s) make an unbiased gradient of ln sum exp(beta s)."""
    beta, draws, k = np.float64(0.8), 4_000, 8
    anchor = anchors[0].astype(np.float64)
    negs = bank.sample(np.repeat(anchors[:1], draws, axis=0), negbank.Softmax(k, beta=float(beta)), seed=7)
    drawn = negs.embeddings[negs.indices].astype(np.float64)
    estimates = beta * drawn.mean(axis=1)

    rows = corpus.embeddings.astype(np.float64)
    logits = beta * rows @ anchor
    exact = beta * np.exp(logits - log_sum(logits[None])[0]) @ rows
    error = estimates.std(axis=0) / np.sqrt(draws)
    assert (np.abs(estimates.mean(axis=0) - exact) < 4.5 * error).all(), (estimates.mean(axis=0), exact, error)

    # The encoder has moved on since: log_q carries the old draws over to the new partition and its gradient.
    moved = anchor + 0.1
    new = np.exp(beta * rows @ moved)
    weights = np.exp(beta * drawn @ moved - negs.log_q) / k
    for got, expected in [
        (weights.sum(axis=1, keepdims=True), np.array([new.sum()])),
        (beta * np.einsum("bk,bkd->bd", weights, drawn), beta * new @ rows),
    ]:
        error = got.std(axis=0) / np.sqrt(draws)
        assert (np.abs(got.mean(axis=0) - expected) < 4.5 * error).all(), (got.mean(axis=0), expected, error)
        assert (error < 0.05 * np.abs(new.sum())).all()


@pytest.mark.parametrize("bad", [{"beta": "hot"}, {"beta": 1.0, "margin": "x"}, {"k": 2.5, "beta": 1.0}])
def test_a_bad_softmax_is_refused_where_it_is_made(bad: dict[str, Any]) -> None:
    with pytest.raises(negbank.InvalidArgument):
        negbank.Softmax(**{"k": 3, **bad})


def test_a_band_that_is_none_is_named(client: negbank.Client, name: str) -> None:
    bank = client.create_bank(name, dim=2)
    with pytest.raises(negbank.InvalidArgument, match=r"draws\[0\].band.hi: 0.2 is outside \[lo, 1\] with lo = 0.5"):
        bank.sample(np.ones((1, 2)), negbank.Band(3, 0.5, 0.2))
