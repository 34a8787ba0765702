"""Supervised contrastive learning."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InvalidArgument
from .scores import excluded, floats, heat, kind, mask


def sup_con(scores: Tensor, positives: Tensor, *, temperature: float = 0.1, counted: Tensor | None = None) -> Tensor:
    """SupCon (Khosla 2020, eq. 2, L_out): the mean over an anchor's positives of
    -ln exp(s/T) / sum over all that count of exp(a/T).

    scores [B, M]: anchors against everything there is, the batch's other views and served entries alike. positives bool
    [B, M]: same class. counted bool [B, M]: what takes part at all (default: everything; an anchor itself must not).
    Anchors without a positive are left out of the mean.
    """
    scores = floats(scores, "scores")
    if scores.ndim != 2 or not len(scores):
        raise InvalidArgument.of("scores", f"must be [B, M] of at least one anchor, got {kind(scores)}")
    positives = mask(positives, "positives", scores)
    counted = torch.ones_like(positives) if counted is None else mask(counted, "counted", scores)
    positives = positives & counted
    logits = excluded(scores / heat(temperature), counted)
    some = positives.any(dim=1)
    if not bool(some.any()):
        return (scores * 0.0).sum()
    losses = logits[some].logsumexp(dim=1, keepdim=True) - logits[some]
    return (losses.masked_fill(~positives[some], 0.0).sum(dim=1) / positives[some].sum(dim=1)).mean()
