"""NNCLR (Dwibedi 2021): the positive of an image is not its other view, but what is nearest to that in a queue of embeddings.

Run it beside `negbank serve`: python examples/nnclr.py 127.0.0.1:7700
"""

from __future__ import annotations

import sys

import torch
from torch.nn.functional import normalize

import negbank
from data import augmented, batches, digit_retrieval, digits, image_encoder
from negbank.torch import info_nce


def train(client: negbank.Client, epochs: int = 3, queue: int = 1_024) -> dict[str, float]:
    """Retrieval of digits before and after, and how many of the last epoch's positives show the anchor's digit."""
    torch.manual_seed(0)
    images, labels = digits()
    encoder = image_encoder(32)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=2e-3)
    before, of_same_digit = digit_retrieval(encoder), []

    bank = client.create_bank("nnclr", dim=32, kind="queue", capacity=queue)
    with torch.no_grad():
        bank.enqueue(encoder(augmented(images[:queue])), ids=torch.arange(queue), labels=labels[:queue], step=0)

    for step, ids in enumerate(batches(len(images), 60, epochs)):
        first, second = (normalize(encoder(augmented(images[ids])), dim=1) for _ in range(2))
        # The nearest one of another image; what it is near to is its positive, the other images of the batch are its negatives.
        found = bank.sample(first, negbank.Nearest(1), anchor_ids=ids)
        nearest = normalize(found.embeddings[found.indices[:, 0]], dim=1)
        scores = nearest @ second.T
        others = ~torch.eye(len(ids), dtype=torch.bool)
        loss = info_nce(scores.diagonal(), scores[others].reshape(len(ids), -1), temperature=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        bank.enqueue(first, ids=ids, labels=labels[ids], step=step)
        of_same_digit.append(float((found.labels[found.indices[:, 0]] == labels[ids]).float().mean()))
    last = of_same_digit[-(len(images) // 60) :]
    return {"before": before, "after": digit_retrieval(encoder), "of_same_digit": sum(last) / len(last)}


if __name__ == "__main__":
    print(train(negbank.connect(sys.argv[1])))
