"""Softmax over a sample, corrected by the probabilities with which it was drawn."""

from __future__ import annotations

import torch
from torch import Tensor

from .scores import checked, excluded, heat


def sampled_softmax(
    positive: Tensor,
    negative: Tensor,
    log_q: Tensor,
    *,
    temperature: float = 1.0,
    counted: Tensor | None = None,
    positive_log_q: Tensor | None = None,
) -> Tensor:
    """Sampled softmax with the logQ correction (Bengio and Senecal 2008; Yi 2019, section 4): cross-entropy of p/T against
    n/T - (log_q + ln k), so that the sum over an anchor's k draws estimates the sum over the whole eligible set.

    log_q [B, K]: of each negative, as the server sends it (with replacement, where it is exact). The sign is a known trap: the
    correction is *subtracted*. The positive stays as it is: without ln k on the negatives the partition would be overstated
    k-fold. Only where the positives are a sample too, in-batch ones, give `positive_log_q` [B]: then both sides are corrected.
    """
    counted, temperature = checked(positive, negative, counted), heat(temperature)
    draws = counted.sum(dim=1, keepdim=True).clamp(min=1).log()
    corrected = negative / temperature - (log_q.to(negative) + draws)
    own = positive / temperature
    if positive_log_q is not None:
        own = own - positive_log_q.to(positive)
    logits = torch.cat([own[:, None], excluded(corrected, counted)], dim=1)
    return (logits.logsumexp(dim=1) - logits[:, 0]).mean()
