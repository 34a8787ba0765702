"""SimCLR across ranks, with a shared draw from a bank in the same loss; spawned ranks import this by name."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import negbank
from negbank.torch import live_rows, nt_xent

Floats = npt.NDArray[np.float64]

STEPS, ITEMS, WIDTH, DIM = 8, 11, 6, 4


def encoder() -> nn.Module:
    """The same weights every time, in double precision."""
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(WIDTH, 9), nn.Tanh(), nn.Linear(9, DIM)).double()


def batch(step: int) -> tuple[Tensor, Tensor]:
    """The whole batch: two views [N, WIDTH] of its items, and their groups; two items share one."""
    generator = torch.Generator().manual_seed(100 + step)
    items = torch.randn(ITEMS, WIDTH, generator=generator, dtype=torch.float64)
    noise = torch.randn(2, ITEMS, WIDTH, generator=generator, dtype=torch.float64) / 4
    groups = torch.arange(ITEMS)
    groups[ITEMS - 1] = step % (ITEMS - 1)
    return items + noise, groups


def served(bank: negbank.Bank, step: int) -> Tensor:
    """The negatives that all ranks share: [K, DIM]."""
    return torch.from_numpy(bank.sample(1, negbank.Uniform(7, scope="shared"), seed=step).embeddings)


def loss_of(views: Tensor, false_negatives: Tensor, negatives: Tensor) -> Tensor:
    """NT-Xent over [N, 2 * DIM], the two views of an item side by side."""
    first, second = (nn.functional.normalize(view, dim=1) for view in views.chunk(2, dim=1))
    scores = torch.cat([first, second]) @ negatives.T
    return nt_xent(first, second, false_negatives=false_negatives, bank=scores)


def both_views(model: nn.Module, views: Tensor) -> Tensor:
    """[R, 2 * DIM] of views [2, R, WIDTH]."""
    return torch.cat(list(model(views.flatten(0, 1)).chunk(2)), dim=1)


def across_ranks(rank: int, world_size: int, address: str, group: str) -> Floats:
    """Trains on this rank's share of each batch, an uneven one; the parameters after each step, [STEPS, P]."""
    client = negbank.connect(address)
    bank = client.bank("simclr")
    model = encoder()
    ddp = DistributedDataParallel(model)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5)
    history = []
    for step in range(STEPS):
        views, groups = batch(step)
        border = 2 + step % 5
        own = slice(0, border) if rank == 0 else slice(border, ITEMS)
        mine = both_views(ddp, views[:, own])
        gathered = client.gather(group, mine, step=step, rank=rank, world_size=world_size, groups=groups[own])
        rows = live_rows(gathered, mine)
        loss = loss_of(rows, gathered.false_negatives(), served(bank, step))
        optimiser.zero_grad()
        (loss * gathered.loss_scale).backward()
        optimiser.step()
        history.append(torch.cat([parameter.detach().flatten().clone() for parameter in model.parameters()]))
    return torch.stack(history).numpy()


def alone(address: str) -> Floats:
    """The same in one process with the whole batch."""
    bank = negbank.connect(address).bank("simclr")
    model = encoder()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5)
    history = []
    for step in range(STEPS):
        views, groups = batch(step)
        # As they are sent: a float32.
        rows = both_views(model, views).float()
        loss = loss_of(rows, groups[:, None] == groups[None, :], served(bank, step))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        history.append(torch.cat([parameter.detach().flatten().clone() for parameter in model.parameters()]))
    return torch.stack(history).numpy()


def example(rank: int, world_size: int, address: str) -> dict[str, float]:
    """What examples/simclr.py finds on one of several ranks."""
    from simclr import train

    return train(negbank.connect(address), group="simclr/two", epochs=2)
