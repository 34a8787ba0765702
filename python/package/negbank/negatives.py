"""Negatives served for a batch of anchors."""

from __future__ import annotations

from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from .answers import SampleAnswer
from .asking import Asked
from .errors import FailedPrecondition
from .home import Array
from .info import SampleInfo
from .picks import Picks
from .receipts import Enqueued, Written
from .sample_info import sample_info
from .served import Served
from .short_answer import short_answer


class Negatives:
    """Negatives for B anchors: the columns of the entries served, and picks [B, K].

    K is the total of the draws' k; the draws lie side by side along it, in the request's order, each k wide. What a row is
    depends on the layout. "pooled": [U], each of the U distinct entries once, and `indices` point to them: embeddings of the
    negatives are `negs.embeddings[negs.indices]`, [B, K, d]. "per_anchor": [B, K], a row a pick, so that `negs.embeddings` is
    [B, K, d] itself, and there are no `indices`.

    Where nothing was picked at all, in a padded answer or while the server is away, U is 1: one row of zeros (and False), which
    no mask counts, so that the -1 of `indices` has a row to point to.

    Arrays are numpy's, or torch tensors on the anchors' device where the anchors are a tensor: then integers are int64, and
    embeddings are of the anchors' dtype where that is a half. They carry no gradient. A row column that was not asked for
    raises AttributeError.
    """

    def __init__(
        self, answer: SampleAnswer, asked: Asked, *, written: Written | Enqueued | None = None, unavailable: bool = False
    ) -> None:
        """Of `Bank.sample`; not called by users."""
        self._rows = answer["rows"]
        self._asked = asked
        self._pad = asked.pad or unavailable
        self._step = answer["step"] if asked.step is None else asked.step
        sizes = [served.size for served in _served(answer, asked, [0] * len(asked.draws))]
        self._draws = _served(answer, asked, list(accumulate(sizes, initial=0)))
        floats = self._rows["embeddings"]
        if {"ids", "embeddings"} <= asked.columns and floats.size != self._rows["ids"].size * asked.dim:
            raise FailedPrecondition(
                f"the bank no longer has embeddings of {asked.dim} floats: it was deleted and created anew; open it again with"
                " client.bank(name)"
            )
        self.info: SampleInfo = sample_info(answer, asked, unavailable=unavailable)
        """How the answer was made: seed, sizes of the eligible sets, shortfalls; see `SampleInfo`."""
        self.written: Written | Enqueued | None = written
        """What the request's `write` did; None without one."""

    @cached_property
    def counts(self) -> Array:
        """u32 [B, D]: picks that each anchor got from each of the D draws."""
        return self._home.array(self._counts)

    @cached_property
    def embeddings(self) -> Array:
        """Floats of the dtype asked for, [U, d], or [B, K, d] by anchor: as stored (of unit length in a cosine bank).

        bfloat16 is uint16 (its bits) in numpy, or ml_dtypes.bfloat16 where ml_dtypes is imported.
        """
        return self._home.floats(self._row("embeddings", self._rows["embeddings"].reshape(-1, self._asked.dim)))

    @cached_property
    def ids(self) -> Array:
        """u64, [U] or [B, K]."""
        return self._home.array(self._row("ids", self._rows["ids"]))

    @cached_property
    def labels(self) -> Array:
        """i64, [U] or [B, K]; 0 where `has_label` is False."""
        return self._home.array(self._row("labels", self._rows["labels"]))

    @cached_property
    def has_label(self) -> Array:
        """bool, [U] or [B, K]: the entry has a label."""
        return self._home.array(self._row("labels", self._rows["has_label"]))

    @cached_property
    def groups(self) -> Array:
        """u64, [U] or [B, K]; 0 where `has_group` is False."""
        return self._home.array(self._row("groups", self._rows["groups"]))

    @cached_property
    def has_group(self) -> Array:
        """bool, [U] or [B, K]: the entry has a group."""
        return self._home.array(self._row("groups", self._rows["has_group"]))

    @cached_property
    def steps(self) -> Array:
        """u64, [U] or [B, K]: training step of the entry's last write; 0: none was given."""
        return self._home.array(self._row("steps", self._rows["steps"]))

    @cached_property
    def weights(self) -> Array:
        """f32, [U] or [B, K]: sampling weight; 1 where none was given."""
        return self._home.array(self._row("weights", self._rows["weights"]))

    @cached_property
    def ages(self) -> Array:
        """i64, [U] or [B, K], training steps: the `step` given to `sample` (else the bank's own) less each entry's."""
        now = 0 if self._step is None else self._step
        return self._home.array(np.int64(now) - self._row("steps", self._rows["steps"]).astype(np.int64))

    @cached_property
    def indices(self) -> Array:
        """i64 [B, K]: rows of the picks; with pad=True -1 where there is none. Raises ShortAnswer, see `mask`.

        In a shared draw those of the whole set, for every anchor. AttributeError in the per-anchor layout.
        """
        if not self._asked.pooled:
            raise AttributeError("the per-anchor layout has no indices: embeddings, ids and the like are [B, K] themselves")
        return self._home.array(self._side_by_side([d.wide(d.answer["indices"], np.int64(-1)) for d in self._draws]))

    @cached_property
    def scores(self) -> Array:
        """f32 [B, K]: higher is closer; NaN where none was computed. Raises ShortAnswer, see `mask`."""
        return self._home.array(self._side_by_side([d.numbers(d.answer["scores"]) for d in self._draws]))

    @cached_property
    def log_q(self) -> Array:
        """f32 [B, K]: natural log of the probability with which *one* draw picks the entry. Raises ShortAnswer, see `mask`.

        NaN where there is no such probability: `Nearest` with choose="top" is deterministic.

        The logQ correction of sampled softmax, with logits already divided by the temperature: each negative's logit becomes
        `logit - (log_q + ln K)`; the positive's logit stays as it is. log_q is negative or zero, so subtracting -ln n raises
        the logits by ln n: K negatives stand for n. Without ln K the partition is overstated K-fold; with the sign reversed it
        is understated.

        K is the number of the anchor's negatives, all draws together (`mask.sum(1)`, which in a shared draw is what the mask
        leaves to the anchor, and log_q is what it is among the entries that could have been left to it). In a mixture each
        log_q is of its own draw, each draw estimates the partition with its share k_j / K of the weight, and `log_q_mix` in
        place of log_q estimates the same with a smaller variance. With each draw's own k_j in place of K, J draws would count
        the partition J times. `negbank.torch.sampled_softmax` takes K.
        """
        return self._home.array(self._side_by_side([d.numbers(d.log_q) for d in self._draws]))

    @cached_property
    def log_q_mix(self) -> Array:
        """f32 [B, K]: ln sum_j (k_j / K) q_j, the log-probability of the entry under the whole mixture.

        With it one correction serves all picks of a mixture, whichever draw they are of: `logit - (log_q_mix + ln K)`, K all of
        the anchor's picks. NaN unless `sample` was asked for
        it with log_q_mix=True. Raises ShortAnswer, see `mask`.
        """
        return self._home.array(self._side_by_side([d.numbers(d.answer["log_q_mix"]) for d in self._draws]))

    @cached_property
    def positive_log_q(self) -> list[Array]:
        """Per draw, f32 [B, P]: natural log of the probability with which one draw would pick each of the anchor's
        `positive_ids`, were it eligible and its score kept by the rules; P is the most that an anchor has, the rest NaN.

        Where the positives are a sample, too, the logQ correction is of both sides: the positive's logit less this one. -inf:
        it could not be drawn then either (weight 0, outside the window or the band, no label in a balanced draw). NaN for
        `Nearest` with choose="top", and unless `sample` was asked for it with positive_log_q=True.
        """
        lists = self._asked.call.anchors.positive_ids
        counts = np.zeros(self._counts.shape[0], dtype=np.uint32) if lists is None else lists.counts
        wide = (counts.size, int(counts.max(initial=0)))
        told = []
        for served in self._draws:
            block = np.full(wide, np.nan, dtype=np.float32)
            if served.answer["positive_log_q"].size:
                block[np.arange(wide[1]) < counts[:, None]] = served.answer["positive_log_q"]
            told.append(self._home.array(block))
        return told

    @cached_property
    def mask(self) -> Array:
        """bool [B, K]: True where there is a negative of this anchor. Set other logits to -inf.

        Where draws came back short, the other [B, K] arrays raise ShortAnswer unless `sample` had pad=True. In a shared draw
        False also where the anchor's own filters exclude an entry of the set: `indices` point to it all the same, scores and
        log_q are NaN.
        """
        return self._home.array(np.concatenate([served.mask for served in self._draws], axis=1))

    def anchor(self, i: int) -> Picks:
        """The negatives of anchor `i`, in 0..B - 1: as many as there were. Raises IndexError for another `i`."""
        anchors = self._counts.shape[0]
        if not 0 <= i < anchors:
            raise IndexError(f"anchor {i} of {anchors}")
        places = [served.places(i) for served in self._draws]
        rows, scores, log_q = [], [], []
        for served, at in zip(self._draws, places, strict=True):
            rows.append(served.answer["indices"][at] if self._asked.pooled else served.rows.start + at)
            scores.append(served.numbers_at(served.answer["scores"], i, at))
            log_q.append(served.numbers_at(served.log_q, i, at))
        indices = np.concatenate(rows)
        array = self._home.array
        return Picks(
            indices=array(indices),
            draws=array(np.repeat(np.arange(len(places)), [at.size for at in places])),
            scores=array(np.concatenate(scores)),
            log_q=array(np.concatenate(log_q)),
            _ids=lambda: array(self._need("ids", self._rows["ids"])[indices]),
        )

    def __repr__(self) -> str:
        anchors, draws = self._counts.shape
        width = sum(self._asked.widths)
        return f"<Negatives B={anchors} K={width} D={draws}, {int(self._counts.sum())} of {anchors * width} picks>"

    @property
    def _home(self) -> Any:
        return self._asked.home

    @cached_property
    def _counts(self) -> npt.NDArray[np.uint32]:
        return np.stack([served.counts for served in self._draws], axis=1)

    def _need(self, column: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if column not in self._asked.columns:
            listed = ", ".join(sorted(self._asked.columns))
            raise AttributeError(f"this answer has no {column}: sample was called with columns {listed}")
        return values

    def _row(self, column: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A row column as the layout has it."""
        self._need(column, values)
        if self._asked.pooled and self._pad and not len(values):
            return np.zeros((1, *values.shape[1:]), dtype=values.dtype)
        if self._asked.pooled:
            return values
        return self._side_by_side([served.wide(values[served.rows], values.dtype.type(0)) for served in self._draws])

    def _side_by_side(self, blocks: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        if not self._pad:
            short = np.logical_or.reduce([served.short for served in self._draws])
            if short.any():
                raise short_answer(self._counts, short, sum(self._asked.widths), self.info.shortfalls)
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1)


def _served(answer: SampleAnswer, asked: Asked, starts: list[int]) -> list[Served]:
    served = []
    for draw, k, shared, start in zip(answer["draws"], asked.widths, asked.shared, starts, strict=False):
        one = Served(draw, k, shared, slice(0, 0))
        served.append(Served(draw, k, shared, slice(start, start + one.size)))
    return served
