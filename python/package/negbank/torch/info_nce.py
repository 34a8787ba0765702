"""InfoNCE and SimCLR's form of it."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InvalidArgument
from .scores import checked, excluded, floats, heat, kind, mask, must_be_beside


def info_nce(positive: Tensor, negative: Tensor, *, temperature: float = 0.07, counted: Tensor | None = None) -> Tensor:
    """InfoNCE (van den Oord 2018, eq. 4; MoCo, He 2020, eq. 1): -ln exp(p/T) / (exp(p/T) + sum exp(n/T))."""
    positive, negative, counted = checked(positive, negative, counted)
    temperature = heat(temperature)
    logits = torch.cat([positive[:, None] / temperature, excluded(negative / temperature, counted)], dim=1)
    return (logits.logsumexp(dim=1) - logits[:, 0]).mean()


def nt_xent(
    first: Tensor,
    second: Tensor,
    *,
    temperature: float = 0.5,
    false_negatives: Tensor | None = None,
    bank: Tensor | None = None,
    bank_counted: Tensor | None = None,
) -> Tensor:
    """NT-Xent (SimCLR, Chen 2020, eq. 1) of two views [N, d] of the same N items, unit rows: each of the 2N views has the
    other view of its item as the positive and the 2N - 2 others as negatives.

    false_negatives: bool [N, N], symmetric: pairs of items that are no negatives of each other (the diagonal is never one).
    bank: further scores [2N, K] against served negatives, in the order first views, second views; `bank_counted` bool [2N, K].
    """
    first, second = floats(first, "first"), floats(second, "second")
    if first.ndim != 2 or first.shape != second.shape:
        raise InvalidArgument.of("second", f"views of shape {tuple(second.shape)} for {tuple(first.shape)}")
    if not len(first):
        raise InvalidArgument.of("first", "has no item, and the mean over none is no number: skip the step")
    must_be_beside(second, "second", first)
    items = len(first)
    views = torch.cat([first, second])
    scores = views @ views.T
    same_item = torch.eye(items, dtype=torch.bool, device=views.device)
    left_out = same_item if false_negatives is None else same_item | mask(false_negatives, "false_negatives", same_item)
    counted = ~left_out.repeat(2, 2)
    positive = scores.roll(items, dims=1).diagonal()
    if bank is not None:
        bank = floats(bank, "bank")
        if bank.ndim != 2 or len(bank) != len(views):
            raise InvalidArgument.of("bank", f"must be scores [2N, K] of the {len(views)} views, got {kind(bank)}")
        must_be_beside(bank, "bank", views)
        every = torch.ones_like(bank, dtype=torch.bool)
        also = every if bank_counted is None else mask(bank_counted, "bank_counted", bank)
        scores, counted = torch.cat([scores, bank], dim=1), torch.cat([counted, also], dim=1)
    return info_nce(positive, scores, temperature=temperature, counted=counted)
