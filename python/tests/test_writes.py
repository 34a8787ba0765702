"""Weights, stages, capacities, dtypes of banks, and writes that come twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import negbank


def test_weights_are_kept_until_they_are_given_anew(client: negbank.Client, name: str) -> None:
    bank = client.create_bank(name, dim=2)
    bank.write([1, 2], [[1, 0], [0, 1]], weights=[0.5, 3])
    bank.write([2, 3], [[0, 1], [1, 1]])
    assert bank.fetch([1, 2, 3]).weights.tolist() == [0.5, 3.0, 1.0]
    with pytest.raises(negbank.InvalidArgument, match="weights"):
        bank.write([1], [[1, 0]], weights=[-1.0])
    with pytest.raises(negbank.InvalidArgument, match="weights"):
        bank.write([1], [[1, 0]], weights=[[1.0]])


@pytest.mark.parametrize(("dtype", "bits"), [("float16", 11), ("bfloat16", 8)])
def test_a_bank_of_halves_holds_halves(client: negbank.Client, name: str, dtype: str, bits: int) -> None:
    rows = np.random.default_rng(1).standard_normal((20, 32)).astype(np.float32)
    bank = client.create_bank(name, dim=32, metric="dot", momentum=0.5, dtype=dtype)  # type: ignore[arg-type]
    bank.write(range(20), rows)
    info = bank.info()
    assert info.dtype == dtype
    got = bank.fetch(range(20)).embeddings
    np.testing.assert_allclose(got, rows, rtol=2.0**-bits)
    assert (got != rows).any()


def test_a_keyed_bank_of_a_capacity_evicts_the_stalest(client: negbank.Client, name: str) -> None:
    bank = client.create_bank(name, dim=2, capacity=3)
    bank.write([1, 2, 3], [[1, 0], [0, 1], [1, 1]], step=5, labels=[7, 8, None])
    bank.write([1], [[1, 0]], step=6)
    stalest = bank.stalest(2)
    assert (stalest.ids.tolist(), stalest.steps.tolist()) == ([2, 3], [5, 5])
    assert stalest.labels.tolist()[0] == 8
    assert stalest.has_label.tolist() == [True, False]
    done = bank.write([4], [[1, 0]], step=7)
    assert (done.inserted, done.evicted) == (1, 1)
    assert bank.fetch([1, 2, 3, 4]).found.tolist() == [True, False, True, True]
    assert bank.info().capacity == 3
    queue = client.create_bank(name + "q", dim=2, kind="queue", capacity=3)
    with pytest.raises(negbank.FailedPrecondition, match="scan"):
        queue.stalest(1)
    client.delete_bank(name + "q")


def test_ranks_commit_in_order_once_all_are_there(client: negbank.Client, name: str) -> None:
    bank = client.create_bank(name, dim=1, kind="queue", metric="dot", capacity=100)

    def rank(number: int) -> negbank.Enqueued:
        rows = np.full((2, 1), number, dtype=np.float32)
        return bank.enqueue(rows, ids=[number, number], stage=negbank.Stage(step=3, rank=number, world_size=4))

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(rank, [3, 1, 2, 0]))
    assert len({one.sequence for one in done}) == 1
    read = bank.read()
    assert read.ids.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert (read.steps == 3).all()


def test_a_stage_that_misses_a_rank_names_it(client: negbank.Client, name: str) -> None:
    bank = client.create_bank(name, dim=1, kind="queue", metric="dot", capacity=100)
    stage = negbank.Stage(0, rank=0, world_size=2)
    pending = bank.enqueue_async([[1.0]], stage=stage, timeout=1.0)
    while not bank.info().stages:
        pass
    assert bank.info().stages == [negbank.OpenStage(step=0, micro_batch=0, world_size=2, missing_ranks=[1])]
    with pytest.raises(negbank.DeadlineExceeded):
        pending.result()
    assert bank.info().entries == 0
    with pytest.raises(negbank.InvalidArgument, match="stage"):
        bank.enqueue([[1.0]], stage=(0, 0, 2))  # type: ignore[arg-type]


def test_every_connection_is_a_writer_of_its_own(client: negbank.Client, name: str) -> None:
    bank = client.create_bank(name, dim=1, metric="dot")
    for _ in range(3):
        bank.write([1], [[1.0]])
    assert bank.info().writers == 1
    negbank.connect(bank._session.address, writer="train-7/rank-3").bank(name).write([1], [[1.0]])
    assert bank.info().writers == 2
    with pytest.raises(negbank.InvalidArgument, match="writer"):
        negbank.connect(bank._session.address, writer="x" * 200).bank(name).write([1], [[1.0]])


def test_a_read_only_handle_refuses_to_write(client: negbank.Client, name: str) -> None:
    client.create_bank(name, dim=1, metric="dot").write([1], [[1.0]])
    bank = client.bank(name, read_only=True)
    assert bank.read_only
    for call in (
        lambda: bank.write([1], [[2.0]]),
        lambda: bank.write_async([1], [[2.0]]),
        lambda: bank.remove([1]),
        lambda: bank.sample(1, negbank.Uniform(1), write=negbank.Write(ids=[1], embeddings=[[2.0]])),
    ):
        with pytest.raises(negbank.FailedPrecondition, match="read-only"):
            call()
    assert bank.fetch([1]).embeddings.tolist() == [[1.0]]
