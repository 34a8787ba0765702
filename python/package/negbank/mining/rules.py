"""Which candidates are kept, and which of those are taken: the order and the arithmetic of sentence-transformers."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ..errors import InvalidArgument
from .candidates import Candidates, Scores
from .pairs import Pairs


@dataclass
class Rules:
    """The parameters of `mine_hard_negatives` of these names; `refused` counts the candidates that each rule took out."""

    range_min: int
    range_max: int
    max_score: float | None
    min_score: float | None
    absolute_margin: float | None
    relative_margin: float | None
    num_negatives: int
    sampling_strategy: Literal["random", "top"]
    refused: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.num_negatives < 1:
            raise InvalidArgument.of("num_negatives", f"must be at least 1, got {self.num_negatives}")
        if not 0 <= self.range_min < self.range_max:
            raise InvalidArgument.of(
                "range_min", f"must be from 0 to below range_max, got {self.range_min} and {self.range_max}"
            )
        if self.num_negatives > self.range_max - self.range_min:
            raise InvalidArgument.of(
                "num_negatives",
                f"{self.num_negatives} don't fit between range_min={self.range_min} and range_max={self.range_max}",
            )
        if self.sampling_strategy not in ("random", "top"):
            raise InvalidArgument.of("sampling_strategy", f'{self.sampling_strategy!r} is none: give "random" or "top"')

    @property
    def any_score(self) -> bool:
        """Whether scores decide what is kept."""
        rules = (self.absolute_margin, self.relative_margin, self.max_score, self.min_score)
        return any(rule is not None for rule in rules)

    def apply(self, found: Candidates, pairs: Pairs, positive_scores: Scores) -> None:
        """Refuses by score. A margin is kept from the query's lowest positive."""
        if self.absolute_margin is not None or self.relative_margin is not None:
            lowest = np.full(len(pairs.queries), np.inf, dtype=np.float32)
            np.minimum.at(lowest, pairs.owner, positive_scores)
            lowest = lowest[:, None]
        if self.absolute_margin is not None:
            self._refuse("absolute_margin", found, found.scores + np.float32(self.absolute_margin) > lowest)
        if self.relative_margin is not None:
            self._refuse("relative_margin", found, found.scores > lowest - np.abs(lowest) * np.float32(self.relative_margin))
        if self.max_score is not None:
            self._refuse("max_score", found, found.scores > np.float32(self.max_score))
        if self.min_score is not None:
            self._refuse("min_score", found, found.scores < np.float32(self.min_score))

    def take(self, found: Candidates, rng: random.Random) -> Candidates:
        """Ranks what was kept, and takes `num_negatives` [Q, k]; -inf where there are fewer."""
        ranked = np.argsort(-found.scores, axis=1, kind="stable")[:, self.range_min : self.range_max]
        scores = np.take_along_axis(found.scores, ranked, axis=1)
        if self.sampling_strategy == "top":
            taken = np.tile(np.arange(self.num_negatives), (len(scores), 1))
        else:
            options = np.maximum((scores > -np.inf).sum(axis=1), self.num_negatives).tolist()
            taken = np.array([sorted(rng.sample(range(those), k=self.num_negatives)) for those in options])
        chosen = np.take_along_axis(ranked, taken, axis=1)
        return Candidates(np.take_along_axis(found.texts, chosen, axis=1), np.take_along_axis(found.scores, chosen, axis=1))

    def _refuse(self, rule: str, found: Candidates, which: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> None:
        which = which & (found.scores > -np.inf)
        found.scores[which] = -np.inf
        self.refused[rule] = int(which.sum())


def default_range_max(pairs: Pairs, range_min: int, num_negatives: int, *, may_refuse: bool) -> int:
    """As many as are needed, or ten times as many where rules may refuse some; and the positives."""
    return range_min + num_negatives * (10 if may_refuse else 1) + pairs.most
