"""Negatives served for a batch of anchors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from .answers import DrawAnswer, SampleAnswer
from .errors import FailedPrecondition
from .info import SampleInfo
from .picks import Picks
from .short_answer import short_answer

Scalar = TypeVar("Scalar", np.int64, np.float32)


class Negatives:
    """Negatives for B anchors, pooled: U distinct entries as row columns, and picks [B, K] that point into them.

    K is the total of the draws' k; the draws lie side by side along it, in the request's order, each k wide. Embeddings of
    the negatives: `negs.embeddings[negs.indices]`, [B, K, d]. A row column that was not asked for raises AttributeError.
    """

    def __init__(
        self,
        answer: SampleAnswer,
        widths: Sequence[int],
        columns: Sequence[str],
        dim: int,
        *,
        pad: bool,
        step: int | None,
    ) -> None:
        """`widths`: k of each draw; `columns`: those asked for; `dim`: of the bank; `step`: the trainer's."""
        self._rows = answer["rows"]
        self._draws: list[DrawAnswer] = answer["draws"]
        self._widths = tuple(widths)
        self._columns = frozenset(columns)
        self._pad = pad
        self._step = answer["step"] if step is None else step
        floats = self._rows["embeddings"]
        if {"ids", "embeddings"} <= self._columns and floats.size != self._rows["ids"].size * dim:
            raise FailedPrecondition(
                f"the bank no longer has embeddings of {dim} floats: it was deleted and created anew; open it again with"
                " client.bank(name)"
            )
        self._embeddings = floats.reshape(-1, dim)
        self.counts: npt.NDArray[np.uint32] = np.stack([draw["counts"] for draw in self._draws], axis=1)
        """u32 [B, D]: picks that each anchor got from each of the D draws."""
        self.info: SampleInfo = _info(answer)
        """How the answer was made: seed, sizes of the eligible sets, shortfalls; see `SampleInfo`."""

    @property
    def embeddings(self) -> npt.NDArray[np.float32]:
        """f32 [U, d], as stored (of unit length in a cosine bank)."""
        self._need("embeddings")
        return self._embeddings

    @property
    def ids(self) -> npt.NDArray[np.uint64]:
        """u64 [U]."""
        self._need("ids")
        return self._rows["ids"]

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """i64 [U]; 0 where `has_label` is False."""
        self._need("labels")
        return self._rows["labels"]

    @property
    def has_label(self) -> npt.NDArray[np.bool_]:
        """bool [U]: the entry has a label."""
        self._need("labels")
        return self._rows["has_label"]

    @property
    def groups(self) -> npt.NDArray[np.uint64]:
        """u64 [U]; 0 where `has_group` is False."""
        self._need("groups")
        return self._rows["groups"]

    @property
    def has_group(self) -> npt.NDArray[np.bool_]:
        """bool [U]: the entry has a group."""
        self._need("groups")
        return self._rows["has_group"]

    @property
    def steps(self) -> npt.NDArray[np.uint64]:
        """u64 [U]: training step of the entry's last write; 0: none was given."""
        self._need("steps")
        return self._rows["steps"]

    @property
    def ages(self) -> npt.NDArray[np.int64]:
        """i64 [U], training steps: the `step` given to `sample` (else the bank's own) less each entry's."""
        now = 0 if self._step is None else self._step
        return np.int64(now) - self.steps.astype(np.int64)

    @cached_property
    def indices(self) -> npt.NDArray[np.int64]:
        """i64 [B, K]: rows of the picks; with pad=True -1 where `mask` is False. Raises ShortAnswer, see `mask`."""
        return self._wide([draw["indices"] for draw in self._draws], np.int64(-1))

    @cached_property
    def scores(self) -> npt.NDArray[np.float32]:
        """f32 [B, K]: higher is closer; NaN where none was computed. Raises ShortAnswer, see `mask`."""
        return self._wide([draw["scores"] for draw in self._draws], np.float32(np.nan))

    @cached_property
    def log_q(self) -> npt.NDArray[np.float32]:
        """f32 [B, K]: natural log of the probability with which *one* draw picks the entry. Raises ShortAnswer, see `mask`.

        NaN where there is no such probability: `Nearest` with choose="top" is deterministic.

        The logQ correction of sampled softmax, with logits already divided by the temperature: each negative's logit becomes
        `logit - (log_q + ln k)`, k the draw's count; the positive's logit stays as it is. log_q is negative or zero, so
        subtracting -ln n raises the logits by ln n: k negatives stand for n. Without ln k the partition is overstated k-fold;
        with the sign reversed it is understated. In a mixture each log_q is of its own draw.
        """
        return self._wide([draw["log_q"] for draw in self._draws], np.float32(np.nan))

    @cached_property
    def mask(self) -> npt.NDArray[np.bool_]:
        """bool [B, K]: True where there is a negative.

        Where it is not True everywhere, `indices`, `scores` and `log_q` raise ShortAnswer unless `sample` had pad=True.
        """
        blocks = [np.arange(k) < draw["counts"][:, None] for draw, k in zip(self._draws, self._widths, strict=True)]
        return np.concatenate(blocks, axis=1)

    def anchor(self, i: int) -> Picks:
        """The negatives of anchor `i`, in 0..B - 1: as many as there were. Raises IndexError for another `i`."""
        anchors = self.counts.shape[0]
        if not 0 <= i < anchors:
            raise IndexError(f"anchor {i} of {anchors}")
        spans = [slice(ends[i] - draw["counts"][i], ends[i]) for draw, ends in zip(self._draws, self._ends, strict=True)]
        pairs = list(zip(self._draws, spans, strict=True))
        return Picks(
            indices=np.concatenate([draw["indices"][span] for draw, span in pairs]),
            draws=np.repeat(np.arange(len(pairs)), self.counts[i]),
            scores=np.concatenate([_sent(draw, "scores")[span] for draw, span in pairs]),
            log_q=np.concatenate([_sent(draw, "log_q")[span] for draw, span in pairs]),
            _row_ids=lambda: self.ids,
        )

    def __repr__(self) -> str:
        anchors, draws = self.counts.shape
        width = sum(self._widths)
        return f"<Negatives B={anchors} K={width} D={draws}, {int(self.counts.sum())} of {anchors * width} picks>"

    @cached_property
    def _ends(self) -> list[npt.NDArray[np.int64]]:
        return [np.cumsum(draw["counts"], dtype=np.int64) for draw in self._draws]

    def _need(self, column: str) -> None:
        if column not in self._columns:
            asked = ", ".join(sorted(self._columns))
            raise AttributeError(f"this answer has no {column}: sample was called with columns {asked}")

    def _wide(self, flat: list[npt.NDArray[Scalar]], fill: Scalar) -> npt.NDArray[Scalar]:
        """Flat columns, one per draw, side by side as [B, K]."""
        if not self._pad and (self.counts != self._widths).any():
            raise short_answer(self.counts, sum(self._widths), self.info.shortfalls)
        blocks = [
            _block(column, draw["counts"], k, fill) for column, draw, k in zip(flat, self._draws, self._widths, strict=True)
        ]
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1)


def _block(column: npt.NDArray[Scalar], counts: npt.NDArray[np.uint32], k: int, fill: Scalar) -> npt.NDArray[Scalar]:
    if column.size == counts.size * k:
        return column.reshape(counts.size, k)
    block = np.full((counts.size, k), fill)
    if column.size:
        block[np.arange(k) < counts[:, None]] = column
    return block


def _sent(draw: DrawAnswer, name: Literal["scores", "log_q"]) -> npt.NDArray[np.float32]:
    column = draw[name]
    return column if column.size else np.full(draw["indices"].size, np.nan, dtype=np.float32)


def _info(answer: SampleAnswer) -> SampleInfo:
    draws = answer["draws"]
    return SampleInfo(
        seed=answer["seed"],
        reproducible=answer["reproducible"],
        n=[draw["n"] if draw["n"].size else None for draw in draws],
        log_partition=[draw["log_partition"] if draw["log_partition"].size else None for draw in draws],
        kappa=[draw["kappa"] if draw["kappa"].size else None for draw in draws],
        plans=[draw["plan"] for draw in draws],
        shortfalls=_total([draw["shortfalls"] for draw in draws]),
        rejections=_total([draw["rejections"] for draw in draws]),
        sequence_first=answer["sequence_first"],
        sequence_last=answer["sequence_last"],
        step=answer["step"],
    )


def _total(counts: list[dict[str, int]]) -> dict[str, int]:
    reasons = sorted({reason for one in counts for reason in one})
    return {reason: sum(one.get(reason, 0) for one in counts) for reason in reasons}
