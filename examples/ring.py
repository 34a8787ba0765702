"""Ring sampling (Wu 2020): negatives from a percentile band of each anchor's own scores, which closes in on the hard end.

Run it beside `negbank serve`: python examples/ring.py 127.0.0.1:7700
"""

from __future__ import annotations

import math
import sys

import torch
from torch.nn.functional import normalize

import negbank
from data import augmented, batches, digit_retrieval, digits, image_encoder
from negbank.torch import MomentumEncoder, info_nce, similarities


def train(client: negbank.Client, epochs: int = 4, queue: int = 512) -> dict[str, float]:
    """Retrieval of digits before and after, mean scores at first and at last, and negatives outside their band."""
    torch.manual_seed(0)
    images, _ = digits()
    encoder = image_encoder(32)
    key_encoder = MomentumEncoder(encoder, momentum=0.99)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=2e-3)
    before, outside = digit_retrieval(encoder), 0

    bank = client.create_bank("ring", dim=32, kind="queue", capacity=queue)
    bank.enqueue(key_encoder(augmented(images[:queue])), ids=torch.arange(queue), step=0)
    steps = epochs * -(-len(images) // 60)

    for step, ids in enumerate(batches(len(images), 60, epochs)):
        queries = normalize(encoder(augmented(images[ids])), dim=1)
        keys = normalize(key_encoder(augmented(images[ids])), dim=1)
        # At first all but the nearest 2 %, at last the nearest 20 % but those 2 %, which may be the anchor in disguise.
        lo, hi = 0.8 * step / steps, 0.98
        negs = bank.sample(queries, negbank.Band(64, lo, hi, with_replacement=True), seed=step)
        edges = (queries.detach() @ torch.from_numpy(bank.read().embeddings).T).sort(dim=1).values
        lowest, highest = edges[:, math.floor(lo * queue)], edges[:, math.ceil(hi * queue) - 1]
        outside += int(((negs.scores < lowest[:, None] - 1e-5) | (negs.scores > highest[:, None] + 1e-5)).sum())
        loss = info_nce((queries * keys).sum(dim=1), similarities(queries, negs.embeddings[negs.indices]), temperature=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        key_encoder.update(encoder)
        bank.enqueue(keys, ids=ids, step=step)
    return {"before": before, "after": digit_retrieval(encoder), "outside": float(outside)}


if __name__ == "__main__":
    print(train(negbank.connect(sys.argv[1])))
