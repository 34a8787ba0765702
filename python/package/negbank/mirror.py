"""A bank's copy on this side, kept up by what changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .answers import ChunkAnswer
from .errors import FailedPrecondition
from .home import Array, Home
from .mirrored import Table


@dataclass(frozen=True, eq=False)
class Changes:
    """What a refresh changed.

    Attributes:
        rows: i64, places in the mirror's arrays of the entries that are new or were rewritten, ascending.
        gone: entries that left.
        whole: the bank was read anew: at the first refresh, after too many changes for the server to remember, and after the
            bank was created anew.
        consistent: the mirror is the bank as it stood at one moment; False if writes came during the refresh, which the next
            one brings.
    """

    rows: npt.NDArray[np.int64]
    gone: int
    whole: bool
    consistent: bool


class Mirror:
    """A local copy of a bank, in order of arrival; get one from `Bank.mirror`.

    `refresh` fetches what changed since the last one (a queue of 65,536 entries into which 256 are written: 256 rows). The
    arrays are views of the mirror's own memory, which grows by doubling and is reused: the next refresh may change what they
    show, so copy what must stay. Not for several threads at once.
    """

    def __init__(self, scan: Callable[[bytes, float | None], Iterator[ChunkAnswer]], dim: int, capacity: int | None) -> None:
        """Of `Bank.mirror`; not called by users."""
        self._scan = scan
        self._table = Table(dim, capacity)
        self._position = b""

    def refresh(self, *, timeout: float | None = None) -> Changes:
        """Brings the mirror up to date. After an error it is as it was, or partly newer, and the next refresh mends it."""
        try:
            return self._follow(timeout)
        except FailedPrecondition:
            if not self._position:
                raise
            # The position is of a bank that was deleted; the one of its name now is read from its beginning.
            self._position = b""
            return self._follow(timeout)

    def _follow(self, timeout: float | None) -> Changes:
        table, gone, whole, consistent = self._table, 0, False, False
        touched: list[npt.NDArray[np.uint64]] = []
        for chunk in self._scan(self._position, timeout):
            if chunk["whole"] and not whole:
                whole = True
                # Until the last chunk is here this is nobody's state: a refresh that fails midway has to begin anew.
                self._position = b""
                gone += len(table)
                table.clear()
            gone += table.drop(chunk["gone"])
            table.put(chunk["stamps"], chunk["rows"])
            touched.append(chunk["stamps"])
            if chunk["last"]:
                self._position, consistent = chunk["position"], chunk["consistent"]
        stamps = np.unique(np.concatenate(touched)) if touched else np.empty(0, dtype=np.uint64)
        return Changes(rows=np.searchsorted(table.column("stamps"), stamps), gone=gone, whole=whole, consistent=consistent)

    @property
    def embeddings(self) -> Array:
        """[n, d] as stored, of the dtype asked for (see `Negatives.embeddings` for bfloat16)."""
        return Home().floats(self._table.column("embeddings"))

    @property
    def ids(self) -> npt.NDArray[np.uint64]:
        """u64 [n]."""
        return self._table.column("ids")

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """i64 [n]; 0 where `has_label` is False."""
        return self._table.column("labels")

    @property
    def has_label(self) -> npt.NDArray[np.bool_]:
        """bool [n]."""
        return self._table.column("has_label")

    @property
    def groups(self) -> npt.NDArray[np.uint64]:
        """u64 [n]; 0 where `has_group` is False."""
        return self._table.column("groups")

    @property
    def has_group(self) -> npt.NDArray[np.bool_]:
        """bool [n]."""
        return self._table.column("has_group")

    @property
    def steps(self) -> npt.NDArray[np.uint64]:
        """u64 [n], training step of the entry's last write; 0: none was given."""
        return self._table.column("steps")

    @property
    def weights(self) -> npt.NDArray[np.float32]:
        """f32 [n], sampling weights."""
        return self._table.column("weights")

    @property
    def position(self) -> bytes:
        """How far the bank's history had come at the last refresh; b"" before the first."""
        return self._position

    def __len__(self) -> int:
        return len(self._table)

    def __repr__(self) -> str:
        return f"<Mirror of {len(self)} entries>"
