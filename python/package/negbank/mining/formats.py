"""Data sets of the four formats of sentence-transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .candidates import Candidates, Scores
from .pairs import Pairs

Table = dict[str, list[Any]]


def triplets(pairs: Pairs, taken: Candidates, positive_scores: Scores, with_scores: bool) -> Table:
    """A row for each positive of a query and each of its negatives."""
    anchor, positive = pairs.columns
    table: Table = {anchor: [], positive: [], "negative": [], **({"scores": []} if with_scores else {})}
    for query, right, own in zip(pairs.owner, pairs.right, positive_scores, strict=True):
        for text, score in _there(taken, query):
            table[anchor].append(pairs.queries[query])
            table[positive].append(pairs.texts[right])
            table["negative"].append(pairs.texts[text])
            if with_scores:
                table["scores"].append([float(own), score])
    return table


def tuples(pairs: Pairs, taken: Candidates, positive_scores: Scores, with_scores: bool) -> Table:
    """A row for each positive of a query that has all its negatives."""
    anchor, positive = pairs.columns
    whole = np.flatnonzero((taken.scores[pairs.owner] > -np.inf).all(axis=1))
    owner, right, own = pairs.owner[whole], pairs.right[whole], positive_scores[whole]
    table: Table = {
        anchor: [pairs.queries[query] for query in owner],
        positive: [pairs.texts[text] for text in right],
    }
    for column in range(taken.texts.shape[1]):
        table[f"negative_{column + 1}"] = [pairs.texts[text] for text in taken.texts[owner, column]]
    if with_scores:
        table["scores"] = np.concatenate([own[:, None], taken.scores[owner]], axis=1).tolist()
    return table


def labelled_pairs(pairs: Pairs, taken: Candidates, positive_scores: Scores, with_scores: bool) -> Table:
    """A row for each positive (1) and each negative (0) of a query."""
    anchor, document = pairs.columns
    last = "score" if with_scores else "label"
    table: Table = {anchor: [], document: [], last: []}

    def add(query: int, text: int, label: int, score: float) -> None:
        table[anchor].append(pairs.queries[query])
        table[document].append(pairs.texts[text])
        table[last].append(score if with_scores else label)

    own = iter(positive_scores.tolist())
    for query, those in enumerate(pairs.positives):
        for text in those:
            add(query, text, 1, next(own))
        for text, score in _there(taken, query):
            add(query, text, 0, score)
    return table


def labelled_lists(pairs: Pairs, taken: Candidates, positive_scores: Scores, with_scores: bool) -> Table:
    """A row for each positive of a query that has a negative: it and the negatives, and what they are."""
    anchor, documents = pairs.columns
    last = "scores" if with_scores else "labels"
    table: Table = {anchor: [], documents: [], last: []}
    for query, right, own in zip(pairs.owner, pairs.right, positive_scores, strict=True):
        negatives = list(_there(taken, query))
        if negatives:
            table[anchor].append(pairs.queries[query])
            table[documents].append([pairs.texts[text] for text in [right, *(text for text, _ in negatives)]])
            scores = [float(own), *(score for _, score in negatives)]
            table[last].append(scores if with_scores else [1] + [0] * len(negatives))
    return table


FORMATS: dict[str, Callable[[Pairs, Candidates, Scores, bool], Table]] = {
    "triplet": triplets,
    "n-tuple": tuples,
    "labeled-pair": labelled_pairs,
    "labeled-list": labelled_lists,
}


def _there(taken: Candidates, query: int) -> list[tuple[int, float]]:
    """The negatives of a query, and their scores."""
    rows = zip(taken.texts[query].tolist(), taken.scores[query].tolist(), strict=True)
    return [(text, score) for text, score in rows if score > -np.inf]
