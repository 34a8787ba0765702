"""Supervised contrastive learning."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InvalidArgument
from .scores import excluded, heat


def sup_con(scores: Tensor, positives: Tensor, *, temperature: float = 0.1, counted: Tensor | None = None) -> Tensor:
    """SupCon (Khosla 2020, eq. 2, L_out): the mean over an anchor's positives of
    -ln exp(s/T) / sum over all that count of exp(a/T).

    scores [B, M]: anchors against everything there is, the batch's other views and served entries alike. positives bool
    [B, M]: same class. counted bool [B, M]: what takes part at all (default: everything; an anchor itself must not).
    Anchors without a positive are left out of the mean.
    """
    if scores.ndim != 2 or positives.shape != scores.shape or positives.dtype != torch.bool:
        raise InvalidArgument.of(
            "positives", f"must be bool {tuple(scores.shape)}, got {positives.dtype} {tuple(positives.shape)}"
        )
    counted = torch.ones_like(positives) if counted is None else counted
    positives = positives & counted
    logits = excluded(scores / heat(temperature), counted)
    some = positives.any(dim=1)
    if not bool(some.any()):
        return (scores * 0.0).sum()
    losses = logits[some].logsumexp(dim=1, keepdim=True) - logits[some]
    return (losses.masked_fill(~positives[some], 0.0).sum(dim=1) / positives[some].sum(dim=1)).mean()
