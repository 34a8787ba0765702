"""Gathering the rows of a step from all ranks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, SupportsIndex

import numpy as np
import numpy.typing as npt

from ._negbank import Session
from .answers import GatherAnswer
from .away import OnUnavailable, Outage, check_on_unavailable, own_rows
from .errors import DeadlineExceeded, InvalidArgument, Unavailable
from .gathered import Gathered
from .home import Home
from .info import GatherInfo
from .integers import masked_vector, vector
from .matrices import matrix_of_any_width
from .pending import Pending
from .requests import GatherCall
from .scalars import whole
from .writes import Integers, SomeIntegers

OnPartial = Literal["warn", "raise"]


@dataclass(frozen=True)
class Bringing:
    """A rank's rows, and what becomes of the answer."""

    call: GatherCall
    home: Home
    on_unavailable: OnUnavailable
    on_partial: OnPartial


class Gathering:
    """The calls that exchange rows between ranks."""

    def __init__(self, session: Session, on_unavailable: OnUnavailable) -> None:
        self._session = session
        self._on_unavailable: OnUnavailable = on_unavailable
        self._outage, self._stragglers = Outage(), Outage()

    def gather(
        self,
        group: str,
        embeddings: npt.ArrayLike,
        *,
        step: SupportsIndex,
        rank: SupportsIndex,
        world_size: SupportsIndex,
        micro_batch: SupportsIndex = 0,
        ids: Integers | None = None,
        labels: SomeIntegers | None = None,
        groups: SomeIntegers | None = None,
        wait: float | None = None,
        on_partial: OnPartial = "warn",
        on_unavailable: OnUnavailable | None = None,
        timeout: float | None = None,
    ) -> Gathered:
        """Hands in this rank's rows and returns those of all ranks once they are there: in-batch negatives without a bank.

            gathered = client.gather("run-7", embeddings, step=step, rank=rank, world_size=world_size, ids=ids)
            rows = negbank.torch.live_rows(gathered, embeddings)  # [N, d], this rank's with their gradient
            loss = ... * gathered.loss_scale

        Every rank gets the same rows, in the order of the ranks. Where a rank is missing when the first caller's time is up,
        what is there is the answer for all, and whoever comes later gets it too: see `Gathered.partial`. The same rows sent
        again are recognised, so the call is tried again like a read; over a restart of the server, too.

        Args:
            group: names the ranks that belong together, 1 to 128 bytes. A job that is restarted takes another
                ("run-7/attempt-2"), or it may meet what its earlier life left behind.
            embeddings: [R, d] floats, an array or a tensor, which is detached (float32, float16 and bfloat16 are sent as they
                are). R may differ between ranks and be 0; d and the dtype may not. NaN and infinity pass. Two views of an
                item go side by side in one row, `torch.cat([first, second], dim=1)`, so that no answer has one without the
                other.
            step: training step; ranks of different steps never meet.
            rank: this rank, 0 to world_size - 1.
            world_size: ranks that take part, the same from each.
            micro_batch: 0, 1, ... within the step (gradient accumulation).
            ids: [R] as in `Bank.write`; from all ranks or from none.
            labels, groups: [R], as in `Bank.write`; see `Gathered.false_negatives`.
            wait: straggler limit: seconds that this call waits for the other ranks; default: until shortly before its timeout.
            on_partial: what is done where ranks are missing: "warn" takes the rows that are there, and a RuntimeWarning says so
                once each time it begins; "raise" raises DeadlineExceeded.
            on_unavailable: "raise"; or "in_batch": where the server is away, or does not answer in time, go on with this rank's
                rows alone (`Gathered.unavailable`); a RuntimeWarning says so once each time the server goes. Such a call is
                tried once. Default: as given to `connect`.
            timeout: seconds, all tries included.

        Raises:
            InvalidArgument: another world_size, d or dtype than the rank that came first; R rows of each of W ranks over the
                server's `gather.max_bytes` (the message says what an all-gather on the trainers' own network costs).
            AlreadyExists: this rank has brought other rows to this group, step and micro_batch.
            ResourceExhausted: the server has no room for more gathers.
            Unavailable: the server went away, or is stopping.
        """
        bringing = self._bring(
            group,
            embeddings,
            step=step,
            rank=rank,
            world_size=world_size,
            micro_batch=micro_batch,
            ids=ids,
            labels=labels,
            groups=groups,
            wait=wait,
            on_partial=on_partial,
            on_unavailable=on_unavailable,
        )
        try:
            answer = self._session.gather(bringing.call, timeout)
        except (DeadlineExceeded, Unavailable) as fault:
            if bringing.on_unavailable == "raise":
                raise
            return self._alone(bringing, fault)
        return self._together(bringing, answer)

    def gather_async(
        self, group: str, embeddings: npt.ArrayLike, *, timeout: float | None = None, **options: Any
    ) -> Pending[Gathered]:
        """As `gather`, at once: the arrays have been copied when this returns; the result comes later, see `Pending`.

        `options` are the other parameters of `gather`. A call that is given up leaves its rows. Keep at most 8 of a group in
        flight: so many of its answers are kept for those who come again.
        """
        bringing = self._bring(group, embeddings, **options)

        def recover(fault: Exception) -> Gathered:
            if bringing.on_unavailable == "raise" or not isinstance(fault, (DeadlineExceeded, Unavailable)):
                raise fault
            return self._alone(bringing, fault)

        return Pending.start(
            lambda landed: self._session.start_gather(bringing.call, timeout, landed),
            lambda answer: self._together(bringing, answer),
            recover,
        )

    def list_gathers(self, *, timeout: float | None = None) -> list[GatherInfo]:
        """The gathers that wait for ranks, and those that are kept for who comes again: which rank is missing?"""
        return [GatherInfo.of(fields) for fields in self._session.list_gathers(timeout)]

    def _bring(
        self,
        group: str,
        embeddings: Any,
        *,
        step: SupportsIndex,
        rank: SupportsIndex,
        world_size: SupportsIndex,
        micro_batch: SupportsIndex = 0,
        ids: Any = None,
        labels: Any = None,
        groups: Any = None,
        wait: float | None = None,
        on_partial: OnPartial = "warn",
        on_unavailable: OnUnavailable | None = None,
    ) -> Bringing:
        instead = on_unavailable or self._on_unavailable
        check_on_unavailable(instead)
        if on_partial not in ("warn", "raise"):
            raise InvalidArgument.of("on_partial", f'{on_partial!r} is none: give "warn" or "raise"')
        labels, has_label = masked_vector(labels, np.int64, "labels")
        groups, has_group = masked_vector(groups, np.uint64, "groups")
        call = GatherCall(
            group=group,
            step=whole(step, "step", 64),
            micro_batch=whole(micro_batch, "micro_batch"),
            rank=whole(rank, "rank"),
            world_size=whole(world_size, "world_size"),
            embeddings=matrix_of_any_width(embeddings, "embeddings"),
            ids=None if ids is None else vector(ids, np.uint64, "ids"),
            labels=labels,
            has_label=has_label,
            groups=groups,
            has_group=has_group,
            wait_ms=_milliseconds(wait),
            retries=None if instead == "raise" else 0,
        )
        if call.rank >= call.world_size:
            raise InvalidArgument.of("rank", f"{call.rank} is outside 0..{call.world_size}, the ranks of the world")
        return Bringing(call, Home.of(embeddings), instead, on_partial)

    def _together(self, bringing: Bringing, answer: GatherAnswer) -> Gathered:
        self._outage.ends()
        call = bringing.call
        gathered = Gathered(answer, rank=call.rank, dim=call.embeddings.dim, home=bringing.home)
        if not gathered.partial:
            self._stragglers.ends()
            return gathered
        first = ", ".join(map(str, gathered.missing_ranks[:16])) + ", ..." * (len(gathered.missing_ranks) > 16)
        missing = f"ranks {first} of {call.world_size} were missing from step {call.step} of group {call.group!r}"
        if bringing.on_partial == "raise":
            raise DeadlineExceeded(f"{missing} when the first rank's time was up")
        self._stragglers.begins(f"{missing}: going on with the rows that are there")
        return gathered

    def _alone(self, bringing: Bringing, fault: Exception) -> Gathered:
        call = bringing.call
        self._outage.begins(f"no rows from the other ranks, going on without them: {fault}")
        return Gathered(own_rows(call), rank=call.rank, dim=call.embeddings.dim, home=bringing.home, unavailable=True)


def _milliseconds(wait: float | None) -> int:
    if wait is None:
        return 0
    if not (isinstance(wait, (int, float)) and 0 < wait < 2**32 / 1e3):
        raise InvalidArgument.of("wait", f"must be seconds above 0, got {wait!r}")
    return math.ceil(wait * 1e3)
