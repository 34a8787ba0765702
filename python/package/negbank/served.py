"""One draw's part of an answer, as [B, k] arrays."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from .answers import DrawAnswer


@dataclass(frozen=True)
class Served:
    """The picks of one draw: `k` places an anchor; `rows` of the answer are its own in the per-anchor layout."""

    answer: DrawAnswer
    k: int
    shared: bool
    rows: slice

    @property
    def counts(self) -> npt.NDArray[np.uint32]:
        """u32 [B]: picks of each anchor; in a shared draw those of the set that its filters leave."""
        return self.answer["counts"]

    @property
    def size(self) -> int:
        """Picks in the flat columns: of all anchors, or of the one set."""
        if self.shared:
            return self.answer["mask"].size // max(self.counts.size, 1)
        return int(self.counts.sum())

    @property
    def short(self) -> npt.NDArray[np.bool_]:
        """bool [B]: anchors that got fewer than k. What an anchor's own filters take from a shared set is not missing."""
        if self.shared:
            return np.full(self.counts.shape, self.size < self.k)
        short: npt.NDArray[np.bool_] = self.counts != self.k
        return short

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """bool [B, k]: where there is a negative."""
        if not self.shared:
            below: npt.NDArray[np.bool_] = np.arange(self.k) < self.counts[:, None]
            return below
        of_set: npt.NDArray[np.bool_] = _padded(self._of_set(self.answer["mask"]), self.k, np.False_)
        return of_set

    def wide(self, flat: npt.NDArray[Any], fill: Any) -> npt.NDArray[Any]:
        """A flat column [picks, ...] as [B, k, ...], with `fill` in the places that are left."""
        anchors = self.counts.size
        if self.shared:
            return _padded(np.broadcast_to(flat, (anchors, *flat.shape)), self.k, fill)
        if flat.shape[0] == anchors * self.k:
            return flat.reshape(anchors, self.k, *flat.shape[1:])
        block = np.full((anchors, self.k, *flat.shape[1:]), fill, dtype=flat.dtype)
        if flat.shape[0]:
            block[self.mask] = flat
        return block

    def numbers(self, flat: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """A flat column of floats as [B, k]: NaN where there is no negative, and everywhere if it was not sent."""
        anchors = self.counts.size
        if not flat.size:
            return np.full((anchors, self.k), np.nan, dtype=np.float32)
        if not self.shared:
            return self.wide(flat, np.float32(np.nan))
        # One number for each of the set, for each anchor, or for each anchor's view of each.
        each = self._of_set(flat) if flat.size == anchors * self.size else flat[:, None] if flat.size == anchors else flat
        seen = np.where(self._of_set(self.answer["mask"]), each, np.float32(np.nan))
        return _padded(seen.astype(np.float32, copy=False), self.k, np.float32(np.nan))

    @cached_property
    def log_q(self) -> npt.NDArray[np.float32]:
        """The flat column. In a shared draw by unequal probabilities each anchor has its own for each of the set: [B x N]."""
        shift = self.answer["log_q_shift"]
        if not shift.size:
            return self.answer["log_q"]
        flat: npt.NDArray[np.float32] = (self.answer["log_q"] + shift[:, None]).reshape(-1)
        return flat

    def places(self, i: int) -> npt.NDArray[np.int64]:
        """Places in the flat columns of anchor `i`'s picks."""
        if self.shared:
            return np.flatnonzero(self._of_set(self.answer["mask"])[i])
        end = int(self._ends[i])
        return np.arange(end - int(self.counts[i]), end)

    def numbers_at(self, flat: npt.NDArray[np.float32], i: int, places: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """What `numbers` has of anchor `i`, at these places of the flat column."""
        if not flat.size:
            return np.full(places.size, np.nan, dtype=np.float32)
        if self.shared and flat.size == self.counts.size * self.size:
            seen: npt.NDArray[np.float32] = self._of_set(flat)[i, places]
            return seen
        if self.shared and flat.size == self.counts.size:
            return np.full(places.size, flat[i])
        return flat[places]

    @cached_property
    def _ends(self) -> npt.NDArray[np.int64]:
        return np.cumsum(self.counts, dtype=np.int64)

    def _of_set(self, flat: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return flat.reshape(self.counts.size, self.size)


def _padded(block: npt.NDArray[Any], k: int, fill: Any) -> npt.NDArray[Any]:
    if block.shape[1] >= k:
        return block
    padded = np.full((block.shape[0], k, *block.shape[2:]), fill, dtype=block.dtype)
    padded[:, : block.shape[1]] = block
    return padded
