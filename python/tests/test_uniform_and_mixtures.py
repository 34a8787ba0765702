"""Uniform draws, mixtures of draws, seeds, and what is sent back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import negbank
from reference import Corpus, filled

ROWS, DIM, ANCHORS = 200, 8, 12


@pytest.fixture
def bank(client: negbank.Client, name: str) -> negbank.Bank:
    return client.create_bank(name, dim=DIM)


@pytest.fixture
def corpus(bank: negbank.Bank, rng: np.random.Generator) -> Corpus:
    return filled(bank, rng, ROWS)


@pytest.fixture
def anchors(rng: np.random.Generator) -> Any:
    return rng.standard_normal((ANCHORS, DIM)).astype(np.float32)


def test_rows_are_pooled_and_picks_point_into_them(bank: negbank.Bank, corpus: Corpus) -> None:
    negs = bank.sample(ANCHORS, negbank.Uniform(50))
    assert len(set(negs.ids.tolist())) == negs.ids.size <= ROWS
    assert negs.embeddings.shape == (negs.ids.size, DIM)
    assert negs.indices.shape == (ANCHORS, 50)
    dtypes = [str(array.dtype) for array in (negs.indices, negs.scores, negs.log_q, negs.counts)]
    assert dtypes == ["int64", "float32", "float32", "uint32"]
    assert set(negs.indices.ravel().tolist()) == set(range(negs.ids.size)), "a row that no anchor was served"
    entries = bank.fetch(negs.ids)
    for column in ("embeddings", "labels", "has_label", "groups", "has_group", "steps"):
        np.testing.assert_array_equal(getattr(negs, column), getattr(entries, column), err_msg=column)
    assert negs.embeddings[negs.indices].shape == (ANCHORS, 50, DIM)
    assert negs.embeddings.flags.writeable


def test_uniform_draws_are_distinct_and_log_q_is_minus_ln_n(bank: negbank.Bank, corpus: Corpus) -> None:
    labels = corpus.labels[:ANCHORS]
    negs = bank.sample(ANCHORS, negbank.Uniform(30), anchor_labels=labels, exclude_same_label=True)
    n = np.array([(corpus.labels != label).sum() for label in labels])
    assert negs.info.n[0] is not None
    assert negs.info.n[0].tolist() == n.tolist()
    np.testing.assert_allclose(negs.log_q, np.repeat(-np.log(n)[:, None], 30, axis=1), rtol=1e-6)
    assert np.isnan(negs.scores).all(), "there is no embedding to score against"
    for b in range(ANCHORS):
        assert len(set(negs.indices[b].tolist())) == 30
        assert not (negs.labels[negs.indices[b]] == labels[b]).any()


def test_uniform_draws_reach_every_entry_equally(bank: negbank.Bank, corpus: Corpus) -> None:
    draws, k = 4_000, 20
    negs = bank.sample(draws, negbank.Uniform(k), seed=11, columns=["ids"])
    seen = np.bincount(negs.indices.ravel(), minlength=ROWS)
    expected = draws * k / ROWS
    # Without replacement the counts vary by 1 - k/n less than a multinomial's.
    chi2 = float(((seen - expected) ** 2 / expected).sum()) / (1 - k / ROWS)
    assert chi2 < 271.0, "past the 99.95 % point of chi-square with 199 degrees of freedom"


def test_a_mixture_lies_side_by_side_in_the_requests_order(bank: negbank.Bank, corpus: Corpus, anchors: Any) -> None:
    draws = (negbank.Nearest(6), negbank.Uniform(4), negbank.Nearest(5, window=20, choose="uniform"))
    negs = bank.sample(anchors, *draws, seed=3)
    assert negs.indices.shape == negs.scores.shape == negs.log_q.shape == negs.mask.shape == (ANCHORS, 15)
    assert negs.counts.tolist() == [[6, 4, 5]] * ANCHORS
    np.testing.assert_array_equal(negs.ids[negs.indices[:, :6]], _ids(bank.sample(anchors, negbank.Nearest(6))))
    assert np.isnan(negs.log_q[:, :6]).all()
    np.testing.assert_allclose(negs.log_q[:, 6:10], -np.log(ROWS), rtol=1e-6)
    np.testing.assert_allclose(negs.log_q[:, 10:], -np.log(20), rtol=1e-6)
    np.testing.assert_allclose(negs.scores, _scores(negs, anchors), atol=1e-5)

    picks = negs.anchor(2)
    np.testing.assert_array_equal(picks.indices, negs.indices[2])
    np.testing.assert_array_equal(picks.scores, negs.scores[2])
    np.testing.assert_array_equal(picks.log_q, negs.log_q[2])
    np.testing.assert_array_equal(picks.ids, negs.ids[negs.indices[2]])
    assert picks.draws.tolist() == [0] * 6 + [1] * 4 + [2] * 5


def test_a_seed_repeats_a_draw_and_the_answer_tells_the_seed(bank: negbank.Bank, corpus: Corpus, anchors: Any) -> None:
    draws = (negbank.Uniform(20), negbank.Nearest(5, window=50, choose="uniform"))
    first = bank.sample(anchors, *draws)
    again = bank.sample(anchors, *draws, seed=first.info.seed)
    other = bank.sample(anchors, *draws, seed=(first.info.seed + 1) % 2**64)
    np.testing.assert_array_equal(_ids(again), _ids(first))
    assert again.info.seed == first.info.seed
    assert (_ids(other) != _ids(first)).any()
    assert first.info.reproducible
    assert bank.sample(anchors, *draws, seed=2**64 - 1).info.seed == 2**64 - 1


def test_ids_only_sends_no_embeddings(bank: negbank.Bank, corpus: Corpus, anchors: Any) -> None:
    negs = bank.sample(anchors, negbank.Nearest(5), columns=["ids"])
    np.testing.assert_array_equal(_ids(negs), _ids(bank.sample(anchors, negbank.Nearest(5))))
    assert np.isnan(negs.scores).all()
    assert np.isnan(negs.log_q).all()
    for column in ("embeddings", "labels", "has_label", "groups", "has_group", "steps", "ages"):
        with pytest.raises(AttributeError, match="columns ids"):
            getattr(negs, column)


def test_ages_count_from_the_request_step_or_the_banks(bank: negbank.Bank, corpus: Corpus) -> None:
    bank.write(corpus.ids[:50], corpus.embeddings[:50], step=30)
    own, given = (bank.sample(1, negbank.Uniform(ROWS), step=step) for step in (None, 100))
    assert own.info.step == given.info.step == 30
    for negs, now in ((own, 30), (given, 100)):
        rewritten = np.isin(negs.ids, corpus.ids[:50])
        np.testing.assert_array_equal(negs.ages, np.where(rewritten, now - 30, now - 1))


def test_the_answer_tells_the_state_it_was_drawn_from(bank: negbank.Bank, corpus: Corpus) -> None:
    bank.write([1], np.ones((1, DIM)), step=9)
    info = bank.sample(2, negbank.Uniform(3), exclude_ids=[1]).info
    assert (info.sequence_first, info.sequence_last, info.step) == (2, 2, 9)
    assert (info.shortfalls, info.plans) == ({}, ["roster"])
    assert set(info.rejections) <= {"denied"}


@pytest.mark.parametrize(
    ("call", "field"),
    [
        ({"draws": []}, "draws"),
        ({"draws": [negbank.Uniform(0)]}, "draws[0].k"),
        ({"draws": [negbank.Uniform(2), negbank.Nearest(8, window=3)]}, "draws[1].nearest.window"),
        ({"draws": [negbank.Nearest(8, margin=0.1)]}, "draws[0].nearest.rules"),
        ({"draws": [negbank.Nearest(8, choose="worst")]}, "choose"),  # type: ignore[arg-type]
        ({"draws": [16]}, "draws[0]"),
        ({"anchors": 3, "draws": [negbank.Nearest(8)]}, "anchors.embeddings"),
        ({"anchors": None}, "anchors"),
        ({"anchors": -1}, "anchors"),
        ({"anchors": 0}, "anchors"),
        ({"anchors": np.ones((3, DIM + 1))}, "anchors"),
        ({"anchors": np.full((3, DIM), np.nan)}, "anchors.embeddings[0]"),
        ({"anchors": None, "anchor_ids": [12345]}, "anchors.ids[0]"),
        ({"anchor_ids": [1, 2]}, "anchors.ids"),
        ({"anchor_labels": [1]}, "anchors.labels"),
        ({"exclude_same_label": True}, "draws[0].filters.exclude_same_label"),
        ({"positive_ids": [1, 2]}, "positive_ids"),
        ({"positive_ids": [[1], [2]]}, "positive_ids"),
        ({"positive_scores": [0.5, np.inf, 0.5]}, "anchors.positive_scores.values[1]"),
        ({"denied_ids": [[1], [-2], []]}, "denied_ids[1][0]"),
        ({"seed": -1}, "seed"),
        ({"columns": ["vectors"]}, "columns"),
        ({"columns": []}, "columns"),
        ({"columns": "ids"}, "columns"),
    ],
)
def test_a_bad_request_names_the_fault(bank: negbank.Bank, corpus: Corpus, call: dict[str, Any], field: str) -> None:
    whole = {"anchors": np.ones((3, DIM)), "draws": [negbank.Uniform(2)], **call}
    with pytest.raises(negbank.InvalidArgument) as refused:
        bank.sample(whole.pop("anchors"), *whole.pop("draws"), **whole)
    assert field in dict(refused.value.violations)


@pytest.mark.parametrize(
    "bad", [{"k": -1}, {"k": 2.5}, {"k": 4, "skip": 2**32}, {"k": 4, "window": "all"}, {"k": 4, "margin": "x"}]
)
def test_a_bad_draw_is_refused_where_it_is_made(bad: dict[str, Any]) -> None:
    with pytest.raises(negbank.InvalidArgument):
        negbank.Nearest(**bad)


def _ids(negs: negbank.Negatives) -> Any:
    return negs.ids[negs.indices]


def _scores(negs: negbank.Negatives, anchors: Any) -> Any:
    unit = anchors / np.linalg.norm(anchors, axis=1, keepdims=True)
    return np.einsum("bd,bkd->bk", unit, negs.embeddings[negs.indices])
