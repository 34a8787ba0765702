"""negbank, through gRPC from the Python package, its server on one compute thread."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

import negbank

from .cases import ANCHORS, Case
from .clustered import Clustered
from .contender import EF, Setting

BATCH = 8_192
BUILT_WITHIN = 1_800.0  # seconds


class Served:
    """A bank, with a graph that is built before anything is asked."""

    def __init__(self, address: str, data: Clustered) -> None:
        self.client, self.data = negbank.connect(address), data
        self.bank = self.client.create_bank(f"peers-{len(data.rows)}", dim=data.rows.shape[1])
        for start in range(0, len(data.rows), BATCH):
            part = slice(start, start + BATCH)
            ids = np.arange(len(data.rows))[part]
            self.bank.write(ids, data.rows[part], labels=data.labels[part], step=1)
        self.plans: dict[str, str] = {}
        give_up = time.monotonic() + BUILT_WITHIN
        while (index := self.bank.info().index) is None or index.state != "serving":
            if time.monotonic() > give_up:
                raise RuntimeError(f"no graph within {BUILT_WITHIN:.0f} s: {index}")
            time.sleep(0.2)

    def close(self) -> None:
        """Removes the bank."""
        self.client.delete_bank(self.bank.name)

    def contenders(self) -> tuple[Contended, ...]:
        """The two forms of answers, by whatever plan; and ids by the graph."""
        forms = {"negbank, ids": ["ids"], "negbank, ids and embeddings": ["ids", "embeddings"]}
        default = (Contended(self, name, columns) for name, columns in forms.items())
        return *default, Walked(self, "negbank's graph asked for, ids", ["ids"])

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

    def _search(self, case: Case, anchors: np.ndarray, labels: np.ndarray, **how: Any) -> np.ndarray:
        filters: dict = {}
        if case.exclude_own:
            filters = {"anchor_labels": labels, "exclude_same_label": True}
        if case.one_label:
            filters = {"only_labels": [self.served.data.one_label]}
        answer = self.served.bank.sample(anchors, negbank.Nearest(case.k, **how), columns=self.columns, pad=True, **filters)
        if not how:
            self.served.plans[case.name] = answer.info.plans[0]
        if "embeddings" in self.columns:
            _ = answer.embeddings
        found = answer.ids[answer.indices].astype(np.int64)
        found[answer.indices < 0] = -1
        return found


class Walked(Contended):
    """The graph, whatever it costs, by width; one label is listed, and not walked for."""

    def settings(self, case: Case) -> Sequence[Setting]:
        if case.one_label:
            return []
        widths = [ef for ef in EF if ef >= case.k + case.k // 8 + 8]
        return [Setting(f"ef {ef}", partial(self._search, case, plan="graph", ef=ef)) for ef in widths]
