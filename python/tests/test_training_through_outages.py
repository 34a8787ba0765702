"""Training that goes on while the server is away, and with it once it is back; answers without a pick."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

import negbank
from negbank.torch import InstDiscNCE, Keeper, info_nce, similarities
from server_process import ServerProcess

ROWS, DIM, BATCH = 64, 6, 8
DRAWS = (negbank.Nearest(5), negbank.Uniform(3))
LAYOUTS: list[Any] = ["pooled", "per_anchor"]
COLUMNS = ("ids", "embeddings", "labels", "has_label", "groups", "has_group", "steps", "weights", "ages")


def anchors_of(kind: str) -> Any:
    rows = np.random.default_rng(1).standard_normal((BATCH, DIM)).astype(np.float32)
    return torch.from_numpy(rows) if kind == "torch" else rows


def rows_of_picks(negs: negbank.Negatives, layout: str) -> Any:
    return negs.embeddings[negs.indices] if layout == "pooled" else negs.embeddings


def assert_no_pick(negs: negbank.Negatives, layout: str, width: int) -> None:
    """The line that every example has brings zeros, which no mask counts."""
    rows = rows_of_picks(negs, layout)
    assert tuple(rows.shape) == (BATCH, width, DIM)
    assert not rows.any()
    assert tuple(negs.mask.shape) == (BATCH, width)
    assert not negs.mask.any()
    for column in COLUMNS:
        values = getattr(negs, column)
        assert len(values[negs.indices] if layout == "pooled" else values) == BATCH, column


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.filterwarnings("ignore:no negatives from the bank:RuntimeWarning")
def test_an_answer_without_a_pick_is_indexed_as_any(own_server: ServerProcess, kind: str, layout: Any) -> None:
    client = negbank.connect(own_server.address, on_unavailable="in_batch")
    bank = client.create_bank("empty", dim=DIM)
    anchors = anchors_of(kind)
    shared = (negbank.Uniform(4, scope="shared"), negbank.Weighted(2, scope="shared"))
    # Served, with nothing to serve; then away.
    assert_no_pick(bank.sample(anchors, *DRAWS, pad=True, layout=layout), layout, 8)
    assert_no_pick(bank.sample(anchors, *shared, pad=True, layout=layout), layout, 6)
    own_server.kill()
    assert_no_pick(bank.sample(anchors, *DRAWS, layout=layout), layout, 8)
    assert_no_pick(bank.sample(anchors, *shared, layout=layout), layout, 6)
    assert_no_pick(bank.sample_async(anchors, *DRAWS, *shared, layout=layout).result(), layout, 14)
    halves = bank.sample(anchors, *DRAWS, dtype="bfloat16", layout=layout)
    assert not rows_of_picks(halves, layout).any()


class Run:
    """InfoNCE against the batch's other keys and the bank's negatives; `step` returns whether the server was there."""

    def __init__(self, bank: negbank.Bank, sampler: negbank.Sampler | negbank.Prefetch[Any]) -> None:
        torch.manual_seed(3)
        self.encoder = torch.nn.Linear(DIM, DIM)
        self.optimizer = torch.optim.SGD(self.encoder.parameters(), lr=0.1)
        self.keeper = Keeper(bank, sampler=sampler)

    def anchors(self, images: torch.Tensor) -> torch.Tensor:
        return normalize(self.encoder(images), dim=1)

    def step(self, number: int, images: torch.Tensor, ids: torch.Tensor, negs: negbank.Negatives) -> bool:
        queries, keys = self.anchors(images), self.anchors(images + 0.1)
        in_batch = queries @ keys.T
        others = ~torch.eye(len(ids), dtype=torch.bool)
        negative = torch.cat([in_batch, similarities(queries, negs.embeddings[negs.indices])], dim=1)
        counted = torch.cat([others, negs.mask], dim=1)
        loss = info_nce(in_batch.diagonal(), negative, temperature=0.2, counted=counted)
        if negs.info.unavailable:
            torch.testing.assert_close(
                loss, info_nce(in_batch.diagonal(), in_batch, temperature=0.2, counted=others), msg="in-batch negatives only"
            )
        before = self.encoder.weight.detach().clone()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        assert bool(loss.isfinite())
        assert not torch.equal(before, self.encoder.weight), "the step was not made"
        self.keeper.collect(keys, ids=ids)
        self.keeper.end_of_step(self.encoder, number + 1)
        return not negs.info.unavailable


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(BATCH, DIM, generator=generator), torch.randperm(ROWS, generator=generator)[:BATCH]


def sampled(run: Run, sampler: negbank.Sampler) -> Iterator[tuple[tuple[torch.Tensor, torch.Tensor], negbank.Negatives]]:
    for step in count():
        images, ids = batch(step)
        yield (images, ids), sampler.sample(run.anchors(images), anchor_ids=ids, positive_ids=ids)


def prefetched(run: Run, sampler: negbank.Sampler) -> Iterator[tuple[tuple[torch.Tensor, torch.Tensor], negbank.Negatives]]:
    prefetch = negbank.Prefetch(sampler, map(batch, count()), lambda one: {"anchors": one[0], "anchor_ids": one[1]})
    for one in prefetch:
        assert prefetch.last is not None
        assert prefetch.last.writes <= 1, "an answer that was not drawn has missed nothing"
        yield one


@pytest.mark.parametrize("negatives", [sampled, prefetched])
def test_a_run_trains_on_until_the_server_is_back(tmp_path: Path, negatives: Callable[..., Iterator[Any]]) -> None:
    server = ServerProcess(f"durability.dir={tmp_path}")
    try:
        client = negbank.connect(server.address, on_unavailable="in_batch", retries=0)
        bank = client.create_bank("through", dim=DIM)
        bank.write(torch.arange(ROWS), torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(0)), step=0)
        sampler = negbank.Sampler(bank, *DRAWS, seed=1)
        run = Run(bank, sampler)
        steps = enumerate(negatives(run, sampler))

        def train() -> bool:
            step, ((images, ids), negs) = next(steps)
            return run.step(step, images, ids, negs)

        assert all(train() for _ in range(4))
        written = run.keeper.written
        server.stop()
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            # What was asked for before it went may be there.
            there = [train() for _ in range(6)]
        assert not any(there[2:])
        assert run.keeper.written == written, "writes are left out as well"
        assert len([one for one in said if "no negatives" in str(one.message)]) == 1
        assert len([one for one in said if "not kept up" in str(one.message)]) == 1
        server = ServerProcess(f"durability.dir={tmp_path}", port=server.port)
        back = [train() for _ in range(20)]
        assert all(back[-10:])
        assert run.keeper.written > written
        assert bank.info().entries == ROWS, "the bank is the one that was there before"
    finally:
        server.stop()


@pytest.mark.filterwarnings("ignore:no negatives from the bank:RuntimeWarning")
def test_without_negatives_of_its_own_a_method_skips_the_step(own_server: ServerProcess) -> None:
    bank = negbank.connect(own_server.address, on_unavailable="in_batch").create_bank("away", dim=DIM)
    own_server.kill()
    anchors = anchors_of("torch")
    negs = bank.sample(anchors, *DRAWS)
    assert negs.info.n == [None, None]
    with pytest.raises(negbank.InvalidArgument, match="skip the step"):
        InstDiscNCE()(torch.ones(BATCH), similarities(anchors, negs.embeddings[negs.indices]), 10, negs.mask)


def test_what_a_client_does_without_the_server_its_keeper_does_too(own_server: ServerProcess) -> None:
    lax, strict = (
        negbank.connect(own_server.address, on_unavailable=how, retries=0).create_bank("away", dim=DIM)
        for how in ("in_batch", "raise")
    )
    sampler = negbank.Sampler(lax, *DRAWS, seed=1)
    own_server.kill()
    rows = anchors_of("torch")
    with pytest.raises(negbank.Unavailable):
        sampler.write(rows, ids=range(BATCH))
    for keeper in (Keeper(strict), Keeper(lax, on_unavailable="raise")):
        keeper.collect(rows, ids=range(BATCH))
        with pytest.raises(negbank.Unavailable):
            keeper.write(0)
    keeper = Keeper(lax, sampler=sampler)
    keeper.collect(rows, ids=range(BATCH))
    with pytest.warns(RuntimeWarning, match="not kept up"):
        keeper.write(0)
    assert keeper.written == 0
