"""What of an answer is sent, and how: shared sets, rows by anchor, halves, mixtures, filters of one draw, exact counts."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

import negbank
from reference import Corpus, filled

ROWS, DIM, ANCHORS, K = 300, 16, 24, 10


@pytest.fixture
def bank(client: negbank.Client, name: str) -> negbank.Bank:
    return client.create_bank(name, dim=DIM)


@pytest.fixture
def corpus(bank: negbank.Bank, rng: np.random.Generator) -> Corpus:
    return filled(bank, rng, ROWS)


@pytest.fixture
def anchors(rng: np.random.Generator) -> Any:
    return rng.standard_normal((ANCHORS, DIM)).astype(np.float32)


def test_a_shared_set_is_one_for_all_and_masked_for_each(bank: negbank.Bank, corpus: Corpus, anchors: Any) -> None:
    labels = np.arange(ANCHORS) % 4
    negs = bank.sample(
        anchors,
        negbank.Uniform(40, scope="shared"),
        anchor_labels=labels,
        exclude_same_label=True,
        exclude_labels=[2],
        seed=3,
    )
    assert negs.indices.shape == negs.mask.shape == negs.log_q.shape == (ANCHORS, 40)
    assert (negs.indices == negs.indices[0]).all()
    assert len(negs.ids) == 40
    drawn = np.argsort(corpus.ids)[np.searchsorted(np.sort(corpus.ids), negs.ids[negs.indices[0]])]
    assert not (corpus.labels[drawn] == 2).any(), "the set passes the filters that don't depend on the anchor"
    expected = corpus.labels[drawn] != labels[:, None]
    np.testing.assert_array_equal(negs.mask, expected)
    assert negs.info.n_shared == [int((corpus.labels != 2).sum())]
    n = np.array([((corpus.labels != 2) & (corpus.labels != label)).sum() for label in labels])
    np.testing.assert_allclose(negs.log_q[negs.mask], np.repeat(-np.log(n), negs.mask.sum(axis=1)), rtol=1e-6)
    assert np.isnan(negs.log_q[~negs.mask]).all()
    assert negs.counts[:, 0].tolist() == expected.sum(axis=1).tolist()
    for b in range(ANCHORS):
        picks = negs.anchor(b)
        np.testing.assert_array_equal(picks.ids, negs.ids[negs.indices[b][negs.mask[b]]])
        assert np.isfinite(picks.log_q).all()


def test_a_shared_set_is_scored_where_that_is_asked_for(bank: negbank.Bank, corpus: Corpus, anchors: Any) -> None:
    shared = negbank.Uniform(20, scope="shared")
    assert np.isnan(bank.sample(anchors, shared, columns=["ids", "log_q"]).scores).all()
    negs = bank.sample(anchors, shared, columns=["ids", "embeddings", "scores"], seed=1)
    unit = anchors / np.linalg.norm(anchors, axis=1, keepdims=True)
    np.testing.assert_allclose(negs.scores, unit @ negs.embeddings[negs.indices[0]].T, atol=1e-5)


def test_a_shared_set_that_is_short_is_no_full_array(bank: negbank.Bank, corpus: Corpus) -> None:
    negs = bank.sample(2, negbank.Uniform(ROWS + 5, scope="shared"))
    with pytest.raises(negbank.ShortAnswer):
        _ = negs.indices
    padded = bank.sample(2, negbank.Uniform(ROWS + 5, scope="shared"), pad=True)
    assert (padded.indices[:, ROWS:] == -1).all()
    assert padded.mask.sum(axis=1).tolist() == [ROWS, ROWS]


@pytest.mark.parametrize("draws", [(negbank.Nearest(K),), (negbank.Nearest(K), negbank.Uniform(5))])
def test_by_anchor_the_rows_are_the_picks(bank: negbank.Bank, corpus: Corpus, anchors: Any, draws: Any) -> None:
    pooled = bank.sample(anchors, *draws, seed=9)
    negs = bank.sample(anchors, *draws, seed=9, layout="per_anchor")
    k = sum(draw.k for draw in draws)
    assert negs.embeddings.shape == (ANCHORS, k, DIM)
    np.testing.assert_array_equal(negs.embeddings, pooled.embeddings[pooled.indices])
    for column in ("ids", "labels", "has_label", "groups", "has_group", "steps", "weights", "ages"):
        np.testing.assert_array_equal(getattr(negs, column), getattr(pooled, column)[pooled.indices])
    np.testing.assert_array_equal(negs.scores, pooled.scores)
    np.testing.assert_array_equal(negs.anchor(3).ids, pooled.anchor(3).ids)
    with pytest.raises(AttributeError, match="per-anchor layout has no indices"):
        _ = negs.indices


def test_by_anchor_a_shared_set_is_seen_by_all_and_short_places_are_zeros(
    bank: negbank.Bank, corpus: Corpus, anchors: Any
) -> None:
    negs = bank.sample(anchors, negbank.Uniform(7, scope="shared"), layout="per_anchor", seed=2)
    assert negs.embeddings.shape == (ANCHORS, 7, DIM)
    assert (negs.ids == negs.ids[0]).all()
    few = bank.sample(anchors, negbank.Nearest(K, min_score=0.5), layout="per_anchor", pad=True)
    assert not few.mask.all()
    assert not few.embeddings[~few.mask].any()
    assert np.linalg.norm(few.embeddings[few.mask], axis=1) == pytest.approx(1.0, abs=1e-5)


def test_halves_round_what_is_stored(bank: negbank.Bank, corpus: Corpus, anchors: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ml_dtypes", raising=False)
    whole = bank.sample(anchors, negbank.Nearest(K)).embeddings
    half = bank.sample(anchors, negbank.Nearest(K), dtype="float16").embeddings
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half, whole.astype(np.float16))
    bits = bank.sample(anchors, negbank.Nearest(K), dtype="bfloat16").embeddings
    assert bits.dtype == np.uint16
    np.testing.assert_allclose((bits.astype(np.uint32) << 16).view(np.float32), whole, rtol=2**-8)
    assert bank.fetch(corpus.ids[:3], dtype="float16").embeddings.dtype == np.float16
    with pytest.raises(negbank.InvalidArgument, match="float8"):
        bank.sample(anchors, negbank.Nearest(K), dtype="float8")  # type: ignore[arg-type]


def test_bfloat16_is_ml_dtypes_own_where_that_is_imported(bank: negbank.Bank, corpus: Corpus, anchors: Any) -> None:
    import ml_dtypes

    got = bank.sample(anchors, negbank.Nearest(K), dtype="bfloat16").embeddings
    assert got.dtype == ml_dtypes.bfloat16
    again = bank.sample(got[:5], negbank.Nearest(1))
    np.testing.assert_allclose(again.scores, 1.0, atol=1e-2)


def test_answers_lie_aligned_in_memory_of_their_own(bank: negbank.Bank, corpus: Corpus, anchors: Any) -> None:
    negs = bank.sample(anchors, negbank.Uniform(K))
    for array in (negs.embeddings, negs.ids, negs.labels, negs.steps, negs.weights, negs.scores):
        assert array.flags.aligned
        assert array.flags.writeable
        assert array.flags.c_contiguous


def test_a_draw_has_filters_of_its_own(bank: negbank.Bank, corpus: Corpus, anchors: Any) -> None:
    only = negbank.Filters(only_labels=[1])
    negs = bank.sample(anchors, negbank.Uniform(8), negbank.Nearest(4, filters=only), only_labels=[0])
    drawn = negs.labels[negs.indices]
    assert (drawn[:, :8] == 0).all()
    assert (drawn[:, 8:] == 1).all()
    with pytest.raises(negbank.InvalidArgument, match="only_labels"):
        bank.sample(anchors, negbank.Uniform(8, filters=negbank.Filters(only_labels=[])))


def test_exact_counts_are_of_filters_and_then_of_score_rules(bank: negbank.Bank, corpus: Corpus, anchors: Any) -> None:
    rules: Any = {"min_score": -0.1, "max_score": 0.2}
    bare = bank.sample(anchors, negbank.Nearest(3, **rules), exclude_labels=[1])
    assert bare.info.n == bare.info.n_scored == [None]
    negs = bank.sample(anchors, negbank.Nearest(3, **rules, count_exact=True), exclude_labels=[1])
    scores = corpus.scores(anchors, "cosine")
    eligible = corpus.labels != 1
    passing = eligible & (scores >= np.float32(-0.1)) & (scores <= np.float32(0.2))
    n, n_scored = negs.info.n[0], negs.info.n_scored[0]
    assert n is not None
    assert n_scored is not None
    assert n.tolist() == [eligible.sum()] * ANCHORS
    np.testing.assert_allclose(n_scored, passing.sum(axis=1), atol=1)


def test_the_mixtures_log_q_is_the_weighted_sum(bank: negbank.Bank, corpus: Corpus, anchors: Any) -> None:
    draws = (negbank.Uniform(6), negbank.Nearest(2, window=50, choose="softmax", beta=4.0))
    negs = bank.sample(anchors, *draws, log_q_mix=True, seed=4)
    assert np.isfinite(negs.log_q_mix).all()
    q = np.exp(negs.log_q_mix)
    assert (q >= 6 / 8 / ROWS * 0.999).all(), "every entry has at least the uniform part"
    hard = q[:, 6:]
    np.testing.assert_allclose(hard, 6 / 8 / ROWS + 2 / 8 * np.exp(negs.log_q[:, 6:]), rtol=1e-4)
    assert np.isnan(bank.sample(anchors, *draws).log_q_mix).all()
    with pytest.raises(negbank.InvalidArgument):
        bank.sample(anchors, negbank.Nearest(3), log_q_mix=True)


def test_a_draw_may_bring_its_write_along(bank: negbank.Bank, corpus: Corpus, anchors: Any) -> None:
    before = bank.info().sequence
    ids = np.arange(ANCHORS, dtype=np.uint64)
    rows = negbank.Write(ids=ids, embeddings=anchors, step=9, weights=np.full(ANCHORS, 2.0))
    negs = bank.sample(anchors, negbank.Nearest(1), write=rows)
    assert isinstance(negs.written, negbank.Written)
    assert negs.written.inserted == ANCHORS
    assert negs.written.sequence == before + 1
    assert not np.isin(negs.ids, ids).any(), "drawn before it was written"
    seen = bank.sample(anchors, negbank.Nearest(1), at_least=negs.written.position)
    np.testing.assert_array_equal(seen.ids[seen.indices[:, 0]], ids)
    assert (seen.weights == 2.0).all()
    with pytest.raises(negbank.InvalidArgument):
        bank.sample(anchors, negbank.Nearest(1), write=negbank.Write(ids=ids, embeddings=anchors * np.nan))
    with pytest.raises(negbank.InvalidArgument, match="write"):
        bank.sample(anchors, negbank.Nearest(1), write=(ids, anchors))  # type: ignore[arg-type]
    assert bank.info().sequence == before + 1
