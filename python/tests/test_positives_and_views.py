"""Positives on request, the log-probability of supplied ones, and several views of an anchor, against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import negbank
from reference import Corpus, filled

ROWS, DIM, ANCHORS = 200, 6, 8


@pytest.fixture
def bank(client: negbank.Client, name: str) -> negbank.Bank:
    return client.create_bank(name, dim=DIM)


@pytest.fixture
def corpus(bank: negbank.Bank, rng: np.random.Generator) -> Corpus:
    return filled(bank, rng, ROWS, groups=10)


@pytest.fixture
def anchors(rng: np.random.Generator) -> Any:
    return rng.standard_normal((ANCHORS, DIM)).astype(np.float32)


def test_positives_are_drawn_by_label_or_by_group(bank: negbank.Bank, corpus: Corpus, anchors: Any) -> None:
    labels, groups = np.arange(ANCHORS) % 4, np.arange(ANCHORS)
    own: dict[str, Any] = {"anchor_labels": labels, "anchor_groups": groups, "exclude_same_group": False}
    negs = bank.sample(anchors, negbank.Uniform(5), negbank.Nearest(1), only_same_label=True, **own)
    assert (negs.labels[negs.indices] == labels[:, None]).all()
    scores = corpus.scores(anchors, "cosine")
    nearest = np.where(corpus.labels == labels[:, None], scores, -np.inf).argmax(axis=1)
    np.testing.assert_array_equal(negs.ids[negs.indices[:, 5]], corpus.ids[nearest])
    both = bank.sample(
        anchors,
        negbank.Uniform(3, filters=negbank.Filters(only_same_group=True)),
        negbank.Uniform(3, filters=negbank.Filters(exclude_same_label=True)),
        anchor_labels=labels,
        anchor_groups=groups,
    )
    assert (both.groups[both.indices[:, :3]] == groups[:, None]).all()
    assert not (both.groups[both.indices[:, 3:]] == groups[:, None]).any()
    with pytest.raises(negbank.InvalidArgument, match=r"anchors.labels\[1\]: the anchor has no label"):
        bank.sample(anchors, negbank.Uniform(1), only_same_label=True, anchor_labels=[0, None] * 4)


@pytest.mark.parametrize("combine", ["max", "mean"])
def test_views_are_combined(bank: negbank.Bank, corpus: Corpus, rng: np.random.Generator, combine: Any) -> None:
    views = rng.standard_normal((ANCHORS, 3, DIM)).astype(np.float32)
    of_each = corpus.scores(views.reshape(-1, DIM), "cosine").reshape(ANCHORS, 3, ROWS)
    scores = of_each.max(axis=1) if combine == "max" else of_each.mean(axis=1)
    draws = (negbank.Nearest(7, max_score=0.6), negbank.Softmax(5, beta=3.0), negbank.Band(5, 0.9, 1.0))
    negs = bank.sample(views, *draws, combine=combine, seed=2)
    best = np.sort(np.where(scores <= np.float32(0.6), scores, -np.inf), axis=1)[:, ::-1][:, :7]
    np.testing.assert_allclose(negs.scores[:, :7], best, atol=1e-5)
    places = np.argsort(corpus.ids)[np.searchsorted(np.sort(corpus.ids), negs.ids[negs.indices])]
    np.testing.assert_allclose(negs.scores, np.take_along_axis(scores, places, axis=1), atol=1e-5)
    partition = np.log(np.exp(3.0 * scores).sum(axis=1))
    assert negs.info.log_partition[1] is not None
    np.testing.assert_allclose(negs.info.log_partition[1], partition, rtol=1e-5)
    one = bank.sample(views[:, :1], *draws, combine=combine, seed=2)
    np.testing.assert_allclose(one.scores, bank.sample(views[:, 0], *draws, seed=2).scores, atol=1e-6)


def test_supplied_positives_have_the_log_q_that_they_would_be_drawn_by(
    bank: negbank.Bank, corpus: Corpus, anchors: Any
) -> None:
    rows = np.array([[b, b + 50] for b in range(ANCHORS)])
    draws = (
        negbank.Uniform(4),
        negbank.Softmax(4, beta=2.0),
        negbank.Band(4, 0.5, 1.0),
        negbank.Nearest(4, window=30, choose="uniform"),
        negbank.Nearest(4),
        negbank.Uniform(4, scope="shared"),
    )
    negs = bank.sample(anchors, *draws, positive_ids=corpus.ids[rows], positive_log_q=True, seed=1, pad=True)
    scores = corpus.scores(anchors, "cosine")
    others = ROWS - 2
    told = negs.positive_log_q
    np.testing.assert_allclose(told[0], np.full((ANCHORS, 2), -np.log(others + 1)), rtol=1e-6)
    np.testing.assert_allclose(told[5], told[0], rtol=1e-6)
    assert np.isnan(told[4]).all()
    for b in range(ANCHORS):
        for p, row in enumerate(rows[b]):
            among = np.append(np.delete(scores[b], rows[b]), scores[b, row])
            exps = np.exp(2.0 * among)
            np.testing.assert_allclose(told[1][b, p], np.log(exps[-1] / exps.sum()), atol=1e-4)
            rank = (among < among[-1]).sum()
            # Of 199 ranks those from 99 on.
            expected = -np.log(100) if rank >= 99 else -np.inf
            np.testing.assert_allclose(told[2][b, p], expected, rtol=1e-6)
            expected = -np.log(30) if others - rank < 30 else -np.inf
            np.testing.assert_allclose(told[3][b, p], expected, rtol=1e-6)
    ragged = bank.sample(
        anchors, negbank.Uniform(4), positive_ids=[corpus.ids[:b] for b in range(ANCHORS)], positive_log_q=True
    )
    assert np.isfinite(ragged.positive_log_q[0]).sum(axis=1).tolist() == list(range(ANCHORS))
    with pytest.raises(negbank.InvalidArgument, match="needs anchors.positive_ids"):
        bank.sample(anchors, negbank.Uniform(4), positive_log_q=True)
    assert np.isnan(bank.sample(anchors, negbank.Uniform(4), positive_ids=corpus.ids[rows]).positive_log_q[0]).all()


def test_a_view_of_another_width_is_named(bank: negbank.Bank) -> None:
    for shape in [(2, 3, DIM + 1), (2, 0, DIM), (2, 2, 2, DIM)]:
        with pytest.raises(negbank.InvalidArgument, match="views"):
            bank.sample(np.ones(shape), negbank.Nearest(1))
    with pytest.raises(negbank.InvalidArgument, match="combine"):
        bank.sample(np.ones((2, DIM)), negbank.Nearest(1), combine="sum")  # type: ignore[arg-type]
