"""The rows of all ranks of a step."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from .answers import GatherAnswer
from .home import Array, Home


class Gathered:
    """The N rows that the W ranks of a step brought: rank 0's in their order, then rank 1's, and so on; the same on every rank.

    Arrays are numpy's, or torch tensors on the device of this rank's rows where those are a tensor: then integers are int64.
    They carry no gradient: `negbank.torch.live_rows` puts this rank's own rows back in with theirs.
    """

    def __init__(self, answer: GatherAnswer, *, rank: int, dim: int, home: Home, unavailable: bool = False) -> None:
        """Of `Client.gather`; not called by users."""
        self._rows, self._home = answer["rows"], home
        self._counts = answer["counts"].astype(np.int64)
        self._dim, self._rank = dim, rank
        self.missing_ranks: list[int] = answer["missing_ranks"]
        """Ranks whose rows are not here: they were late."""
        self.unavailable: bool = unavailable
        """The server was away, and this answer, of this rank's rows only, was made here (`on_unavailable="in_batch"`)."""

    def __len__(self) -> int:
        return int(self._counts.sum())

    @cached_property
    def embeddings(self) -> Array:
        """Floats [N, d] of the dtype that was sent (float32 for float64); bfloat16 in numpy as `Negatives.embeddings`."""
        return self._home.floats(self._rows["embeddings"].reshape(-1, self._dim))

    @cached_property
    def ids(self) -> Array | None:
        """u64 [N]; None where the ranks gave none."""
        return self._column(self._rows["ids"])

    @cached_property
    def labels(self) -> Array | None:
        """i64 [N], 0 where `has_label` is False; None where no rank gave any."""
        return self._column(self._rows["labels"])

    @cached_property
    def has_label(self) -> Array | None:
        """bool [N]; None where no rank gave labels."""
        return self._column(self._rows["has_label"])

    @cached_property
    def groups(self) -> Array | None:
        """u64 [N], 0 where `has_group` is False; None where no rank gave any."""
        return self._column(self._rows["groups"])

    @cached_property
    def has_group(self) -> Array | None:
        """bool [N]; None where no rank gave groups."""
        return self._column(self._rows["has_group"])

    @cached_property
    def counts(self) -> Array:
        """i64 [W]: rows of each rank; 0 of a missing one."""
        return self._home.array(self._counts)

    @cached_property
    def ranks(self) -> Array:
        """i64 [N]: the rank that brought each row."""
        return self._home.array(np.repeat(np.arange(self._counts.size), self._counts))

    @property
    def own(self) -> slice:
        """Where this rank's rows lie; empty where it was late, or brought none."""
        start = int(self._counts[: self._rank].sum())
        return slice(start, start + int(self._counts[self._rank]))

    @property
    def late(self) -> bool:
        """This rank came when the set was frozen: its rows are not in it."""
        return self._rank in self.missing_ranks

    @property
    def partial(self) -> bool:
        """Ranks are missing."""
        return bool(self.missing_ranks)

    @property
    def loss_scale(self) -> int:
        """What a loss over all N rows is multiplied with where gradients are averaged over the ranks (DDP).

        W, since each rank's gradient is its own rows' share of the whole; 1 where `unavailable`: each rank then has a loss of
        its own. Where some ranks have lost the server and others not, DDP averages losses of scale W and of 1: that step's
        gradient is of neither, it is biased. Where that matters, all-reduce the flag and have all ranks skip the step.
        """
        return 1 if self.unavailable else self._counts.size

    def false_negatives(self, *, same_label: bool = False) -> Array:
        """bool [N, N], symmetric: pairs of rows that are no negatives of each other: a row and itself, rows of one id, of one
        group, and with `same_label` of one label. For this rank's rows against all: `gathered.false_negatives()[gathered.own]`.
        """
        same: npt.NDArray[np.bool_] = np.eye(len(self), dtype=np.bool_)
        rows = self._rows
        if rows["ids"].size:
            same |= np.equal.outer(rows["ids"], rows["ids"])
        if rows["groups"].size:
            same |= np.equal.outer(rows["groups"], rows["groups"]) & np.logical_and.outer(rows["has_group"], rows["has_group"])
        if same_label and rows["labels"].size:
            same |= np.equal.outer(rows["labels"], rows["labels"]) & np.logical_and.outer(rows["has_label"], rows["has_label"])
        return self._home.array(same)

    def __repr__(self) -> str:
        missing = f" missing={self.missing_ranks}" if self.partial else ""
        flags = missing + " late" * self.late + " unavailable" * self.unavailable
        return f"<Gathered N={len(self)} W={self._counts.size} d={self._dim}{flags}>"

    def _column(self, column: npt.NDArray[Any]) -> Array | None:
        return self._home.array(column) if column.size or not len(self) else None
