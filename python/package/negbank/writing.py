"""Writing to a bank."""

from __future__ import annotations

from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from .handle import Handle
from .home import Home
from .integers import vector
from .pending import Pending
from .receipts import Enqueued, Written
from .requests import WriteBatch
from .writes import Integers, SomeIntegers, Stage, Write, enqueued, written


class Writing(Handle):
    """The calls that change a bank."""

    def write(
        self,
        ids: Integers,
        embeddings: npt.ArrayLike,
        labels: SomeIntegers | None = None,
        groups: SomeIntegers | None = None,
        step: SupportsIndex | None = None,
        momentum: float | None = None,
        *,
        weights: npt.ArrayLike | None = None,
        stage: Stage | None = None,
        timeout: float | None = None,
    ) -> Written:
        """Writes R rows to a keyed bank: a new id is inserted, an id that is there moves, v <- norm(m v + (1 - m) x).

        Rows apply in order; an id twice moves twice. All or nothing. When this returns, every later read sees the rows. The
        write carries its writer's name and number, so that it is sent again after a broken connection and applied once.

        Args:
            ids: [R], whole numbers of 0 to 2**64 - 1.
            embeddings: [R, d] floats (float32, float16 and bfloat16 are sent as they are), an array or a tensor, which is
                detached; finite, and not zero in a cosine bank, which normalises.
            labels: [R] class labels of 64 signed bits; None in a list, or masked: no label. Left out, a rewrite keeps them.
            groups: [R] as ids: entries of one group are never each other's negatives. None and left out: as labels.
            step: training step of the encoder that made the rows.
            momentum: overrides the bank's m for this call, in [0, 1); 0 replaces.
            weights: [R] sampling weights, finite and at least 0. A new entry without one has 1; left out, a rewrite keeps them.
            stage: waits for the other ranks' writes of this step and applies all in the order of ranks; see `Stage`.
            timeout: seconds. After DeadlineExceeded the rows may or may not have been written.

        Raises:
            FailedPrecondition: the bank is a queue, or opened read-only.
        """
        batch = self._keyed(
            ids,
            embeddings,
            labels=labels,
            groups=groups,
            step=step,
            momentum=momentum,
            weights=weights,
            stage=stage,
        )
        return written(self._session.write(batch, timeout))

    def write_async(
        self, ids: Integers, embeddings: npt.ArrayLike, *, timeout: float | None = None, **columns: Any
    ) -> Pending[Written]:
        """As `write`, at once: the arrays have been copied when this returns; the result comes later, see `Pending`.

        `columns` are the other parameters of `write`, by name. Two writes in flight apply in either order. Keep fewer than
        1,024 of them in flight: the bank remembers that many of a writer's numbers, and refuses older ones.
        """
        batch = self._keyed(ids, embeddings, **columns)
        return Pending.start(lambda landed: self._session.start_write(batch, timeout, landed), written)

    def enqueue(
        self,
        embeddings: npt.ArrayLike,
        ids: Integers | None = None,
        labels: SomeIntegers | None = None,
        groups: SomeIntegers | None = None,
        step: SupportsIndex | None = None,
        *,
        weights: npt.ArrayLike | None = None,
        stage: Stage | None = None,
        timeout: float | None = None,
    ) -> Enqueued:
        """Appends R rows to a queue; the oldest entries leave once it is full. Any R: of more than fit, the last stay.

        Args:
            embeddings, labels, groups, step, weights, stage, timeout: as `write`.
            ids: [R]; may repeat. Left out, the server numbers the rows, and the answer's `.ids` says how.

        Raises:
            FailedPrecondition: the bank is keyed, or opened read-only.
        """
        batch, home = self._queued(embeddings, ids=ids, labels=labels, groups=groups, step=step, weights=weights, stage=stage)
        return enqueued(self._session.write(batch, timeout), batch, home)

    def enqueue_async(self, embeddings: npt.ArrayLike, *, timeout: float | None = None, **columns: Any) -> Pending[Enqueued]:
        """As `enqueue`, at once: the arrays have been copied when this returns; the result comes later, see `Pending`.

        `columns` are the other parameters of `enqueue`, by name. As to order and number in flight, see `write_async`.
        """
        batch, home = self._queued(embeddings, **columns)
        return Pending.start(
            lambda landed: self._session.start_write(batch, timeout, landed), lambda done: enqueued(done, batch, home)
        )

    def remove(self, ids: Integers, *, timeout: float | None = None) -> int:
        """Removes the entries of these ids and returns how many there were; absent ids are ignored."""
        self._may_write()
        return self._session.remove(self.name, vector(ids, np.uint64, "ids"), timeout)

    def _keyed(self, ids: Integers, embeddings: npt.ArrayLike, **columns: Any) -> WriteBatch:
        self._may_write()
        self._must_be("keyed", "enqueue(embeddings, ids=...)")
        return Write(ids=ids, embeddings=embeddings, **columns).batch(self.name, self.kind, self.dim)

    def _queued(self, embeddings: npt.ArrayLike, **columns: Any) -> tuple[WriteBatch, Home]:
        self._may_write()
        self._must_be("queue", "write(ids, embeddings)")
        rows = Write(embeddings=embeddings, **columns)
        return rows.batch(self.name, self.kind, self.dim), Home.of(embeddings)
