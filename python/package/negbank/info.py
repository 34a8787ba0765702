"""How a bank stands, and how an answer was made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class BankInfo:
    """A bank as it stood when it was asked for.

    `capacity` is None where there is no bound, `momentum` where there is none (queues), `step` until a write carries one.
    `sequence` counts the write batches applied; `labels` and `groups` are the distinct ones held; `bytes_per_entry` is
    memory for the embedding and its columns.
    """

    name: str
    kind: Literal["keyed", "queue"]
    metric: Literal["cosine", "dot", "l2"]
    dim: int
    capacity: int | None
    momentum: float | None
    shards: int
    entries: int
    sequence: int
    step: int | None
    labels: int
    groups: int
    bytes_per_entry: int


@dataclass(frozen=True, eq=False)
class SampleInfo:
    """How an answer was made.

    Attributes:
        seed: the one used; with it the same request on the same history of writes draws the same.
        reproducible: False if a write came between the answer's reads.
        n: per draw, u32 [B]: entries that passed the anchor's filters; None where score rules leave that unknown.
        log_partition: per draw, f32 [B]: ln sum exp(beta s) over the anchor's window (-inf where it is empty); None for other
            draws than "softmax".
        kappa: per draw, f32 [B]: see `Nearest(without_replacement=True)`; None for other draws.
        plans: per draw, how it was found: "roster", "posting_list", "enumeration" or "scan".
        shortfalls: picks missing from B x K, by reason: "too_few" (fewer than k eligible entries), "score" (score rules),
            "window" (skip and window).
        rejections: entries examined and refused, by reason: "self", "positive", "denied", "same_group", "same_label",
            "label", "age", "score". A scan examines only entries that could make the ranking.
        sequence_first, sequence_last: the bank's sequence at the first and last read; equal: one consistent state.
        step: the bank's training step at the last read; None until a write carries one.
    """

    seed: int
    reproducible: bool
    n: list[npt.NDArray[np.uint32] | None]
    log_partition: list[npt.NDArray[np.float32] | None]
    kappa: list[npt.NDArray[np.float32] | None]
    plans: list[str]
    shortfalls: dict[str, int]
    rejections: dict[str, int]
    sequence_first: int
    sequence_last: int
    step: int | None
