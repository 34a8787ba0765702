"""SupCon (Khosla 2020) over a bank of all images: what has the anchor's label is a positive, and only the rest negatives.

Run it beside `negbank serve`: python examples/sup_con.py 127.0.0.1:7700
"""

from __future__ import annotations

import sys

import torch
from torch.nn.functional import normalize

import negbank
from data import augmented, batches, digit_retrieval, digits, image_encoder
from negbank.torch import similarities, sup_con


def train(client: negbank.Client, epochs: int = 2) -> dict[str, float]:
    """Retrieval of digits before and after, and the share of served negatives that had the anchor's label."""
    torch.manual_seed(0)
    images, labels = digits()
    encoder = image_encoder(32)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=2e-3)
    before, wrong, served = digit_retrieval(encoder), 0, 0

    bank = client.create_bank("sup-con", dim=32, momentum=0.0)
    with torch.no_grad():
        bank.write(torch.arange(len(images)), encoder(images), labels=labels, step=0)
    filtered = negbank.Uniform(64, filters=negbank.Filters(exclude_same_label=True))
    # Positives from the bank as well: against old negatives only, an encoder learns to tell old from new.
    everything = negbank.Uniform(128, scope="shared")

    for step, ids in enumerate(batches(len(images), 32, epochs)):
        embeddings = normalize(encoder(augmented(images[ids])), dim=1)
        stored = bank.sample(embeddings, filtered, everything, anchor_ids=ids, anchor_labels=labels[ids], seed=step)
        same = stored.labels[stored.indices] == labels[ids][:, None]
        wrong, served = wrong + int(same[:, :64].sum()), served + same[:, :64].numel()
        loss = sup_con(similarities(embeddings, stored.embeddings[stored.indices]), same & stored.mask, counted=stored.mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        bank.write(ids, embeddings, labels=labels[ids], step=step)
    return {"before": before, "after": digit_retrieval(encoder), "same_label": wrong / served}


if __name__ == "__main__":
    print(train(negbank.connect(sys.argv[1])))
