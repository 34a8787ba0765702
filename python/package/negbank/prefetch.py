"""Negatives for the next step while this one computes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, SupportsIndex, TypeVar

import numpy.typing as npt

from .errors import InvalidArgument
from .negatives import Negatives
from .pending import Pending
from .receipts import Enqueued, Written
from .sampler import Sampler
from .scalars import whole

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Age:
    """What asking ahead cost an answer.

    Attributes:
        steps: training steps between the draw and its use: 0 for the first batch, then 1 (at most `ahead`).
        writes: write batches that the bank applied in between, as far as the sampler's receipts and later answers tell: other
            ranks' last ones may come on top. 0 where the server was away and nothing was drawn.
        waited: seconds for which the trainer had to wait for the answer.
    """

    steps: int
    writes: int
    waited: float


@dataclass
class _Asked(Generic[Batch]):
    batch: Batch
    number: int
    at: int = 0
    pending: Pending[Negatives] | None = None


class Prefetch(Generic[Batch]):
    """Pairs each batch with its negatives, which were asked for when the batch before was handed out.

        sampler = negbank.Sampler(bank, negbank.Nearest(16, skip=2), seed=7)
        for (images, ids), negs in negbank.Prefetch(sampler, loader, lambda batch: {"anchors": None, "anchor_ids": batch[1]}):
            ...
            sampler.write(ids=ids, embeddings=keys, step=step)

    What is drawn ahead can't depend on what the step computes: draw uniformly, or for stored entries (`anchor_ids`). A draw
    ahead misses the write of the step that computes meanwhile; `last` tells how much that was. With `Sampler.write` it never
    sees that write, so that the draws of a seeded run repeat.
    """

    def __init__(
        self,
        sampler: Sampler,
        batches: Iterable[Batch],
        request: Callable[[Batch], Mapping[str, Any]],
        *,
        ahead: SupportsIndex = 1,
    ) -> None:
        """
        Args:
            sampler: asks; its `step` counts the batches.
            batches: a loader, say. One batch more than was handed out has been taken from it: a loader that keeps its own
                position is `ahead` batches further than the training.
            request: the parameters of `Sampler.sample` for a batch, `anchors` among them.
            ahead: steps; 0 asks for each batch when it is handed out.
        """
        self._sampler, self._batches, self._request = sampler, iter(batches), request
        self._ahead = whole(ahead, "ahead")
        self._waiting: deque[_Asked[Batch]] = deque()
        self._given = 0
        self.last: Age | None = None
        """What it cost the answer handed out last."""

    def __iter__(self) -> Prefetch[Batch]:
        return self

    def __next__(self) -> tuple[Batch, Negatives]:
        self._ask()
        if not self._waiting:
            raise StopIteration
        one = self._waiting[0]
        pending = one.pending or self._start(one)
        began = time.perf_counter()
        try:
            negatives = pending.result()
        except BaseException:
            # No batch is lost: the next call asks again.
            self.close()
            raise
        waited = time.perf_counter() - began
        self._waiting.popleft()
        self._sampler.saw(negatives)
        missed = 0 if negatives.info.unavailable else self._sampler.sequence - negatives.info.sequence_last
        self.last = Age(self._given - one.at, max(0, missed), waited)
        self._given += 1
        return one.batch, negatives

    def write(self, embeddings: npt.ArrayLike, *, timeout: float | None = None, **columns: Any) -> Written | Enqueued:
        """The sampler's: `Sampler.write`."""
        return self._sampler.write(embeddings, timeout=timeout, **columns)

    def state_dict(self) -> dict[str, Any]:
        """The sampler's state as of the batches handed out, and `batches`, their number: skip as many when resuming.

        Gives up what is in flight, and asks for it again after this: the run that goes on then draws as the resumed one will.
        Take it between a step's write and the next batch.
        """
        self.close()
        next_one = self._waiting[0].number if self._waiting else self._sampler.step
        return {**self._sampler.state_dict(), "step": next_one, "batches": self._given}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state_dict` was taken; before the first batch, of batches from which `batches` were skipped."""
        if self._given or self._waiting:
            raise InvalidArgument.of("state", "is loaded before the first batch is taken")
        self._sampler.load_state_dict(state)
        self._given = whole(state.get("batches", 0), "state.batches", 64)

    def close(self) -> None:
        """Gives up what is in flight."""
        for one in self._waiting:
            if one.pending is not None:
                one.pending.cancel()
                one.pending = None

    def _ask(self) -> None:
        """Has `ahead` batches in flight besides the one that is due."""
        while len(self._waiting) <= self._ahead:
            try:
                batch = next(self._batches)
            except StopIteration:
                break
            self._waiting.append(_Asked(batch, self._sampler.step))
            self._sampler.step += 1
        for one in self._waiting:
            if one.pending is None:
                self._start(one)

    def _start(self, one: _Asked[Batch]) -> Pending[Negatives]:
        one.at = self._given
        one.pending = self._sampler.call(one.number, **self._request(one.batch))
        return one.pending
