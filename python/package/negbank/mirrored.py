"""Rows sorted by stamp in memory that is reused."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .answers import RowColumns

_LEAST = 1024


class Table:
    """Columns of n rows, ascending by stamp: a window of larger arrays, into which rows are appended at the end.

    Where the oldest leave, as in a queue, the window moves; the rows move only when it meets the end of the arrays.
    """

    def __init__(self, dim: int, capacity: int | None) -> None:
        """`capacity`: rows expected at most; twice that is set aside at once, up to a million, so a queue never grows it."""
        self._dim = dim
        self._room = max(_LEAST, 2 * capacity if capacity is not None and capacity <= 1 << 20 else 0)
        self._start = self._end = 0
        self._columns: dict[str, npt.NDArray[Any]] = {}

    def __len__(self) -> int:
        return self._end - self._start

    def column(self, name: str) -> npt.NDArray[Any]:
        """A view of a column."""
        if not self._columns:
            empty = np.empty((0, self._dim), dtype=np.float32) if name == "embeddings" else np.empty(0, dtype=_DTYPES[name])
            return empty
        return self._columns[name][self._start : self._end]

    def clear(self) -> None:
        """Forgets every row."""
        self._start = self._end = 0

    def drop(self, stamps: npt.NDArray[np.uint64]) -> int:
        """Forgets the rows of these stamps, those that are here, and counts them."""
        own, leaving = self.column("stamps"), np.sort(stamps)
        if np.array_equal(own[: leaving.size], leaving):
            self._start += leaving.size
            return int(leaving.size)
        gone = np.isin(own, leaving)
        count = int(gone.sum())
        staying = np.flatnonzero(~gone)
        for column in self._columns.values():
            column[self._start : self._start + staying.size] = column[self._start : self._end][staying]
        self._end = self._start + staying.size
        return count

    def put(self, stamps: npt.NDArray[np.uint64], rows: RowColumns) -> None:
        """Puts each row under its stamp: over the one that is there, or where it belongs."""
        if not stamps.size:
            return
        given: dict[str, npt.NDArray[Any]] = {**rows, "stamps": stamps}  # type: ignore[dict-item]
        given["embeddings"] = rows["embeddings"].reshape(-1, self._dim)
        own = self.column("stamps")
        places = np.searchsorted(own, stamps)
        here = np.zeros(stamps.size, dtype=np.bool_)
        inside = places < own.size
        here[inside] = own[places[inside]] == stamps[inside]
        new = np.flatnonzero(~here)
        new = new[np.argsort(stamps[new], kind="stable")]
        in_order = not new.size or not own.size or bool(stamps[new[0]] > own[-1])
        self._reserve(new.size, given)
        for name, column in self._columns.items():
            column[self._start + places[here]] = given[name][here]
            column[self._end : self._end + new.size] = given[name][new]
        self._end += new.size
        if not in_order:
            order = np.argsort(self.column("stamps"), kind="stable")
            for column in self._columns.values():
                column[self._start : self._end] = column[self._start : self._end][order]

    def _reserve(self, more: int, like: dict[str, npt.NDArray[Any]]) -> None:
        """Makes room for `more` rows behind the window: at the arrays' start if they are half empty, else in larger ones."""
        if not self._columns:
            self._room = max(self._room, more)
            self._columns = {name: np.empty((self._room, *c.shape[1:]), dtype=c.dtype) for name, c in like.items()}
        if self._end + more <= self._room:
            return
        count = len(self)
        if count + more <= self._room and 2 * count <= self._room:
            for column in self._columns.values():
                column[:count] = column[self._start : self._end]
        else:
            self._room = max(2 * self._room, count + more)
            for name, column in self._columns.items():
                larger = np.empty((self._room, *column.shape[1:]), dtype=column.dtype)
                larger[:count] = column[self._start : self._end]
                self._columns[name] = larger
        self._start, self._end = 0, count


_DTYPES: dict[str, Any] = {
    "ids": np.uint64,
    "labels": np.int64,
    "has_label": np.bool_,
    "groups": np.uint64,
    "has_group": np.bool_,
    "steps": np.uint64,
    "weights": np.float32,
    "stamps": np.uint64,
}
