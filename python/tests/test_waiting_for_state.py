"""Reads that wait for the bank: for a write of another rank, and for enough entries."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

import negbank


def test_a_position_is_seen_by_another_client(client: negbank.Client, name: str) -> None:
    bank = client.create_bank(name, dim=1, metric="dot")
    written = bank.write([1], [[3.0]])
    assert isinstance(written.position, bytes)
    assert bank.fetch([1], at_least=written.position).embeddings.tolist() == [[3.0]]
    assert bank.sample(1, negbank.Uniform(1), at_least=written.position).ids.tolist() == [1]
    with pytest.raises(negbank.InvalidArgument, match="not a position"):
        bank.fetch([1], at_least=b"123")


def test_warm_up_is_refused_or_waited_for(client: negbank.Client, name: str) -> None:
    queue = client.create_bank(name, dim=1, kind="queue", capacity=8, metric="dot")
    queue.enqueue([[1.0]])
    with pytest.raises(negbank.FailedPrecondition, match="holds 1 entries, and min_entries asks for 3"):
        queue.sample(1, negbank.Uniform(3), min_entries=3)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(queue.sample, 1, negbank.Uniform(3), min_entries=3, wait_for_entries=True)
        queue.enqueue([[1.0], [2.0]])
        assert waiting.result().indices.shape == (1, 3)
