"""Entries read by id, by age of their step, or all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from .answers import FetchAnswer, StalestAnswer
from .home import Array, Home

Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True, eq=False)
class Entries:
    """Entries in the order of the R ids asked for; where `found` is False, the other columns hold zeros.

    Attributes:
        ids: u64 [R], as asked for.
        found: bool [R].
        embeddings: [R, d], as stored (of unit length in a cosine bank), of the dtype asked for.
        labels, has_label: i64 [R], bool [R]; a label is 0 where the entry has none.
        groups, has_group: u64 [R], bool [R].
        steps: u64 [R], training step of the entry's last write; 0: none was given.
        weights: f32 [R], sampling weights; 1 where none was given.

    Torch tensors where the ids are one; unsigned integers are int64 then.
    """

    ids: Array
    found: Array
    embeddings: Array
    labels: Array
    has_label: Array
    groups: Array
    has_group: Array
    steps: Array
    weights: Array

    @classmethod
    def aligned(cls, ids: npt.NDArray[np.uint64], answer: FetchAnswer, dim: int, home: Home) -> Entries:
        """Entries with a row for each id; the answer has rows only for those found."""
        found, rows = answer["found"], answer["rows"]
        return cls(
            ids=home.array(ids),
            found=home.array(found),
            embeddings=home.floats(_spread(rows["embeddings"].reshape(-1, dim), found)),
            labels=home.array(_spread(rows["labels"], found)),
            has_label=home.array(_spread(rows["has_label"], found)),
            groups=home.array(_spread(rows["groups"], found)),
            has_group=home.array(_spread(rows["has_group"], found)),
            steps=home.array(_spread(rows["steps"], found)),
            weights=home.array(_spread(rows["weights"], found)),
        )


@dataclass(frozen=True, eq=False)
class Stalest:
    """The entries that most need a refresh, oldest step first; of one step the one written longest ago.

    Attributes:
        ids: u64 [R].
        steps: u64 [R], training step of the entry's last write; 0: none was given.
        labels, has_label, groups, has_group, weights: [R], as in `Entries`.
    """

    ids: npt.NDArray[np.uint64]
    steps: npt.NDArray[np.uint64]
    labels: npt.NDArray[np.int64]
    has_label: npt.NDArray[np.bool_]
    groups: npt.NDArray[np.uint64]
    has_group: npt.NDArray[np.bool_]
    weights: npt.NDArray[np.float32]

    @classmethod
    def of(cls, answer: StalestAnswer) -> Stalest:
        """From the native half's answer."""
        rows = answer["rows"]
        return cls(**{name: rows[name] for name in cls.__dataclass_fields__})  # type: ignore[literal-required]


def _spread(column: npt.NDArray[Scalar], found: npt.NDArray[np.bool_]) -> npt.NDArray[Scalar]:
    if column.shape[0] == found.size:
        return column
    spread = np.zeros((found.size, *column.shape[1:]), dtype=column.dtype)
    spread[found] = column
    return spread
