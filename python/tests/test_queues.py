"""Queue banks."""

from __future__ import annotations

import numpy as np
import pytest

import negbank


def queue(client: negbank.Client, name: str, capacity: int) -> negbank.Bank:
    return client.create_bank(name, dim=2, kind="queue", metric="dot", capacity=capacity)


def test_the_server_numbers_rows_without_ids(client: negbank.Client, name: str) -> None:
    bank = queue(client, name, 8)
    first = bank.enqueue([[1, 0], [2, 0], [3, 0]], labels=[1, None, 3], groups=[7, 8, None], step=5)
    second = bank.enqueue([[4, 0]])
    assert first.ids.dtype == np.uint64
    assert first.ids.shape == (3,)
    assert len({*first.ids.tolist(), *second.ids.tolist()}) == 4
    assert (first.sequence, first.inserted, first.evicted, second.sequence) == (1, 3, 0, 2)
    entries = bank.fetch(np.concatenate([second.ids, first.ids]))
    assert entries.embeddings[:, 0].tolist() == [4, 1, 2, 3]
    assert entries.has_label.tolist() == [False, True, False, True]
    assert entries.has_group.tolist() == [False, True, True, False]
    assert entries.steps.tolist() == [0, 5, 5, 5]


def test_given_ids_may_repeat_and_the_newest_is_fetched(client: negbank.Client, name: str) -> None:
    bank = queue(client, name, 8)
    done = bank.enqueue([[1, 0], [2, 0]], ids=[9, 9])
    assert done.ids.tolist() == [9, 9]
    bank.enqueue([[3, 0]], ids=np.array([9], dtype=np.int32))
    assert bank.info().entries == 3
    assert bank.fetch([9]).embeddings.tolist() == [[3, 0]]
    assert bank.remove([9]) == 3


def test_the_oldest_leave_a_full_queue(client: negbank.Client, name: str) -> None:
    bank = queue(client, name, 4)
    bank.enqueue([[1, 0], [2, 0], [3, 0]], ids=[1, 2, 3])
    done = bank.enqueue([[4, 0], [5, 0], [6, 0]], ids=[4, 5, 6])
    assert done.evicted == 2
    assert bank.fetch([1, 2, 3, 4, 5, 6]).found.tolist() == [False, False, True, True, True, True]


def test_of_a_batch_larger_than_the_queue_the_last_rows_stay(client: negbank.Client, name: str) -> None:
    bank = queue(client, name, 3)
    rows = np.arange(20, dtype=np.float32).reshape(10, 2)
    bank.enqueue(rows, ids=range(10))
    assert bank.info().entries == 3
    entries = bank.fetch([6, 7, 8, 9])
    assert entries.found.tolist() == [False, True, True, True]
    np.testing.assert_array_equal(entries.embeddings[1:], rows[7:])


def test_a_queue_takes_no_keyed_write(client: negbank.Client, name: str) -> None:
    bank = queue(client, name, 3)
    with pytest.raises(negbank.FailedPrecondition, match=r"queue.*enqueue"):
        bank.write([1], [[1, 0]])
    assert bank.info().entries == 0
