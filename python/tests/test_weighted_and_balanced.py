"""Draws by weight and by label against their formulas in numpy: per anchor and shared, with replacement and without."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import negbank

ROWS, DIM, ANCHORS = 200, 4, 6


@pytest.fixture
def entries(rng: np.random.Generator) -> Any:
    labels = [None if i % 11 == 0 else i % 5 for i in range(ROWS)]
    weights = np.where(np.arange(ROWS) % 10 == 3, 0, rng.integers(1, 1_000, ROWS)).astype(np.float32)
    return labels, weights


@pytest.fixture
def bank(client: negbank.Client, name: str, entries: Any, rng: np.random.Generator) -> negbank.Bank:
    labels, weights = entries
    bank = client.create_bank(name, dim=DIM)
    bank.write(np.arange(ROWS), rng.normal(size=(ROWS, DIM)), labels=labels, weights=weights)
    return bank


def eligible_of(labels: Any) -> Any:
    """bool [B, ROWS]: with anchor b of label b mod 5, its own excluded, and labels 1 too."""
    known = np.array([-1 if label is None else label for label in labels])
    own = np.arange(ANCHORS)[:, None] % 5
    return (known != own) & (known != 1)


@pytest.mark.parametrize("scope", ["per_anchor", "shared"])
def test_weighted_log_q_is_the_power_over_the_sum_of_the_eligible(bank: negbank.Bank, entries: Any, scope: Any) -> None:
    labels, weights = entries
    draw = negbank.Weighted(30, alpha=0.75, scope=scope)
    negs = bank.sample(ANCHORS, draw, anchor_labels=np.arange(ANCHORS) % 5, exclude_same_label=True, exclude_labels=[1], seed=1)
    power = np.where(weights > 0, weights.astype(np.float64) ** 0.75, 0)
    eligible = eligible_of(labels)
    expected = np.log(power[negs.ids[negs.indices].astype(int)]) - np.log((power * eligible).sum(axis=1))[:, None]
    assert negs.mask.all() == (scope == "per_anchor")
    np.testing.assert_allclose(negs.log_q[negs.mask], expected[negs.mask], atol=1e-5)
    assert np.isnan(negs.log_q[~negs.mask]).all()
    assert (weights[negs.ids.astype(int)] > 0).all()
    np.testing.assert_array_equal(negs.info.n[0], eligible.sum(axis=1))
    assert negs.info.kappa == [None]


@pytest.mark.parametrize("scope", ["per_anchor", "shared"])
def test_balanced_log_q_is_of_the_label_and_then_of_its_entry(bank: negbank.Bank, entries: Any, scope: Any) -> None:
    labels, _ = entries
    draw = negbank.Balanced(30, scope=scope)
    negs = bank.sample(ANCHORS, draw, anchor_labels=np.arange(ANCHORS) % 5, exclude_same_label=True, exclude_labels=[1], seed=1)
    known = np.array([-1 if label is None else label for label in labels])
    eligible = eligible_of(labels) & (known >= 0)
    sizes = np.array([[(known[row] == label).sum() for label in range(5)] for row in eligible])
    of_pick = known[negs.ids[negs.indices].astype(int)]
    assert (of_pick >= 0).all(), "entries without a label are of no class"
    expected = -np.log((sizes > 0).sum(axis=1))[:, None] - np.log(np.take_along_axis(sizes, of_pick, axis=1) + 1e-30)
    np.testing.assert_allclose(negs.log_q[negs.mask], expected[negs.mask], atol=1e-5)
    np.testing.assert_array_equal(negs.info.n[0], eligible.sum(axis=1))


@pytest.mark.parametrize(
    "draw", [negbank.Weighted(25, alpha=0.5, without_replacement=True), negbank.Balanced(25, without_replacement=True)]
)
def test_without_replacement_kappa_makes_sums_unbiased(bank: negbank.Bank, entries: Any, draw: Any) -> None:
    labels, weights = entries
    anchors = 3_000
    negs = bank.sample(anchors, draw, seed=3, columns=["ids", "log_q"])
    ids = negs.ids[negs.indices].astype(int)
    assert (np.sort(ids, axis=1)[:, 1:] != np.sort(ids, axis=1)[:, :-1]).all(), "an entry twice"
    assert negs.info.kappa[0] is not None
    inclusion = -np.expm1(-np.exp(negs.log_q.astype(np.float64) - negs.info.kappa[0][:, None]))
    values = np.sin(np.arange(ROWS)) + 2
    estimates = (values[ids] / inclusion).sum(axis=1)
    weighted = isinstance(draw, negbank.Weighted)
    drawable = weights > 0 if weighted else np.array([label is not None for label in labels])
    error = estimates.std() / np.sqrt(anchors)
    assert abs(estimates.mean() - values[drawable].sum()) < 4 * error
    everything = bank.sample(1, type(draw)(ROWS, without_replacement=True), pad=True)
    assert everything.counts[0, 0] == drawable.sum()
    assert everything.info.kappa[0] is not None
    assert everything.info.kappa[0].tolist() == [-np.inf]
    assert everything.info.shortfalls == (
        {"weight": int((~drawable).sum())} if weighted else {"too_few": int((~drawable).sum())}
    )


def test_a_mixture_has_the_probability_of_all_its_draws(bank: negbank.Bank, entries: Any) -> None:
    labels, weights = entries
    draws = (negbank.Uniform(10), negbank.Weighted(20), negbank.Balanced(10))
    negs = bank.sample(2, *draws, log_q_mix=True, seed=5)
    ids = negs.ids[negs.indices].astype(int)
    known = np.array([-1 if label is None else label for label in labels])
    sizes = np.bincount(known[known >= 0])
    balanced = np.where(known >= 0, 1 / (5 * sizes[known]), 0)
    q = 0.25 / ROWS + 0.5 * weights / weights.sum(dtype=np.float64) + 0.25 * balanced
    np.testing.assert_allclose(negs.log_q_mix, np.log(q[ids]), atol=1e-5)


@pytest.mark.parametrize("bad", [{"k": 3, "alpha": "steep"}, {"k": -1}, {"k": 3, "scope": "all"}])
def test_a_bad_weighted_draw_is_refused_where_it_is_made(bad: dict[str, Any]) -> None:
    with pytest.raises(negbank.InvalidArgument):
        negbank.Weighted(**bad)


def test_an_exponent_out_of_range_is_named(bank: negbank.Bank) -> None:
    with pytest.raises(negbank.InvalidArgument, match=r"draws\[0\].weighted.alpha: 5 is outside \[-4, 4\]"):
        bank.sample(1, negbank.Weighted(3, alpha=5))
