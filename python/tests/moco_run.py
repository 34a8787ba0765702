"""MoCo with its queue in a bank; spawned ranks import this by name."""

from __future__ import annotations

import hashlib
import random
import time
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

import negbank
from negbank.torch import MomentumEncoder, info_nce

CAPACITY, BATCH, WIDTH, DIM = 64, 20, 10, 6
# The queue is filled at the start, and then replaced three times over by batches that don't divide it.
STEPS = 3 * CAPACITY // BATCH + 1


@dataclass
class Fifo:
    """The last `CAPACITY` keys, oldest first."""

    ids: list[int] = field(default_factory=list)
    rows: list[Tensor] = field(default_factory=list)

    def push(self, ids: list[int], rows: Tensor) -> None:
        """Appends, and forgets the oldest."""
        self.ids = (self.ids + ids)[-CAPACITY:]
        self.rows = (self.rows + list(rows))[-CAPACITY:]

    def matrix(self) -> Tensor:
        """[n, DIM]"""
        return torch.stack(self.rows)


def encoder() -> nn.Module:
    """The same weights every time."""
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(WIDTH, 12), nn.ReLU(), nn.Linear(12, DIM))


def unit(rows: Tensor) -> Tensor:
    """Rows of length 1."""
    return nn.functional.normalize(rows, dim=1)


def batch(step: int) -> tuple[list[int], Tensor, Tensor]:
    """Ids, queries and keys of the whole batch."""
    generator = torch.Generator().manual_seed(step)
    items = torch.randn(BATCH, WIDTH, generator=generator)
    views = items + torch.randn(2, BATCH, WIDTH, generator=generator) / 3
    return [1_000 + step * BATCH + at for at in range(BATCH)], views[0], views[1]


def first_queue() -> tuple[list[int], Tensor]:
    """The random rows that MoCo's queue begins with."""
    return list(range(CAPACITY)), unit(torch.randn(CAPACITY, DIM, generator=torch.Generator().manual_seed(3)))


def created(client: negbank.Client, name: str) -> negbank.Bank:
    """A full queue that keeps rows as they are written."""
    bank = client.create_bank(name, dim=DIM, kind="queue", metric="dot", capacity=CAPACITY)
    ids, rows = first_queue()
    bank.enqueue(rows, ids=ids)
    return bank


def parameters(model: nn.Module) -> Tensor:
    """All of them in one row."""
    return torch.cat([parameter.detach().flatten().clone() for parameter in model.parameters()])


def step_towards(queries: Tensor, keys: Tensor, negatives: Tensor, optimiser: torch.optim.Optimizer) -> None:
    """One step of InfoNCE (MoCo, He 2020, algorithm 1)."""
    loss = info_nce((queries * keys).sum(1), queries @ negatives.T, temperature=0.2)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def across_ranks(rank: int, world_size: int, address: str, names: list[str]) -> list[tuple[list[str], bool]]:
    """Trains once with each of these banks; what this rank saw at every step, and whether it was the FIFO's rows each time."""
    client = negbank.connect(address)
    return [_run(rank, world_size, client.bank(name), random.Random()) for name in names]


def _run(rank: int, world_size: int, bank: negbank.Bank, chance: random.Random) -> tuple[list[str], bool]:
    model, fifo, as_fifo = encoder(), Fifo(), True
    fifo.push(*first_queue())
    followed, ddp = MomentumEncoder(model, momentum=0.9), DistributedDataParallel(model)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.2)
    seen = []
    for step in range(STEPS):
        # No two runs have the same pace, nor two ranks.
        time.sleep(chance.random() * 0.02)
        read = bank.read()
        queue, drawn = torch.from_numpy(read.embeddings), bank.sample(1, negbank.Uniform(16), seed=step)
        as_fifo = as_fifo and read.ids.tolist() == fifo.ids and torch.equal(queue, fifo.matrix())
        seen.append(_digest(read.ids, read.embeddings, drawn.ids[drawn.indices], parameters(model).numpy()))
        ids, queries, keys = batch(step)
        own = slice(rank * BATCH // world_size, (rank + 1) * BATCH // world_size)
        mine = unit(followed(keys[own]))
        step_towards(unit(ddp(queries[own])), mine, queue, optimiser)
        followed.update(model)
        time.sleep(chance.random() * 0.02)
        bank.enqueue(mine, ids=ids[own], stage=negbank.Stage(step, rank, world_size))
        # The reference hears of the other rank's keys another way.
        parts = [torch.empty_like(mine) for _ in range(world_size)]
        distributed.all_gather(parts, mine)
        fifo.push(ids, torch.cat(parts))
    return seen, as_fifo


def _digest(*arrays: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> str:
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
