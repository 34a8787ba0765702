"""What stands in for an answer while the server is away."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .answers import DrawAnswer, GatherAnswer, RowColumns, SampleAnswer
from .asking import Asked
from .errors import InvalidArgument
from .requests import GatherCall

OnUnavailable = Literal["raise", "in_batch"]


def check_on_unavailable(value: str) -> None:
    """Refuses what is neither."""
    if value not in ("raise", "in_batch"):
        raise InvalidArgument.of("on_unavailable", f'{value!r} is none: give "raise" or "in_batch"')


def nothing(asked: Asked) -> SampleAnswer:
    """An answer without a pick."""
    anchors = asked.call.anchors.rows
    draw = DrawAnswer(
        counts=np.zeros(anchors, dtype=np.uint32),
        indices=np.empty(0, dtype=np.int64),
        scores=np.empty(0, dtype=np.float32),
        log_q=np.empty(0, dtype=np.float32),
        log_q_mix=np.empty(0, dtype=np.float32),
        log_q_shift=np.empty(0, dtype=np.float32),
        positive_log_q=np.empty(0, dtype=np.float32),
        n=np.empty(0, dtype=np.uint32),
        n_scored=np.empty(0, dtype=np.uint32),
        n_band=np.empty(0, dtype=np.uint32),
        n_shared=0,
        mask=np.empty(0, dtype=np.bool_),
        log_partition=np.empty(0, dtype=np.float32),
        kappa=np.empty(0, dtype=np.float32),
        plan="none",
        plan_reason="the server was away",
        generation=None,
        generation_lag=0,
        candidates=0,
        shortfalls={},
        rejections={},
    )
    dtype = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}[asked.call.dtype]
    rows = RowColumns(
        ids=np.empty(0, dtype=np.uint64),
        embeddings=np.empty(0, dtype=dtype),
        labels=np.empty(0, dtype=np.int64),
        has_label=np.empty(0, dtype=np.bool_),
        groups=np.empty(0, dtype=np.uint64),
        has_group=np.empty(0, dtype=np.bool_),
        steps=np.empty(0, dtype=np.uint64),
        weights=np.empty(0, dtype=np.float32),
    )
    return SampleAnswer(
        rows=rows,
        draws=[draw] * len(asked.draws),
        seed=asked.call.seed or 0,
        sequence_first=0,
        sequence_last=0,
        step=None,
        reproducible=False,
        write=None,
    )


def own_rows(call: GatherCall) -> GatherAnswer:
    """A gather of this rank's rows alone."""
    rows = call.embeddings.rows
    numbers = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}[call.embeddings.dtype]
    counts = np.zeros(call.world_size, dtype=np.uint32)
    counts[call.rank] = rows

    def there(column: npt.NDArray[Any] | None, has: npt.NDArray[np.uint8] | None) -> npt.NDArray[np.bool_]:
        if column is None:
            return np.empty(0, dtype=np.bool_)
        return np.ones(rows, dtype=np.bool_) if has is None else has.astype(np.bool_)

    columns = RowColumns(
        ids=np.empty(0, dtype=np.uint64) if call.ids is None else call.ids,
        embeddings=call.embeddings.data.view(numbers),
        labels=np.empty(0, dtype=np.int64) if call.labels is None else call.labels,
        has_label=there(call.labels, call.has_label),
        groups=np.empty(0, dtype=np.uint64) if call.groups is None else call.groups,
        has_group=there(call.groups, call.has_group),
        steps=np.empty(0, dtype=np.uint64),
        weights=np.empty(0, dtype=np.float32),
    )
    others = [rank for rank in range(call.world_size) if rank != call.rank]
    return GatherAnswer(rows=columns, counts=counts, missing_ranks=others)


class Outage:
    """Whether something was missing at the last call; says so once each time it begins."""

    def __init__(self) -> None:
        self._missing = False

    def begins(self, warning: str) -> None:
        """It is missing."""
        if not self._missing:
            self._missing = True
            warnings.warn(warning, RuntimeWarning, stacklevel=4)

    def ends(self) -> None:
        """It is there."""
        self._missing = False
