"""InstDisc's bank against the paper's update."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

import negbank
from data import augmented, batches, digits, image_encoder

DIM, BATCH, EPOCHS = 128, 64, 3


@pytest.mark.parametrize("momentum", [0.5, 0.9])
def test_the_bank_after_an_epoch_is_the_reference_s(client: negbank.Client, name: str, momentum: float) -> None:
    """Random rows at first, then v <- norm(m v + (1 - m) x) for each image of an epoch; x from an encoder that trains."""
    torch.manual_seed(0)
    images, _ = digits()
    encoder = image_encoder(DIM)
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1)
    first = torch.randn(len(images), DIM)
    bank = client.create_bank(name, dim=DIM, momentum=momentum)
    bank.write(torch.arange(len(images)), first, momentum=0.0)
    reference = normalize(first.double(), dim=1).numpy()
    for step, ids in enumerate(batches(len(images), BATCH, EPOCHS)):
        embeddings = normalize(encoder(augmented(images[ids])), dim=1)
        own = bank.fetch(ids).embeddings
        loss = -(embeddings * own).sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        bank.write(ids, embeddings, step=step)
        moved = momentum * reference[ids] + (1 - momentum) * embeddings.detach().double().numpy()
        reference[ids] = moved / np.linalg.norm(moved, axis=1, keepdims=True)
        if (step + 1) % -(-len(images) // BATCH) == 0:
            stored = bank.fetch(np.arange(len(images))).embeddings
            # Unit rows of 128: a part in 2^24 of their length for each of the few roundings of an update.
            np.testing.assert_allclose(stored, reference, rtol=0, atol=4 * 2.0**-24)
    assert not np.allclose(reference, normalize(first, dim=1).numpy(), atol=0.05)
