"""The debiased loss (Chuang 2020): even draws, of which a share tau shows the anchor's digit, corrected for what they pull in.

Run it beside `negbank serve`: python examples/debiased.py 127.0.0.1:7700
"""

from __future__ import annotations

import sys

import torch
from torch.nn.functional import normalize

import negbank
from data import augmented, batches, digit_retrieval, digits, image_encoder
from negbank.torch import MomentumEncoder, debiased, similarities

TAU = 0.1  # the share of a digit


def train(client: negbank.Client, epochs: int = 3) -> dict[str, float]:
    """Retrieval of digits before and after, and the share of negatives that show the anchor's digit."""
    torch.manual_seed(0)
    images, labels = digits()
    encoder = image_encoder(32)
    key_encoder = MomentumEncoder(encoder, momentum=0.99)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=2e-3)
    before, of_own_digit = digit_retrieval(encoder), []

    bank = client.create_bank("debiased", dim=32, momentum=0.0)
    bank.write(torch.arange(len(images)), key_encoder(images), labels=labels, step=0)

    for step, ids in enumerate(batches(len(images), 32, epochs)):
        anchors, keys = normalize(encoder(augmented(images[ids])), dim=1), normalize(key_encoder(augmented(images[ids])), dim=1)
        # No filter but the anchor itself: tau stands for the rest, and a filter would correct it twice.
        negs = bank.sample(anchors, negbank.Uniform(64), anchor_ids=ids, seed=step)
        negative = similarities(anchors, negs.embeddings[negs.indices])
        loss = debiased((anchors * keys).sum(dim=1), negative, tau=TAU, temperature=0.5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        key_encoder.update(encoder)
        bank.write(ids, keys, step=step)
        of_own_digit.append(float((negs.labels[negs.indices] == labels[ids][:, None]).float().mean()))
    return {"before": before, "after": digit_retrieval(encoder), "of_own_digit": sum(of_own_digit) / len(of_own_digit)}


if __name__ == "__main__":
    print(train(negbank.connect(sys.argv[1])))
