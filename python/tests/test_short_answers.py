"""Anchors for which there are fewer negatives than asked for."""

from __future__ import annotations

import numpy as np
import pytest

import negbank

K = 4


@pytest.fixture
def bank(client: negbank.Client, name: str) -> negbank.Bank:
    """Six entries along one line, half of label 0 and half of label 1; one of label 2."""
    bank = client.create_bank(name, dim=2, metric="dot")
    bank.write(range(7), [[x, 0.0] for x in range(7)], labels=[0, 0, 0, 1, 1, 1, 2])
    return bank


def ragged(bank: negbank.Bank, *, pad: bool) -> negbank.Negatives:
    """Four of label 1 or 2 for the first anchor, three of label 2 or 0 less two denied for the second."""
    return bank.sample(
        [[1.0, 0.0], [1.0, 0.0]],
        negbank.Nearest(K),
        negbank.Uniform(2),
        anchor_labels=[0, 1],
        exclude_same_label=True,
        denied_ids=[[], [1]],
        pad=pad,
        seed=1,
    )


def test_an_unpadded_short_answer_explains_itself(bank: negbank.Bank) -> None:
    negs = ragged(bank, pad=False)
    for array in ("indices", "scores", "log_q"):
        with pytest.raises(negbank.ShortAnswer, match="1 of 2 anchors") as short:
            getattr(negs, array)
        assert short.value.anchors.tolist() == [1]
        assert short.value.shortfalls == {"too_few": 1}
        for said in ("anchors 1;", "the fewest: 5", "too_few", "pad=True", "negs.anchor(i)"):
            assert said in str(short.value)
    assert negs.counts.tolist() == [[4, 2], [3, 2]]
    assert negs.info.shortfalls == {"too_few": 1}
    assert negs.mask.tolist() == [[True] * 6, [True, True, True, False, True, True]]


def test_each_anchor_can_still_be_read(bank: negbank.Bank) -> None:
    negs = ragged(bank, pad=False)
    assert negs.anchor(0).ids[:K].tolist() == [6, 5, 4, 3]
    short = negs.anchor(1)
    assert short.ids[:3].tolist() == [6, 2, 0]
    assert short.scores[:3].tolist() == [6, 2, 0]
    assert short.draws.tolist() == [0, 0, 0, 1, 1]
    assert np.isnan(short.log_q[:3]).all()
    np.testing.assert_allclose(short.log_q[3:], -np.log(3), rtol=1e-6)
    assert set(short.ids[3:].tolist()) < {6, 2, 0}
    for beyond in (2, -1):
        with pytest.raises(IndexError):
            negs.anchor(beyond)


def test_padding_fills_the_short_places_of_each_draw(bank: negbank.Bank) -> None:
    negs = ragged(bank, pad=True)
    assert negs.mask.tolist() == [[True] * 6, [True, True, True, False, True, True]]
    assert (negs.indices == -1).tolist() == (~negs.mask).tolist()
    assert np.isnan(negs.scores[1, 3])
    assert np.isnan(negs.log_q[1, 3])
    assert negs.ids[negs.indices[1, :3]].tolist() == [6, 2, 0]
    assert not np.isnan(negs.scores[negs.mask]).any()
    np.testing.assert_allclose(negs.log_q[:, 4:], [[-np.log(4)] * 2, [-np.log(3)] * 2], rtol=1e-6)


def test_the_reasons_tell_filters_rules_and_window_apart(bank: negbank.Bank) -> None:
    anchor = [[1.0, 0.0]]
    rules = bank.sample(anchor, negbank.Nearest(K, min_score=4.5), pad=True)
    window = bank.sample(anchor, negbank.Nearest(K, skip=5), pad=True)
    assert rules.info.shortfalls == {"score": 2}
    assert rules.ids[rules.indices[rules.mask]].tolist() == [6, 5]
    assert window.info.shortfalls == {"window": 2}
    assert window.ids[window.indices[window.mask]].tolist() == [1, 0]


def test_an_anchor_may_get_nothing_at_all(bank: negbank.Bank) -> None:
    negs = bank.sample([[1.0, 0.0]], negbank.Nearest(K), only_labels=[77], pad=True)
    assert negs.indices.tolist() == [[-1] * K]
    assert not negs.mask.any()
    assert (negs.embeddings.shape, negs.embeddings.any()) == ((1, 2), False)
    assert negs.anchor(0).ids.tolist() == []
    with pytest.raises(negbank.ShortAnswer, match="the fewest: 0"):
        _ = bank.sample(1, negbank.Uniform(1), only_labels=[77]).indices


def test_an_empty_bank_answers_short(client: negbank.Client, name: str) -> None:
    negs = client.create_bank(name, dim=3).sample(5, negbank.Uniform(2), pad=True)
    assert negs.counts.tolist() == [[0]] * 5
    assert negs.info.shortfalls == {"too_few": 10}
