"""What goes to the native half: it reads these attributes by name, with the structs that derive FromPyObject in src/."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .per_anchor import PerAnchor

if TYPE_CHECKING:
    from .draws import Draw
    from .writes import Stage

Ids = npt.NDArray[np.uint64]
Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class FloatMatrix:
    """`rows` x `dim` floats of `dtype` ("float32", "float16", "bfloat16"): `data` is their memory, row-major."""

    data: npt.NDArray[np.uint8]
    rows: int
    dim: int
    dtype: str


@dataclass(frozen=True)
class BankSettings:
    """A bank to create; None: the server's default."""

    name: str
    dim: int
    kind: str
    metric: str
    momentum: float | None
    capacity: int | None
    shards: int | None
    dtype: str
    durability: str | None


@dataclass(frozen=True)
class CheckpointCall:
    """A checkpoint to make; `keep` 0: as the server's settings say."""

    bank: str
    tag: str
    replace: bool
    keep: int


@dataclass(frozen=True)
class RestoreCall:
    """A bank to bring back; `tag` "": the newest, `into` "": the same bank."""

    bank: str
    tag: str
    into: str
    durability: str | None


@dataclass(frozen=True)
class WriteBatch:
    """Rows to write. `has_*` is 1 where the row has a value; None: every row has one."""

    bank: str
    embeddings: FloatMatrix
    ids: Ids | None
    labels: Labels | None
    has_label: Mask | None
    groups: Ids | None
    has_group: Mask | None
    weights: Floats | None
    step: int | None
    momentum: float | None
    stage: Stage | None


@dataclass(frozen=True)
class AnchorColumns:
    """What negatives are drawn for, `rows` of them, each of `views` embeddings."""

    rows: int
    embeddings: FloatMatrix | None
    views: int
    combine: str
    ids: Ids | None
    labels: Labels | None
    has_label: Mask | None
    groups: Ids | None
    has_group: Mask | None
    positive_scores: PerAnchor[np.float32] | None
    positive_ids: PerAnchor[np.uint64] | None
    denied_ids: PerAnchor[np.uint64] | None


@dataclass(frozen=True)
class DrawCall:
    """One draw of `k`, by the settings of `draw`; `strategy` is the name of its class."""

    k: int
    strategy: str
    draw: Draw
    filters: FilterColumns | None
    scope: str


@dataclass(frozen=True)
class FilterColumns:
    """Which entries are eligible."""

    exclude_self: bool | None
    exclude_same_group: bool | None
    exclude_same_label: bool
    exclude_ids: Ids | None
    only_labels: Labels | None
    exclude_labels: Labels | None
    exclude_unlabelled: bool
    min_step: int | None
    max_age: int | None
    only_same_label: bool
    only_same_group: bool


@dataclass(frozen=True)
class SampleCall:
    """A whole request for negatives."""

    bank: str
    anchors: AnchorColumns
    draws: list[DrawCall]
    filters: FilterColumns
    step: int | None
    at_least: bytes
    min_entries: int
    wait_for_entries: bool
    seed: int | None
    columns: list[str]
    layout: str
    dtype: str
    log_q_mix: bool
    positive_log_q: bool
    write: WriteBatch | None
    retries: int | None


@dataclass(frozen=True)
class FetchCall:
    """Entries to read by id."""

    bank: str
    ids: Ids
    at_least: bytes
    dtype: str


@dataclass(frozen=True)
class ScanCall:
    """A bank to read, or what changed in it `since` a position; `chunk_rows` 0: the server's choice."""

    bank: str
    dtype: str
    without_embeddings: bool
    chunk_rows: int
    at_least: bytes
    since: bytes


@dataclass(frozen=True)
class GatherCall:
    """A rank's rows for a gather. `wait_ms` 0: until the deadline; `has_*` as in `WriteBatch`."""

    group: str
    step: int
    micro_batch: int
    rank: int
    world_size: int
    embeddings: FloatMatrix
    ids: Ids | None
    labels: Labels | None
    has_label: Mask | None
    groups: Ids | None
    has_group: Mask | None
    wait_ms: int
    retries: int | None
