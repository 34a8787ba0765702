"""Real servers, what fills their banks, and what their answers are compared by."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from peers.clustered import Clustered

import negbank

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from server_process import ServerProcess  # noqa: E402

DIM, ANCHORS, FILL, TIMEOUT = 128, 1_024, 8_192, 120.0
RAW = DIM * 4
WAYS: dict[str, dict[str, Any]] = {"scan": {"plan": "scan"}, "graph": {"plan": "graph"}, "default": {}}


def told(what: str, figure: float) -> float:
    """Prints a figure."""
    print(f"{what:<64} {figure:>14,.4g}", flush=True)
    return figure


@contextmanager
def serving(*settings: str) -> Iterator[ServerProcess]:
    """A server that tells its metrics."""
    server = ServerProcess("http.listen=127.0.0.1:0", *settings)
    try:
        yield server
    finally:
        server.stop()


def fill(bank: negbank.Bank, data: Clustered) -> None:
    """Writes all rows."""
    for start in range(0, len(data.rows), FILL):
        part = slice(start, min(len(data.rows), start + FILL))
        bank.write(np.arange(part.start, part.stop), data.rows[part], labels=data.labels[part], step=1)


def until(bank: negbank.Bank, wanted: Callable[[negbank.IndexInfo], bool], within: float) -> negbank.IndexInfo:
    """Waits until the bank's index is as wanted."""
    give_up = time.monotonic() + within
    while True:
        index = bank.info().index
        assert index is not None
        if wanted(index):
            return index
        if time.monotonic() > give_up:
            raise TimeoutError(f"after {within:.0f} s the index is {index}")
        time.sleep(0.02)


def ids_of(answer: negbank.Negatives) -> np.ndarray:
    """[B, k] ids; -1 where there is none."""
    ids, indices = np.asarray(answer.ids), np.asarray(answer.indices)
    found: np.ndarray = ids[indices].astype(np.int64)
    found[indices < 0] = -1
    return found


def hits_of(found: np.ndarray, truth: np.ndarray) -> int:
    """How many of the true ids were found."""
    same = (found[:, :, None] == truth[:, None, :]) & (truth[:, None, :] >= 0)
    return int(same.sum())
