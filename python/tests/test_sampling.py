"""Draws against a brute-force reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import negbank
from reference import Corpus, assert_best, filled

ROWS, DIM, ANCHORS, K = 300, 16, 24, 10


@pytest.fixture(params=["cosine", "dot", "l2"])
def metric(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def bank(client: negbank.Client, name: str, metric: Any) -> negbank.Bank:
    return client.create_bank(name, dim=DIM, metric=metric)


@pytest.fixture
def corpus(bank: negbank.Bank, rng: np.random.Generator) -> Corpus:
    return filled(bank, rng, ROWS)


@pytest.fixture
def anchors(rng: np.random.Generator) -> Any:
    return rng.standard_normal((ANCHORS, DIM)).astype(np.float32)


def test_the_nearest_are_the_k_best(bank: negbank.Bank, corpus: Corpus, anchors: Any, metric: str) -> None:
    negs = bank.sample(anchors, negbank.Nearest(K))
    scores = corpus.scores(anchors, metric)
    for b in range(ANCHORS):
        assert_best(negs.anchor(b), corpus, scores[b], np.ones(ROWS, dtype=bool), K)
    assert np.isnan(negs.log_q).all(), "the top is deterministic"
    assert negs.counts.tolist() == [[K]] * ANCHORS
    assert negs.mask.all()
    assert negs.info.plans == ["scan"]


def test_label_and_group_of_the_anchor_are_excluded(
    bank: negbank.Bank, corpus: Corpus, anchors: Any, metric: str, rng: np.random.Generator
) -> None:
    labels = rng.integers(-1, 4, ANCHORS)
    groups = rng.integers(0, 40, ANCHORS).astype(np.uint64)
    known = rng.random(ANCHORS) < 0.7
    negs = bank.sample(
        anchors,
        negbank.Nearest(K),
        anchor_labels=np.ma.masked_array(labels, mask=~known),
        anchor_groups=groups,
        exclude_same_label=True,
    )
    scores = corpus.scores(anchors, metric)
    for b in range(ANCHORS):
        eligible = corpus.groups != groups[b]
        if known[b]:
            eligible &= corpus.labels != labels[b]
        assert_best(negs.anchor(b), corpus, scores[b], eligible, K)
        assert negs.info.n[0] is None or negs.info.n[0][b] == eligible.sum()


def test_a_group_may_be_let_in(bank: negbank.Bank, corpus: Corpus, anchors: Any, metric: str) -> None:
    negs = bank.sample(anchors, negbank.Nearest(K), anchor_groups=corpus.groups[:ANCHORS], exclude_same_group=False)
    scores = corpus.scores(anchors, metric)
    for b in range(ANCHORS):
        assert_best(negs.anchor(b), corpus, scores[b], np.ones(ROWS, dtype=bool), K)


@pytest.mark.parametrize(
    ("rules", "keeps"),
    [
        ({"max_positive_fraction": 0.5}, lambda s, p: s <= p - abs(p) * 0.5),
        ({"margin": 0.2}, lambda s, p: s <= p - 0.2),
        ({"margin": 0.0, "within": 0.5}, lambda s, p: (s <= p) & (s > p - 0.5)),
        ({"min_score": -0.1, "max_score": 0.1}, lambda s, p: (s >= -0.1) & (s <= 0.1)),
    ],
)
def test_score_rules_are_relative_to_the_positives(
    bank: negbank.Bank, corpus: Corpus, anchors: Any, metric: str, rules: dict[str, float], keeps: Any
) -> None:
    positives = corpus.ids[: ANCHORS * 2].reshape(ANCHORS, 2)
    negs = bank.sample(anchors, negbank.Nearest(ROWS, **rules), positive_ids=positives)  # type: ignore[arg-type]
    scores = corpus.scores(anchors, metric)
    for b in range(ANCHORS):
        smallest = scores[b, [2 * b, 2 * b + 1]].min()
        eligible = keeps(scores[b], smallest)
        eligible[[2 * b, 2 * b + 1]] = False
        assert_best(negs.anchor(b), corpus, scores[b], eligible, ROWS)


def test_positive_scores_count_as_the_positives_own(
    bank: negbank.Bank, corpus: Corpus, anchors: Any, metric: str, rng: np.random.Generator
) -> None:
    given = rng.uniform(-0.3, 0.6, (ANCHORS, 3)).astype(np.float32)
    ragged = [row[: 1 + b % 3] for b, row in enumerate(given)]
    scores = corpus.scores(anchors, metric)
    cases: list[tuple[Any, Any]] = [
        (given, given.min(axis=1)),
        (given[:, 0], given[:, 0]),
        (ragged, np.array([row.min() for row in ragged])),
    ]
    for positive_scores, smallest in cases:
        negs = bank.sample(anchors, negbank.Nearest(ROWS, margin=0.05), positive_scores=positive_scores)
        for b in range(ANCHORS):
            assert_best(negs.anchor(b), corpus, scores[b], scores[b] <= smallest[b] - np.float32(0.05), ROWS)


def test_stored_anchors_lend_row_label_and_group_and_exclude_themselves(
    bank: negbank.Bank, corpus: Corpus, metric: str
) -> None:
    negs = bank.sample(None, negbank.Nearest(K), anchor_ids=corpus.ids[:ANCHORS], exclude_same_label=True)
    scores = corpus.scores(corpus.embeddings[:ANCHORS], metric)
    for b in range(ANCHORS):
        eligible = (corpus.labels != corpus.labels[b]) & (corpus.groups != corpus.groups[b])
        assert not eligible[b]
        assert_best(negs.anchor(b), corpus, scores[b], eligible, K)


def test_ids_and_labels_are_kept_out_or_in(bank: negbank.Bank, corpus: Corpus, anchors: Any, metric: str) -> None:
    denied = [corpus.ids[b : 5 * b].tolist() for b in range(ANCHORS)]
    excluded = {int(i) for i in corpus.ids[200:220]}
    scores = corpus.scores(anchors, metric)
    common = np.ones(ROWS, dtype=bool)
    common[200:220] = False
    negs = bank.sample(
        anchors, negbank.Nearest(K), denied_ids=denied, exclude_ids=excluded, only_labels={0, 1, 2}, exclude_labels=[2]
    )
    for b in range(ANCHORS):
        eligible = common & np.isin(corpus.labels, [0, 1])
        eligible[b : 5 * b] = False
        assert_best(negs.anchor(b), corpus, scores[b], eligible, K)


def test_skip_and_window_count_ranks(bank: negbank.Bank, corpus: Corpus, anchors: Any, metric: str) -> None:
    top = bank.sample(anchors, negbank.Nearest(40))
    skipped = bank.sample(anchors, negbank.Nearest(K, skip=7))
    np.testing.assert_array_equal(skipped.ids[skipped.indices], top.ids[top.indices[:, 7 : 7 + K]])

    chosen = bank.sample(anchors, negbank.Nearest(K, skip=3, window=30, choose="uniform"), seed=5)
    np.testing.assert_allclose(chosen.log_q, -np.log(30), rtol=1e-6)
    window = top.ids[top.indices[:, 3:33]]
    picked = chosen.ids[chosen.indices]
    assert all(np.isin(picked[b], window[b]).all() and len(set(picked[b])) == K for b in range(ANCHORS))
    assert not np.isin(picked, top.ids[top.indices[:, 3 : 3 + K]]).all(), "the window's top was taken, not a random part"


def test_candidates_are_cut_before_the_score_rules(bank: negbank.Bank, corpus: Corpus, anchors: Any, metric: str) -> None:
    scores = corpus.scores(anchors, metric)
    ceiling = float(np.quantile(scores, 0.95))
    negs = bank.sample(anchors, negbank.Nearest(K, candidates=30, max_score=ceiling))
    for b in range(ANCHORS):
        raw_top = np.zeros(ROWS, dtype=bool)
        raw_top[np.argsort(-scores[b])[:30]] = True
        assert_best(negs.anchor(b), corpus, scores[b], raw_top & (scores[b] <= np.float32(ceiling)), K)
