"""Refusals: which say when to call again, and which say that it won't help."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import negbank
from server_process import ServerProcess

# Far beyond what a refusal takes on a busy machine, far below the calls' deadlines.
AT_ONCE = 12.0
DEADLINE = 60.0


@pytest.fixture
def recovering(tmp_path: Path) -> Iterator[ServerProcess]:
    """A restarted server whose bank `slow` is being read for ever: its log is a pipe that nobody writes to."""
    directory = f"durability.dir={tmp_path}"
    server = ServerProcess(directory)
    try:
        negbank.connect(server.address).create_bank("slow", dim=2).write([1], [[1.0, 0.0]])
        server.terminate()
    finally:
        server.stop()
    (log,) = tmp_path.glob("banks/slow@*/log-*")
    log.unlink()
    os.mkfifo(log)
    server = ServerProcess(directory, recovered=False)
    yield server
    server.stop()


def test_a_bank_that_is_being_recovered_says_when_to_come_back(recovering: ServerProcess) -> None:
    client = negbank.connect(recovering.address, retries=0)
    with pytest.raises(negbank.Unavailable, match="bank slow is being recovered: 0 % read") as refused:
        client.create_bank("slow", dim=2)
    assert isinstance(refused.value.retry_after, float)
    assert 0.0 < refused.value.retry_after < 60.0
    assert isinstance(refused.value, ConnectionError)
    assert "is away" not in str(refused.value), "it answers"
    bank = client.bank("slow")
    for call in (
        lambda: bank.fetch([1]),
        lambda: bank.sample(1, negbank.Uniform(1)),
        lambda: bank.write_async([1], [[1.0, 0.0]]).result(),
    ):
        with pytest.raises(negbank.Unavailable) as refused:
            call()
        assert refused.value.retry_after is not None
        assert refused.value.retry_after > 0.0
    # A patient call comes back until its deadline, and says then what it was told.
    patient = negbank.connect(recovering.address).bank("slow")
    start = time.monotonic()
    with pytest.raises(negbank.Unavailable) as refused:
        patient.fetch([1], timeout=4.0)
    assert refused.value.retry_after is not None
    assert time.monotonic() - start < 4.0 + AT_ONCE


def test_a_server_that_is_away_says_nothing_of_when(own_server: ServerProcess) -> None:
    bank = negbank.connect(own_server.address, retries=0).create_bank("gone", dim=2)
    own_server.kill()
    with pytest.raises(negbank.Unavailable, match=f"the server at {own_server.address} is away") as away:
        bank.fetch([1])
    assert away.value.retry_after is None


def test_a_full_room_says_when_to_come_back() -> None:
    server = ServerProcess("gather.max_gathers=1")
    try:
        client = negbank.connect(server.address, retries=0)
        rows = np.ones((1, 2), dtype=np.float32)
        waiting = client.gather_async("first", rows, step=1, rank=0, world_size=2)
        while not client.list_gathers():
            time.sleep(0.01)
        with pytest.raises(negbank.ResourceExhausted, match=r"gather\.max_gathers") as full:
            client.gather("second", rows, step=1, rank=0, world_size=1)
        assert isinstance(full.value.retry_after, float)
        assert 0.0 < full.value.retry_after < 10.0
        client.gather("first", rows, step=1, rank=1, world_size=2)
        assert len(waiting.result()) == 2
    finally:
        server.stop()


def test_what_never_has_room_says_so_at_once_and_is_not_tried_again() -> None:
    server = ServerProcess("compute.queue=1", "memory.max_bytes=8388608")
    try:
        bank = negbank.connect(server.address, timeout=DEADLINE).create_bank("small", dim=1024)
        rows = np.ones((3_000, 1024), dtype=np.float32)
        start = time.monotonic()
        for setting, limit, call in (
            ("compute.queue", 1, lambda: bank.sample(10_000, negbank.Uniform(1))),
            ("memory.max_bytes", 8_388_608, lambda: bank.write(range(3_000), rows)),
            ("memory.max_bytes", 8_388_608, lambda: bank.fetch(range(3_000))),
        ):
            with pytest.raises(negbank.ResourceExhausted, match="trying again won't help") as refused:
                call()
            assert (refused.value.setting, refused.value.limit, refused.value.retry_after) == (setting, limit, None)
        assert time.monotonic() - start < AT_ONCE
    finally:
        server.stop()
