"""Scores and which of them count."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import InvalidArgument


def similarities(queries: Tensor, negatives: Tensor) -> Tensor:
    """Dot products [B, K] of queries [B, d] with each anchor's own negatives [B, K, d], or with a shared set [K, d].

    Of unit vectors these are cosines. Negatives of another dtype or device than the queries are brought to theirs.
    """
    negatives = negatives.to(queries)
    if queries.ndim != 2 or negatives.ndim not in (2, 3) or negatives.shape[-1] != queries.shape[1]:
        raise InvalidArgument.of(
            "negatives", f"of shape {tuple(negatives.shape)} are no [B, K, d] or [K, d] for queries {tuple(queries.shape)}"
        )
    if negatives.ndim == 2:
        return queries @ negatives.T
    if len(negatives) != len(queries):
        raise InvalidArgument.of("negatives", f"are of {len(negatives)} anchors, and there are {len(queries)} queries")
    return torch.einsum("bd,bkd->bk", queries, negatives)


def checked(positive: Tensor, negative: Tensor, counted: Tensor | None) -> Tensor:
    """`counted` [B, K], all of them where it is None; refuses shapes that don't belong together."""
    if positive.ndim != 1 or negative.ndim != 2 or len(negative) != len(positive):
        raise InvalidArgument.of(
            "negative", f"scores of shape {tuple(negative.shape)} are no [B, K] for {tuple(positive.shape)} positive scores"
        )
    if counted is None:
        return torch.ones_like(negative, dtype=torch.bool)
    if counted.shape != negative.shape or counted.dtype != torch.bool:
        raise InvalidArgument.of("counted", f"must be bool {tuple(negative.shape)}, got {counted.dtype} {tuple(counted.shape)}")
    return counted.to(negative.device)


def heat(temperature: float) -> float:
    """A temperature that can be divided by."""
    if not (math.isfinite(temperature) and temperature > 0):
        raise InvalidArgument.of("temperature", f"must be a positive number, got {temperature}")
    return temperature


def log_total(logits: Tensor, counted: Tensor) -> Tensor:
    """ln sum exp [B] over the logits that count; minus infinity, without a gradient, for an anchor that has none."""
    some = counted.any(dim=1)
    return excluded(logits, counted).masked_fill(~some[:, None], 0.0).logsumexp(dim=1).masked_fill(~some, -torch.inf)


def excluded(logits: Tensor, counted: Tensor) -> Tensor:
    """The logits, minus infinity where they don't count."""
    return logits.masked_fill(~counted, -torch.inf)
