"""Losses that correct for false negatives among unlabelled ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import InvalidArgument
from .scores import checked, heat, log_total


def debiased(
    positive: Tensor,
    negative: Tensor,
    *,
    tau: float,
    temperature: float = 0.5,
    counted: Tensor | None = None,
) -> Tensor:
    """The debiased loss (Chuang 2020, eqs. 7-8): -ln exp(p/T) / (exp(p/T) + Ng), with R = sum exp(n/T) over
    the N negatives received and Ng = max((R - tau N exp(p/T)) / (1 - tau), N exp(-1/T)).

    tau: probability that a random entry is of the anchor's class, 0 <= tau < 1. Draw uniformly, with no filter by label or
    score: tau corrects for those already. N is the number of negatives received, not the pool's n.

    Where the server draws HCL's negatives this is the whole loss: `Softmax(k, beta=beta_HCL / T)`, beta *over T*, since HCL
    weighs exp(s/T) to the power of its beta.
    """
    positive, negative, counted = checked(positive, negative, counted)
    total = log_total(negative / heat(temperature), counted)
    return _corrected(positive / temperature, total, counted, tau, temperature)


def hcl(
    positive: Tensor,
    negative: Tensor,
    *,
    beta: float,
    tau: float = 0.0,
    temperature: float = 0.5,
    counted: Tensor | None = None,
) -> Tensor:
    """Hard negatives by importance weights (HCL, Robinson 2020, section 4) over uniform draws: as `debiased`, with R the
    sum of exp(n/T) weighted by w = exp(beta n/T) / mean exp(beta n/T). beta = 0 is `debiased`.

    The weights are not detached, as in the authors' code.
    """
    positive, negative, counted = checked(positive, negative, counted)
    if not math.isfinite(beta):
        raise InvalidArgument.of("beta", f"must be finite, got {beta}")
    logits = negative / heat(temperature)
    received = counted.sum(dim=1).clamp(min=1).to(logits).log()
    mean_weight = log_total(beta * logits, counted).masked_fill(~counted.any(dim=1), 0.0) - received
    total = log_total((1.0 + beta) * logits, counted) - mean_weight
    return _corrected(positive / temperature, total, counted, tau, temperature)


def _corrected(positive: Tensor, total: Tensor, counted: Tensor, tau: float, temperature: float) -> Tensor:
    """`positive` p/T [B]; `total` ln R [B]."""
    if not 0 <= tau < 1:
        raise InvalidArgument.of("tau", f"must be from 0 to below 1, got {tau}")
    received = counted.sum(dim=1).to(positive)
    # In logarithms and relative to exp(p/T), so that a low temperature overflows nothing.
    over = total - positive
    true = tau * received * (-over.clamp(min=-80.0)).exp()
    kept = torch.log1p(-true.clamp(max=1.0 - 1e-6)) + over - math.log1p(-tau)
    least = received.log() - 1.0 / temperature - positive
    return torch.nn.functional.softplus(torch.maximum(kept.masked_fill(true >= 1.0, -torch.inf), least)).mean()
