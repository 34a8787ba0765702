"""DCL and DCLW (Yeh 2021): the positive is left out of the denominator, which is what lets a batch be small.

Run it beside `negbank serve`: python examples/decoupled.py 127.0.0.1:7700
"""

from __future__ import annotations

import sys

import torch
from torch.nn.functional import normalize

import negbank
from data import augmented, batches, digit_retrieval, digits, image_encoder
from negbank.torch import MomentumEncoder, dcl, dclw, similarities


def train(client: negbank.Client, *, weighted: bool = False, epochs: int = 3, size: int = 16) -> dict[str, float]:
    """Retrieval of digits before and after; batches of `size` images, negatives from the last 512."""
    torch.manual_seed(0)
    images, _ = digits()
    encoder = image_encoder(32)
    key_encoder = MomentumEncoder(encoder, momentum=0.99)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=1e-3)
    before = digit_retrieval(encoder)
    loss_of = dclw if weighted else dcl

    bank = client.create_bank(f"decoupled-{weighted}", dim=32, kind="queue", capacity=512)
    bank.enqueue(key_encoder(augmented(images[:512])), ids=torch.arange(512), step=0)

    for step, ids in enumerate(batches(len(images), size, epochs)):
        anchors, keys = normalize(encoder(augmented(images[ids])), dim=1), normalize(key_encoder(augmented(images[ids])), dim=1)
        negs = bank.sample(anchors, negbank.Uniform(256), anchor_ids=ids, seed=step)
        negative = similarities(anchors, negs.embeddings[negs.indices])
        loss = loss_of((anchors * keys).sum(dim=1), negative, temperature=0.2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        key_encoder.update(encoder)
        bank.enqueue(keys, ids=ids, step=step)
    return {"before": before, "after": digit_retrieval(encoder)}


if __name__ == "__main__":
    print(train(negbank.connect(sys.argv[1])))
