"""Gathers from Python: arrays and tensors, partial sets, and servers that go away."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

import negbank
from negbank.torch import live_rows
from server_process import ServerProcess


@pytest.fixture
def group(request: pytest.FixtureRequest) -> str:
    """A group of the test's own."""
    return str(request.node.nodeid)[-128:]


@pytest.fixture
def three(client: negbank.Client) -> Iterator[ThreadPoolExecutor]:
    """A thread a rank."""
    with ThreadPoolExecutor(3) as pool:
        yield pool


def wait_for(client: negbank.Client, missing: list[int]) -> None:
    """Until a gather waits for these ranks."""
    give_up = time.monotonic() + 20.0
    while missing not in [one.missing_ranks for one in client.list_gathers() if not one.finished]:
        assert time.monotonic() < give_up, client.list_gathers()
        time.sleep(0.01)


def test_every_rank_gets_every_row(client: negbank.Client, three: ThreadPoolExecutor, group: str) -> None:
    counts = [2, 0, 3]

    def bring(rank: int, step: int) -> negbank.Gathered:
        rows = np.full((counts[rank], 4), rank + 10 * step, dtype=np.float32)
        ids = np.arange(counts[rank], dtype=np.uint64) + np.uint64(2**63 + 100 * rank)
        labels = None if rank == 0 else [None, 5, 6][: counts[rank]]
        return client.gather(group, rows, step=step, rank=rank, world_size=3, ids=ids, labels=labels, groups=ids % np.uint64(2))

    for step in range(3):
        answers = list(three.map(bring, [2, 0, 1], [step] * 3))
        for rank, gathered in zip([2, 0, 1], answers, strict=True):
            assert (len(gathered), gathered.partial, gathered.late, gathered.unavailable) == (5, False, False, False)
            assert gathered.embeddings.tolist() == [[r + 10 * step] * 4 for r in (0, 0, 2, 2, 2)]
            assert gathered.ids is not None
            assert gathered.ids.dtype == np.uint64
            assert (gathered.ids - np.uint64(2**63)).tolist() == [0, 1, 200, 201, 202]
            assert gathered.counts.tolist() == counts
            assert gathered.ranks.tolist() == [0, 0, 2, 2, 2]
            assert gathered.own == [slice(0, 2), slice(2, 2), slice(2, 5)][rank]
            assert gathered.has_label is not None
            assert gathered.labels is not None
            assert gathered.has_label.tolist() == [False, False, False, True, True]
            assert gathered.labels.tolist() == [0, 0, 0, 5, 6]
            assert gathered.groups is not None
            assert gathered.groups.tolist() == [0, 1, 0, 1, 0]
    assert str(answers[0]) == "<Gathered N=5 W=3 d=4>"


def test_false_negatives_are_the_pairs_of_one_id_group_or_label(client: negbank.Client, group: str) -> None:
    first = client.gather_async(
        group, np.ones((3, 2)), step=0, rank=0, world_size=2, ids=[1, 2, 3], groups=[7, 8, None], labels=[1, 2, 3]
    )
    second = client.gather(group, np.ones((2, 2)), step=0, rank=1, world_size=2, ids=[1, 9], groups=[8, None])
    expected = np.eye(5, dtype=bool)
    for a, b in [(0, 3), (1, 3)]:
        expected[a, b] = expected[b, a] = True
    np.testing.assert_array_equal(second.false_negatives(), expected)
    np.testing.assert_array_equal(second.false_negatives(same_label=True), expected)
    np.testing.assert_array_equal(first.result().false_negatives()[first.result().own], expected[:3])
    labelled = client.gather(group, np.ones((3, 2)), step=1, rank=0, world_size=1, labels=[4, 4, None])
    assert labelled.ids is None
    assert labelled.groups is None
    assert labelled.false_negatives(same_label=True).tolist() == [
        [True, True, False],
        [True, True, False],
        [False] * 2 + [True],
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_tensors_come_back_detached_and_live_rows_have_their_gradient(
    client: negbank.Client, group: str, dtype: torch.dtype
) -> None:
    sent = torch.arange(6.0).reshape(3, 2).to(dtype).requires_grad_()
    others = client.gather_async(group, torch.full((2, 2), 9.0, dtype=dtype), step=0, rank=0, world_size=2)
    gathered = client.gather(group, sent, step=0, rank=1, world_size=2)
    rows = gathered.embeddings
    assert rows.dtype == (torch.float32 if dtype == torch.float64 else dtype)
    assert not rows.requires_grad
    live = live_rows(gathered, sent)
    assert torch.equal(live.detach(), rows)
    assert live.tolist() == [[9.0, 9.0], [9.0, 9.0], [0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
    weights = torch.arange(10.0).reshape(5, 2).to(live)
    (live * weights).sum().backward()
    assert torch.equal(sent.grad, weights[2:].to(dtype)), "the gradient of this rank's rows, and of no other"  # type: ignore[arg-type]
    assert others.result().own == slice(0, 2)
    with pytest.raises(negbank.InvalidArgument, match="have 2 rows, and this rank brought 3"):
        live_rows(gathered, sent[:2])
    with pytest.raises(negbank.InvalidArgument, match="embeddings"):
        live_rows(gathered, sent[:, :1])


def test_values_that_are_no_numbers_pass(client: negbank.Client, group: str) -> None:
    odd = np.array([[np.nan, np.inf], [-np.inf, 0.0]], dtype=np.float16)
    gathered = client.gather(group, odd, step=0, rank=0, world_size=1)
    np.testing.assert_array_equal(gathered.embeddings, odd)
    assert gathered.embeddings.dtype == np.float16


def test_stragglers_are_named_and_get_the_same_set(client: negbank.Client, group: str) -> None:
    client = negbank.connect(client._session.address)
    rows = torch.ones(2, 3, requires_grad=True)
    with pytest.warns(RuntimeWarning, match=r"ranks 1, 2 of 3 were missing from step 4 of group"):
        first = client.gather(group, rows, step=4, rank=0, world_size=3, wait=0.1)
    assert (first.partial, first.missing_ranks, first.late, len(first)) == (True, [1, 2], False, 2)
    assert first.loss_scale == 3
    # Once each time it begins: this one, still partial, says nothing.
    late = client.gather(group, 5 * rows, step=4, rank=2, world_size=3)
    assert (late.embeddings.tolist(), late.missing_ranks, late.late, late.own) == ([[1.0] * 3] * 2, [1, 2], True, slice(2, 2))
    live_rows(late, rows).sum().backward()
    assert rows.grad is not None
    assert rows.grad.tolist() == [[0.0] * 3] * 2, "it has no share of the loss, and takes part in the reduction"
    with pytest.raises(negbank.DeadlineExceeded, match="ranks 1, 2 of 3"):
        client.gather(group, rows, step=4, rank=0, world_size=3, on_partial="raise")
    assert not client.gather(group, rows, step=5, rank=0, world_size=1).partial
    with pytest.warns(RuntimeWarning, match="step 6"):
        client.gather(group, rows, step=6, rank=0, world_size=2, timeout=0.3)


def test_the_same_rows_are_taken_once_and_others_refused(client: negbank.Client, group: str) -> None:
    first = client.gather_async(group, [[1.0]], step=0, rank=0, world_size=2)
    wait_for(client, [1])
    assert first.cancel(), "its rows stay"
    again = client.gather_async(group, [[1.0]], step=0, rank=0, world_size=2)
    with pytest.raises(negbank.AlreadyExists, match="rank 0 has brought other rows"):
        client.gather(group, [[2.0]], step=0, rank=0, world_size=2)
    assert client.gather(group, [[3.0]], step=0, rank=1, world_size=2).embeddings.tolist() == [[1.0], [3.0]]
    assert again.result().embeddings.tolist() == [[1.0], [3.0]]
    assert client.gather(group, [[1.0]], step=0, rank=0, world_size=2).embeddings.tolist() == [[1.0], [3.0]]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"rank": 2}, "rank"),
        ({"rank": -1}, "rank"),
        ({"world_size": 0}, "rank"),
        ({"world_size": 10_000}, "world_size"),
        ({"step": 1.5}, "step"),
        ({"group": ""}, "group"),
        ({"wait": 0.0}, "wait"),
        ({"wait": float("nan")}, "wait"),
        ({"ids": [1, 2]}, "ids"),
        ({"ids": [0.5]}, "ids[0]"),
        ({"labels": [1, 2, 3]}, "labels"),
        ({"embeddings": [1.0]}, "embeddings"),
        ({"embeddings": np.ones((1, 0))}, "embeddings"),
        ({"embeddings": np.ones((1, 2), dtype=np.int32)}, "embeddings"),
        ({"on_partial": "shrug"}, "on_partial"),
        ({"on_unavailable": "shrug"}, "on_unavailable"),
    ],
)
def test_wrong_arguments_are_refused_by_name(client: negbank.Client, group: str, wrong: dict[str, Any], field: str) -> None:
    right: dict[str, Any] = {"group": group, "embeddings": [[1.0]], "step": 0, "rank": 0, "world_size": 2}
    with pytest.raises(negbank.InvalidArgument) as refused:
        client.gather(**(right | wrong))
    assert refused.value.field == field


def test_what_is_too_large_says_what_else_to_do(client: negbank.Client, group: str) -> None:
    with pytest.raises(negbank.InvalidArgument, match="all_gather_into_tensor") as refused:
        client.gather(group, np.ones((256, 512), dtype=np.float32), step=0, rank=3, world_size=256)
    assert (refused.value.field, refused.value.limit, refused.value.setting) == ("embeddings", 32 << 20, "gather.max_bytes")


def test_a_server_that_dies_mid_wait_is_unavailable(own_server: ServerProcess, group: str) -> None:
    client = negbank.connect(own_server.address, retries=0, timeout=60.0)
    pending = client.gather_async(group, [[1.0]], step=0, rank=0, world_size=2)
    wait_for(client, [1])
    own_server.kill()
    assert isinstance(pending.exception(timeout=20.0), negbank.Unavailable)


def test_ranks_meet_again_on_a_server_that_was_restarted(own_server: ServerProcess, group: str) -> None:
    """All of them send again by themselves, so nobody notices."""
    clients = [negbank.connect(own_server.address, retries=100, timeout=60.0) for _ in range(3)]
    early = [
        clients[rank].gather_async(group, np.full((2, 2), float(rank)), step=0, rank=rank, world_size=3) for rank in range(2)
    ]
    wait_for(clients[2], [2])
    own_server.kill()
    time.sleep(0.3)
    again = ServerProcess(port=own_server.port)
    try:
        last = clients[2].gather(group, np.full((2, 2), 2.0), step=0, rank=2, world_size=3)
        assert last.embeddings[:, 0].tolist() == [0.0, 0.0, 1.0, 1.0, 2.0, 2.0]
        for pending in early:
            np.testing.assert_array_equal(pending.result(30.0).embeddings, last.embeddings)
    finally:
        again.stop()


def test_in_batch_goes_on_with_the_own_rows(own_server: ServerProcess, group: str) -> None:
    client = negbank.connect(own_server.address, on_unavailable="in_batch")
    rows = torch.arange(4.0).reshape(2, 2).requires_grad_()
    own_server.suspend()
    start = time.monotonic()
    with pytest.warns(RuntimeWarning, match="no rows from the other ranks"):
        alone = client.gather(group, rows, step=0, rank=1, world_size=3, labels=[4, None], timeout=0.4)
    assert time.monotonic() - start < 10.0
    assert (alone.unavailable, alone.partial, alone.missing_ranks, alone.late) == (True, True, [0, 2], False)
    assert torch.equal(alone.embeddings, rows.detach())
    assert (alone.counts.tolist(), alone.own, alone.loss_scale) == ([0, 2, 0], slice(0, 2), 1)
    assert alone.has_label is not None
    assert alone.has_label.tolist() == [True, False]
    assert torch.equal(live_rows(alone, rows), rows)
    halves = client.gather_async(group, rows.to(torch.bfloat16), step=1, rank=0, world_size=2, timeout=0.4).result()
    assert (halves.unavailable, halves.embeddings.dtype) == (True, torch.bfloat16)
    with pytest.raises((negbank.DeadlineExceeded, negbank.Unavailable)):
        client.gather(group, rows, step=1, rank=0, world_size=2, on_unavailable="raise", timeout=0.4)
    own_server.resume()
    assert not client.gather(group, rows, step=2, rank=0, world_size=1).unavailable


def test_other_threads_run_while_a_rank_waits(client: negbank.Client, group: str) -> None:
    waiting = threading.Thread(target=lambda: client.gather(group, [[1.0]], step=0, rank=0, world_size=2))
    waiting.start()
    wait_for(client, [1])
    pickle.loads(pickle.dumps(client)).gather(group, [[2.0]], step=0, rank=1, world_size=2)
    waiting.join(20.0)
    assert not waiting.is_alive()
