"""Whole banks, and mirrors of them."""

from __future__ import annotations

from typing import Any

import numpy as np

import negbank


def same(mirror: negbank.Mirror, bank: negbank.Bank) -> None:
    """The mirror holds what the bank does, in its order."""
    read = bank.read()
    for column in ("ids", "embeddings", "labels", "has_label", "groups", "has_group", "steps", "weights"):
        np.testing.assert_array_equal(getattr(mirror, column), getattr(read, column), err_msg=column)
    assert len(mirror) == len(read)


def test_a_queue_is_read_from_its_oldest_to_its_newest(client: negbank.Client, name: str, rng: np.random.Generator) -> None:
    bank = client.create_bank(name, dim=8, kind="queue", metric="dot", capacity=1_000)
    rows = rng.standard_normal((1_500, 8)).astype(np.float32)
    for start in range(0, 1_500, 100):
        bank.enqueue(rows[start : start + 100], ids=range(start, start + 100), step=start)
    read = bank.read()
    np.testing.assert_array_equal(read.ids, np.arange(500, 1_500))
    np.testing.assert_array_equal(read.embeddings, rows[500:])
    assert read.consistent
    assert (np.diff(read.stamps.astype(np.int64)) > 0).all()
    chunks = list(bank.scan(chunk_rows=300, dtype="float16"))
    assert [len(chunk) for chunk in chunks] == [300, 300, 300, 100]
    assert [chunk.last for chunk in chunks] == [False, False, False, True]
    np.testing.assert_array_equal(np.concatenate([c.embeddings for c in chunks]), rows[500:].astype(np.float16))
    bare = bank.read(embeddings=False)
    assert bare.embeddings.shape == (0, 8)
    np.testing.assert_array_equal(bare.ids, read.ids)
    position = bank.enqueue(rows[:2], ids=[1, 2]).position
    later = bank.enqueue(rows[2:3], ids=[3]).position
    since = list(bank.scan(since=position, at_least=later))
    assert [c.ids.tolist() for c in since if len(c)] == [[3]]


def test_an_empty_bank_reads_as_nothing(client: negbank.Client, name: str) -> None:
    bank = client.create_bank(name, dim=8)
    read = bank.read()
    assert (len(read), read.embeddings.shape, read.consistent) == (0, (0, 8), True)
    mirror = bank.mirror()
    assert (len(mirror), mirror.embeddings.shape) == (0, (0, 8))
    assert mirror.ids.dtype == np.uint64
    mirror.refresh()
    same(mirror, bank)


def test_a_queues_mirror_takes_what_is_new_where_it_stands(client: negbank.Client, name: str, rng: np.random.Generator) -> None:
    bank = client.create_bank(name, dim=4, kind="queue", metric="dot", capacity=2_000)
    bank.enqueue(rng.standard_normal((2_000, 4)), labels=np.arange(2_000))
    mirror = bank.mirror()
    first = mirror.refresh()
    assert first.whole
    assert first.rows.size == 2_000
    same(mirror, bank)
    memory = {id(column) for column in mirror._table._columns.values()}
    for step in range(30):
        bank.enqueue(rng.standard_normal((130, 4)), labels=[None] * 130, step=step)
        changes = mirror.refresh()
        assert (changes.whole, changes.gone, changes.consistent) == (False, 130, True)
        assert changes.rows.tolist() == list(range(1_870, 2_000))
        same(mirror, bank)
    assert {id(column) for column in mirror._table._columns.values()} == memory, "the arrays were made anew"
    nothing = mirror.refresh()
    assert (nothing.rows.size, nothing.gone) == (0, 0)


def test_a_keyed_banks_mirror_follows_any_history(client: negbank.Client, name: str, rng: np.random.Generator) -> None:
    bank = client.create_bank(name, dim=4, capacity=1_500)
    mirror = bank.mirror()
    for step in range(60):
        ids = rng.integers(0, 2_500, rng.integers(1, 120)).astype(np.uint64)
        groups: Any = [None if i % 3 else int(i) for i in ids]
        bank.write(ids, rng.standard_normal((ids.size, 4)), groups=groups, step=step, weights=rng.random(ids.size))
        if step % 4 == 0:
            bank.remove(rng.integers(0, 2_500, 60).astype(np.uint64))
        if step % 3 == 0:
            before = mirror.embeddings.copy()
            changes = mirror.refresh()
            same(mirror, bank)
            if not changes.whole and changes.gone == 0:
                kept = np.setdiff1d(np.arange(len(before)), changes.rows)
                np.testing.assert_array_equal(mirror.embeddings[kept], before[kept])


def test_a_mirror_begins_anew_with_a_bank_created_anew(client: negbank.Client, name: str) -> None:
    bank = client.create_bank(name, dim=2)
    bank.write([1, 2], [[1, 0], [0, 1]])
    mirror = bank.mirror()
    mirror.refresh()
    client.delete_bank(name)
    client.create_bank(name, dim=2).write([3], [[1, 1]])
    assert mirror.refresh().whole
    same(mirror, bank)
