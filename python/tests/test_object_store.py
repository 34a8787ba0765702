"""Checkpoints in an object store, which may go away, and as files that others read."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import negbank
from object_store import BUCKET, CREDENTIALS, Gate, ObjectStore, Way
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


def test_a_restore_may_take_longer_than_any_request(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    server = ServerProcess(LOCATION)
    try:
        made = filled(negbank.connect(server.address)).checkpoint(1)
    finally:
        server.stop()
    rate = 1_000_000
    assert made.bytes / rate > 2 * 7, "a request and its tries would be over before the file is there"
    monkeypatch.setenv("AWS_TIMEOUT", "2s")
    monkeypatch.setenv("AWS_ENDPOINT_URL", Way(store.port, most=1 << 30, rate=rate).address)
    server = ServerProcess(LOCATION)
    try:
        client = negbank.connect(server.address, timeout=300)
        assert client.restore("b", 1).info().entries == ENTRIES
    finally:
        server.stop()


def test_an_object_store_that_goes_away_changes_no_bank_that_is_there(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, reads = Gate(store.port), itertools.count()
    monkeypatch.setenv("AWS_ENDPOINT_URL", gate.address)
    server = ServerProcess(LOCATION)
    try:
        client = negbank.connect(server.address, timeout=120)
        bank = filled(client)
        made = bank.checkpoint(1)
        bank.write([1], np.ones((1, DIM), np.float32), labels=[1], step=4)
        before, sequence = bank.read(), bank.info().sequence

        def is_third_part(method: str, path: str) -> bool:
            return method == "GET" and path.endswith(".safetensors") and next(reads) >= 2

        gate.shut_at(is_third_part, is_done=False)
        asked: dict[str, Callable[[], object]] = {
            "restored": lambda: client.restore("b", 1),
            "restored as another": lambda: client.restore("b", 1, into="other"),
            "listed": client.checkpoints,
            "deleted": lambda: client.delete_checkpoint("b", 1),
        }
        for what, ask in asked.items():
            with pytest.raises(negbank.FailedPrecondition, match=r"checkpoints\.location"):
                ask()
            assert gate.cuts > 0, what
        assert [there.name for there in client.list_banks()] == ["b"]
        after = bank.read()
        assert bank.info().sequence == sequence
        np.testing.assert_array_equal(after.ids, before.ids)
        np.testing.assert_array_equal(after.embeddings, before.embeddings)
        bank.write([2], np.ones((1, DIM), np.float32), labels=[1], step=4)
        gate.open()
        assert [there.state_hash for there in client.checkpoints()] == [made.state_hash]
        assert client.restore("b", 1).info().sequence == made.sequence
    finally:
        server.stop()
        gate.close()


# The requests of a checkpoint, in order.
STAGES: dict[str, Callable[[str, str], bool]] = {
    "part": lambda method, path: method == "PUT" and "partNumber=" in path,
    "whole": lambda method, path: method == "POST" and "uploadId=" in path,
    "manifest": lambda method, path: method == "PUT" and path.endswith("manifest.json"),
}


class Run:
    """A server whose way to the store leads through a gate of its own."""

    def __init__(self, store: ObjectStore, monkeypatch: pytest.MonkeyPatch, stage: str, is_done: bool) -> None:
        self.stage, self.is_done, self.name = stage, is_done, f"{stage}-{'done' if is_done else 'not-done'}"
        self.gate = Gate(store.port)
        monkeypatch.setenv("AWS_ENDPOINT_URL", self.gate.address)
        self.server = ServerProcess(f"checkpoints.location=s3://{BUCKET}/{self.name}")
        self.client = negbank.connect(self.server.address)
        self.bank = self.client.create_bank("b", dim=DIM)
        self.bank.write(np.arange(100), np.random.default_rng(1).normal(size=(100, DIM)).astype(np.float32), step=3)
        self.expected = self.bank.read()

    def stop(self) -> None:
        self.server.stop()
        self.gate.close()

    def check(self) -> None:
        """The checkpoint is whole."""
        [made] = self.client.checkpoints()
        assert (made.tag, made.entries) == ("1", 100), self.name
        restored = self.client.restore("b", 1, into="restored").read()
        np.testing.assert_array_equal(restored.ids, self.expected.ids, self.name)
        np.testing.assert_array_equal(restored.embeddings, self.expected.embeddings, self.name)


@pytest.fixture
def runs(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Run]]:
    """A run for each request of a checkpoint that gets no answer: the store has not heard of it, or has done it."""
    runs = [Run(store, monkeypatch, stage, is_done) for stage in STAGES for is_done in (False, True)]
    yield runs
    for run in runs:
        run.stop()


def test_an_object_store_that_is_away_from_any_request_on_leaves_a_checkpoint_or_none(
    store: ObjectStore, runs: list[Run]
) -> None:
    def away(run: Run) -> str:
        run.gate.shut_at(STAGES[run.stage], is_done=run.is_done)
        with pytest.raises(negbank.FailedPrecondition, match=r"checkpoints\.location") as refused:
            run.bank.checkpoint(1)
        assert run.gate.cuts > 1, "it was tried again"
        run.bank.write([1], np.ones((1, DIM), np.float32), momentum=0.0)
        run.expected = run.bank.read()
        run.gate.open()
        return str(refused.value)

    with ThreadPoolExecutor(len(runs)) as threads:
        refusals = list(threads.map(away, runs))
    for run, refusal in zip(runs, refusals, strict=True):
        file = "manifest.json" if run.stage == "manifest" else "safetensors"
        assert re.search(rf"cannot write s3://{BUCKET}/{run.name}/b/1/\S*{file}", refusal), refusal
        if (run.stage, run.is_done) == ("manifest", True):
            # It was made, and nobody could tell.
            assert [made.tag for made in run.client.checkpoints()] == ["1"]
            with pytest.raises(negbank.AlreadyExists):
                run.bank.checkpoint(1)
        else:
            assert run.client.checkpoints() == [], run.name
        run.bank.checkpoint(1, replace=run.is_done)
        run.check()
        assert store.unfinished(run.name) == [], "what was begun is taken back when the store is there again"
        # A file whose end nobody heard of is swept away a day later.
        files = [name for name in store.objects(run.name) if name.endswith(".safetensors")]
        assert len(files) == 1 + ((run.stage, run.is_done) in {("whole", True), ("manifest", False)}), (run.name, files)


def test_an_answer_of_an_object_store_that_is_lost_once_costs_no_checkpoint(store: ObjectStore, runs: list[Run]) -> None:
    def lose(run: Run) -> None:
        run.gate.shut_at(STAGES[run.stage], is_done=run.is_done, is_once=True)
        run.bank.checkpoint(1)

    with ThreadPoolExecutor(len(runs)) as threads:
        list(threads.map(lose, runs))
    for run in runs:
        assert run.gate.cuts == 1, run.name
        run.check()
        assert (len(store.objects(run.name)), store.unfinished(run.name)) == (2, []), run.name
        run.client.delete_checkpoint("b", 1)
        assert store.objects(run.name) == [], run.name


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
