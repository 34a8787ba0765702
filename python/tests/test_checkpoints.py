"""Checkpoints from Python: a run that resumes, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import negbank
from server_process import ServerProcess

DIM, ENTRIES, BATCH = 8, 200, 16


def put(bank: negbank.Bank, ids: npt.NDArray[np.uint64], rows: npt.NDArray[np.float32], step: int) -> None:
    """Writes a step's rows."""
    labels = (ids % 5).astype(np.int64)
    if bank.kind == "keyed":
        bank.write(ids, rows, labels=labels, step=step)
    else:
        bank.enqueue(rows, ids=ids, labels=labels, step=step)


def fill(bank: negbank.Bank) -> None:
    """The bank as a run finds it."""
    embeddings = np.random.default_rng(0).normal(size=(ENTRIES, DIM)).astype(np.float32)
    put(bank, np.arange(ENTRIES, dtype=np.uint64), embeddings, 0)


def train(bank: negbank.Bank, steps: range) -> list[npt.NDArray[np.uint64]]:
    """Steps whose writes depend on what they drew, and draws on what was written."""
    drawn = []
    draws = (negbank.Uniform(4), negbank.Nearest(4), negbank.Balanced(2))
    for step in steps:
        rng = np.random.default_rng(step)
        ids = rng.choice(ENTRIES, BATCH, replace=False).astype(np.uint64)
        anchors = rng.normal(size=(BATCH, DIM)).astype(np.float32)
        negatives = bank.sample(anchors, *draws, seed=step)
        drawn.append(negatives.ids[negatives.indices])
        pulled = negatives.embeddings[negatives.indices].mean(axis=1)
        put(bank, ids, anchors - pulled, step)
    return drawn


@pytest.mark.parametrize("kind", ["keyed", "queue"])
def test_a_resumed_run_equals_one_that_was_not_interrupted(location: str, tmp_path: Path, kind: str) -> None:
    settings = {"kind": kind, "capacity": ENTRIES if kind == "queue" else None}
    first = ServerProcess(location, f"durability.dir={tmp_path / 'data'}")
    try:
        client = negbank.connect(first.address)
        whole = client.create_bank("whole", dim=DIM, **settings)  # type: ignore[arg-type]
        fill(whole)
        expected = train(whole, range(1, 21))
        end = whole.checkpoint("end")

        bank = client.create_bank("run", dim=DIM, **settings)  # type: ignore[arg-type]
        fill(bank)
        drawn = train(bank, range(1, 11))
        made = bank.checkpoint(10)
        assert (made.tag, made.step, made.bank) == ("10", 10, "run")
        # What comes after the checkpoint is lost with the job.
        train(bank, range(11, 15))
    finally:
        first.stop()
    second = ServerProcess(location)
    try:
        client = negbank.connect(second.address)
        bank = client.restore("run", 10)
        assert (bank.info().step, bank.info().durability) == (10, "memory")
        drawn += train(bank, range(11, 21))
        resumed = bank.checkpoint("end")
    finally:
        second.stop()
    for step, (ours, theirs) in enumerate(zip(drawn, expected, strict=True), 1):
        np.testing.assert_array_equal(ours, theirs, err_msg=f"step {step}")
    assert (resumed.content_hash, resumed.sequence) == (end.content_hash, end.sequence)
    # Who wrote is another thing: these are other connections.
    assert resumed.state_hash != end.state_hash


def test_a_running_job_goes_back_to_a_checkpoint(keeping: negbank.Client) -> None:
    bank = keeping.create_bank("b", dim=DIM)
    fill(bank)
    train(bank, range(1, 6))
    made = bank.checkpoint(np.int64(5))
    expected = train(bank, range(6, 9))
    keeping.restore("b", 5)
    assert bank.info().sequence == made.sequence
    for ours, theirs in zip(train(bank, range(6, 9)), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    other = keeping.restore("b", into="c")
    assert (other.name, other.info().entries) == ("c", ENTRIES)
    assert other.checkpoint("1").state_hash == made.state_hash
    assert [(made.bank, made.tag) for made in keeping.checkpoints()] == [("b", "5"), ("c", "1")]
    keeping.delete_checkpoint("b", 5)
    assert keeping.checkpoints("b") == []


def test_what_is_refused(keeping: negbank.Client, client: negbank.Client, name: str) -> None:
    bank = keeping.create_bank("b", dim=DIM)
    bank.checkpoint(1)
    with pytest.raises(negbank.AlreadyExists, match="replace"):
        bank.checkpoint(1)
    assert bank.checkpoint(1, replace=True).tag == "1"
    with pytest.raises(negbank.InvalidArgument, match="tag"):
        bank.checkpoint("../1")
    with pytest.raises(negbank.InvalidArgument, match="tag"):
        bank.checkpoint(-1)
    with pytest.raises(negbank.NotFound, match="there are 1"):
        keeping.restore("b", 2)
    keeping.create_bank("narrow", dim=DIM - 1)
    with pytest.raises(negbank.AlreadyExists, match="dim"):
        keeping.restore("b", 1, into="narrow")
    with pytest.raises(negbank.NotFound):
        keeping.delete_checkpoint("b", 2)
    with pytest.raises(negbank.FailedPrecondition) as refused:
        client.create_bank(name, dim=DIM).checkpoint(1)
    assert refused.value.setting == "checkpoints.location"


def test_the_last_are_kept(keeping: negbank.Client) -> None:
    bank = keeping.create_bank("b", dim=DIM)
    for step in range(4):
        bank.write([1], np.ones((1, DIM), np.float32), step=step)
        bank.checkpoint(step, keep=2)
    assert [(made.tag, made.step) for made in keeping.checkpoints("b")] == [("2", 2), ("3", 3)]


def test_a_bank_survives_what_it_was_asked_to(location: str, tmp_path: Path, client: negbank.Client, name: str) -> None:
    settings = (location, f"durability.dir={tmp_path / 'data'}")
    server = ServerProcess(*settings)
    try:
        first = negbank.connect(server.address)
        for durability in ("memory", "interval", "always"):
            bank = first.create_bank(durability, dim=DIM, durability=durability)
            fill(bank)
            assert bank.info().durability == durability
            bank.checkpoint(1)
    finally:
        server.stop()
    server = ServerProcess(*settings)
    try:
        second = negbank.connect(server.address)
        assert [(info.name, info.entries) for info in second.list_banks()] == [("always", ENTRIES), ("interval", ENTRIES)]
        assert second.restore("memory", durability="always").info().durability == "always"
    finally:
        server.stop()
    with pytest.raises(negbank.InvalidArgument, match=r"durability\.dir"):
        client.create_bank(name, dim=DIM, durability="always")
    with pytest.raises(negbank.InvalidArgument, match="interval"):
        client.create_bank(name, dim=DIM, durability="sometimes")  # type: ignore[arg-type]
