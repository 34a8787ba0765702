"""A queue in a bank is the queue that MoCo keeps in each rank: the same rows, in the same order, at every step."""

from __future__ import annotations

import numpy as np
import torch

import moco_run as moco
import negbank
from negbank.torch import MomentumEncoder
from processes import in_ranks
from server_process import ServerProcess


def trained(bank: negbank.Bank | None) -> tuple[list[tuple[list[int], torch.Tensor]], torch.Tensor]:
    """Trains with the queue in the bank, or with a local one; the negatives of every step, and the parameters at the end."""
    model, fifo = moco.encoder(), moco.Fifo()
    fifo.push(*moco.first_queue())
    followed, optimiser = MomentumEncoder(model, momentum=0.9), torch.optim.SGD(model.parameters(), lr=0.2)
    seen = []
    for step in range(moco.STEPS):
        if bank is None:
            seen.append((fifo.ids, fifo.matrix()))
        else:
            read = bank.read()
            seen.append((read.ids.tolist(), torch.from_numpy(read.embeddings)))
        ids, queries, keys = moco.batch(step)
        mine = moco.unit(followed(keys))
        moco.step_towards(moco.unit(model(queries)), mine, seen[-1][1], optimiser)
        followed.update(model)
        if bank is None:
            fifo.push(ids, mine)
        else:
            bank.enqueue(mine, ids=ids, step=step)
    return seen, moco.parameters(model)


def test_a_run_against_the_service_sees_what_a_local_fifo_holds(client: negbank.Client, name: str) -> None:
    (served, parameters), (local, expected) = trained(moco.created(client, name)), trained(None)
    assert moco.STEPS * moco.BATCH >= 3 * moco.CAPACITY
    assert moco.CAPACITY % moco.BATCH != 0
    for (ids, rows), (expected_ids, expected_rows) in zip(served, local, strict=True):
        assert ids == expected_ids
        assert torch.equal(rows, expected_rows)
    assert torch.equal(parameters, expected), "the same bits, so the same model"
    assert not torch.equal(parameters, moco.parameters(moco.encoder()))


def test_two_ranks_see_one_queue_at_every_step_in_every_run(own_server: ServerProcess) -> None:
    client = negbank.connect(own_server.address)
    names = [f"moco-{run}" for run in range(3)]
    for name in names:
        moco.created(client, name)
    of_ranks = in_ranks(2, moco.across_ranks, own_server.address, names)
    runs = [run for rank in of_ranks for run in rank]
    assert len(runs) == 6
    for seen, as_fifo in runs:
        assert as_fifo, "a rank read a queue that is not the FIFO of all ranks' keys"
        assert seen == runs[0][0], "a rank or a run saw another queue, drew other entries or came to another model"
    assert len(set(runs[0][0])) == moco.STEPS
    last = [client.bank(name).read() for name in names]
    assert last[0].ids.tolist() == list(range(1_000 + moco.STEPS * moco.BATCH - moco.CAPACITY, 1_000 + moco.STEPS * moco.BATCH))
    for read in last:
        np.testing.assert_array_equal(read.embeddings, last[0].embeddings)
