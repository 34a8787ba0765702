"""Banks in the worker processes of a torch DataLoader."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import negbank
from loading import Served, torch
from reference import filled


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*This DataLoader will create.*:UserWarning")
def test_loader_workers_draw_and_write_as_writers_of_their_own(
    client: negbank.Client, name: str, rng: np.random.Generator, start: Any
) -> None:
    bank = client.create_bank(name, dim=8)
    filled(bank, rng, 100)
    log = client.create_bank(name + "q", dim=1, kind="queue", metric="dot", capacity=100)
    log.enqueue([[0.0]], ids=[0])
    anchors = torch.from_numpy(rng.standard_normal((24, 8)).astype(np.float32))
    loader = torch.utils.data.DataLoader(
        Served(bank, log, anchors), batch_size=4, num_workers=2, multiprocessing_context=start, timeout=60
    )
    served = torch.cat(list(loader))
    expected = bank.sample(anchors, negbank.Nearest(4), layout="per_anchor").embeddings
    assert torch.equal(served, expected)
    # A child that went on under its parent's numbers would have had its writes taken for the parent's.
    read = log.read()
    assert len(read) == 1 + 24
    assert len(np.unique(read.ids)) == 3
    assert log.info().writers == 3
    client.delete_bank(name + "q")
