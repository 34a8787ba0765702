"""CMC (Tian 2020): two views of an image, here its even and its odd columns, each with its encoder and its memory bank.

Run it beside `negbank serve`: python examples/cmc.py 127.0.0.1:7700
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

import negbank
from data import augmented, batches, digits
from negbank.torch import InstDiscNCE, similarities


def half_encoder() -> nn.Module:
    """Embeddings [B, 32] of half images, f32 [B, 1, 8, 4]."""
    return nn.Sequential(nn.Flatten(), nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, 32))


def rank_of_other_half(encoders: list[nn.Module]) -> float:
    """Mean reciprocal rank of a held-out image's odd columns among those of all, by its even ones."""
    with torch.no_grad():
        even, odd = (normalize(e(h), dim=1) for e, h in zip(encoders, halves(digits(held_out=True)[0]), strict=True))
    scores = even @ odd.T
    return float((1.0 / (scores >= scores.diagonal()[:, None]).sum(dim=1)).mean())


def halves(images: Tensor) -> tuple[Tensor, Tensor]:
    """The even and the odd columns of images."""
    return images[..., ::2], images[..., 1::2]


def train(client: negbank.Client, epochs: int = 5) -> dict[str, float]:
    """How well a held-out image's halves find each other, before and after."""
    torch.manual_seed(0)
    images, _ = digits()
    encoders: list[nn.Module] = [half_encoder(), half_encoder()]
    optimizer = torch.optim.Adam([weight for encoder in encoders for weight in encoder.parameters()], lr=2e-3)
    before = rank_of_other_half(encoders)

    banks = [client.create_bank(f"cmc-{view}", dim=32, momentum=0.5) for view in ("even", "odd")]
    criteria = [InstDiscNCE(temperature=0.1) for _ in banks]
    with torch.no_grad():
        for bank, encoder, half in zip(banks, encoders, halves(images), strict=True):
            bank.write(torch.arange(len(images)), encoder(half), momentum=0.0, step=0)

    for step, ids in enumerate(batches(len(images), 50, epochs)):
        views = [normalize(e(h), dim=1) for e, h in zip(encoders, halves(augmented(images[ids])), strict=True)]
        loss = torch.zeros(())
        # Each view's anchors are set against the other view's bank: of their own image, and of random others.
        for anchors, bank, criterion in zip(views, reversed(banks), criteria, strict=True):
            negs = bank.sample(anchors, negbank.Uniform(256, with_replacement=True), anchor_ids=ids, seed=step)
            positive = (anchors * bank.fetch(ids).embeddings).sum(dim=1)
            assert negs.info.n[0] is not None
            loss = loss + criterion(positive, similarities(anchors, negs.embeddings[negs.indices]), n=int(negs.info.n[0][0]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for bank, view in zip(banks, views, strict=True):
            bank.write(ids, view, step=step)
    return {"before": before, "after": rank_of_other_half(encoders)}


if __name__ == "__main__":
    print(train(negbank.connect(sys.argv[1])))
