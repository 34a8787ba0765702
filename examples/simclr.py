"""SimCLR (Chen 2020) across ranks: every rank's views are negatives of every other's, with the gradient of the whole batch.

Run it beside `negbank serve`: python examples/simclr.py 127.0.0.1:7700
With four ranks: torchrun --nproc-per-node 4 examples/simclr.py 127.0.0.1:7700
"""

from __future__ import annotations

import os
import sys

import torch
from torch import distributed, nn
from torch.nn.functional import normalize
from torch.nn.parallel import DistributedDataParallel

import negbank
from data import augmented, batches, digit_retrieval, digits, image_encoder
from negbank.torch import live_rows, nt_xent


def train(client: negbank.Client, group: str = "simclr", epochs: int = 4, size: int = 60) -> dict[str, float]:
    """Retrieval of digits before and after, and the negatives that an image had; `size` images a step, all ranks together."""
    alone = not distributed.is_initialized()
    rank, world_size = (0, 1) if alone else (distributed.get_rank(), distributed.get_world_size())
    torch.manual_seed(0)  # the same weights and batches on every rank
    images, _ = digits()
    encoder = image_encoder(32)
    model: nn.Module = encoder if alone else DistributedDataParallel(encoder)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=2e-3)
    before, negatives = digit_retrieval(encoder), 0

    for step, ids in enumerate(batches(len(images), size, epochs)):
        mine = ids[rank::world_size]
        views = normalize(model(augmented(images[mine.repeat(2)])), dim=1)
        # An image's two views are one row, so that no rank's answer can have one without the other.
        rows = torch.cat(views.chunk(2), dim=1)
        gathered = client.gather(group, rows, step=step, rank=rank, world_size=world_size, ids=mine)
        first, second = live_rows(gathered, rows).chunk(2, dim=1)
        loss = nt_xent(first, second, temperature=0.2, false_negatives=gathered.false_negatives()) * gathered.loss_scale
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        negatives = max(negatives, 2 * len(gathered) - 2)
    return {"before": before, "after": digit_retrieval(encoder), "negatives": float(negatives)}


if __name__ == "__main__":
    if "RANK" in os.environ:  # set by torchrun
        distributed.init_process_group("gloo")
    print(train(negbank.connect(sys.argv[1])))
