"""The negatives of one anchor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from .home import Array


@dataclass(frozen=True, eq=False)
class Picks:
    """The negatives of one anchor, draw by draw in the request's order; as many as there were, never padded.

    Attributes:
        indices: i64, rows of the answer (in the per-anchor layout, of its picks one after the other).
        draws: i64, the draw that picked each.
        scores: f32, NaN where none was computed.
        log_q: f32, as `Negatives.log_q`.
    """

    indices: Array
    draws: Array
    scores: Array
    log_q: Array
    _ids: Callable[[], Array] = field(repr=False)

    @property
    def ids(self) -> Array:
        """Ids u64 of the entries picked."""
        return self._ids()
