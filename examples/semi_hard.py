"""Semi-hard triplets (FaceNet, Schroff 2015): negatives farther than the positive, but by less than the margin.

Run it beside `negbank serve`: python examples/semi_hard.py 127.0.0.1:7700
"""

from __future__ import annotations

import sys

import torch
from torch.nn.functional import normalize

import negbank
from data import augmented, batches, digit_retrieval, digits, image_encoder
from negbank.torch import similarities, triplet_semi_hard

MARGIN = 0.1  # in cosine; FaceNet's 0.2 is in squared distance


def train(client: negbank.Client, epochs: int = 3) -> dict[str, float]:
    """Retrieval of digits before and after, and how many served negatives were outside the band or of the anchor's digit."""
    torch.manual_seed(0)
    images, labels = digits()
    encoder = image_encoder(32)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=2e-3)
    before, outside, served = digit_retrieval(encoder), 0, 0

    bank = client.create_bank("semi-hard", dim=32, momentum=0.0)
    with torch.no_grad():
        bank.write(torch.arange(len(images)), encoder(images), labels=labels, step=0)
    # 16 of those with p - 0.1 < n <= p: the rule `margin` says how far below the positive at least, `within` how far at most.
    draw = negbank.Nearest(16, window=512, choose="uniform", margin=0.0, within=MARGIN)

    for step, ids in enumerate(batches(len(images), 32, epochs)):
        anchors = normalize(encoder(augmented(images[ids])), dim=1)
        # Another image of the digit, as the bank has it: the server scores it, and keeps it out of the negatives.
        of_digit = [torch.nonzero(labels == label)[:, 0] for label in labels[ids]]
        partners = torch.stack([those[torch.randint(len(those), ())] for those in of_digit])
        negs = bank.sample(
            anchors, draw, positive_ids=partners, anchor_labels=labels[ids], exclude_same_label=True, pad=True, seed=step
        )
        positive = (anchors * bank.fetch(partners).embeddings).sum(dim=1)
        gap = positive.detach()[:, None] - negs.scores
        same = negs.labels[negs.indices] == labels[ids][:, None]
        outside += int((negs.mask & ((gap < -1e-5) | (gap > MARGIN + 1e-5) | same)).sum())
        served += int(negs.mask.sum())
        negative = similarities(anchors, negs.embeddings[negs.indices])
        loss = triplet_semi_hard(positive, negative, margin=MARGIN, counted=negs.mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        bank.write(ids, anchors, step=step)
    return {"before": before, "after": digit_retrieval(encoder), "outside": float(outside), "served": float(served)}


if __name__ == "__main__":
    print(train(negbank.connect(sys.argv[1])))
