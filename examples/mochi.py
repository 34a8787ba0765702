"""MoCHi (Kalantidis 2020): MoCo, with negatives mixed of each anchor's hardest ones.

Run it beside `negbank serve`: python examples/mochi.py 127.0.0.1:7700
"""

from __future__ import annotations

import sys

import torch
from torch.nn.functional import normalize

import negbank
from data import augmented, batches, digit_retrieval, digits, image_encoder
from negbank.torch import MomentumEncoder, info_nce, mochi_mix, similarities


def train(client: negbank.Client, epochs: int = 4, queue: int = 512) -> dict[str, float]:
    """Retrieval of digits before and after, and mean scores of the queue, of its hardest keys and of their mixtures."""
    torch.manual_seed(0)
    images, _ = digits()
    encoder = image_encoder(32)
    key_encoder = MomentumEncoder(encoder, momentum=0.99)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=2e-3)
    before, scores = digit_retrieval(encoder), torch.zeros(3)

    bank = client.create_bank("mochi", dim=32, kind="queue", capacity=queue)
    bank.enqueue(key_encoder(augmented(images[:queue])), ids=torch.arange(queue), step=0)

    for step, ids in enumerate(batches(len(images), 60, epochs)):
        queries = normalize(encoder(augmented(images[ids])), dim=1)
        keys = normalize(key_encoder(augmented(images[ids])), dim=1)
        # Side by side: 128 keys at random, then the 32 nearest, best first; the image's own older keys are neither.
        negs = bank.sample(queries, negbank.Uniform(128), negbank.Nearest(32), anchor_ids=ids, seed=step)
        rows = negs.embeddings[negs.indices]
        mixed = mochi_mix(queries, rows[:, 128:], pairs=16, with_query=8)
        negative = similarities(queries, torch.cat([rows, mixed], dim=1))
        loss = info_nce((queries * keys).sum(dim=1), negative, temperature=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        key_encoder.update(encoder)
        bank.enqueue(keys, ids=ids, step=step)
        scores = torch.stack([part.mean() for part in negative.detach().split_with_sizes([128, 32, 24], dim=1)])
    at_random, hardest, of_mixtures = scores.tolist()
    found = {"before": before, "after": digit_retrieval(encoder)}
    return {**found, "random": at_random, "hardest": hardest, "mixed": of_mixtures}


if __name__ == "__main__":
    print(train(negbank.connect(sys.argv[1])))
