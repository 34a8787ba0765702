"""torch tensors in, torch tensors out. The paths to a GPU come down to one function, tried here on the CPU."""

from __future__ import annotations

import importlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import negbank
from negbank import tensors
from reference import Corpus, filled

torch: Any = importlib.import_module("torch")

DIM, ANCHORS, K = 16, 12, 6
DTYPES = ["float32", "float16", "bfloat16"]


@pytest.fixture
def bank(client: negbank.Client, name: str) -> negbank.Bank:
    return client.create_bank(name, dim=DIM)


@pytest.fixture
def corpus(bank: negbank.Bank, rng: np.random.Generator) -> Corpus:
    return filled(bank, rng, 200)


@pytest.fixture
def anchors() -> Any:
    return torch.randn(ANCHORS, DIM, generator=torch.Generator().manual_seed(1))


def test_torch_is_never_imported_by_the_package() -> None:
    code = "import sys, negbank; negbank.Uniform(3); sys.exit('torch' in sys.modules or 'ml_dtypes' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_answers_come_as_tensors_of_the_same_values(bank: negbank.Bank, corpus: Corpus, anchors: Any) -> None:
    draws = (negbank.Nearest(K), negbank.Uniform(4))
    plain = bank.sample(anchors.numpy(), *draws, seed=1)
    negs = bank.sample(anchors, *draws, seed=1)
    expected = {
        "embeddings": torch.float32,
        "scores": torch.float32,
        "log_q": torch.float32,
        "weights": torch.float32,
        "mask": torch.bool,
        "has_label": torch.bool,
        "indices": torch.int64,
        "ids": torch.int64,
        "labels": torch.int64,
        "groups": torch.int64,
        "steps": torch.int64,
        "ages": torch.int64,
        "counts": torch.int64,
    }
    for name, dtype in expected.items():
        got, array = getattr(negs, name), getattr(plain, name)
        assert (got.dtype, got.device) == (dtype, anchors.device), name
        assert not got.requires_grad
        want = array.view(np.int64) if array.dtype == np.uint64 else array.astype(got.numpy().dtype)
        np.testing.assert_array_equal(got.numpy(), want, err_msg=name)
    assert negs.info.n[1] is not None
    assert negs.info.n[1].dtype == torch.int64
    assert negs.anchor(2).ids.tolist() == plain.anchor(2).ids.view(np.int64).tolist()
    assert negs.embeddings[negs.indices].shape == (ANCHORS, K + 4, DIM)
    shared = bank.sample(anchors, negbank.Uniform(K, scope="shared"), layout="per_anchor")
    assert shared.embeddings.shape == (ANCHORS, K, DIM)


@pytest.mark.parametrize("dtype", DTYPES)
def test_halves_go_and_come_as_they_are(bank: negbank.Bank, corpus: Corpus, anchors: Any, dtype: str) -> None:
    half = anchors.to(getattr(torch, dtype))
    negs = bank.sample(half, negbank.Nearest(K))
    assert negs.embeddings.dtype == half.dtype
    assert negs.scores.dtype == torch.float32
    exact = bank.sample(half.float().numpy(), negbank.Nearest(K))
    np.testing.assert_allclose(negs.scores.numpy(), exact.scores, atol=1e-6)
    stored = torch.from_numpy(exact.embeddings).to(half.dtype)
    assert torch.equal(negs.embeddings, stored)
    assert bank.sample(half, negbank.Nearest(K), dtype="float32").embeddings.dtype == torch.float32


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_are_written_as_they_are(client: negbank.Client, name: str, anchors: Any, dtype: str) -> None:
    rows = anchors.to(getattr(torch, dtype)).requires_grad_()
    ids = torch.arange(ANCHORS)
    bank = client.create_bank(name, dim=DIM, metric="dot")
    bank.write(ids, rows, labels=ids % 3, groups=ids.to(torch.int32), weights=torch.ones(ANCHORS), step=3)
    entries = bank.fetch(ids)
    assert torch.equal(entries.embeddings, rows.detach().float())
    assert torch.equal(entries.ids, ids)
    assert entries.labels.tolist() == [i % 3 for i in range(ANCHORS)]
    queue = client.create_bank(name + "q", dim=DIM, kind="queue", metric="dot", capacity=100)
    assert queue.enqueue(rows).ids.dtype == torch.int64
    client.delete_bank(name + "q")


def test_negatives_are_detached_and_losses_flow_to_the_anchors(bank: negbank.Bank, corpus: Corpus, anchors: Any) -> None:
    live = anchors.clone().requires_grad_()
    negs = bank.sample(live, negbank.Nearest(K), layout="per_anchor")
    assert not negs.embeddings.requires_grad
    torch.einsum("bd,bkd->bk", live, negs.embeddings).logsumexp(1).sum().backward()
    assert live.grad.abs().sum() > 0


def test_strides_and_other_float_dtypes_are_taken(bank: negbank.Bank, corpus: Corpus, anchors: Any) -> None:
    plain = bank.sample(anchors, negbank.Nearest(K)).scores
    for same in (anchors.T.contiguous().T, torch.cat([anchors, anchors], 1)[:, :DIM], anchors.double()):
        np.testing.assert_allclose(bank.sample(same, negbank.Nearest(K)).scores, plain, atol=1e-6)


def test_lists_of_tensors_are_one_tensor(bank: negbank.Bank, corpus: Corpus, anchors: Any) -> None:
    live = anchors.clone().requires_grad_()
    scores = [row.sum() for row in live]
    listed = bank.sample(list(live), negbank.Nearest(K, max_score=0.9, margin=0.0), positive_scores=scores, pad=True)
    whole = bank.sample(live, negbank.Nearest(K, max_score=0.9, margin=0.0), positive_scores=live.sum(1), pad=True)
    np.testing.assert_array_equal(listed.mask, whole.mask.numpy())
    ragged = [torch.tensor([i, i + 1][: 1 + i % 2]) for i in range(ANCHORS)]
    bank.sample(anchors, negbank.Nearest(K), denied_ids=ragged)
    with pytest.raises(negbank.InvalidArgument) as refused:
        bank.sample([torch.ones(DIM), torch.ones(DIM + 1)], negbank.Nearest(K))
    assert refused.value.field == "anchors"


@pytest.mark.parametrize(
    "wrong",
    [
        torch.ones(3, DIM, dtype=torch.int64),
        torch.ones(3, DIM, dtype=torch.bool),
        torch.ones(3, DIM, dtype=torch.complex64),
        torch.ones(DIM),
        torch.ones(3, DIM + 1),
        torch.ones(3, DIM, 1),
        torch.ones(3, DIM).to_sparse(),
        torch.ones(3, DIM, device="meta"),
    ],
)
def test_what_is_no_matrix_of_floats_is_refused_by_name(bank: negbank.Bank, wrong: Any) -> None:
    with pytest.raises(negbank.InvalidArgument) as refused:
        bank.sample(wrong, negbank.Nearest(1))
    assert refused.value.field == "anchors"
    with pytest.raises(negbank.InvalidArgument) as refused:
        bank.write(range(3), wrong)
    assert refused.value.field == "embeddings"


def test_ids_of_floats_are_refused(bank: negbank.Bank) -> None:
    for wrong in (torch.ones(2), torch.ones(2, dtype=torch.bfloat16)):
        with pytest.raises(negbank.InvalidArgument) as refused:
            bank.fetch(wrong)
        assert refused.value.field == "ids"


def test_ids_alone_bring_tensors_too(bank: negbank.Bank, corpus: Corpus) -> None:
    bank.write([1, 2, 3], np.eye(3, DIM))
    negs = bank.sample(None, negbank.Nearest(K), anchor_ids=torch.tensor([1, 2, 3]), positive_ids=torch.tensor([2, 3, 1]))
    assert negs.scores.dtype == torch.float32


def test_a_tensor_elsewhere_is_moved_in_one_place(
    bank: negbank.Bank, corpus: Corpus, anchors: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves: list[tuple[str, str]] = []
    really = tensors._moved

    def watched(tensor: Any, device: Any) -> Any:
        moves.append((tensor.device.type, torch.device(device).type))
        return really(tensor, device)

    monkeypatch.setattr(tensors, "_moved", watched)
    negs = bank.sample(anchors, negbank.Uniform(K))
    assert moves[0] == ("cpu", "cpu")
    before = len(moves)
    _ = negs.embeddings, negs.embeddings, negs.indices
    assert len(moves) == before + 2, "each column is moved once, when it is first asked for"
    assert really(anchors, torch.device("cpu")) is anchors
    assert really(anchors, torch.device("meta")).device.type == "meta"
