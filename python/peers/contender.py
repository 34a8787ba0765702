"""Whoever can be asked for nearest entries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .cases import Case

Search = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Anchors and their labels to [B, k] ids, -1 where there are fewer."""


@dataclass(frozen=True)
class Setting:
    """One way to ask."""

    name: str
    search: Search


class Contender(Protocol):
    """An index, filled."""

    name: str

    def settings(self, case: Case) -> Sequence[Setting]:
        """Ways to answer a case, the fastest first; none: it can't."""
        ...


EF = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1_024)
"""Searched widths; those below k are left out."""

FETCHED = (96, 128, 256, 512, 1_024, 2_048)
"""Rows fetched, of which those of the anchor's label are then dropped, by libraries without a filter of their own."""


def dropped(ids: np.ndarray, own: np.ndarray, k: int) -> np.ndarray:
    """The first k of each row's ids that are not its `own`, padded with -1."""
    last = np.argsort(own, axis=1, kind="stable")[:, :k]
    kept = np.take_along_axis(ids, last, 1).astype(np.int64)
    kept[np.take_along_axis(own, last, 1)] = -1
    return kept
