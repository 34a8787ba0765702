"""Multi-similarity (Wang 2019): negatives that are nearer than the farthest positive, or farther by less than eps.

Run it beside `negbank serve`: python examples/multi_similarity.py 127.0.0.1:7700
"""

from __future__ import annotations

import sys

import torch
from torch.nn.functional import normalize

import negbank
from data import augmented, batches, digit_retrieval, digits, image_encoder
from negbank.torch import similarities

EPS, ALPHA, BETA, LAMBDA = 0.1, 2.0, 50.0, 0.5


def train(client: negbank.Client, epochs: int = 3) -> dict[str, float]:
    """Retrieval of digits before and after, and how many served negatives the rule would not have mined."""
    torch.manual_seed(0)
    images, labels = digits()
    encoder = image_encoder(32)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=1e-3)
    before, unmined, served = digit_retrieval(encoder), 0, 0

    bank = client.create_bank("multi-similarity", dim=32, momentum=0.0)
    with torch.no_grad():
        bank.write(torch.arange(len(images)), encoder(images), labels=labels, step=0)

    for step, ids in enumerate(batches(len(images), 32, epochs)):
        anchors, own = normalize(encoder(augmented(images[ids])), dim=1), labels[ids]
        positives = bank.sample(anchors, negbank.Uniform(4), anchor_ids=ids, anchor_labels=own, only_same_label=True, seed=step)
        # n > min p - eps: of several positives the lowest score counts.
        draw = negbank.Nearest(32, within=EPS)
        negs = bank.sample(
            anchors, draw, positive_scores=positives.scores, anchor_labels=own, exclude_same_label=True, pad=True, seed=step
        )
        lowest = positives.scores.min(dim=1).values
        unmined += int((negs.mask & (negs.scores <= lowest[:, None] - EPS - 1e-5)).sum())
        served += int(negs.mask.sum())
        pull = similarities(anchors, positives.embeddings[positives.indices])
        push = similarities(anchors, negs.embeddings[negs.indices]).masked_fill(~negs.mask, -torch.inf)
        loss = (
            torch.log1p(torch.exp(-ALPHA * (pull - LAMBDA)).sum(dim=1)) / ALPHA
            + torch.log1p(torch.exp(BETA * (push - LAMBDA)).sum(dim=1)) / BETA
        ).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        bank.write(ids, anchors, labels=own, step=step)
    return {"before": before, "after": digit_retrieval(encoder), "unmined": float(unmined), "served": float(served)}


if __name__ == "__main__":
    print(train(negbank.connect(sys.argv[1])))
