"""A request for negatives: from the arguments of `Bank.sample` to what is sent, and what its answer needs to be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, SupportsIndex

from .anchors import anchor_columns
from .draws import Draw, is_shared
from .errors import InvalidArgument
from .filters import Filters
from .home import Home
from .requests import DrawCall, SampleCall, WriteBatch
from .scalars import whole, whole_or_none

ALL_COLUMNS = ("ids", "embeddings", "labels", "groups", "steps", "weights", "scores", "log_q")
DTYPES = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class Asked:
    """A request, and how its answer is to be read."""

    call: SampleCall
    draws: tuple[Draw, ...]
    columns: frozenset[str]
    dim: int
    home: Home
    pad: bool
    step: int | None

    @property
    def widths(self) -> list[int]:
        """k of each draw."""
        return [draw.k for draw in self.draws]

    @property
    def shared(self) -> list[bool]:
        """Whether each draw is one set for all anchors."""
        return [is_shared(draw) for draw in self.draws]

    @property
    def pooled(self) -> bool:
        """Whether an entry that is served twice comes once."""
        return self.call.layout == "pooled"


def asked(
    bank: str,
    dim: int,
    anchors: Any,
    draws: Sequence[Draw],
    *,
    filters: Filters,
    write: WriteBatch | None,
    retries: int | None,
    anchor_ids: Any = None,
    anchor_labels: Any = None,
    anchor_groups: Any = None,
    positive_scores: Any = None,
    positive_ids: Any = None,
    denied_ids: Any = None,
    combine: str = "max",
    seed: SupportsIndex | None = None,
    step: SupportsIndex | None = None,
    at_least: bytes = b"",
    min_entries: SupportsIndex = 0,
    wait_for_entries: bool = False,
    columns: Sequence[str] | None = None,
    layout: str = "pooled",
    dtype: str | None = None,
    log_q_mix: bool = False,
    positive_log_q: bool = False,
    pad: bool = False,
) -> Asked:
    """The arguments of `Bank.sample`, checked."""
    if not draws:
        raise InvalidArgument.of("draws", "there are none: give negbank.Uniform(k) or negbank.Nearest(k)")
    for at, draw in enumerate(draws):
        if not isinstance(draw, Draw):
            raise InvalidArgument.of(f"draws[{at}]", f"must be a draw, as negbank.Uniform(k) is, got {draw!r}")
    home = Home.of(anchors, anchor_ids)
    now = whole_or_none(step, "step", 64)
    names = _columns(columns, draws)
    call = SampleCall(
        bank=bank,
        anchors=anchor_columns(
            anchors,
            dim,
            combine=combine,
            anchor_ids=anchor_ids,
            anchor_labels=anchor_labels,
            anchor_groups=anchor_groups,
            positive_scores=positive_scores,
            positive_ids=positive_ids,
            denied_ids=denied_ids,
        ),
        draws=[_draw_call(draw) for draw in draws],
        filters=filters.columns(),
        step=now,
        at_least=at_least,
        min_entries=whole(min_entries, "min_entries", 64),
        wait_for_entries=wait_for_entries,
        seed=whole_or_none(seed, "seed", 64),
        columns=names,
        layout=layout,
        dtype=dtype or home.half or "float32",
        log_q_mix=log_q_mix,
        positive_log_q=positive_log_q,
        write=write,
        retries=retries,
    )
    return Asked(call=call, draws=tuple(draws), columns=frozenset(names), dim=dim, home=home, pad=pad, step=now)


def _columns(columns: Sequence[str] | None, draws: Sequence[Draw]) -> list[str]:
    if columns is None:
        # The scores of a shared set against every anchor cost a matrix product that nobody asked for.
        only_shared = all(is_shared(draw) for draw in draws)
        return [name for name in ALL_COLUMNS if not (only_shared and name == "scores")]
    if isinstance(columns, str) or not len(columns):
        names = ", ".join(ALL_COLUMNS)
        raise InvalidArgument.of("columns", f"must be a list of names, at least one of {names}; got {columns!r}")
    return list(columns)


def _draw_call(draw: Draw) -> DrawCall:
    filters = None if draw.filters is None else draw.filters.columns()
    return DrawCall(draw.k, type(draw).__name__, draw, filters, "shared" if is_shared(draw) else "per_anchor")
