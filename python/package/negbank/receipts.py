"""What a write did."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Written:
    """A write to a keyed bank: its number in the bank's sequence, the entries that are new and the moves of others.

    `position`: an opaque token; a read with `at_least=position` sees this write, from whichever rank it comes.
    """

    sequence: int
    inserted: int
    updated: int
    position: bytes


@dataclass(frozen=True, eq=False)
class Enqueued:
    """Rows appended to a queue: their ids u64 [R], given or assigned, and how many entries left to make room.

    `position`: as in `Written`.
    """

    ids: npt.NDArray[np.uint64]
    sequence: int
    inserted: int
    evicted: int
    position: bytes
