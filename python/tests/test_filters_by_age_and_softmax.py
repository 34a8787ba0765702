"""Filters by step and label presence, draws with replacement, and softmax over a window, against numpy."""

from __future__ import annotations

import numpy as np
import pytest

import negbank
from server_process import ServerProcess

STEPS = 5


def _bank(server: ServerProcess, name: str) -> negbank.Bank:
    bank = negbank.connect(server.address).create_bank(name, dim=8)
    rng = np.random.default_rng(0)
    for step in range(STEPS):
        labels = [None, 0, 1, 2] * 5
        bank.write(np.arange(20) + 20 * step, rng.normal(size=(20, 8)), labels=labels, step=step)
    return bank


def test_age_and_missing_labels_filter(server: ServerProcess, name: str) -> None:
    bank = _bank(server, name)
    negs = bank.sample(3, negbank.Uniform(100), step=STEPS, max_age=2, exclude_unlabelled=True, pad=True)
    assert set(negs.steps) == {3, 4}
    assert negs.has_label.all()
    assert negs.info.n[0] is not None
    np.testing.assert_array_equal(negs.info.n[0], [30, 30, 30])
    assert (negs.ages <= 2).all()
    assert set(bank.sample(1, negbank.Uniform(100), min_step=4, pad=True).steps) == {4}
    with pytest.raises(negbank.InvalidArgument, match="needs the request's step"):
        bank.sample(1, negbank.Uniform(1), max_age=2)
    with pytest.raises(negbank.InvalidArgument, match="only_labels: is empty"):
        bank.sample(1, negbank.Uniform(1), only_labels=[])


def test_uniform_with_replacement_fills_k_from_fewer(server: ServerProcess, name: str) -> None:
    negs = _bank(server, name).sample(2, negbank.Uniform(500, with_replacement=True), only_labels=[1])
    assert negs.indices.shape == (2, 500)
    np.testing.assert_allclose(negs.log_q, -np.log(25), rtol=1e-6)


def test_softmax_states_its_probabilities(server: ServerProcess, name: str) -> None:
    bank = _bank(server, name)
    anchors = np.random.default_rng(1).normal(size=(4, 8)).astype(np.float32)
    window = bank.sample(anchors, negbank.Nearest(40))
    beta = 3.0
    partition = np.log(np.exp(beta * window.scores.astype(np.float64)).sum(axis=1))
    drawn = bank.sample(anchors, negbank.Nearest(60, window=40, choose="softmax", beta=beta), seed=1)
    assert drawn.info.log_partition[0] is not None
    np.testing.assert_allclose(drawn.info.log_partition[0], partition, rtol=1e-5)
    np.testing.assert_allclose(drawn.log_q, beta * drawn.scores - partition[:, None], atol=1e-4)
    assert drawn.info.kappa == [None]
    without = bank.sample(anchors, negbank.Nearest(10, window=40, choose="softmax", beta=beta, without_replacement=True))
    assert without.info.kappa[0] is not None
    assert all(len(set(row)) == 10 for row in without.indices.tolist())
    with pytest.raises(negbank.InvalidArgument, match="beta"):
        negbank.Nearest(3, choose="softmax")
    with pytest.raises(negbank.InvalidArgument, match="beta"):
        negbank.Nearest(3, beta=1.0)
