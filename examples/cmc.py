"""CMC (Tian 2020): two views of an image, here its even and its odd columns, each with its encoder and its memory bank.

Run it beside `negbank serve`: python examples/cmc.py 127.0.0.1:7700
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

import negbank
from data import augmented, batches, digits, reciprocal_rank
from negbank.torch import InstDiscNCE, similarities


def views(encoders: nn.ModuleList, images: Tensor) -> list[Tensor]:
    """Unit embeddings [B, 32] of the even columns of images, and of the odd ones."""
    return [normalize(encoder(images[..., first::2]), dim=1) for first, encoder in enumerate(encoders)]


def rank_of_other_half(encoders: nn.ModuleList) -> float:
    """Mean reciprocal rank of a held-out image's odd columns among those of all, by its even ones."""
    even, odd = views(encoders, digits(held_out=True)[0])
    return reciprocal_rank(even, odd, [str(image) for image in range(len(even))])


def train(client: negbank.Client, epochs: int = 5) -> dict[str, float]:
    """How well a held-out image's halves find each other, before and after."""
    torch.manual_seed(0)
    images, _ = digits()
    encoders = nn.ModuleList(nn.Sequential(nn.Flatten(), nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, 32)) for _ in range(2))
    optimizer = torch.optim.Adam(encoders.parameters(), lr=2e-3)
    before = rank_of_other_half(encoders)

    banks = [client.create_bank(f"cmc-{view}", dim=32, momentum=0.5) for view in ("even", "odd")]
    criteria = [InstDiscNCE(temperature=0.1) for _ in banks]
    for bank, rows in zip(banks, views(encoders, images), strict=True):
        bank.write(torch.arange(len(images)), rows, momentum=0.0, step=0)

    for step, ids in enumerate(batches(len(images), 50, epochs)):
        both, loss = views(encoders, augmented(images[ids])), torch.zeros(())
        # Each view's anchors are set against the other view's bank: of their own image, and of random others.
        for anchors, bank, criterion in zip(both, reversed(banks), criteria, strict=True):
            negs = bank.sample(anchors, negbank.Uniform(256, with_replacement=True), anchor_ids=ids, seed=step)
            positive = (anchors * bank.fetch(ids).embeddings).sum(dim=1)
            assert negs.info.n[0] is not None
            loss = loss + criterion(positive, similarities(anchors, negs.embeddings[negs.indices]), n=int(negs.info.n[0][0]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for bank, view in zip(banks, both, strict=True):
            bank.write(ids, view, step=step)
    return {"before": before, "after": rank_of_other_half(encoders)}


if __name__ == "__main__":
    print(train(negbank.connect(sys.argv[1])))
