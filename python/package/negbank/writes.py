"""Rows to write, as a value: for a write that goes along with a draw, and for the calls that write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from .answers import WriteAnswer
from .errors import FailedPrecondition, InvalidArgument
from .home import Home
from .integers import masked_vector, vector
from .matrices import matrix
from .matrices import vector as float_vector
from .receipts import Enqueued, Written
from .requests import WriteBatch
from .scalars import real_or_none, whole, whole_or_none

# Ids and groups: whole numbers of 0 to 2**64 - 1. Labels: of 64 signed bits. Both as anything that numpy makes an array of, or
# tensors. Where a row may have none: None in a list, or a masked array.
Integers = npt.ArrayLike
SomeIntegers = npt.ArrayLike | Sequence[int | None]


@dataclass(frozen=True)
class Stage:
    """Ranks in order: the batches of all ranks are applied as one, in the order of their ranks, once all are there.

    So ranks that sample before they write have all read the same bank, whichever was faster. The write returns when the stage
    is complete; at the earliest deadline among its ranks it raises DeadlineExceeded on all of them, naming those that are
    missing, and nothing is applied. The same batch sent again joins its stage; another one raises AlreadyExists.

    Args:
        step: training step; also of the rows, unless the write has a `step` of its own.
        rank: this rank, 0 to world_size - 1.
        world_size: ranks that take part, the same from each.
        micro_batch: 0, 1, ... within the step (gradient accumulation); each waits for the one before.
    """

    step: int
    rank: int
    world_size: int
    micro_batch: int = 0

    def __post_init__(self) -> None:
        whole(self.step, "stage.step", 64)
        for field in ("rank", "world_size", "micro_batch"):
            whole(getattr(self, field), f"stage.{field}")


@dataclass(frozen=True, eq=False)
class Write:
    """Rows to write along with a draw: `bank.sample(anchors, ..., write=negbank.Write(ids=ids, embeddings=keys))`.

    Drawn first, then written, in one round trip; see `Negatives.written`. The fields are the parameters of `Bank.write`
    (keyed banks, which need `ids`) and `Bank.enqueue` (queues).
    """

    _: KW_ONLY
    embeddings: npt.ArrayLike
    ids: Integers | None = None
    labels: SomeIntegers | None = None
    groups: SomeIntegers | None = None
    weights: npt.ArrayLike | None = None
    step: SupportsIndex | None = None
    momentum: float | None = None
    stage: Stage | None = None

    def batch(self, bank: str, kind: str, dim: int) -> WriteBatch:
        """The rows, checked, as they are sent."""
        if kind == "keyed" and self.ids is None:
            raise InvalidArgument.of("ids", "are required: each entry of a keyed bank has one")
        if kind == "queue" and self.momentum is not None:
            raise FailedPrecondition(f"bank {bank!r} is a queue, whose entries do not move: leave momentum out")
        if self.stage is not None and not isinstance(self.stage, Stage):
            raise InvalidArgument.of("stage", f"must be a negbank.Stage, got {self.stage!r}")
        labels, has_label = masked_vector(self.labels, np.int64, "labels")
        groups, has_group = masked_vector(self.groups, np.uint64, "groups")
        return WriteBatch(
            bank=bank,
            embeddings=matrix(self.embeddings, dim, "embeddings"),
            ids=None if self.ids is None else vector(self.ids, np.uint64, "ids"),
            labels=labels,
            has_label=has_label,
            groups=groups,
            has_group=has_group,
            weights=None if self.weights is None else float_vector(self.weights, "weights"),
            step=whole_or_none(self.step, "step", 64),
            momentum=real_or_none(self.momentum, "momentum"),
            stage=self.stage,
        )


def written(done: WriteAnswer) -> Written:
    """The receipt of a write to a keyed bank."""
    fields: dict[str, Any] = {name: value for name, value in done.items() if name != "ids"}
    return Written(**fields)


def enqueued(done: WriteAnswer, batch: WriteBatch, home: Home) -> Enqueued:
    """The receipt of a write to a queue."""
    return Enqueued(
        ids=home.array(done["ids"] if batch.ids is None else batch.ids),
        sequence=done["sequence"],
        inserted=done["inserted"],
        evicted=done["evicted"],
        position=done["position"],
        duplicate=done["duplicate"],
    )
