"""What is mined: the distinct queries and texts of a data set of (anchor, positive) pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import InvalidArgument

if TYPE_CHECKING:
    from datasets import Dataset

Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pairs:
    """Q distinct queries and T distinct texts.

    Attributes:
        columns: names of the anchor's and the positive's column.
        queries: [Q], in the order in which they first come.
        texts: [T], the corpus and then the positives that it lacks.
        positives: places in `texts` of each query's distinct positives.
        most: rows that the most frequent query has.
    """

    columns: tuple[str, str]
    queries: list[str]
    texts: list[str]
    positives: list[Places]
    most: int

    @classmethod
    def of(cls, dataset: Dataset, anchor: str | None, positive: str | None, corpus: Sequence[str] | None) -> Pairs:
        """From the data set; where a query comes twice, all its positives are right."""
        columns = _columns(dataset, anchor, positive)
        asked, right = list(dataset[columns[0]]), list(dataset[columns[1]])
        texts = list(dict.fromkeys([*([] if corpus is None else corpus), *right]))
        places = {text: place for place, text in enumerate(texts)}
        positives: dict[str, dict[int, None]] = {}
        for query, text in zip(asked, right, strict=True):
            positives.setdefault(query, {})[places[text]] = None
        return cls(
            columns=columns,
            queries=list(positives),
            texts=texts,
            positives=[np.array(list(those), dtype=np.int64) for those in positives.values()],
            most=max(Counter(asked).values()),
        )

    @property
    def owner(self) -> Places:
        """[P] the query of each (query, positive), query by query."""
        return np.repeat(np.arange(len(self.queries)), [len(those) for those in self.positives])

    @property
    def right(self) -> Places:
        """[P] the text of each (query, positive)."""
        return np.concatenate(self.positives)


def _columns(dataset: Any, anchor: str | None, positive: str | None) -> tuple[str, str]:
    names = dataset.column_names
    if not len(dataset):
        raise InvalidArgument.of("dataset", "is empty: there is nothing to mine for")
    if positive not in names and len(names) < 2:
        raise InvalidArgument.of("dataset", f"needs a column of anchors and one of positives; it has {names}")
    return _known(anchor, names, 0), _known(positive, names, 1)


def _known(name: str | None, names: Sequence[str], place: int) -> str:
    return name if name is not None and name in names else names[place]
