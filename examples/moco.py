"""MoCo (He 2020): negatives are a queue of keys, made by an encoder that follows the trained one slowly.

Run it beside `negbank serve`: python examples/moco.py 127.0.0.1:7700
"""

from __future__ import annotations

import sys

import torch
from torch.nn.functional import normalize

import negbank
from data import augmented, batches, digit_retrieval, digits, image_encoder
from negbank.torch import MomentumEncoder, info_nce, similarities


def train(client: negbank.Client, epochs: int = 4, queue: int = 512) -> dict[str, float]:
    """Retrieval of digits before and after."""
    torch.manual_seed(0)
    images, _ = digits()
    encoder = image_encoder(32)
    key_encoder = MomentumEncoder(encoder, momentum=0.99)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=2e-3)
    before = digit_retrieval(encoder)

    bank = client.create_bank("moco", dim=32, kind="queue", capacity=queue)
    mirror = bank.mirror()  # the whole queue, of which each refresh brings the new keys only

    for step, ids in enumerate(batches(len(images), 60, epochs)):
        queries = normalize(encoder(augmented(images[ids])), dim=1)
        keys = normalize(key_encoder(augmented(images[ids])), dim=1)
        mirror.refresh()
        negatives = torch.from_numpy(mirror.embeddings)
        # The image's own older keys are no negatives of it.
        counted = ids[:, None] != torch.from_numpy(mirror.ids.astype("int64"))[None, :]
        loss = info_nce((queries * keys).sum(dim=1), similarities(queries, negatives), temperature=0.1, counted=counted)
        if len(mirror):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            key_encoder.update(encoder)
        bank.enqueue(keys, ids=ids, step=step)  # any batch size: no need for it to divide the queue
    return {"before": before, "after": digit_retrieval(encoder), "queue": float(len(mirror))}


if __name__ == "__main__":
    print(train(negbank.connect(sys.argv[1])))
