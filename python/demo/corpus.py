"""The corpus: pairs of a docstring's summary (the query) and its body (what the query should find).

Rows are public names, so a row's number is its id in the bank. Three notions of sameness, from fine to coarse:
the *object* (aliases of one definition), the *group* (bodies that are one text once normalised: these must never
be each other's negatives), and the *cluster* (rows linked by a common body or a common summary: never on both
sides of a split).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .docstrings import read_docstrings

SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z`*\[(])")
WORD = re.compile(r"[a-z]{2,}")
SUMMARY_WORDS_MIN = 3
BODY_WORDS_MIN = 8


@dataclass(frozen=True)
class Corpus:
    """N rows, aligned: names and words as lists, the rest as arrays [N]."""

    names: list[str]
    summaries: list[list[str]]
    bodies: list[list[str]]
    objects: np.ndarray  # u64: hash of where the definition stands
    groups: np.ndarray  # u64: hash of the normalised body
    clusters: np.ndarray  # i64: 0..number of clusters
    labels: np.ndarray  # i64: module

    def twinned(self) -> int:
        """How many rows have their body's text under another name as well."""
        _, inverse, sizes = np.unique(self.groups, return_inverse=True, return_counts=True)
        return int((sizes[inverse] > 1).sum())


def read_corpus() -> Corpus:
    names, modules, objects, summaries, bodies = [], [], [], [], []
    for entry in read_docstrings():
        summary, body = (WORD.findall(part.lower()) for part in _summary_and_body(entry.text))
        if len(summary) >= SUMMARY_WORDS_MIN and len(body) >= BODY_WORDS_MIN:
            names.append(entry.name)
            modules.append(entry.module)
            objects.append(entry.object_id)
            summaries.append(summary)
            bodies.append(body)
    groups = _hashes(" ".join(body) for body in bodies)
    return Corpus(
        names=names,
        summaries=summaries,
        bodies=bodies,
        objects=_hashes(objects),
        groups=groups,
        clusters=_clusters(groups, _hashes(" ".join(summary) for summary in summaries)),
        labels=np.unique(modules, return_inverse=True)[1].astype(np.int64),
    )


def _summary_and_body(text: str) -> tuple[str, str]:
    """The first sentence of the first paragraph, and everything after it."""
    paragraph, _, rest = text.partition("\n\n")
    summary, *more = SENTENCE_END.split(paragraph, maxsplit=1)
    return summary, "\n\n".join([*more, rest])


def _hashes(texts) -> np.ndarray:
    """u64 [N], the same in every process and on every machine."""
    digests = (hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.array([int.from_bytes(digest, "little") for digest in digests], dtype=np.uint64)


def _clusters(groups: np.ndarray, summary_hashes: np.ndarray) -> np.ndarray:
    """i64 [N]: connected components of the rows under 'same body or same summary'."""
    rows = len(groups)
    by_body = np.unique(groups, return_inverse=True)[1] + rows
    by_summary = np.unique(summary_hashes, return_inverse=True)[1] + 2 * rows
    source, target = np.tile(np.arange(rows), 2), np.concatenate([by_body, by_summary])
    graph = coo_array((np.ones(2 * rows, dtype=np.int8), (source, target)), shape=(3 * rows, 3 * rows))
    return np.unique(connected_components(graph, directed=False)[1][:rows], return_inverse=True)[1]
