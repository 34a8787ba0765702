"""Triplets."""

from __future__ import annotations

from torch import Tensor

from ..errors import InvalidArgument
from .scores import checked


def triplet_semi_hard(positive: Tensor, negative: Tensor, *, margin: float = 0.1, counted: Tensor | None = None) -> Tensor:
    """FaceNet's loss over semi-hard negatives (Schroff 2015, eqs. 1 and 4): mean of n - p + margin over all pairs with
    p - margin < n < p; zero where there is none.

    Scores are cosines: FaceNet's margin of 0.2 is in squared distance of unit vectors, which is 0.1 here.
    """
    positive, negative, counted = checked(positive, negative, counted)
    if not margin > 0:
        raise InvalidArgument.of("margin", f"must be a positive number, got {margin}")
    gap = negative - positive[:, None]
    semi_hard = counted & (gap < 0) & (gap > -margin)
    return (gap + margin).masked_fill(~semi_hard, 0.0).sum() / semi_hard.sum().clamp(min=1)
