"""Softmax over a sample, corrected by the probabilities with which it was drawn."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InvalidArgument
from .scores import checked, excluded, floats, heat, kind, must_be_beside


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
    n/T - (log_q + ln k), so that the sum over an anchor's k negatives estimates the sum over the whole eligible set.

    log_q [B, K]: of each negative, as the server sends it (with replacement, where it is exact). The sign is a known trap: the
    correction is *subtracted*. The positive stays as it is: without ln k on the negatives the partition would be overstated
    k-fold. Only where the positives are a sample too, in-batch ones, give `positive_log_q` [B]: then both sides are corrected.

    k is the number of an anchor's negatives that count. So the answer to several draws goes in as it is, `negs.log_q` [B, K]
    with all K side by side: each draw then estimates the sum with its share of the weight. `negs.log_q_mix` (ask for it with
    log_q_mix=True) in its place estimates the same with a smaller variance. `Nearest` with choose="top" has no log_q: leave its
    negatives out with `counted`.
    """
    positive, negative, counted = checked(positive, negative, counted)
    temperature = heat(temperature)
    log_q = _log_probabilities(log_q, "log_q", negative)
    if not bool(log_q[counted].isfinite().all()):
        raise InvalidArgument.of(
            "log_q",
            'has none for negatives that count: Nearest with choose="top" picks without chance, and ids-only answers bring no'
            " log_q; draw otherwise, or leave those out with counted",
        )
    draws = counted.sum(dim=1, keepdim=True).clamp(min=1).to(negative).log()
    corrected = negative / temperature - (log_q + draws)
    own = positive / temperature
    if positive_log_q is not None:
        of_positive = _log_probabilities(positive_log_q, "positive_log_q", positive)
        if not bool(of_positive.isfinite().all()):
            raise InvalidArgument.of(
                "positive_log_q",
                "has positives that could not be drawn (-inf) or of no probability (NaN): leave those anchors out",
            )
        own = own - of_positive
    logits = torch.cat([own[:, None], excluded(corrected, counted)], dim=1)
    return (logits.logsumexp(dim=1) - logits[:, 0]).mean()


def _log_probabilities(values: Tensor, name: str, scores: Tensor) -> Tensor:
    values = floats(values, name)
    if values.shape != scores.shape:
        raise InvalidArgument.of(name, f"must be {tuple(scores.shape)}, one for each score, got {kind(values)}")
    must_be_beside(values, name, scores)
    return values.to(scores)
