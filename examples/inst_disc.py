"""InstDisc (Wu 2018): each image is a class of its own; the bank holds one slowly moving embedding of each.

Run it beside `negbank serve`: python examples/inst_disc.py 127.0.0.1:7700
"""

from __future__ import annotations

import sys

import torch
from torch.nn.functional import normalize

import negbank
from data import augmented, batches, digit_retrieval, digits, image_encoder
from negbank.torch import InstDiscNCE, similarities


def train(client: negbank.Client, epochs: int = 3) -> dict[str, float]:
    """Retrieval of digits before and after."""
    torch.manual_seed(0)
    images, _ = digits()
    encoder, nce = image_encoder(32), InstDiscNCE(temperature=0.1)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=2e-3)
    before = digit_retrieval(encoder)

    bank = client.create_bank("inst-disc", dim=32, momentum=0.5)
    # The paper starts from random rows, torch.randn(len(images), 32), which take many epochs to mean something.
    with torch.no_grad():
        bank.write(torch.arange(len(images)), encoder(images), momentum=0.0, step=0)

    for step, ids in enumerate(batches(len(images), 64, epochs)):
        embeddings = normalize(encoder(augmented(images[ids])), dim=1)
        own = bank.fetch(ids).embeddings
        # 64 of the n others, each draw for itself: the noise of NCE is 1 / n.
        negs = bank.sample(None, negbank.Uniform(64, with_replacement=True), anchor_ids=ids, seed=step)
        assert negs.info.n[0] is not None
        negative = similarities(embeddings, negs.embeddings[negs.indices])
        loss = nce((embeddings * own).sum(dim=1), negative, n=int(negs.info.n[0][0]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        bank.write(ids, embeddings, step=step)  # v <- norm(0.5 v + 0.5 x)
    return {"before": before, "after": digit_retrieval(encoder)}


if __name__ == "__main__":
    print(train(negbank.connect(sys.argv[1])))
