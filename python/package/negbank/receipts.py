"""What a write did."""

from __future__ import annotations

from dataclasses import dataclass

from .home import Array


@dataclass(frozen=True)
class Written:
    """What a write to a keyed bank did; of a staged one, what the writes of all ranks did together.

    Attributes:
        sequence: its number in the bank's sequence.
        inserted, updated: entries that are new, and moves of others.
        evicted: entries that left a bank with a capacity to make room.
        position: an opaque token; a read with `at_least=position` sees this write, from whichever rank it comes.
        duplicate: the write had been applied before, at this position, and was not applied again; the counts are 0.
    """

    sequence: int
    inserted: int
    updated: int
    evicted: int
    position: bytes
    duplicate: bool


@dataclass(frozen=True, eq=False)
class Enqueued:
    """What appending rows to a queue did.

    Attributes:
        ids: u64 [R], given or assigned.
        inserted, evicted: rows appended, and entries that left to make room.
        sequence, position, duplicate: as in `Written`. A duplicate whose ids the server had assigned has none here.
    """

    ids: Array
    sequence: int
    inserted: int
    evicted: int
    position: bytes
    duplicate: bool
