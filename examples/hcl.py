"""HCL (Robinson 2020): negatives in proportion to exp(beta s / T), weighed so here or drawn so by the server.

Run it beside `negbank serve`: python examples/hcl.py 127.0.0.1:7700
"""

from __future__ import annotations

import sys

import torch
from torch.nn.functional import normalize

import negbank
from data import augmented, batches, digit_retrieval, digits, image_encoder
from negbank.torch import MomentumEncoder, debiased, hcl, similarities

TEMPERATURE, TAU = 0.5, 0.1  # tau: the share of a digit


def train(client: negbank.Client, beta: float = 1.0, *, drawn_hard: bool = False, epochs: int = 3) -> dict[str, float]:
    """Retrieval of digits before and after, the mean score of the negatives served, and the last loss as by all images."""
    torch.manual_seed(0)
    images, _ = digits()
    encoder = image_encoder(32)
    key_encoder = MomentumEncoder(encoder, momentum=0.99)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=2e-3)
    before, scores = digit_retrieval(encoder), []

    bank = client.create_bank(f"hcl-{drawn_hard}-{beta}", dim=32, momentum=0.0)
    bank.write(torch.arange(len(images)), key_encoder(images), step=0)
    # The server's beta is HCL's over T, since HCL weighs exp(s / T) to the power of beta.
    draw = negbank.Softmax(64, beta=beta / TEMPERATURE) if drawn_hard else negbank.Uniform(64)

    for step, ids in enumerate(batches(len(images), 32, epochs)):
        anchors, keys = normalize(encoder(augmented(images[ids])), dim=1), normalize(key_encoder(augmented(images[ids])), dim=1)
        negs = bank.sample(anchors, draw, anchor_ids=ids, seed=step)
        positive, negative = (anchors * keys).sum(dim=1), similarities(anchors, negs.embeddings[negs.indices])
        if drawn_hard:
            loss = debiased(positive, negative, tau=TAU, temperature=TEMPERATURE)
        else:
            loss = hcl(positive, negative, beta=beta, tau=TAU, temperature=TEMPERATURE)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        key_encoder.update(encoder)
        bank.write(ids, keys, step=step)
        scores.append(float(negs.scores.mean()))
    # The last batch against every image: the same loss, but for the number of negatives.
    others, not_own = bank.fetch(torch.arange(len(images))).embeddings, ids[:, None] != torch.arange(len(images))
    whole = hcl(positive, similarities(anchors, others), beta=beta, tau=TAU, temperature=TEMPERATURE, counted=not_own)
    told = {"score": sum(scores) / len(scores), "loss": loss.item(), "whole": whole.item()}
    return {"before": before, "after": digit_retrieval(encoder), **told}


if __name__ == "__main__":
    print(train(negbank.connect(sys.argv[1])))
