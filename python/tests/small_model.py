"""A small encoder of digits, its bank, and one contrastive step: what the trainers' callbacks are tried on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

import negbank
from data import digits
from negbank.torch import Keeper, info_nce, similarities

IMAGES, LABELS = (column[:256] for column in digits())
DIM, BATCH, EVERY, STALEST = 8, 16, 4, 40


class Encoder(nn.Module):
    """Unit vectors [B, 8] of images."""

    def __init__(self, dropout: float = 0.5) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Dropout(dropout), nn.Linear(32, DIM))

    def forward(self, images: Tensor) -> Tensor:
        return normalize(self.layers(images), dim=1)


def encoded(model: Any, ids: Tensor) -> Tensor:
    """What the model, or the module around it, says of entries."""
    rows: Tensor = getattr(model, "encoder", model)(IMAGES[ids])
    return rows


def filled(client: negbank.Client, name: str) -> negbank.Bank:
    """A bank of all images, as an untrained encoder has them, half of them from before step 0."""
    bank = client.create_bank(name, dim=DIM)
    with torch.no_grad():
        rows = Encoder().eval()(IMAGES)
    bank.write(torch.arange(256), rows, labels=LABELS, step=0)
    return bank


def keeper(bank: negbank.Bank, **options: Any) -> Keeper:
    sampler = negbank.Sampler(bank, negbank.Nearest(6, window=24, choose="uniform"), seed=5, exclude_same_label=True)
    return Keeper(bank, **{"encode": encoded, "every": EVERY, "rows": STALEST, "sampler": sampler, **options})


def contrastive(encoder: nn.Module, keeper: Keeper, ids: Tensor, drawn: list[Any]) -> tuple[Tensor, Tensor]:
    """The loss of a batch against what the bank serves, and the embeddings to write; `drawn` gets the ids served."""
    anchors, keys = encoder(IMAGES[ids]), encoder(IMAGES[ids])
    assert isinstance(keeper.sampler, negbank.Sampler)
    negs = keeper.sampler.sample(anchors, anchor_labels=LABELS[ids])
    drawn.append(negs.ids[negs.indices].tolist())
    return info_nce((anchors * keys).sum(1), similarities(anchors, negs.embeddings[negs.indices])), keys
