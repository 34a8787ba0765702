"""The nearest texts of each query, from the bank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..bank import Bank
from ..draws import Nearest
from ..errors import FailedPrecondition, InvalidArgument
from ..integers import vector

Scores = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]

AT_ONCE = 256
# Limits that fewer queries at once keep to.
OF_A_REQUEST = ("limits.max_picks", "limits.max_ranked", "limits.max_answer_bytes")


@dataclass
class Candidates:
    """`texts` i64 [Q, C], best first, -1 where there is none; `scores` f32 [Q, C], -inf there and where a rule refused."""

    texts: Places
    scores: Scores


class Shelf:
    """A bank's entries as texts: `ids` u64 [n] of the entries, `texts` i64 [n] the text of each."""

    def __init__(self, bank: Bank, ids: npt.NDArray[np.uint64], texts: Places) -> None:
        order = np.argsort(ids, kind="stable")
        self._bank, self._ids, self._texts = bank, ids[order], texts[order]
        self._one_each = len(np.unique(texts)) == len(texts)

    @classmethod
    def filled(cls, bank: Bank, embeddings: npt.NDArray[Any]) -> Shelf:
        """Writes text i under id i; what was there is replaced."""
        count = len(embeddings)
        for start in range(0, count, 8_192):
            stop = min(start + 8_192, count)
            bank.write(np.arange(start, stop), embeddings[start:stop], momentum=0.0)
        return cls(bank, np.arange(count, dtype=np.uint64), np.arange(count))

    @classmethod
    def of(cls, bank: Bank, corpus_ids: Any, corpus: Sequence[str], texts: Sequence[str]) -> Shelf:
        """The bank as it stands, `corpus_ids` being the entries of `corpus`."""
        ids = vector(corpus_ids, np.uint64, "corpus_ids")
        if ids.size != len(corpus):
            raise InvalidArgument.of("corpus_ids", f"are {ids.size} for {len(corpus)} texts")
        if len(np.unique(ids)) != ids.size:
            raise InvalidArgument.of("corpus_ids", "name an entry twice: each is of one text")
        places = {text: place for place, text in enumerate(texts)}
        named = np.array([places[text] for text in corpus], dtype=np.int64)
        without = set(range(len(texts))) - set(named.tolist())
        if without:
            first = texts[min(without)]
            raise InvalidArgument.of("corpus", f"lacks {len(without)} positives, which so have no id, such as {first[:80]!r}")
        return cls(bank, ids, named)

    def nearest(self, queries: Scores, count: int) -> Candidates:
        """The `count` nearest distinct texts of each query [Q, d]; entries of the bank that are no text here are skipped."""
        found = Candidates(
            np.full((len(queries), count), -1, dtype=np.int64), np.full((len(queries), count), -np.inf, dtype=np.float32)
        )
        waiting = [slice(start, min(start + AT_ONCE, len(queries))) for start in range(0, len(queries), AT_ONCE)]
        while waiting:
            part = waiting.pop()
            try:
                texts, scores = self._search(queries[part], count)
            except InvalidArgument as fault:
                middle = (part.start + part.stop) // 2
                if fault.setting not in OF_A_REQUEST or middle == part.start:
                    raise
                waiting += [slice(part.start, middle), slice(middle, part.stop)]
                continue
            found.texts[part, : texts.shape[1]], found.scores[part, : texts.shape[1]] = texts, scores
        return found

    def rows(self, texts: Places) -> Scores:
        """Embeddings f32 [P, d] of texts, as stored; of a text with several entries, one of them."""
        order = np.argsort(self._texts, kind="stable")
        ids = self._ids[order][np.searchsorted(self._texts[order], texts)]
        entries = self._bank.fetch(ids)
        if not entries.found.all():
            absent = ids[~entries.found]
            raise FailedPrecondition(
                f"bank {self._bank.name!r} has no entry of {absent.size} positives, such as id {absent[0]}: write them first"
            )
        rows: Scores = entries.embeddings
        return rows

    def _search(self, queries: Scores, count: int) -> tuple[Places, Scores]:
        k, most, entries = count, None, self._bank.info().entries
        while True:
            draw = Nearest(min(k, max(entries, 1)), accuracy="exact")
            try:
                negs = self._bank.sample(queries, draw, columns=["ids", "scores"], pad=True)
            except InvalidArgument as fault:
                if fault.setting != "limits.max_k" or fault.limit is None or not count < fault.limit < k:
                    raise
                k = most = fault.limit
                continue
            texts = np.where(negs.mask, self._named(negs.ids)[negs.indices], -1)
            scores = np.where(texts >= 0, negs.scores, np.float32(-np.inf))
            if not self._one_each or (texts < 0).any():
                texts, scores = _first_of_each(texts, scores)
            enough = (texts >= 0).sum(axis=1).min(initial=count) >= count
            if enough or k >= entries:
                return texts[:, :count], scores[:, :count]
            if k == most:
                raise FailedPrecondition(
                    f"the {k} entries of bank {self._bank.name!r} nearest to a query are of fewer than {count} texts: the"
                    " others repeat them or are not in corpus_ids. Look for fewer (range_max), or raise limits.max_k"
                )
            k *= 2

    def _named(self, ids: npt.NDArray[np.uint64]) -> Places:
        """Texts of entries; -1 for those that are none."""
        at = np.minimum(np.searchsorted(self._ids, ids), self._ids.size - 1)
        return np.where(self._ids[at] == ids, self._texts[at], -1)


def _first_of_each(texts: Places, scores: Scores) -> tuple[Places, Scores]:
    """In each row only the first of a text, to the left; behind them -1."""
    kept, kept_scores = np.full_like(texts, -1), np.full_like(scores, -np.inf)
    for row, (there, its) in enumerate(zip(texts, scores, strict=True)):
        _, first = np.unique(there, return_index=True)
        first = np.sort(first[there[first] >= 0])
        kept[row, : first.size], kept_scores[row, : first.size] = there[first], its[first]
    return kept, kept_scores
