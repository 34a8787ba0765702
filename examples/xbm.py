"""XBM (Wang 2020): pairs are made with the embeddings of many batches before, positives as well as negatives.

Run it beside `negbank serve`: python examples/xbm.py 127.0.0.1:7700
"""

from __future__ import annotations

import sys

import torch
from torch.nn.functional import normalize, relu

import negbank
from data import augmented, batches, digit_retrieval, digits, image_encoder
from negbank.torch import similarities


def train(client: negbank.Client, epochs: int = 2, batch_size: int = 16, memory: int = 256) -> dict[str, float]:
    """Retrieval of digits before and after, and how many positives an anchor had in its batch and in the memory."""
    torch.manual_seed(0)
    images, labels = digits()
    encoder = image_encoder(32)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=2e-3)
    before, in_batch, in_memory = digit_retrieval(encoder), 0.0, 0.0

    bank = client.create_bank("xbm", dim=32, kind="queue", capacity=memory)

    for step, ids in enumerate(batches(len(images), batch_size, epochs)):
        embeddings = normalize(encoder(augmented(images[ids])), dim=1)
        bank.enqueue(embeddings, ids=ids, labels=labels[ids], step=step)
        if (step + 1) * batch_size < memory:
            continue  # warm-up: no pairs until the memory is full
        # The whole memory, once for all anchors; its `mask` leaves out what is the anchor itself.
        stored = bank.sample(embeddings, negbank.Uniform(memory, scope="shared"), anchor_ids=ids, min_entries=memory)
        scores = similarities(embeddings, stored.embeddings[stored.indices])
        same = stored.labels[stored.indices] == labels[ids][:, None]
        # The contrastive loss: positives are pulled up to 1, negatives above 0.5 are pushed down.
        pull, push = relu(1.0 - scores) * (stored.mask & same), relu(scores - 0.5) * (stored.mask & ~same)
        loss = pull.sum() / (stored.mask & same).sum() + push.sum() / (push > 0).sum().clamp(min=1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        in_batch = float((labels[ids][:, None] == labels[ids][None, :]).float().sum(dim=1).mean()) - 1.0
        in_memory = float((stored.mask & same).float().sum(dim=1).mean())
    return {"before": before, "after": digit_retrieval(encoder), "in_batch": in_batch, "in_memory": in_memory}


if __name__ == "__main__":
    print(train(negbank.connect(sys.argv[1])))
