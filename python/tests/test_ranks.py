"""Ranks of a distributed run: two real processes over gloo, one bank."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.multiprocessing.spawn import spawn

import negbank
from rank import RANKS, STEPS, Plain, ids_of, loss_of, run, sampler, state_of
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
    server: ServerProcess, client: negbank.Client, names: list[str], tmp_path: Path
) -> None:
    *runs, alone = names
    for name in runs:
        filled(client, name)
    spawn(run, (server.address, str(tmp_path), runs), nprocs=RANKS)  # type: ignore[no-untyped-call]
    seen = {(name, rank): json.loads((tmp_path / f"{name}-{rank}.json").read_text()) for name in runs for rank in range(RANKS)}

    for name in runs:
        for step in range(STEPS):
            first, second = (seen[name, rank][step] for rank in range(RANKS))
            assert first["state"] == second["state"], "ranks saw different banks"
            assert first["served"] != second["served"], "ranks draw for themselves"
        assert seen[name, 0] == seen[runs[0], 0], "a run does not repeat"
        assert seen[name, 1] == seen[runs[0], 1]

    # One process, both ranks' batches in turn, their rows as one write: the same draws, the same bank, the same weights.
    bank, model = filled(client, alone), Plain()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    assert state_of(bank) == seen[runs[0], 0][0]["state"]
    draws = [sampler(bank, rank) for rank in range(RANKS)]
    for step in range(STEPS):
        batches = [ids_of(step, rank) for rank in range(RANKS)]
        parts: list[Any] = [loss_of(model, one, ids) for one, ids in zip(draws, batches, strict=True)]
        for rank, (_, _, served) in enumerate(parts):
            agree = sum(own == other for own, other in zip(served, seen[runs[0], rank][step]["served"], strict=True))
            assert agree >= BATCH - 1, "one process draws something else (a near tie may be ranked either way)"
        optimizer.zero_grad()
        (sum(loss for loss, _, _ in parts) / RANKS).backward()
        optimizer.step()
        rows = torch.cat([embeddings for _, embeddings, _ in parts])
        receipt = bank.write(torch.cat(batches), rows, step=step)
        for one in draws:
            one.wrote(receipt)
    for rank in range(RANKS):
        weights = torch.load(tmp_path / f"{runs[0]}-{rank}.pt")
        for parameter, other in zip(model.state_dict().values(), weights.values(), strict=True):
            torch.testing.assert_close(parameter, other, rtol=1e-4, atol=1e-5)
