"""negbank, through gRPC from the Python package, its server on one compute thread."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

import negbank

from .cases import ANCHORS, Case
from .clustered import Clustered
from .contender import Setting

BATCH = 8_192


class Served:
    """A bank. `with_rows`: the embeddings travel too, else ids alone."""

    def __init__(self, address: str, data: Clustered) -> None:
        self.client, self.data = negbank.connect(address), data
        self.bank = self.client.create_bank(f"peers-{len(data.rows)}", dim=data.rows.shape[1])
        for start in range(0, len(data.rows), BATCH):
            part = slice(start, start + BATCH)
            ids = np.arange(len(data.rows))[part]
            self.bank.write(ids, data.rows[part], labels=data.labels[part], step=1)
        self.plans: dict[str, str] = {}

    def close(self) -> None:
        """Removes the bank."""
        self.client.delete_bank(self.bank.name)

    def contenders(self) -> tuple[Contended, Contended]:
        """The two forms of answers."""
        return Contended(self, "negbank, ids", ["ids"]), Contended(self, "negbank, ids and embeddings", ["ids", "embeddings"])

    def random(self, number: int, k: int) -> np.ndarray:
        """Embeddings of k random entries an anchor: [B, k, d]."""
        options = {"columns": ["embeddings"], "layout": "per_anchor", "seed": number}
        return self.bank.sample(ANCHORS, negbank.Uniform(k), **options).embeddings


class Contended:
    """One form of answers."""

    def __init__(self, served: Served, name: str, columns: list[str]) -> None:
        self.served, self.name, self.columns = served, name, columns

    def settings(self, case: Case) -> Sequence[Setting]:
        return [Setting("default", partial(self._search, case))]

    def _search(self, case: Case, anchors: np.ndarray, labels: np.ndarray) -> np.ndarray:
        filters: dict = {}
        if case.exclude_own:
            filters = {"anchor_labels": labels, "exclude_same_label": True}
        if case.one_label:
            filters = {"only_labels": [self.served.data.one_label]}
        answer = self.served.bank.sample(anchors, negbank.Nearest(case.k), columns=self.columns, pad=True, **filters)
        self.served.plans[case.name] = answer.info.plans[0]
        if "embeddings" in self.columns:
            _ = answer.embeddings
        found = answer.ids[answer.indices].astype(np.int64)
        found[answer.indices < 0] = -1
        return found
