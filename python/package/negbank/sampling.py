"""Drawing from a bank."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any, Literal, SupportsIndex

import numpy.typing as npt

from .answers import SampleAnswer
from .asking import Asked, asked
from .away import OnUnavailable, check_on_unavailable, nothing
from .draws import Draw
from .errors import DeadlineExceeded, InvalidArgument, Unavailable
from .filters import Filters
from .handle import Handle
from .home import Home
from .negatives import Negatives
from .pending import Pending
from .requests import WriteBatch
from .writes import Integers, SomeIntegers, Write, enqueued, written

FILTERS = frozenset(Filters.__dataclass_fields__)


class Sampling(Handle):
    """The calls that draw."""

    def sample(
        self,
        anchors: npt.ArrayLike | int | None,
        *draws: Draw,
        anchor_ids: Integers | None = None,
        anchor_labels: SomeIntegers | None = None,
        anchor_groups: SomeIntegers | None = None,
        positive_scores: npt.ArrayLike | Sequence[npt.ArrayLike] | None = None,
        positive_ids: Integers | Sequence[Integers] | None = None,
        denied_ids: Integers | Sequence[Integers] | None = None,
        combine: Literal["max", "mean"] = "max",
        exclude_ids: Integers | Set[int] | None = None,
        exclude_self: bool | None = None,
        exclude_same_label: bool = False,
        exclude_same_group: bool | None = None,
        only_labels: Integers | Set[int] | None = None,
        exclude_labels: Integers | Set[int] | None = None,
        exclude_unlabelled: bool = False,
        min_step: SupportsIndex | None = None,
        max_age: SupportsIndex | None = None,
        only_same_label: bool = False,
        only_same_group: bool = False,
        seed: SupportsIndex | None = None,
        step: SupportsIndex | None = None,
        at_least: bytes = b"",
        min_entries: SupportsIndex = 0,
        wait_for_entries: bool = False,
        columns: Sequence[str] | None = None,
        layout: Literal["pooled", "per_anchor"] = "pooled",
        dtype: Literal["float32", "float16", "bfloat16"] | None = None,
        log_q_mix: bool = False,
        positive_log_q: bool = False,
        write: Write | None = None,
        pad: bool = False,
        on_unavailable: OnUnavailable | None = None,
        timeout: float | None = None,
    ) -> Negatives:
        """Draws negatives for B anchors.

        Args:
            anchors: [B, d] floats, an array or a tensor, which is detached (float32, float16 and bfloat16 are sent as they
                are); None with `anchor_ids`, whose stored rows are taken; or B, where no draw is scored. [B, V, d]: V views of
                each anchor, whose scores are combined; every scored draw then looks at the whole bank.
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
            combine: "max" or "mean": how the scores of an anchor's views are one.
            exclude_ids: ids never to serve. This and the filters that follow are for the draws without `filters` of their own.
            exclude_self: not the anchor's own id; default: on with `anchor_ids`.
            exclude_same_label: no entry of the anchor's label; an anchor or an entry without one passes. So with `anchor_ids`
                alone, where the bank holds no labels of those entries, this excludes nothing: give `anchor_labels`.
            exclude_same_group: no entry of the anchor's group; default: on where the anchor has one.
            only_labels: only entries of these labels.
            exclude_labels: no entry of these labels; entries without one pass.
            exclude_unlabelled: no entry without a label.
            min_step: only entries written at this training step or later.
            max_age: only entries of at most this age in training steps, `step` less the entry's. Needs `step`.
            only_same_label: only entries of the anchor's label: positives (XBM, SupCon, NNCLR). Every anchor must have one.
            only_same_group: only entries of the anchor's group, likewise; they are then not excluded by default.
            seed: 0 to 2**64 - 1; the same seed on the same history of writes draws the same. Default: the server's choice,
                in `info.seed`.
            step: your training step, from which `max_age` and `.ages` are counted; default for `.ages`: the bank's.
            at_least: the `position` that a write returned, here or on another rank: the answer sees that write.
                DeadlineExceeded if it does not come in time; FailedPrecondition if the bank was created anew since or lost it.
            min_entries: warm-up: FailedPrecondition while the bank holds fewer entries.
            wait_for_entries: wait for them until shortly before the deadline instead.
            columns: what to send back, of "ids", "embeddings", "labels", "groups", "steps", "weights", "scores" and "log_q";
                default: all (no scores where every draw is shared: they would be computed for that alone).
                `columns=["ids"]` saves the embeddings, which are nearly all of the answer.
            layout: "pooled": each entry served once, with `indices`; "per_anchor": a row a pick, so that `.embeddings` is
                [B, K, d] itself. Pooled is smaller where anchors share entries.
            dtype: of the embeddings sent back: "float32", "float16" or "bfloat16", half the bytes. Default: the anchors' where
                they are a half-precision tensor, else "float32".
            log_q_mix: also answer `.log_q_mix`; every draw must have a log_q.
            positive_log_q: also answer `.positive_log_q`, of `positive_ids`.
            write: rows to write once the draws are done, in the same round trip; see `.written`. An invalid write refuses the
                whole call before anything is drawn. Where the first try's answer was lost, the next one does not write again,
                but draws from the bank as written: `.written.duplicate` is True then.
            pad: True fills short places (index -1, NaN, `mask` False) where an anchor has fewer than K eligible entries. Index
                -1 is the last row to numpy: where `mask` is False set the logit to -inf, or it is a wrong negative. Where no
                anchor has a pick, that row is of zeros.
            on_unavailable: "raise"; or "in_batch": where the server is away, does not answer in time, or is still recovering
                the bank, go on without it. The answer then is as a padded one without a pick (`mask` is False,
                `info.unavailable` True, `info.n` None, one row of zeros), so that `negs.embeddings[negs.indices]` is [B, K, d]
                as ever, and a loss that is given `negs.mask` as `counted` has its in-batch negatives only. A method that has no
                others skips the step: `if negs.info.unavailable: continue`. A RuntimeWarning says so once each time the server
                goes. Such a call is tried once, and its `write`, if it has one, may be lost: `.written` is None. Calls that
                only write still raise (`negbank.torch.Keeper` can leave them out), and a server that comes back without the
                bank raises NotFound. Default: as given to `connect`.
            timeout: seconds, all tries included.

        Raises:
            InvalidArgument: also for an unknown id in `anchor_ids` without `anchors`, or in `positive_ids` that must be
                scored, and for an answer beyond the server's size limit (ask for fewer columns).
        """
        question, instead = self._ask(
            anchors,
            draws,
            on_unavailable=on_unavailable,
            anchor_ids=anchor_ids,
            anchor_labels=anchor_labels,
            anchor_groups=anchor_groups,
            positive_scores=positive_scores,
            positive_ids=positive_ids,
            denied_ids=denied_ids,
            combine=combine,
            exclude_ids=exclude_ids,
            exclude_self=exclude_self,
            exclude_same_label=exclude_same_label,
            exclude_same_group=exclude_same_group,
            only_labels=only_labels,
            exclude_labels=exclude_labels,
            exclude_unlabelled=exclude_unlabelled,
            min_step=min_step,
            max_age=max_age,
            only_same_label=only_same_label,
            only_same_group=only_same_group,
            seed=seed,
            step=step,
            at_least=at_least,
            min_entries=min_entries,
            wait_for_entries=wait_for_entries,
            columns=columns,
            layout=layout,
            dtype=dtype,
            log_q_mix=log_q_mix,
            positive_log_q=positive_log_q,
            write=write,
            pad=pad,
        )
        try:
            answer = self._session.sample(question.call, timeout)
        except (DeadlineExceeded, Unavailable) as fault:
            if instead == "raise":
                raise
            return self._without(question, fault)
        return self._answered(question, answer)

    def sample_async(
        self,
        anchors: npt.ArrayLike | int | None,
        *draws: Draw,
        timeout: float | None = None,
        **options: Any,
    ) -> Pending[Negatives]:
        """As `sample`, at once: the arrays have been copied when this returns; the result comes later, see `Pending`.

        `options` are the other parameters of `sample`. Draw for the next step while this one computes:

            pending = bank.sample_async(anchors, negbank.Uniform(64), seed=step)
            ...
            negs = pending.result()  # or: await pending
        """
        question, instead = self._ask(anchors, draws, **options)

        def recover(fault: Exception) -> Negatives:
            if instead == "raise" or not isinstance(fault, (DeadlineExceeded, Unavailable)):
                raise fault
            return self._without(question, fault)

        return Pending.start(
            lambda landed: self._session.start_sample(question.call, timeout, landed),
            lambda answer: self._answered(question, answer),
            recover,
        )

    def _ask(
        self,
        anchors: Any,
        draws: Sequence[Draw],
        *,
        on_unavailable: OnUnavailable | None = None,
        write: Write | None = None,
        **options: Any,
    ) -> tuple[Asked, OnUnavailable]:
        instead = on_unavailable or self._on_unavailable
        check_on_unavailable(instead)
        filters = Filters(**{name: options.pop(name) for name in FILTERS & options.keys()})
        retries = None if instead == "raise" else 0
        batch = self._batch(write)
        question = asked(self.name, self.dim, anchors, draws, filters=filters, write=batch, retries=retries, **options)
        return question, instead

    def _batch(self, write: Write | None) -> WriteBatch | None:
        if write is None:
            return None
        if not isinstance(write, Write):
            raise InvalidArgument.of("write", f"must be a negbank.Write, got {write!r}")
        self._may_write()
        return write.batch(self.name, self.kind, self.dim)

    def _answered(self, question: Asked, answer: SampleAnswer) -> Negatives:
        self._outage.ends()
        done, batch = answer["write"], question.call.write
        if done is None or batch is None:
            return Negatives(answer, question)
        receipt = written(done) if self.kind == "keyed" else enqueued(done, batch, Home())
        return Negatives(answer, question, written=receipt)

    def _without(self, question: Asked, fault: Exception) -> Negatives:
        self._outage.begins(f"no negatives from the bank, going on without them: {fault}")
        return Negatives(nothing(question), question, unavailable=True)
