"""A data set whose items come from a bank; apart from the tests, so that spawned workers can import it."""

from __future__ import annotations

import importlib
import os
from typing import Any

import negbank

torch: Any = importlib.import_module("torch")


class Served(torch.utils.data.Dataset):  # type: ignore[misc]
    """Item `i` is the negatives of anchor `i`; its worker also leaves an entry of the queue behind."""

    def __init__(self, bank: negbank.Bank, log: negbank.Bank, anchors: Any) -> None:
        self.bank, self.log, self.anchors = bank, log, anchors

    def __len__(self) -> int:
        return len(self.anchors)

    def __getitem__(self, i: int) -> Any:
        self.log.enqueue([[float(i)]], ids=[os.getpid()])
        negs = self.bank.sample(self.anchors[i : i + 1], negbank.Nearest(4), layout="per_anchor")
        return negs.embeddings[0]
