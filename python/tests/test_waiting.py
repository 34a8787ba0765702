"""Deadlines, servers that are away, threads, signals and processes."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import negbank
from reference import filled
from server_process import ServerProcess, free_port
from worker import fetch_first

# Far beyond what any of these calls needs on a busy machine, far below what it would take if it ignored its deadline.
NOT_HUNG = 12.0


def seconds(call: Callable[[], Any]) -> float:
    start = time.monotonic()
    call()
    return time.monotonic() - start


def test_a_port_where_nobody_listens_is_unavailable_at_once() -> None:
    address = f"127.0.0.1:{free_port()}"

    def connect() -> None:
        with pytest.raises(negbank.Unavailable, match=address) as away:
            negbank.connect(address)
        assert "negbank serve" in str(away.value)
        assert isinstance(away.value, ConnectionError)

    assert seconds(connect) < NOT_HUNG


def test_a_port_that_answers_nothing_is_unavailable_within_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"

        def connect() -> None:
            with pytest.raises(negbank.Unavailable, match="is it a negbank server"):
                negbank.connect(address, timeout=0.4)

        assert 0.3 < seconds(connect) < NOT_HUNG


@pytest.mark.parametrize("address", ["", "no address", "http://"])
def test_what_is_no_address_is_invalid(address: str) -> None:
    with pytest.raises(negbank.InvalidArgument):
        negbank.connect(address)


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan"), float("inf")])
def test_every_deadline_is_finite(server: ServerProcess, timeout: float) -> None:
    with pytest.raises(negbank.InvalidArgument, match="timeout"):
        negbank.connect(server.address, timeout=timeout)


def test_a_server_that_stalls_meets_the_deadline_and_recovers(own_server: ServerProcess) -> None:
    client = negbank.connect(own_server.address, timeout=1.5)
    bank = client.create_bank("stalls", dim=1, metric="dot")
    own_server.suspend()
    calls: list[tuple[float, Callable[[], Any]]] = [
        (1.5, lambda: bank.sample(1, negbank.Uniform(1))),
        (0.2, lambda: bank.sample(1, negbank.Uniform(1), timeout=0.2)),
        (0.2, lambda: bank.write([1], [[1.0]], timeout=0.2)),
        (0.2, lambda: bank.fetch([1], timeout=0.2)),
        (0.2, lambda: bank.remove([1], timeout=0.2)),
        (0.2, lambda: bank.info(timeout=0.2)),
        (0.2, lambda: client.bank("stalls", timeout=0.2)),
        (0.2, lambda: client.create_bank("new", dim=1, timeout=0.2)),
        (0.2, lambda: client.delete_bank("stalls", timeout=0.2)),
        (0.2, lambda: client.list_banks(timeout=0.2)),
    ]
    for limit, call in calls:

        def late(call: Callable[[], Any] = call) -> None:
            with pytest.raises(negbank.DeadlineExceeded, match="timeout=") as late:
                call()
            assert isinstance(late.value, TimeoutError)

        assert limit * 0.9 < seconds(late) < NOT_HUNG
    own_server.resume()
    again = client.create_bank("again", dim=1, metric="dot", timeout=10.0)
    again.write([1], [[2.0]])
    assert again.fetch([1]).embeddings.tolist() == [[2.0]]


def test_a_server_that_left_is_unavailable_and_met_again_after_its_restart() -> None:
    server = ServerProcess()
    client = negbank.connect(server.address, retries=0)
    server.stop()
    with pytest.raises(negbank.Unavailable, match=server.address):
        client.list_banks()
    again = ServerProcess(port=server.port)
    try:
        assert client.list_banks() == []
    finally:
        again.stop()


def test_a_server_that_dies_during_a_call_is_unavailable(own_server: ServerProcess) -> None:
    bank = negbank.connect(own_server.address, retries=0).create_bank("dies", dim=1)
    own_server.suspend()
    death = threading.Timer(0.2, own_server.kill)
    death.start()
    with pytest.raises(negbank.Unavailable, match="broke during the call"):
        bank.sample(1, negbank.Uniform(1), timeout=10.0)
    death.join()


def test_threads_sample_at_the_same_time(client: negbank.Client, name: str, rng: np.random.Generator) -> None:
    bank = client.create_bank(name, dim=32)
    filled(bank, rng, 500)
    anchors = rng.standard_normal((16, 32)).astype(np.float32)

    def draw(seed: int) -> Any:
        negs = bank.sample(anchors, negbank.Uniform(20), negbank.Nearest(5), seed=seed)
        return negs.ids[negs.indices]

    alone = [draw(seed) for seed in range(40)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(draw, range(40)))
    np.testing.assert_array_equal(together, alone)


def test_other_threads_run_while_a_call_waits(own_server: ServerProcess) -> None:
    client = negbank.connect(own_server.address)
    own_server.suspend()
    outcomes: list[BaseException] = []

    def wait() -> None:
        try:
            client.list_banks(timeout=3.0)
        except negbank.DeadlineExceeded as late:
            outcomes.append(late)

    waiting = [threading.Thread(target=wait) for _ in range(4)]
    for thread in waiting:
        thread.start()
    start, turns = time.monotonic(), 0
    while time.monotonic() - start < 0.5:
        turns += 1
    assert all(thread.is_alive() for thread in waiting)
    assert turns > 10, "this thread hardly ran while the others waited"
    for thread in waiting:
        thread.join()
    assert len(outcomes) == 4
    assert time.monotonic() - start < 4 * 3.0, "the calls waited one after the other"


def test_ctrl_c_ends_a_wait(own_server: ServerProcess) -> None:
    # Whoever runs the tests in the background may have told this process to ignore SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    client = negbank.connect(own_server.address)
    own_server.suspend()

    def interrupted() -> None:
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            client.list_banks(timeout=20.0)
        timer.join()

    assert seconds(interrupted) < NOT_HUNG
    signal.signal(signal.SIGINT, before)
    own_server.resume()
    assert client.list_banks() == []


def test_clients_and_banks_survive_pickling(client: negbank.Client, name: str) -> None:
    bank = client.create_bank(name, dim=1, metric="dot")
    bank.write([1], [[5.0]])
    copied_client, copied_bank = pickle.loads(pickle.dumps((client, bank)))
    assert copied_bank.fetch([1]).embeddings.tolist() == [[5.0]]
    assert copied_client.bank(name).info() == bank.info()


def test_errors_survive_pickling(client: negbank.Client) -> None:
    with pytest.raises(negbank.InvalidArgument) as refused:
        client.create_bank("bad name", dim=0)
    copied = pickle.loads(pickle.dumps(refused.value))
    assert str(copied) == str(refused.value)
    assert copied.violations == refused.value.violations != []


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_worker_process_uses_its_parents_bank(client: negbank.Client, name: str, start: Any) -> None:
    bank = client.create_bank(name, dim=1, metric="dot")
    bank.write([1], [[5.0]])
    context: Any = multiprocessing.get_context(start)
    answers = context.Queue()
    worker = context.Process(target=fetch_first, args=(bank, answers))
    worker.start()
    try:
        assert answers.get(timeout=20.0) == [[5.0]]
    finally:
        worker.join(5.0)
        worker.kill()
    assert bank.fetch([1]).embeddings.tolist() == [[5.0]], "the parent's connection still works"
