"""Decoupled contrastive learning."""

from __future__ import annotations

import torch
from torch import Tensor

from .scores import checked, excluded, heat


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
    counted, temperature = checked(positive, negative, counted), heat(temperature)
    pulled = positive / temperature if weights is None else weights * positive / temperature
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
    shares = torch.softmax(positive.detach() / heat(sigma), dim=0)
    return dcl(positive, negative, temperature=temperature, counted=counted, weights=2.0 - len(positive) * shares)
