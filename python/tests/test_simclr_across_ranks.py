"""In-batch negatives of two real ranks: their gradient is that of one process with the whole batch."""

from __future__ import annotations

import numpy as np

import negbank
import simclr_run as simclr
from processes import in_ranks
from server_process import ServerProcess


def test_two_ranks_train_as_one_process_with_the_whole_batch(own_server: ServerProcess, rng: np.random.Generator) -> None:
    bank = negbank.connect(own_server.address).create_bank("simclr", dim=simclr.DIM)
    bank.write(range(50), rng.standard_normal((50, simclr.DIM)), step=0)
    expected = simclr.alone(own_server.address)
    assert np.abs(expected[-1] - expected[0]).max() > 0.05, "nothing was learned"
    for history in in_ranks(2, simclr.across_ranks, own_server.address, "run/1"):
        # Double precision, but for the order in which the two ranks' gradients are added.
        np.testing.assert_allclose(history, expected, rtol=0, atol=1e-12)
