"""What the bank serves, in pytorch-metric-learning's losses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pytorch_metric_learning import losses
from pytorch_metric_learning.utils.loss_and_miner_utils import get_all_pairs_indices
from torch import Tensor
from torch.nn.functional import normalize

import negbank

DIM, BATCH, CAPACITY = 16, 24, 100


def batch(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    rows = normalize(torch.randn(BATCH, DIM, generator=generator), dim=1)
    return rows, torch.randint(5, (BATCH,), generator=generator)


@pytest.mark.parametrize("name_of_loss", ["ContrastiveLoss", "TripletMarginLoss", "MultiSimilarityLoss", "SupConLoss"])
def test_answers_are_its_ref_emb_and_ref_labels(client: negbank.Client, name: str, name_of_loss: str) -> None:
    """A batch against the bank's entries, which the loss pairs by label: the value and gradient of tensors at hand."""
    bank = client.create_bank(name, dim=DIM)
    rows, labels = batch(0)
    bank.write(torch.arange(BATCH), rows, labels=labels)
    loss = getattr(losses, name_of_loss)()
    embeddings, own = batch(1)
    mine, theirs = embeddings.clone().requires_grad_(), embeddings.clone().requires_grad_()

    negs = bank.sample(mine, negbank.Uniform(BATCH, scope="shared"))
    served = loss(mine, own, ref_emb=negs.embeddings, ref_labels=negs.labels)
    local = loss(theirs, own, ref_emb=rows, ref_labels=labels)
    torch.testing.assert_close(served, local)
    served.backward()
    local.backward()
    assert mine.grad is not None
    torch.testing.assert_close(mine.grad, theirs.grad)
    assert not negs.embeddings.requires_grad


def test_a_queue_is_its_cross_batch_memory(client: negbank.Client, name: str) -> None:
    """XBM step by step, over three wraps of a memory that the batch size does not divide."""
    queue = client.create_bank(name, dim=DIM, kind="queue", capacity=CAPACITY)
    memory: Any = losses.CrossBatchMemory(losses.ContrastiveLoss(), DIM, memory_size=CAPACITY)
    loss: Any = losses.ContrastiveLoss()
    for step in range(3 * CAPACITY // BATCH + 1):
        embeddings, labels = batch(step)
        ids = step * BATCH + torch.arange(BATCH)
        queue.enqueue(embeddings, ids=ids, labels=labels, step=step)
        negs = queue.sample(embeddings, negbank.Uniform(CAPACITY, scope="shared"), exclude_self=False)
        a1, p, a2, n = get_all_pairs_indices(labels, negs.labels)
        itself = ids[a1] == negs.ids[p]
        assert int(itself.sum()) == BATCH
        pairs = (a1[~itself], p[~itself], a2, n)
        served = loss(embeddings, labels, pairs, ref_emb=negs.embeddings, ref_labels=negs.labels)
        torch.testing.assert_close(served, memory(embeddings, labels))
        assert len(negs.ids) == min(CAPACITY, (step + 1) * BATCH)
