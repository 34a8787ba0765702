"""Arm F: one run of G over again, with the search done in process, compared with what the service answered.

The replayed training makes the same anchors and the same writes, bit for bit, because it continues from the
answers that the service gave; the local bank mirrors the writes, searches by brute force, and every pick of every
step is compared. Scores closer than TIE cannot be told apart in float32, so such a pick may be another entry.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .local_bank import LocalBank

TIE = 1e-6
ROW_DIFFERENCE_MAX = 1e-5


class Recorder:
    """A bank that keeps every answer that passes through it."""

    def __init__(self, bank) -> None:
        self.bank = bank
        self.answers = []

    def write(self, ids, embeddings, **columns):
        return self.bank.write(ids, embeddings, **columns)

    def sample(self, anchors, draw, **request):
        answer = self.bank.sample(anchors, draw, **request)
        self.answers.append(answer)
        return answer


@dataclass
class Comparison:
    """Counts over the picks of all steps, and the largest difference between a served and a mirrored row."""

    steps: int = 0
    picks: int = 0
    equal: int = 0
    ties: int = 0
    different: int = 0
    row_difference: float = 0.0

    def holds(self, steps: int) -> bool:
        """Whether all of `steps` steps were compared and served what the local search finds."""
        everything = self.steps == steps and self.picks > 0
        return everything and self.different == 0 and self.row_difference <= ROW_DIFFERENCE_MAX


class ReplayBank:
    """A bank that searches `local`, compares with the recorded answers in order, and hands on the recorded ones."""

    def __init__(self, local: LocalBank, answers: list) -> None:
        self.local = local
        self.answers = iter(answers)
        self.comparison = Comparison()

    def write(self, ids, embeddings, **columns):
        return self.local.write(ids, embeddings, **columns)

    def sample(self, anchors, draw, **request):
        served, found = next(self.answers), self.local.sample(anchors, draw, **request)
        eligible = self.local.eligible(request["positive_ids"], request["anchor_groups"])
        self._compare(picked_ids(served), picked_ids(found), self.local.scores(anchors), eligible)
        ids = np.asarray(served.ids, dtype=np.int64)
        apart = np.abs(np.asarray(served.embeddings) - self.local.rows[ids]).max(initial=0.0)
        self.comparison.row_difference = max(self.comparison.row_difference, float(apart))
        return served

    def _compare(self, served: np.ndarray, found: np.ndarray, scores: np.ndarray, eligible: np.ndarray) -> None:
        """served and found i64 [B, K] (-1: no entry), scores f32 and eligible bool [B, n]."""
        anchor = np.arange(len(served))[:, None]
        both = (served >= 0) & (found >= 0)
        gap = np.abs(scores[anchor, np.maximum(served, 0)] - scores[anchor, np.maximum(found, 0)])
        ordered = np.sort(served, axis=1)
        repeats = ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(axis=1, keepdims=True)
        equal = (served == found) & ~repeats
        tie = ~equal & both & (gap < TIE) & eligible[anchor, np.maximum(served, 0)] & ~repeats
        self.comparison.steps += 1
        self.comparison.picks += served.size
        self.comparison.equal += int(equal.sum())
        self.comparison.ties += int(tie.sum())
        self.comparison.different += int((~equal & ~tie).sum())


def picked_ids(answer) -> np.ndarray:
    """i64 [B, K]: the ids that an answer picked, -1 where a place is empty."""
    mask = np.asarray(answer.mask)
    return np.where(mask, np.asarray(answer.ids, dtype=np.int64)[np.where(mask, answer.indices, 0)], -1)
