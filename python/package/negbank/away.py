"""What stands in for an answer while the server is away."""

from __future__ import annotations

import warnings
from typing import Literal

import numpy as np

from .answers import DrawAnswer, RowColumns, SampleAnswer
from .asking import Asked
from .errors import InvalidArgument

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
        n=np.empty(0, dtype=np.uint32),
        n_scored=np.empty(0, dtype=np.uint32),
        n_shared=0,
        mask=np.empty(0, dtype=np.bool_),
        log_partition=np.empty(0, dtype=np.float32),
        kappa=np.empty(0, dtype=np.float32),
        plan="none",
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


class Outage:
    """Whether the server was away at the last call; says so once each time it goes."""

    def __init__(self) -> None:
        self._away = False

    def begins(self, fault: Exception) -> None:
        """The server is away."""
        if not self._away:
            self._away = True
            warnings.warn(f"no negatives from the bank, going on without them: {fault}", RuntimeWarning, stacklevel=4)

    def ends(self) -> None:
        """The server answered."""
        self._away = False
