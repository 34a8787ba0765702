"""Decoupled contrastive learning."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InvalidArgument
from .scores import checked, excluded, floats, heat, kind, must_be_beside


def dcl(
    positive: Tensor,
    negative: Tensor,
    *,
    temperature: float = 0.1,
    counted: Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """DCL (Yeh 2021, eq. 6): InfoNCE whose denominator lacks the positive: -w p/T + ln sum exp(n/T), w = 1 or `weights` [B].

    An anchor without negatives has no loss: it is left out of the mean.
    """
    positive, negative, counted = checked(positive, negative, counted)
    pulled = positive / heat(temperature)
    if weights is not None:
        weights = floats(weights, "weights")
        if weights.shape != positive.shape:
            raise InvalidArgument.of("weights", f"must be [B], {tuple(positive.shape)}, got {kind(weights)}")
        must_be_beside(weights, "weights", positive)
        pulled = weights * pulled
    some = counted.any(dim=1)
    if not bool(some.any()):
        return (positive * 0.0).sum()
    return (excluded(negative / temperature, counted)[some].logsumexp(dim=1) - pulled[some]).mean()


def dclw(
    positive: Tensor,
    negative: Tensor,
    *,
    temperature: float = 0.1,
    sigma: float = 0.5,
    counted: Tensor | None = None,
) -> Tensor:
    """DCLW (Yeh 2021, eq. 8): DCL with w = 2 - exp(p/sigma) / mean over the batch of exp(p/sigma): far positives weigh more.

    The weights are constants to the gradient.
    """
    positive, negative, counted = checked(positive, negative, counted)
    shares = torch.softmax(positive.detach() / heat(sigma, "sigma"), dim=0)
    return dcl(positive, negative, temperature=temperature, counted=counted, weights=2.0 - len(positive) * shares)
