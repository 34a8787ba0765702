"""The negatives of one anchor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Picks:
    """The negatives of one anchor, draw by draw in the request's order; as many as there were, never padded.

    Attributes:
        indices: i64, rows of the answer.
        draws: i64, the draw that picked each.
        scores: f32, NaN where none was computed.
        log_q: f32, as `Negatives.log_q`.
    """

    indices: npt.NDArray[np.int64]
    draws: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    log_q: npt.NDArray[np.float32]
    _row_ids: Callable[[], npt.NDArray[np.uint64]] = field(repr=False)

    @property
    def ids(self) -> npt.NDArray[np.uint64]:
        """Ids u64 of the entries picked."""
        return self._row_ids()[self.indices]
