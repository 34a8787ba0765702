"""NV-Retriever (2024): the hardest texts that score at most 95 % of the positive, never a copy of it.

Run it beside `negbank serve`: python examples/nv_retriever.py 127.0.0.1:7700
"""

from __future__ import annotations

import sys

import torch
from torch.nn.functional import normalize

import negbank
from data import batches, docstrings, reciprocal_rank, text_encoder, tokens
from negbank.torch import info_nce, similarities


def train(client: negbank.Client, epochs: int = 3) -> dict[str, float]:
    """Reciprocal rank of a summary's body before and after, and how many served texts were too close or copies."""
    torch.manual_seed(0)
    summaries, bodies = docstrings()
    queries, documents = tokens(summaries), tokens(bodies)
    groups = torch.tensor([bodies.index(body) for body in bodies])  # copies of a text are one group
    encoder = text_encoder(64)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=5e-3)
    before, too_close, copies = reciprocal_rank(encoder(queries), encoder(documents), bodies), 0, 0

    bank = client.create_bank("nv-retriever", dim=64, momentum=0.0)
    with torch.no_grad():
        bank.write(torch.arange(len(bodies)), encoder(documents), groups=groups, step=0)

    for step, ids in enumerate(batches(len(bodies), 32, epochs)):
        query, document = normalize(encoder(queries[ids]), dim=1), normalize(encoder(documents[ids]), dim=1)
        positive = (query * document).sum(dim=1)
        # The rule compares with the score of the positive as it is now, and the group keeps copies of it away.
        draw = negbank.Nearest(8, max_positive_fraction=0.95)
        negs = bank.sample(query, draw, positive_scores=positive, anchor_groups=groups[ids], pad=True)
        ceiling = positive.detach() - positive.detach().abs() * 0.05
        too_close += int((negs.mask & (negs.scores > ceiling[:, None] + 1e-5)).sum())
        copies += int((negs.mask & (negs.groups[negs.indices] == groups[ids][:, None])).sum())
        # Text trainers take the ids and encode the texts again, with gradients.
        rows = negs.ids[negs.indices]
        fresh = normalize(encoder(documents[rows.flatten()]), dim=1).reshape(*rows.shape, 64)
        loss = info_nce(positive, similarities(query, fresh), temperature=0.1, counted=negs.mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        bank.write(ids, document, step=step)
    after = reciprocal_rank(encoder(queries), encoder(documents), bodies)
    return {"before": before, "after": after, "too_close": too_close, "copies": copies}


if __name__ == "__main__":
    print(train(negbank.connect(sys.argv[1])))
