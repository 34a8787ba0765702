"""One rank of a distributed run; its process imports it by name."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.parallel import DistributedDataParallel

import negbank
from negbank.torch import info_nce, similarities
from small_model import BATCH, DIM, IMAGES, LABELS

RANKS, STEPS = 2, 8


class Plain(nn.Module):
    """Unit vectors [B, 8] of images, nothing random about it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.layer = nn.Linear(64, DIM)

    def forward(self, images: Tensor) -> Tensor:
        return normalize(self.layer(images.flatten(1)), dim=1)


def ids_of(step: int, rank: int) -> Tensor:
    """The rank's batch, [B] ids of images."""
    start = (step * RANKS + rank) * BATCH
    return torch.arange(start, start + BATCH) % len(IMAGES)


def sampler(bank: negbank.Bank, rank: int) -> negbank.Sampler:
    """Draws of a rank."""
    return negbank.Sampler(bank, negbank.Nearest(5, window=20, choose="uniform"), seed=4, rank=rank, exclude_same_label=True)


def loss_of(encoder: nn.Module, draws: negbank.Sampler, ids: Tensor) -> tuple[Tensor, Tensor, list[Any]]:
    """The loss of a batch, its embeddings, and the ids it was served."""
    anchors = encoder(IMAGES[ids])
    negs = draws.sample(anchors, anchor_labels=LABELS[ids])
    negative = similarities(anchors, negs.embeddings[negs.indices])
    return info_nce((anchors * anchors).sum(1), negative), anchors, negs.ids[negs.indices].tolist()


def state_of(bank: negbank.Bank) -> str:
    """What the bank holds, to the bit."""
    read = bank.read()
    return hashlib.sha256(read.ids.tobytes() + read.embeddings.tobytes() + read.steps.tobytes()).hexdigest()


def run(rank: int, world_size: int, address: str, names: list[str]) -> list[tuple[list[Any], list[Any]]]:
    """Trains once per bank named, under DDP; of each run what each step saw, and the weights at the end."""
    client = negbank.connect(address)
    runs = []
    for name in names:
        bank = client.bank(name)
        model = DistributedDataParallel(Plain())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        draws, seen = sampler(bank, rank), []
        for step in range(STEPS):
            ids = ids_of(step, rank)
            loss, embeddings, served = loss_of(model, draws, ids)
            seen.append((served, state_of(bank)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            draws.write(embeddings, ids=ids, step=step, stage=negbank.Stage(step, rank, world_size))
        runs.append((seen, [parameter.tolist() for parameter in model.parameters()]))
    return runs
