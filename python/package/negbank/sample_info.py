"""How an answer was made, from the native half's account of it."""

from __future__ import annotations

from typing import Literal

from .answers import SampleAnswer
from .asking import Asked
from .home import Array
from .info import SampleInfo


def sample_info(answer: SampleAnswer, asked: Asked, *, unavailable: bool) -> SampleInfo:
    """The account of an answer."""
    draws = answer["draws"]

    def each(column: Literal["n", "n_scored", "n_band", "log_partition", "kappa"]) -> list[Array | None]:
        return [asked.home.array(draw[column]) if draw[column].size else None for draw in draws]

    return SampleInfo(
        seed=answer["seed"],
        reproducible=answer["reproducible"],
        n=each("n"),
        n_scored=each("n_scored"),
        n_band=each("n_band"),
        n_shared=[draw["n_shared"] if shared else None for draw, shared in zip(draws, asked.shared, strict=True)],
        log_partition=each("log_partition"),
        kappa=each("kappa"),
        plans=[draw["plan"] for draw in draws],
        plan_reasons=[draw["plan_reason"] for draw in draws],
        candidates=[draw["candidates"] or None for draw in draws],
        generations=[draw["generation"] for draw in draws],
        generation_lags=[None if draw["generation"] is None else draw["generation_lag"] for draw in draws],
        shortfalls=_total([draw["shortfalls"] for draw in draws]),
        rejections=_total([draw["rejections"] for draw in draws]),
        sequence_first=answer["sequence_first"],
        sequence_last=answer["sequence_last"],
        step=answer["step"],
        unavailable=unavailable,
    )


def _total(counts: list[dict[str, int]]) -> dict[str, int]:
    reasons = sorted({reason for one in counts for reason in one})
    return {reason: sum(one.get(reason, 0) for one in counts) for reason in reasons}
