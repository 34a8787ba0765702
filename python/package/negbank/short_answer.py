"""Explaining an answer that has fewer negatives than were asked for."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .errors import ShortAnswer

_SHOWN = 5
_WHY = {
    "too_few": "fewer entries than k pass the filters: write more, or filter less",
    "score": "the score rules leave fewer than k: loosen them",
    "weight": "entries of weight 0 are never drawn",
    "window": "skip and window leave fewer than k: lower skip",
}


def short_answer(
    counts: npt.NDArray[np.uint32], is_short: npt.NDArray[np.bool_], k: int, shortfalls: dict[str, int]
) -> ShortAnswer:
    """The error for `counts` [B, D] that add up to less than `k` for the anchors that are short."""
    got = counts.sum(axis=1)
    short = np.flatnonzero(is_short)
    named = ", ".join(map(str, short[:_SHOWN])) + (", ..." if short.size > _SHOWN else "")
    reasons = "; ".join(f"{count} {reason} ({_WHY.get(reason, 'see info')})" for reason, count in shortfalls.items())
    return ShortAnswer(
        f"{short.size} of {got.size} anchors have fewer than K = {k} negatives (anchors {named}; the fewest: {got.min()}), so"
        f" there is no full [B, K] array. Missing picks: {reasons}. Pass pad=True and mask the logits by .mask, or read"
        " negs.anchor(i), or lower k.",
        short,
        shortfalls,
    )
