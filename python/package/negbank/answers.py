"""What comes back from the native half, as dicts of these: it makes them of the structs that derive IntoPyObject in src/."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

import numpy as np
import numpy.typing as npt


class BankFields(TypedDict):
    """The fields of `BankInfo`."""

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
    peak_bytes_per_entry: int
    peak_bytes: int | None
    dtype: Literal["float32", "float16", "bfloat16"]
    writers: int
    stages: list[StageFields]
    index: IndexFields | None
    durability: Literal["memory", "interval", "always"]
    damage: str | None
    lost_after: int | None
    recovering: float | None


class IndexFields(TypedDict):
    """The fields of `IndexInfo`."""

    state: Literal["scan", "building", "serving"]
    reason: str
    generation: int | None
    lag: int
    indexed: int
    scanned: int
    mean_similarity: float
    unreachable: int
    progress: float
    recall: float | None
    recall_samples: int


class CheckpointFields(TypedDict):
    """The fields of `Checkpoint`."""

    bank: str
    tag: str
    sequence: int
    step: int | None
    entries: int
    bytes: int
    created: float
    state_hash: str
    content_hash: str
    dim: int
    kind: Literal["keyed", "queue"]
    metric: Literal["cosine", "dot", "l2"]
    dtype: Literal["float32", "float16", "bfloat16"]


class StageFields(TypedDict):
    """The fields of `OpenStage`."""

    step: int
    micro_batch: int
    world_size: int
    missing_ranks: list[int]


class WriteAnswer(TypedDict):
    """What a write did; `ids` only where the server gave them."""

    sequence: int
    inserted: int
    updated: int
    evicted: int
    ids: npt.NDArray[np.uint64]
    position: bytes
    duplicate: bool


class RowColumns(TypedDict):
    """Columns of entries, embeddings flat (uint16: the bits of bfloat16); a column that was not sent is empty."""

    ids: npt.NDArray[np.uint64]
    embeddings: npt.NDArray[Any]
    labels: npt.NDArray[np.int64]
    has_label: npt.NDArray[np.bool_]
    groups: npt.NDArray[np.uint64]
    has_group: npt.NDArray[np.bool_]
    steps: npt.NDArray[np.uint64]
    weights: npt.NDArray[np.float32]


class FetchAnswer(TypedDict):
    """Which ids were found [R], and the rows of those."""

    found: npt.NDArray[np.bool_]
    rows: RowColumns
    sequence: int
    step: int | None


class StalestAnswer(TypedDict):
    """Entries without embeddings, the stalest first."""

    rows: RowColumns
    sequence: int
    step: int | None


class ChunkAnswer(TypedDict):
    """A part of a scan."""

    rows: RowColumns
    stamps: npt.NDArray[np.uint64]
    gone: npt.NDArray[np.uint64]
    whole: bool
    last: bool
    position: bytes
    consistent: bool
    entries: int
    sequence: int
    step: int | None


class DrawAnswer(TypedDict):
    """One draw: the picks of one anchor after the other's, `counts` [B] of them; a column that was not sent is empty."""

    counts: npt.NDArray[np.uint32]
    indices: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    log_q: npt.NDArray[np.float32]
    log_q_mix: npt.NDArray[np.float32]
    log_q_shift: npt.NDArray[np.float32]
    positive_log_q: npt.NDArray[np.float32]
    n: npt.NDArray[np.uint32]
    n_scored: npt.NDArray[np.uint32]
    n_band: npt.NDArray[np.uint32]
    n_shared: int
    mask: npt.NDArray[np.bool_]
    log_partition: npt.NDArray[np.float32]
    kappa: npt.NDArray[np.float32]
    plan: str
    plan_reason: str
    generation: int | None
    generation_lag: int
    candidates: int
    shortfalls: dict[str, int]
    rejections: dict[str, int]


class SampleAnswer(TypedDict):
    """A whole answer."""

    rows: RowColumns
    draws: list[DrawAnswer]
    seed: int
    sequence_first: int
    sequence_last: int
    step: int | None
    reproducible: bool
    write: WriteAnswer | None


class GatherAnswer(TypedDict):
    """The rows of all ranks, `counts` [W] of each, and the ranks that are missing."""

    rows: RowColumns
    counts: npt.NDArray[np.uint32]
    missing_ranks: list[int]


class GatherFields(TypedDict):
    """The fields of `GatherInfo`."""

    group: str
    step: int
    micro_batch: int
    world_size: int
    missing_ranks: list[int]
    finished: bool
    bytes: int
