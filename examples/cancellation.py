"""False-negative cancellation (Huynh 2022): what is near to any of several views of an image is no negative of it.

Run it beside `negbank serve`: python examples/cancellation.py 127.0.0.1:7700
"""

from __future__ import annotations

import sys

import torch
from torch.nn.functional import normalize

import negbank
from data import augmented, batches, digit_retrieval, digits, image_encoder
from negbank.torch import MomentumEncoder, similarities, sup_con

VIEWS, CANCELLED = 4, 16


def train(client: negbank.Client, *, attract: bool = False, epochs: int = 3) -> dict[str, float]:
    """Retrieval of digits before and after, and which share of the cancelled, and of the negatives, show the anchor's digit."""
    torch.manual_seed(0)
    images, labels = digits()
    encoder = image_encoder(32)
    key_encoder = MomentumEncoder(encoder, momentum=0.99)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=2e-3)
    before, shares = digit_retrieval(encoder), []

    bank = client.create_bank(f"cancellation-{attract}", dim=32, momentum=0.0)
    bank.write(torch.arange(len(images)), key_encoder(images), labels=labels, step=0)

    for step, ids in enumerate(batches(len(images), 50, epochs)):
        anchors, keys = normalize(encoder(augmented(images[ids])), dim=1), normalize(key_encoder(augmented(images[ids])), dim=1)
        # The support views; an entry's score is that with the view it is nearest to.
        support = key_encoder(augmented(images[ids].repeat_interleave(VIEWS, dim=0))).reshape(len(ids), VIEWS, 32)
        near = bank.sample(support, negbank.Nearest(CANCELLED), combine="max", anchor_ids=ids, seed=step)
        negs = bank.sample(anchors, negbank.Uniform(64), anchor_ids=ids, denied_ids=near.ids[near.indices], seed=step)
        # Eliminated, or positives beside the other view.
        positives = [(anchors * keys).sum(dim=1, keepdim=True)]
        if attract:
            positives.append(similarities(anchors, near.embeddings[near.indices]))
        scores = torch.cat([*positives, similarities(anchors, negs.embeddings[negs.indices])], dim=1)
        is_positive = (torch.arange(scores.shape[1]) < scores.shape[1] - 64).expand_as(scores)
        loss = sup_con(scores, is_positive, temperature=0.2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        key_encoder.update(encoder)
        bank.write(ids, keys, labels=labels[ids], step=step)
        shares.append([float((told.labels[told.indices] == labels[ids][:, None]).float().mean()) for told in (near, negs)])
    cancelled, negatives = torch.tensor(shares[-28:]).mean(dim=0).tolist()
    return {"before": before, "after": digit_retrieval(encoder), "cancelled": cancelled, "negatives": negatives}


if __name__ == "__main__":
    print(train(negbank.connect(sys.argv[1])))
