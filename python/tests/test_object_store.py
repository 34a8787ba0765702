"""Checkpoints in an object store, which may go away, and as files that others read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import negbank
from object_store import BUCKET, CREDENTIALS, ObjectStore, Way
from server_process import ServerProcess

DIM, ENTRIES = 128, 30_000
LOCATION = f"checkpoints.location=s3://{BUCKET}/run-7"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """An object store, and an environment that leads to it."""
    store = ObjectStore()
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": store.address}.items():
        monkeypatch.setenv(name, value)
    yield store
    store.stop()


def filled(client: negbank.Client) -> negbank.Bank:
    """A bank whose file has several parts."""
    bank = client.create_bank("b", dim=DIM)
    rng = np.random.default_rng(0)
    for ids in np.array_split(np.arange(ENTRIES), 3):
        bank.write(ids, rng.normal(size=(len(ids), DIM)).astype(np.float32), labels=ids % 7, step=3)
    return bank


def test_a_bank_goes_through_an_object_store(store: ObjectStore) -> None:
    server = ServerProcess(LOCATION, "checkpoints.keep=2")
    try:
        client = negbank.connect(server.address)
        bank = filled(client)
        made = [bank.checkpoint(step) for step in range(3)]
        assert made[0].bytes > 2 * (8 << 20)
        assert [there.tag for there in client.checkpoints("b")] == ["1", "2"]
        with pytest.raises(negbank.AlreadyExists):
            bank.checkpoint(1)
        assert bank.checkpoint(1, replace=True).tag == "1"
    finally:
        server.stop()
    assert len(store.objects()) == 4
    assert {name.split("/")[0] for name in store.objects()} == {"run-7"}
    server = ServerProcess(LOCATION)
    try:
        client = negbank.connect(server.address)
        bank = client.restore("b", 2)
        assert bank.info().entries == ENTRIES
        assert bank.checkpoint("again").state_hash == made[2].state_hash
        for there in client.checkpoints():
            client.delete_checkpoint(there.bank, there.tag)
    finally:
        server.stop()
    assert store.objects() == []


def test_an_object_store_that_goes_away_half_way_leaves_nothing_that_is_listed(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = Way(store.port, most=10 << 20)
    monkeypatch.setenv("AWS_ENDPOINT_URL", way.address)
    server = ServerProcess(LOCATION)
    try:
        client = negbank.connect(server.address)
        bank = filled(client)
        with pytest.raises(negbank.FailedPrecondition, match=r"checkpoints\.location"):
            bank.checkpoint(1)
        assert way.ended
        # The bank goes on.
        bank.write([1], np.ones((1, DIM), np.float32))
        assert len(bank.sample(np.ones((1, DIM), np.float32), negbank.Uniform(4)).ids) == 4
    finally:
        server.stop()
    monkeypatch.setenv("AWS_ENDPOINT_URL", store.address)
    server = ServerProcess(LOCATION)
    try:
        client = negbank.connect(server.address)
        assert client.checkpoints() == []
        assert filled(client).checkpoint(1).tag == "1"
    finally:
        server.stop()


def test_others_read_the_file(tmp_path: Path) -> None:
    server = ServerProcess(f"checkpoints.location={tmp_path}")
    try:
        bank = negbank.connect(server.address).create_bank("b", dim=DIM, metric="dot", shards=3)
        rng = np.random.default_rng(0)
        embeddings = rng.normal(size=(100, DIM)).astype(np.float32)
        bank.write(np.arange(100), embeddings, labels=np.arange(100) % 7)
        bank.remove(np.arange(10))
        bank.checkpoint(1)
    finally:
        server.stop()
    [path] = (tmp_path / "b" / "1").glob("*.safetensors")
    tensors = load_file(path)
    seen = {}
    for shard in range(3):
        there = tensors[f"occupied_at.{shard}"] > 0
        columns = (tensors[f"{name}.{shard}"][there] for name in ("ids", "labels", "embeddings"))
        seen.update({int(entry): (int(label), row) for entry, label, row in zip(*columns, strict=True)})
    assert sorted(seen) == list(range(10, 100))
    for entry, (label, row) in seen.items():
        assert label == entry % 7
        np.testing.assert_array_equal(row, embeddings[entry])
