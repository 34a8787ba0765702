"""How a bank stands, and how an answer was made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .answers import BankFields, CheckpointFields, GatherFields
from .home import Array


@dataclass(frozen=True)
class OpenStage:
    """A staged write that waits for ranks; of the missing ones the first 64."""

    step: int
    micro_batch: int
    world_size: int
    missing_ranks: list[int]


@dataclass(frozen=True)
class IndexInfo:
    """The graph of a keyed bank. It is built in the background and replaced as a whole.

    Attributes:
        state: "scan": there is none, and every search scans; "building": one is being built, and the one before, if any,
            serves meanwhile; "serving": it serves where it is cheaper.
        reason: why it is in this state.
        generation: the bank's sequence when the build of the one that serves began; None: none serves.
        lag: mutations since.
        indexed, scanned: entries that it was built from, and that are scanned beside it: new, moved far or not reachable.
        mean_similarity: mean cosine of the indexed rows to what they were when it was built; 1: nothing moved.
        unreachable: entries that the graph can't find; they are among the scanned.
        progress: while "building", the share of the rows that are in.
        recall: mean recall of the last approximate answers that a scan checked, `recall_samples` of them; None: none was.
    """

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


@dataclass(frozen=True)
class BankInfo:
    """A bank as it stood when it was asked for.

    `capacity` is None where there is no bound, `momentum` where there is none (queues), `step` until a write carries one.
    `sequence` counts the write batches applied; `labels` and `groups` are the distinct ones held; `bytes_per_entry` is
    memory for the embedding and its columns; `peak_bytes_per_entry` that of all that is kept of an entry while a graph is
    built, and `peak_bytes` the same of the bank at its capacity, None where there is none; `writers` those whose writes are
    recognised when they come again; `stages` the staged writes that wait for ranks; `index` the graph that large banks are
    searched by, None in a queue; `durability` when a write reaches the disk; `damage` what is wrong with its files, if that
    is why it takes no writes; `lost_after` the sequence after which acknowledged writes were lost to a power cut, or may
    have been (durability "interval"), None if that never happened; `recovering` the share of its files that a restarted
    server has read, None once the bank is served: until then nothing of it is counted, and calls raise `Unavailable`.
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
    peak_bytes_per_entry: int
    peak_bytes: int | None
    dtype: Literal["float32", "float16", "bfloat16"]
    writers: int
    stages: list[OpenStage]
    durability: Literal["memory", "interval", "always"]
    index: IndexInfo | None = None
    damage: str | None = None
    lost_after: int | None = None
    recovering: float | None = None

    @classmethod
    def of(cls, fields: BankFields) -> BankInfo:
        """From the native half's answer."""
        stages = [OpenStage(**stage) for stage in fields["stages"]]
        index = None if fields["index"] is None else IndexInfo(**fields["index"])
        return cls(**{**fields, "stages": stages, "index": index})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Checkpoint:
    """A bank as it was at `sequence`, kept under `tag`.

    `state_hash` is equal for equal banks: entries, their order, counters, and the numbers of their writers; `content_hash` for
    banks that are equal but for who wrote, such as those of two runs that did the same. `created` is in seconds since 1970,
    `bytes` the size of the file, `step` the bank's training step.
    """

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

    @classmethod
    def of(cls, fields: CheckpointFields) -> Checkpoint:
        """From the native half's answer."""
        return cls(**fields)


@dataclass(frozen=True)
class GatherInfo:
    """A gather as it stands: it waits for `missing_ranks` (the first 64), or is `finished` and kept for those who come again.

    `bytes` is the room that it takes on the server; of a waiting one, room for as much from every rank.
    """

    group: str
    step: int
    micro_batch: int
    world_size: int
    missing_ranks: list[int]
    finished: bool
    bytes: int

    @classmethod
    def of(cls, fields: GatherFields) -> GatherInfo:
        """From the native half's answer."""
        return cls(**fields)


@dataclass(frozen=True, eq=False)
class SampleInfo:
    """How an answer was made.

    Attributes:
        seed: the one used; with it the same request on the same history of writes draws the same.
        reproducible: False if a write came between the answer's reads.
        n: per draw, u32 [B]: entries that passed the anchor's filters; None where score rules leave that unknown.
        n_scored: per draw, u32 [B]: entries that then passed the score rules: of `Nearest(count_exact=True)`, and of `Softmax`
            and `Band` with rules; else None.
        n_band: per draw, u32 [B]: entries in the anchor's band; None for other draws than `Band`.
        n_shared: per draw, the entries that a shared set was drawn from; None for other draws.
        log_partition: per draw, f32 [B]: ln sum exp(beta s) over the anchor's window, of `Softmax` over all that is scored
            (-inf where that is nothing); None for draws that are no softmax.
        kappa: per draw, f32 [B]: see `without_replacement` of the draws that have it; None for others.
        plans: per draw, how it was found: "roster", "posting_list", "enumeration", "scan" or "graph".
        plan_reasons: per draw, why it was found so; "" where there was no choice.
        candidates: per draw, of a `Softmax` in a bank too large for one over everything, how many nearest of each anchor it was
            over instead: `log_q` and `log_partition` are then over these. None: it was over everything, or is no `Softmax`.
        generations, generation_lags: per draw that a graph answered, also for a part of the anchors, the bank's sequence when
            the graph's build began and the mutations since: how stale the graph is, not the answer, which is checked against
            the rows as they stand. None for other draws.
        shortfalls: picks missing from B x K, by reason: "too_few" (fewer than k eligible entries), "score" (score rules),
            "window" (skip and window, or the band), "weight" (entries of weight 0 are never drawn).
        rejections: entries examined and refused, by reason: "self", "positive", "denied", "same_group", "same_label",
            "label", "group", "age", "score". A scan examines only entries that could make the ranking.
        sequence_first, sequence_last: the bank's sequence at the first and last read; equal: one consistent state.
        step: the bank's training step at the last read; None until a write carries one.
        unavailable: the server was away, and this answer, which holds nothing, was made here (`on_unavailable="in_batch"`).

    Arrays are torch tensors where the anchors are, unsigned integers then int64.
    """

    seed: int
    reproducible: bool
    n: list[Array | None]
    n_scored: list[Array | None]
    n_band: list[Array | None]
    n_shared: list[int | None]
    log_partition: list[Array | None]
    kappa: list[Array | None]
    plans: list[str]
    plan_reasons: list[str]
    candidates: list[int | None]
    generations: list[int | None]
    generation_lags: list[int | None]
    shortfalls: dict[str, int]
    rejections: dict[str, int]
    sequence_first: int
    sequence_last: int
    step: int | None
    unavailable: bool = False
