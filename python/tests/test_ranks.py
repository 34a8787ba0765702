"""Ranks of a distributed run: two real processes over gloo, one bank."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

import negbank
from keyed_run import RANKS, STEPS, Plain, ids_of, loss_of, run, sampler
from processes import in_ranks
from server_process import ServerProcess
from small_model import BATCH, DIM, IMAGES, LABELS

RUNS = 3


def filled(client: negbank.Client, name: str) -> negbank.Bank:
    bank = client.create_bank(name, dim=DIM)
    with torch.no_grad():
        bank.write(torch.arange(len(IMAGES)), Plain()(IMAGES), labels=LABELS, step=0)
    return bank


@pytest.fixture
def names(client: negbank.Client) -> Iterator[list[str]]:
    names = [f"ranks-{number}" for number in range(RUNS)]
    yield [*names, "alone"]
    for name in [*names, "alone"]:
        client.delete_bank(name)


def test_two_ranks_read_one_bank_and_train_as_one_process_would(
    server: ServerProcess, client: negbank.Client, names: list[str]
) -> None:
    *runs, alone = names
    for name in runs:
        filled(client, name)
    first, second = in_ranks(RANKS, run, server.address, runs)
    assert all(again[0] == first[0][0] for again in first), "a run does not repeat"
    assert all(again[0] == second[0][0] for again in second)
    for (served, state), (others, other_state) in zip(first[0][0], second[0][0], strict=True):
        assert state == other_state, "ranks saw different banks"
        assert served != others, "ranks draw for themselves"

    # One process, both ranks' batches in turn, their rows as one write: the same draws, the same bank, the same weights.
    bank, model = filled(client, alone), Plain()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    draws = [sampler(bank, rank) for rank in range(RANKS)]
    for step in range(STEPS):
        batches = [ids_of(step, rank) for rank in range(RANKS)]
        parts: list[Any] = [loss_of(model, one, ids) for one, ids in zip(draws, batches, strict=True)]
        for (_, _, served), of_rank in zip(parts, (first, second), strict=True):
            agree = sum(own == other for own, other in zip(served, of_rank[0][0][step][0], strict=True))
            assert agree >= BATCH - 1, "one process draws something else (a near tie may be ranked either way)"
        optimizer.zero_grad()
        (sum(loss for loss, _, _ in parts) / RANKS).backward()
        optimizer.step()
        receipt = bank.write(torch.cat(batches), torch.cat([embeddings for _, embeddings, _ in parts]), step=step)
        for one in draws:
            one.wrote(receipt)
    for of_rank in (first, second):
        for own, other in zip(model.parameters(), of_rank[0][1], strict=True):
            torch.testing.assert_close(own, torch.tensor(other), rtol=1e-4, atol=1e-5)
