"""A bank, as a trainer uses it."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from ._negbank import Session
from .anchors import anchor_columns
from .answers import WriteAnswer
from .draws import Nearest, Uniform
from .entries import Entries
from .errors import FailedPrecondition, InvalidArgument
from .info import BankInfo
from .integers import masked_vector, vector
from .matrices import matrix
from .negatives import Negatives
from .receipts import Enqueued, Written
from .requests import DrawCall, FilterColumns, SampleCall, WriteBatch
from .scalars import real_or_none, whole, whole_or_none

ALL_COLUMNS = ("ids", "embeddings", "labels", "groups", "steps", "scores", "log_q")

# Ids and groups: whole numbers of 0 to 2**64 - 1. Labels: of 64 signed bits. Both as anything that numpy makes an array of.
# Where a row may have none: None in a list, or a masked array.
Integers = npt.ArrayLike
SomeIntegers = npt.ArrayLike | Sequence[int | None]


class Bank:
    """A bank on a server; get one from `Client.create_bank` or `Client.bank`.

    Usable from many threads at once, picklable, and usable in a forked process (both connect anew). Every call raises
    `InvalidArgument`, `NotFound` (the bank was deleted), `ResourceExhausted`, `Unavailable` or `DeadlineExceeded`, and
    takes `timeout` in seconds (default: the client's).
    """

    def __init__(self, session: Session, info: BankInfo) -> None:
        """Of a `Client`; not called by users."""
        self._session = session
        self._opened = info

    @property
    def name(self) -> str:
        """The bank's name."""
        return self._opened.name

    @property
    def dim(self) -> int:
        """Floats in an embedding, d."""
        return self._opened.dim

    @property
    def kind(self) -> str:
        """ "keyed" or "queue"."""
        return self._opened.kind

    def info(self, *, timeout: float | None = None) -> BankInfo:
        """The bank as it stands now."""
        return BankInfo(**self._session.get_bank(self.name, timeout))

    def write(
        self,
        ids: Integers,
        embeddings: npt.ArrayLike,
        labels: SomeIntegers | None = None,
        groups: SomeIntegers | None = None,
        step: SupportsIndex | None = None,
        momentum: float | None = None,
        *,
        timeout: float | None = None,
    ) -> Written:
        """Writes R rows to a keyed bank: a new id is inserted, an id that is there moves, v <- norm(m v + (1 - m) x).

        Rows apply in order; an id twice moves twice. All or nothing. When this returns, every later read sees the rows.

        Args:
            ids: [R], whole numbers of 0 to 2**64 - 1.
            embeddings: [R, d] floats (float32 is sent as it is); finite, and not zero in a cosine bank, which normalises.
            labels: [R] class labels of 64 signed bits; None in a list, or masked: no label. Left out, a rewrite keeps them.
            groups: [R] as ids: entries of one group are never each other's negatives. None and left out: as labels.
            step: training step of the encoder that made the rows.
            momentum: overrides the bank's m for this call, in [0, 1); 0 replaces.
            timeout: seconds. After DeadlineExceeded the rows may or may not have been written.

        Raises:
            FailedPrecondition: the bank is a queue.
        """
        self._must_be("keyed", "enqueue(embeddings, ids=...)")
        done = self._write(ids, embeddings, labels, groups, step, momentum, timeout)
        return Written(sequence=done["sequence"], inserted=done["inserted"], updated=done["updated"], position=done["position"])

    def enqueue(
        self,
        embeddings: npt.ArrayLike,
        ids: Integers | None = None,
        labels: SomeIntegers | None = None,
        groups: SomeIntegers | None = None,
        step: SupportsIndex | None = None,
        *,
        timeout: float | None = None,
    ) -> Enqueued:
        """Appends R rows to a queue; the oldest entries leave once it is full. Any R: of more than fit, the last stay.

        Args:
            embeddings, labels, groups, step, timeout: as `write`.
            ids: [R]; may repeat. Left out, the server numbers the rows, and the answer's `.ids` says how.

        Raises:
            FailedPrecondition: the bank is keyed.
        """
        self._must_be("queue", "write(ids, embeddings)")
        done = self._write(ids, embeddings, labels, groups, step, None, timeout)
        given = done["ids"] if ids is None else vector(ids, np.uint64, "ids")
        return Enqueued(
            ids=given, sequence=done["sequence"], inserted=done["inserted"], evicted=done["evicted"], position=done["position"]
        )

    def fetch(self, ids: Integers, *, at_least: bytes = b"", timeout: float | None = None) -> Entries:
        """Reads the entries of R ids, in their order; see `Entries` for absent ones. Of an id twice in a queue, the newest.

        `at_least`: the `position` of a write that must be seen; see `sample`.
        """
        wanted = vector(ids, np.uint64, "ids")
        return Entries.aligned(wanted, self._session.fetch(self.name, wanted, at_least, timeout), self.dim)

    def remove(self, ids: Integers, *, timeout: float | None = None) -> int:
        """Removes the entries of these ids and returns how many there were; absent ids are ignored."""
        return self._session.remove(self.name, vector(ids, np.uint64, "ids"), timeout)

    def sample(
        self,
        anchors: npt.ArrayLike | int | None,
        *draws: Nearest | Uniform,
        anchor_ids: Integers | None = None,
        anchor_labels: SomeIntegers | None = None,
        anchor_groups: SomeIntegers | None = None,
        positive_scores: npt.ArrayLike | Sequence[npt.ArrayLike] | None = None,
        positive_ids: Integers | Sequence[Integers] | None = None,
        denied_ids: Integers | Sequence[Integers] | None = None,
        exclude_ids: Integers | Set[int] | None = None,
        exclude_self: bool | None = None,
        exclude_same_label: bool = False,
        exclude_same_group: bool | None = None,
        only_labels: Integers | Set[int] | None = None,
        exclude_labels: Integers | Set[int] | None = None,
        exclude_unlabelled: bool = False,
        min_step: SupportsIndex | None = None,
        max_age: SupportsIndex | None = None,
        seed: SupportsIndex | None = None,
        step: SupportsIndex | None = None,
        at_least: bytes = b"",
        min_entries: SupportsIndex = 0,
        wait_for_entries: bool = False,
        columns: Sequence[str] | None = None,
        pad: bool = False,
        timeout: float | None = None,
    ) -> Negatives:
        """Draws negatives for B anchors.

        Args:
            anchors: [B, d] floats; None with `anchor_ids`, whose stored rows are taken; or B, where no draw is scored.
            draws: one or more; several are a mixture: each draws independently, may repeat another's entry, and takes its
                own k columns of the answer.
            anchor_ids: [B] ids of entries of *this* bank that the anchors are. Each is excluded from its own negatives and
                lends its stored label and group where those columns are not given.
            anchor_labels: [B], for `exclude_same_label`, and without effect unless that is True; None in a list, or masked:
                no label.
            anchor_groups: [B], for `exclude_same_group`.
            positive_scores: [B] or [B, P], or B sequences: the positives' scores, for `Nearest`'s relative rules. Of
                several the smallest counts.
            positive_ids: likewise ids of entries of this bank: scored by the server for those rules, and never served to
                that anchor.
            denied_ids: B sequences of ids never to serve to that anchor.
            exclude_ids: ids never to serve.
            exclude_self: not the anchor's own id; default: on with `anchor_ids`.
            exclude_same_label: no entry of the anchor's label; an anchor or an entry without one passes.
            exclude_same_group: no entry of the anchor's group; default: on where the anchor has one.
            only_labels: only entries of these labels.
            exclude_labels: no entry of these labels; entries without one pass.
            exclude_unlabelled: no entry without a label.
            min_step: only entries written at this training step or later.
            max_age: only entries of at most this age in training steps, `step` less the entry's. Needs `step`.
            seed: 0 to 2**64 - 1; the same seed on the same history of writes draws the same. Default: the server's choice,
                in `info.seed`.
            step: your training step, from which `max_age` and `.ages` are counted; default for `.ages`: the bank's.
            at_least: the `position` that a write returned, here or on another rank: the answer sees that write.
                DeadlineExceeded if it does not come in time; FailedPrecondition if the bank was created anew since.
            min_entries: warm-up: FailedPrecondition while the bank holds fewer entries.
            wait_for_entries: wait for them until shortly before the deadline instead.
            columns: what to send back, of "ids", "embeddings", "labels", "groups", "steps", "scores" and "log_q"; default:
                all. `columns=["ids"]` saves the embeddings, which are nearly all of the answer.
            pad: True fills short places (index -1, NaN, `mask` False) where an anchor has fewer than K eligible entries. Index
                -1 is the last row to numpy: where `mask` is False set the logit to -inf, or it is a wrong negative.
            timeout: seconds.

        Raises:
            InvalidArgument: also for an unknown id in `anchor_ids` without `anchors`, or in `positive_ids` that must be
                scored, and for an answer beyond the server's size limit (ask for fewer columns).
        """
        if not draws:
            raise InvalidArgument.of("draws", "there are none: give negbank.Uniform(k) or negbank.Nearest(k)")
        for at, draw in enumerate(draws):
            if not isinstance(draw, (Nearest, Uniform)):
                raise InvalidArgument.of(f"draws[{at}]", f"must be negbank.Nearest or negbank.Uniform, got {draw!r}")
        asked = _asked(columns)
        now = whole_or_none(step, "step", 64)
        call = SampleCall(
            bank=self.name,
            anchors=anchor_columns(
                anchors,
                self.dim,
                anchor_ids=anchor_ids,
                anchor_labels=anchor_labels,
                anchor_groups=anchor_groups,
                positive_scores=positive_scores,
                positive_ids=positive_ids,
                denied_ids=denied_ids,
            ),
            draws=[_draw_call(draw) for draw in draws],
            filters=FilterColumns(
                exclude_self=exclude_self,
                exclude_same_group=exclude_same_group,
                exclude_same_label=exclude_same_label,
                exclude_ids=None if exclude_ids is None else vector(_listed(exclude_ids), np.uint64, "exclude_ids"),
                only_labels=None if only_labels is None else _some(vector(_listed(only_labels), np.int64, "only_labels")),
                exclude_labels=None if exclude_labels is None else vector(_listed(exclude_labels), np.int64, "exclude_labels"),
                exclude_unlabelled=exclude_unlabelled,
                min_step=whole_or_none(min_step, "min_step", 64),
                max_age=whole_or_none(max_age, "max_age", 64),
            ),
            step=now,
            at_least=at_least,
            min_entries=whole(min_entries, "min_entries", 64),
            wait_for_entries=wait_for_entries,
            seed=whole_or_none(seed, "seed", 64),
            columns=asked,
        )
        answer = self._session.sample(call, timeout)
        return Negatives(answer, [draw.k for draw in draws], asked, self.dim, pad=pad, step=now)

    def __repr__(self) -> str:
        opened = self._opened
        return f"<Bank {opened.name!r} at {self._session.address}: {opened.kind}, {opened.metric}, dim={opened.dim}>"

    def _write(
        self,
        ids: Integers | None,
        embeddings: npt.ArrayLike,
        labels: SomeIntegers | None,
        groups: SomeIntegers | None,
        step: SupportsIndex | None,
        momentum: float | None,
        timeout: float | None,
    ) -> WriteAnswer:
        label_column, has_label = masked_vector(labels, np.int64, "labels")
        group_column, has_group = masked_vector(groups, np.uint64, "groups")
        batch = WriteBatch(
            bank=self.name,
            embeddings=matrix(embeddings, self.dim, "embeddings"),
            ids=None if ids is None else vector(ids, np.uint64, "ids"),
            labels=label_column,
            has_label=has_label,
            groups=group_column,
            has_group=has_group,
            step=whole_or_none(step, "step", 64),
            momentum=real_or_none(momentum, "momentum"),
        )
        return self._session.write(batch, timeout)

    def _must_be(self, kind: str, instead: str) -> None:
        if self.kind != kind:
            raise FailedPrecondition(f"bank {self.name!r} is {self.kind}, not {kind}: use bank.{instead}")


def _asked(columns: Sequence[str] | None) -> list[str]:
    if columns is None:
        return list(ALL_COLUMNS)
    if isinstance(columns, str) or not len(columns):
        names = ", ".join(ALL_COLUMNS)
        raise InvalidArgument.of("columns", f"must be a list of names, at least one of {names}; got {columns!r}")
    return list(columns)


def _listed(values: Any) -> Any:
    """Sets as lists; numpy would make one object of a set."""
    return list(values) if isinstance(values, Set) else values


def _some(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """On the wire an empty list is no filter: it would serve every label where none was allowed."""
    if not labels.size:
        raise InvalidArgument.of("only_labels", "is empty, so nothing could be served: give labels, or leave it out")
    return labels


def _draw_call(draw: Nearest | Uniform) -> DrawCall:
    if isinstance(draw, Uniform):
        return DrawCall(draw.k, draw.with_replacement, None)
    return DrawCall(draw.k, False, draw)
