"""Scores and which of them count."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import InvalidArgument


def similarities(queries: Tensor, negatives: Tensor) -> Tensor:
    """Dot products [B, K] of queries [B, d] with each anchor's own negatives [B, K, d], or with a shared set [K, d].

    Of unit vectors these are cosines. Negatives of another dtype or device than the queries are brought to theirs: where those
    are halves, so are the scores; see `negbank.torch` for what a low temperature makes of that.
    """
    must_be_floats(queries, "queries")
    must_be_floats(negatives, "negatives")
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


def checked(positive: Tensor, negative: Tensor, counted: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Scores [B] and [B, K], halves as float32, and `counted` [B, K], all of them where it is None; refuses what can't be one
    batch's."""
    positive, negative = floats(positive, "positive"), floats(negative, "negative")
    if positive.ndim != 1 or negative.ndim != 2 or len(negative) != len(positive):
        raise InvalidArgument.of(
            "negative", f"scores of shape {tuple(negative.shape)} are no [B, K] for {tuple(positive.shape)} positive scores"
        )
    if not len(positive):
        raise InvalidArgument.of("positive", "is of no anchor, and the mean over none is no number: skip the step")
    must_be_beside(negative, "negative", positive)
    if counted is None:
        return positive, negative, torch.ones_like(negative, dtype=torch.bool)
    return positive, negative, mask(counted, "counted", negative)


def floats(values: Tensor, name: str) -> Tensor:
    """A tensor of floats; halves as float32, in which sums of exponentials keep their digits."""
    must_be_floats(values, name)
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def must_be_floats(values: Tensor, name: str) -> None:
    """Refuses what is no tensor of floats."""
    if not isinstance(values, Tensor) or not values.is_floating_point():
        raise InvalidArgument.of(name, f"must be a torch tensor of floats, got {kind(values)}")


def mask(values: Tensor, name: str, scores: Tensor) -> Tensor:
    """A tensor of booleans of the scores' shape, on their device."""
    if not isinstance(values, Tensor) or values.dtype != torch.bool or values.shape != scores.shape:
        raise InvalidArgument.of(name, f"must be a bool tensor {tuple(scores.shape)}, got {kind(values)}")
    return values.to(scores.device)


def must_be_beside(values: Tensor, name: str, other: Tensor) -> None:
    """Refuses tensors of two devices."""
    if values.device != other.device:
        raise InvalidArgument.of(
            name, f"is on {values.device}, and what it goes with on {other.device}: bring both to one device"
        )


def kind(values: object) -> str:
    """What was given in place of a tensor that would do."""
    return f"{values.dtype} {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__


def heat(temperature: float, name: str = "temperature") -> float:
    """A temperature that can be divided by."""
    if not (math.isfinite(temperature) and temperature > 0):
        raise InvalidArgument.of(name, f"must be a positive number, got {temperature}")
    return temperature


def log_total(logits: Tensor, counted: Tensor) -> Tensor:
    """ln sum exp [B] over the logits that count; minus infinity, without a gradient, for an anchor that has none."""
    some = counted.any(dim=1)
    return excluded(logits, counted).masked_fill(~some[:, None], 0.0).logsumexp(dim=1).masked_fill(~some, -torch.inf)


def excluded(logits: Tensor, counted: Tensor) -> Tensor:
    """The logits, minus infinity where they don't count."""
    return logits.masked_fill(~counted, -torch.inf)
