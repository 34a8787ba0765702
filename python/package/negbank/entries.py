"""Entries read by id."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from .answers import FetchAnswer

Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True, eq=False)
class Entries:
    """Entries in the order of the R ids asked for; where `found` is False, the other columns hold zeros.

    Attributes:
        ids: u64 [R], as asked for.
        found: bool [R].
        embeddings: f32 [R, d], as stored (of unit length in a cosine bank).
        labels, has_label: i64 [R], bool [R]; a label is 0 where the entry has none.
        groups, has_group: u64 [R], bool [R].
        steps: u64 [R], training step of the entry's last write; 0: none was given.
    """

    ids: npt.NDArray[np.uint64]
    found: npt.NDArray[np.bool_]
    embeddings: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    has_label: npt.NDArray[np.bool_]
    groups: npt.NDArray[np.uint64]
    has_group: npt.NDArray[np.bool_]
    steps: npt.NDArray[np.uint64]

    @classmethod
    def aligned(cls, ids: npt.NDArray[np.uint64], answer: FetchAnswer, dim: int) -> Entries:
        """Entries with a row for each id; the answer has rows only for those found."""
        found, rows = answer["found"], answer["rows"]
        return cls(
            ids=ids,
            found=found,
            embeddings=_spread(rows["embeddings"].reshape(-1, dim), found),
            labels=_spread(rows["labels"], found),
            has_label=_spread(rows["has_label"], found),
            groups=_spread(rows["groups"], found),
            has_group=_spread(rows["has_group"], found),
            steps=_spread(rows["steps"], found),
        )


def _spread(column: npt.NDArray[Scalar], found: npt.NDArray[np.bool_]) -> npt.NDArray[Scalar]:
    if column.shape[0] == found.size:
        return column
    spread = np.zeros((found.size, *column.shape[1:]), dtype=column.dtype)
    spread[found] = column
    return spread
