"""Calls in flight: futures that can be awaited and cancelled."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from typing import Any

import numpy as np
import pytest

import negbank
from reference import filled
from relay import Relay
from server_process import ServerProcess


@pytest.fixture
def bank(client: negbank.Client, name: str, rng: np.random.Generator) -> negbank.Bank:
    bank = client.create_bank(name, dim=8)
    filled(bank, rng, 300)
    return bank


def test_many_calls_fly_together_and_answer_as_if_alone(bank: negbank.Bank) -> None:
    def ids(negs: negbank.Negatives) -> Any:
        return negs.ids[negs.indices]

    pending = [bank.sample_async(4, negbank.Uniform(9), seed=seed) for seed in range(200)]
    for seed, one in enumerate(pending):
        np.testing.assert_array_equal(ids(one.result()), ids(bank.sample(4, negbank.Uniform(9), seed=seed)))
    done, waiting = concurrent.futures.wait(pending, timeout=0)
    assert len(done) == 200
    assert not waiting


def test_every_async_call_does_what_its_namesake_does(client: negbank.Client, bank: negbank.Bank, name: str) -> None:
    done = bank.write_async([7], np.ones((1, 8)), labels=[3], step=4).result()
    assert done.inserted == 1
    assert bank.fetch_async([7], at_least=done.position).result().labels.tolist() == [3]
    queue = client.create_bank(name + "q", dim=8, kind="queue", capacity=10)
    queued = queue.enqueue_async(np.ones((2, 8)), ids=[4, 5]).result()
    assert (queued.inserted, queued.ids.tolist()) == (2, [4, 5])
    client.delete_bank(name + "q")
    written = bank.sample_async(1, negbank.Uniform(1), write=negbank.Write(ids=[8], embeddings=np.ones((1, 8)))).result()
    assert written.written is not None


def test_pending_calls_are_awaited(bank: negbank.Bank) -> None:
    async def train() -> list[negbank.Negatives]:
        first = await bank.sample_async(2, negbank.Uniform(3), seed=1)
        more = await asyncio.gather(*(bank.sample_async(2, negbank.Uniform(3), seed=1) for _ in range(20)))
        with pytest.raises(negbank.InvalidArgument):
            await bank.sample_async(2, negbank.Uniform(3), max_age=3)
        return [first, *more]

    answers = asyncio.run(train())
    assert all((negs.indices == answers[0].indices).all() for negs in answers)


def test_faults_of_arguments_are_raised_at_once_and_others_by_the_result(client: negbank.Client, bank: negbank.Bank) -> None:
    with pytest.raises(negbank.InvalidArgument, match="embeddings"):
        bank.write_async([1], np.ones((1, 9)))
    with pytest.raises(TypeError, match="no_such"):
        bank.sample_async(1, negbank.Uniform(1), no_such=1)
    client.delete_bank(bank.name)
    pending = bank.sample_async(1, negbank.Uniform(1))
    assert isinstance(pending.exception(), negbank.NotFound)


def test_cancelling_gives_the_call_up_on_the_server(bank: negbank.Bank, server: ServerProcess) -> None:
    with Relay(server.port) as relay:
        there = negbank.connect(relay.address).bank(bank.name)
        pending = there.sample_async(1, negbank.Uniform(1), min_entries=10_000, wait_for_entries=True, timeout=60.0)
        time.sleep(0.2)
        assert not relay.resets.is_set()
        assert pending.cancel()
        assert relay.resets.wait(10.0), "the server was not told"


def test_a_cancelled_call_is_over_for_everyone(bank: negbank.Bank) -> None:
    pending = bank.sample_async(1, negbank.Uniform(1), min_entries=10_000, wait_for_entries=True, timeout=60.0)
    called = threading.Event()
    pending.add_done_callback(lambda _: called.set())
    time.sleep(0.2)
    assert not pending.done()
    assert pending.cancel()
    assert pending.cancelled()
    assert called.wait(1.0)
    assert concurrent.futures.wait([pending], timeout=1.0).done == {pending}
    assert pending.cancel(), "twice is once"
    with pytest.raises(concurrent.futures.CancelledError):
        pending.result()
    assert not bank.sample_async(1, negbank.Uniform(1)).exception()


def test_a_staged_write_that_is_given_up_stays_in_its_stage(client: negbank.Client, name: str) -> None:
    bank = client.create_bank(name, dim=1, kind="queue", metric="dot", capacity=9)

    def rank(number: int) -> negbank.Pending[negbank.Enqueued]:
        return bank.enqueue_async([[float(number)]], ids=[number], stage=negbank.Stage(0, rank=number, world_size=2))

    given_up = rank(0)
    give_up = time.monotonic() + 10.0
    while not bank.info().stages and time.monotonic() < give_up:
        time.sleep(0.01)
    assert given_up.cancel()
    rank(1).result()
    assert bank.read().ids.tolist() == [0, 1]


def test_a_cancelled_task_cancels_its_call(bank: negbank.Bank) -> None:
    async def train() -> bool:
        pending = bank.sample_async(1, negbank.Uniform(1), min_entries=10_000, wait_for_entries=True, timeout=60.0)

        async def wait() -> None:
            await pending

        task = asyncio.create_task(wait())
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return pending.cancelled()

    assert asyncio.run(train())


def test_a_call_in_flight_keeps_its_deadline_and_holds_no_thread(own_server: ServerProcess) -> None:
    bank = negbank.connect(own_server.address).create_bank("slow", dim=1)
    own_server.suspend()
    start = time.monotonic()
    pending = [bank.fetch_async([1], timeout=0.5) for _ in range(300)]
    assert time.monotonic() - start < 5.0
    assert all(isinstance(one.exception(), negbank.DeadlineExceeded) for one in pending)
    assert threading.active_count() < 50
