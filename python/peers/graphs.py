"""hnswlib, faiss, usearch and SVS in this process, one thread each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from .cases import Case
from .clustered import Clustered
from .contender import EF, FETCHED, Setting, dropped

M, EF_BUILD = 16, 200

Find = Callable[[np.ndarray, int, int], np.ndarray]
"""Anchors, k and ef to ids."""


class Graph:
    """A library that searches and knows no filters: for an excluded label more is fetched and dropped afterwards."""

    def __init__(self, name: str, find: Find, data: Clustered) -> None:
        self.name, self.find, self.labels = name, find, data.labels

    def settings(self, case: Case) -> Sequence[Setting]:
        if case.one_label:
            return []
        if case.exclude_own:
            return [Setting(f"{n} fetched", partial(self._fetch_and_drop, case.k, n)) for n in FETCHED]
        return [Setting(f"ef {ef}", partial(self._plain, case.k, ef)) for ef in EF if ef >= case.k]

    def _plain(self, k: int, ef: int, anchors: np.ndarray, _labels: np.ndarray) -> np.ndarray:
        return self.find(anchors, k, ef)

    def _fetch_and_drop(self, k: int, fetched: int, anchors: np.ndarray, labels: np.ndarray) -> np.ndarray:
        ids = self.find(anchors, fetched, fetched)
        return dropped(ids, self.labels[ids.astype(np.int64)] == labels[:, None], k)


class Faiss:
    """HNSWFlat with faiss's own id selectors, a call an anchor where each anchor has its own."""

    def __init__(self, data: Clustered) -> None:
        import faiss

        self.faiss, self.data = faiss, data
        self.name = f"faiss {faiss.__version__}"
        faiss.omp_set_num_threads(2)
        self.index = faiss.IndexHNSWFlat(data.rows.shape[1], M, faiss.METRIC_INNER_PRODUCT)
        self.index.hnsw.efConstruction = EF_BUILD
        self.index.add(data.rows)
        faiss.omp_set_num_threads(1)
        self.flat = faiss.IndexFlatIP(data.rows.shape[1])
        self.flat.add(data.rows)
        order = np.argsort(data.labels, kind="stable")
        ends = np.searchsorted(data.labels[order], np.arange(data.labels.max() + 2))
        self.of_label = [order[a:b].astype(np.int64) for a, b in zip(ends, ends[1:], strict=False)]

    def settings(self, case: Case) -> Sequence[Setting]:
        flat = Setting("exact", partial(self._flat, case))
        if case.one_label:
            return [flat]
        search = self._without_own if case.exclude_own else self._plain
        return [Setting(f"ef {ef}", partial(search, case.k, ef)) for ef in EF if ef >= case.k]

    def _plain(self, k: int, ef: int, anchors: np.ndarray, _labels: np.ndarray) -> np.ndarray:
        self.index.hnsw.efSearch = ef
        return self.index.search(anchors, k)[1]

    def _without_own(self, k: int, ef: int, anchors: np.ndarray, labels: np.ndarray) -> np.ndarray:
        found = []
        for anchor, label in zip(anchors, labels, strict=True):
            own = self.of_label[label] if label < len(self.of_label) else np.empty(0, np.int64)
            sel = self.faiss.IDSelectorNot(self.faiss.IDSelectorBatch(own))
            params = self.faiss.SearchParametersHNSW(sel=sel, efSearch=ef)
            found.append(self.index.search(anchor[None], k, params=params)[1][0])
        return np.array(found)

    def _flat(self, case: Case, anchors: np.ndarray, _labels: np.ndarray) -> np.ndarray:
        if not case.one_label:
            return self.flat.search(anchors, case.k)[1]
        sel = self.faiss.IDSelectorBatch(self.of_label[self.data.one_label])
        return self.flat.search(anchors, case.k, params=self.faiss.SearchParameters(sel=sel))[1]


def hnswlib_graph(data: Clustered) -> Graph:
    """hnswlib."""
    import hnswlib

    index = hnswlib.Index("ip", data.rows.shape[1])
    index.init_index(len(data.rows), EF_BUILD, M)
    index.add_items(data.rows, num_threads=2)

    def find(anchors: np.ndarray, k: int, ef: int) -> np.ndarray:
        index.set_ef(ef)
        return index.knn_query(anchors, k, num_threads=1)[0]

    return Graph("hnswlib 0.8.0", find, data)


def usearch_graph(data: Clustered) -> Graph:
    """usearch, bf16: the fastest of its kinds in our trials."""
    import usearch
    from usearch.index import Index

    index = Index(
        ndim=data.rows.shape[1], metric="ip", dtype="bf16", connectivity=M, expansion_add=EF_BUILD, expansion_search=64
    )
    index.add(np.arange(len(data.rows)), data.rows, threads=2)

    def find(anchors: np.ndarray, k: int, ef: int) -> np.ndarray:
        index.expansion_search = ef
        return index.search(anchors, k, threads=1).keys

    return Graph(f"usearch {usearch.__version__} bf16", find, data)


def svs_graph(data: Clustered) -> Graph:
    """SVS's Vamana, f32."""
    import svs

    alpha = 0.95  # below 1 for inner products, as its manual asks
    parameters = svs.VamanaBuildParameters(graph_max_degree=2 * M, window_size=EF_BUILD, alpha=alpha)
    index = svs.Vamana.build(parameters, data.rows, svs.DistanceType.MIP, num_threads=2)
    index.num_threads = 1

    def find(anchors: np.ndarray, k: int, ef: int) -> np.ndarray:
        index.search_window_size = ef
        return index.search(anchors, k)[0]

    return Graph(f"SVS {svs.library_version()}", find, data)


def libraries() -> Iterator[tuple[str, Callable[[Clustered], Graph | Faiss]]]:
    """All of them, unbuilt."""
    yield "hnswlib", hnswlib_graph
    yield "faiss", Faiss
    yield "usearch", usearch_graph
    yield "SVS", svs_graph
