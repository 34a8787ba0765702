"""Servers that are away: trying again, going on without, and what errors say."""

from __future__ import annotations

import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import negbank
from relay import Relay
from server_process import ServerProcess


def restarted(server: ServerProcess, after: float) -> threading.Thread:
    """Ends the server and starts one at its address a while later."""
    server.kill()
    started: list[ServerProcess] = []

    def start() -> None:
        time.sleep(after)
        started.append(ServerProcess(port=server.port))

    thread = threading.Thread(target=start)
    thread.start()
    thread.servers = started  # type: ignore[attr-defined]
    return thread


def finished(thread: Any) -> None:
    thread.join()
    for server in thread.servers:
        server.stop()


def test_a_call_is_tried_again_until_the_server_is_back(own_server: ServerProcess) -> None:
    client = negbank.connect(own_server.address)
    back = restarted(own_server, after=0.4)
    try:
        assert client.list_banks() == []
    finally:
        finished(back)


def test_tries_end_with_their_number_and_with_the_timeout(own_server: ServerProcess) -> None:
    client = negbank.connect(own_server.address, retries=2)
    never = negbank.connect(own_server.address, retries=0)
    bank = negbank.connect(own_server.address, retries=1_000).create_bank("gone", dim=1)
    own_server.kill()
    start = time.monotonic()
    with pytest.raises(negbank.Unavailable):
        never.list_banks()
    assert time.monotonic() - start < 0.5
    with pytest.raises(negbank.Unavailable):
        client.list_banks()
    assert 0.15 < time.monotonic() - start < 5.0
    start = time.monotonic()
    with pytest.raises((negbank.Unavailable, negbank.DeadlineExceeded)):
        bank.sample(1, negbank.Uniform(1), timeout=1.0)
    assert 0.3 < time.monotonic() - start < 3.0
    with pytest.raises(negbank.InvalidArgument, match="retries"):
        negbank.connect("127.0.0.1:1", retries=-1)


def test_a_server_that_says_when_is_asked_again_then() -> None:
    server = ServerProcess("compute.queue=1", "compute.threads=1")
    try:
        bank = negbank.connect(server.address, retries=1).create_bank("busy", dim=4)
        bank.write(range(100), np.eye(100, 4) + 1)
        pending = [bank.sample_async(20, negbank.Uniform(5), seed=seed) for seed in range(40)]
        assert all(one.result().counts.sum() == 100 for one in pending)
    finally:
        server.stop()


def test_a_write_whose_answer_was_lost_is_applied_once(own_server: ServerProcess) -> None:
    """Between client and server stands a relay that cuts the connection once the server has answered the write."""
    with Relay(own_server.port) as relay:
        bank = negbank.connect(relay.address, timeout=20.0).create_bank("once", dim=1, kind="queue", metric="dot", capacity=10)
        relay.cut_after_next_answer()
        done = bank.enqueue([[1.0]], ids=[5])
        assert relay.cuts == 1, "the first answer was not lost"
        assert done.duplicate
        assert bank.info().entries == 1
        assert not bank.enqueue([[2.0]], ids=[6]).duplicate
        assert bank.read().ids.tolist() == [5, 6]


def test_every_write_is_applied_once_over_a_network_that_breaks(own_server: ServerProcess) -> None:
    """What is true: each acknowledged row is in the queue exactly once, and rows of one thread are in its order."""
    threads, writes = 6, 120
    with Relay(own_server.port) as relay, ThreadPoolExecutor(threads) as pool:
        client = negbank.connect(relay.address, timeout=60.0, retries=1_000)
        bank = client.create_bank("breaks", dim=1, kind="queue", metric="dot", capacity=threads * writes * 2)
        over = threading.Event()

        def breaking() -> None:
            while not over.wait(0.15):
                relay.cut_all()

        def writing(thread: int) -> int:
            ids = range(thread * writes, (thread + 1) * writes)
            return sum(bank.enqueue([[1.0]], ids=[i]).duplicate for i in ids)

        breaker = threading.Thread(target=breaking)
        breaker.start()
        try:
            duplicates = sum(pool.map(writing, range(threads)))
        finally:
            over.set()
            breaker.join()
        print(f"{relay.cuts} connections cut, {duplicates} answers lost")
        assert relay.cuts > 0
    read = negbank.connect(own_server.address).bank("breaks").read()
    assert sorted(read.ids.tolist()) == list(range(threads * writes))
    for thread in range(threads):
        own = read.ids[read.ids // writes == thread]
        assert (np.diff(own.astype(np.int64)) == 1).all()


def test_reads_are_begun_again_over_a_network_that_breaks(own_server: ServerProcess) -> None:
    with Relay(own_server.port) as relay:
        bank = negbank.connect(relay.address).create_bank("breaks", dim=1, metric="dot")
        bank.write(range(100), np.ones((100, 1)))
        mirror = bank.mirror()
        for _ in range(20):
            relay.cut_all()
            assert len(list(bank.scan())[0]) == 100
            relay.cut_all()
            mirror.refresh()
            relay.cut_all()
            assert bank.fetch([1]).found.all()
            relay.cut_all()
            assert bank.sample(1, negbank.Uniform(3)).mask.all()
        assert len(mirror) == 100


def test_in_batch_goes_on_without_the_server_and_with_it_again(own_server: ServerProcess) -> None:
    client = negbank.connect(own_server.address, on_unavailable="in_batch")
    bank = client.create_bank("away", dim=4)
    anchors = np.ones((3, 4), dtype=np.float32)
    own_server.kill()
    with pytest.warns(RuntimeWarning, match=own_server.address):
        negs = bank.sample(anchors, negbank.Nearest(5), negbank.Uniform(2), seed=1)
    assert negs.info.unavailable
    assert (negs.mask.shape, negs.mask.any(), negs.counts.sum()) == ((3, 7), False, 0)
    assert (negs.indices == -1).all()
    assert (negs.embeddings.shape, negs.embeddings.any()) == ((1, 4), False)
    assert np.isnan(negs.scores).all()
    assert negs.anchor(0).indices.size == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shared = bank.sample(anchors, negbank.Uniform(2, scope="shared"), layout="per_anchor")
        later = bank.sample_async(anchors, negbank.Nearest(5)).result()
    assert shared.embeddings.shape == (3, 2, 4)
    assert later.info.unavailable
    with pytest.raises(negbank.Unavailable):
        bank.sample(anchors, negbank.Nearest(5), on_unavailable="raise", timeout=1.0)
    with pytest.raises(negbank.Unavailable):
        bank.fetch([1], timeout=1.0)
    back = ServerProcess(port=own_server.port)
    try:
        again = negbank.connect(back.address, on_unavailable="in_batch").create_bank("away", dim=4)
        again.write(range(9), np.eye(9, 4) + 0.1)
        negs = bank.sample(anchors, negbank.Nearest(5))
        assert not negs.info.unavailable
        assert negs.mask.all()
        back.suspend()
        with pytest.warns(RuntimeWarning):
            assert bank.sample(anchors, negbank.Nearest(5), timeout=0.3).info.unavailable
    finally:
        back.stop()
    with pytest.raises(negbank.InvalidArgument, match="on_unavailable"):
        bank.sample(anchors, negbank.Nearest(5), on_unavailable="shrug")  # type: ignore[arg-type]


def test_errors_say_which_field_which_limit_and_which_setting(client: negbank.Client, name: str) -> None:
    bank = client.create_bank(name, dim=2)
    with pytest.raises(negbank.InvalidArgument) as refused:
        bank.sample(1, negbank.Uniform(100_000))
    assert (refused.value.field, refused.value.limit, refused.value.setting) == ("draws[0].k", 65_536, "limits.max_k")
    with pytest.raises(negbank.InvalidArgument) as refused:
        bank.write([1, 2], [[1.0, 0.0], [0.0, 0.0]])
    assert (refused.value.field, refused.value.limit, refused.value.setting) == ("embeddings[1]", None, None)
    server = ServerProcess("limits.max_banks=1", "compute.queue=1", "compute.threads=1")
    try:
        small = negbank.connect(server.address, retries=0)
        one = small.create_bank("one", dim=2)
        with pytest.raises(negbank.ResourceExhausted) as full:
            small.create_bank("two", dim=2)
        assert (full.value.limit, full.value.setting, full.value.retry_after) == (1, "limits.max_banks", None)
        with pytest.raises(negbank.ResourceExhausted) as large:
            one.sample(10_000, negbank.Uniform(1))
        assert (large.value.limit, large.value.setting, large.value.retry_after) == (1, "compute.queue", None)
    finally:
        server.stop()
