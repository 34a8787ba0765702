"""Draws from the graph of a large bank."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import negbank
from server_process import ServerProcess

ROWS, DIM, ANCHORS, K = 4_000, 16, 50, 10


@pytest.fixture(scope="module")
def bank() -> Iterator[negbank.Bank]:
    server = ServerProcess("index.min_entries=1000")
    try:
        bank = negbank.connect(server.address).create_bank("large", dim=DIM)
        bank.write(range(ROWS), np.random.default_rng(1).standard_normal((ROWS, DIM)))
        yield bank
    finally:
        server.stop()


def test_a_draw_may_be_answered_by_the_graph_or_must_not(bank: negbank.Bank) -> None:
    anchors = np.random.default_rng(2).standard_normal((ANCHORS, DIM)).astype(np.float32)
    walk = negbank.Nearest(K, plan="graph", ef=128)
    give_up = time.monotonic() + 120
    while (index := bank.info().index) is None or index.state != "serving":
        assert time.monotonic() < give_up, "no graph was built"
        time.sleep(0.1)
    walked = bank.sample(anchors, walk)
    assert walked.info.plans == ["graph"]
    assert not walked.info.reproducible
    assert walked.info.plan_reasons == ["asked for"]
    assert (index.indexed, index.lag) == (ROWS, 0)
    assert index.mean_similarity == pytest.approx(1.0, abs=1e-4)
    assert walked.info.generations == [index.generation] == [bank.info().sequence]
    assert walked.info.generation_lags == [0]
    exact = bank.sample(anchors, negbank.Nearest(K, accuracy="exact"))
    seeded = bank.sample(anchors, negbank.Nearest(K), seed=1)
    assert exact.info.plans == seeded.info.plans == ["scan"]
    assert seeded.info.reproducible
    assert exact.info.generations == exact.info.generation_lags == [None]

    def ids(negs: negbank.Negatives) -> list[set[int]]:
        assert negs.ids is not None
        return [set(row.tolist()) for row in np.asarray(negs.ids)[np.asarray(negs.indices)]]

    assert ids(exact) == ids(seeded)
    found = sum(len(got & best) for got, best in zip(ids(walked), ids(exact), strict=True))
    assert found >= 0.95 * ANCHORS * K


@pytest.mark.parametrize(
    ("draw", "field"),
    [
        ({"accuracy": "roughly"}, "accuracy"),
        ({"plan": "guess"}, "plan"),
        ({"accuracy": "exact", "plan": "graph"}, "draws[0].nearest.plan"),
        ({"ef": 2**30}, "draws[0].nearest.ef"),
    ],
)
def test_a_search_that_can_t_be_is_refused(bank: negbank.Bank, draw: dict[str, Any], field: str) -> None:
    with pytest.raises(negbank.InvalidArgument) as refused:
        bank.sample(np.ones((1, DIM)), negbank.Nearest(K, **draw))
    assert field in dict(refused.value.violations)
