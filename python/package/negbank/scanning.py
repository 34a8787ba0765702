"""Whole banks: chunk by chunk, or at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .answers import ChunkAnswer
from .errors import Error
from .home import Array, Home

COLUMNS = ("ids", "labels", "has_label", "groups", "has_group", "steps", "weights")


@dataclass(frozen=True, eq=False)
class Rows:
    """R entries of a bank, a queue's from the oldest to the newest, a keyed bank's in the order in which they came.

    Attributes:
        ids: u64 [R].
        embeddings: [R, d], as stored, of the dtype asked for (see `Negatives.embeddings` for bfloat16); [0, d] without them.
        labels, has_label, groups, has_group, steps, weights: [R], as in `Entries`.
        stamps: u64 [R], each the entry's own for as long as it is in the bank, growing with arrival; a rewrite keeps it.
    """

    ids: npt.NDArray[np.uint64]
    embeddings: Array
    labels: npt.NDArray[np.int64]
    has_label: npt.NDArray[np.bool_]
    groups: npt.NDArray[np.uint64]
    has_group: npt.NDArray[np.bool_]
    steps: npt.NDArray[np.uint64]
    weights: npt.NDArray[np.float32]
    stamps: npt.NDArray[np.uint64]

    def __len__(self) -> int:
        return self.ids.size


@dataclass(frozen=True, eq=False)
class ScanChunk(Rows):
    """A part of a scan.

    Attributes (those of `Rows`, and):
        gone: u64, stamps of entries that left since the position asked for; before any row.
        whole: these are all entries, not only those that changed since that position; told by the first chunk.
        last: no chunk comes after this one.
        position: of the last chunk: the `since` of the next scan.
        consistent: of the last chunk: no write came meanwhile, so that all rows are of one state.
        entries: entries of the bank; sequence, step: of the bank.
    """

    gone: npt.NDArray[np.uint64]
    whole: bool
    last: bool
    position: bytes
    consistent: bool
    entries: int
    sequence: int
    step: int | None


@dataclass(frozen=True, eq=False)
class Everything(Rows):
    """A whole bank.

    Attributes (those of `Rows`, and):
        consistent: no write came while it was read, so that all rows are of one state.
        position: how far the bank's history had come when the reading began.
        sequence, step: of the bank at the end.
    """

    consistent: bool
    position: bytes
    sequence: int
    step: int | None


def chunks(answers: Iterator[ChunkAnswer], dim: int) -> Iterator[ScanChunk]:
    """The chunks of a scan as they come."""
    for answer in answers:
        yield _chunk(answer, dim)


def everything(answers: Iterator[ChunkAnswer], dim: int) -> Everything:
    """All rows of a scan in one piece."""
    read = [_chunk(answer, dim) for answer in answers]
    if not read or not read[-1].last:
        raise Error("the scan ended before its last chunk: call again")
    columns = {name: np.concatenate([getattr(chunk, name) for chunk in read]) for name in ("embeddings", "stamps", *COLUMNS)}
    end = read[-1]
    return Everything(**columns, consistent=end.consistent, position=end.position, sequence=end.sequence, step=end.step)


def _chunk(answer: ChunkAnswer, dim: int) -> ScanChunk:
    rows = answer["rows"]
    return ScanChunk(
        ids=rows["ids"],
        embeddings=Home().floats(rows["embeddings"].reshape(-1, dim)),
        labels=rows["labels"],
        has_label=rows["has_label"],
        groups=rows["groups"],
        has_group=rows["has_group"],
        steps=rows["steps"],
        weights=rows["weights"],
        stamps=answer["stamps"],
        gone=answer["gone"],
        whole=answer["whole"],
        last=answer["last"],
        position=answer["position"],
        consistent=answer["consistent"],
        entries=answer["entries"],
        sequence=answer["sequence"],
        step=answer["step"],
    )
