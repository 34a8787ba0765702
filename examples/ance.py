"""ANCE (Xiong 2021): hard negatives from the top of an index that is refreshed while training runs.

Run it beside `negbank serve`: python examples/ance.py 127.0.0.1:7700
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

import negbank
from data import batches, docstrings, reciprocal_rank, text_encoder, tokens
from negbank.torch import Keeper, info_nce, similarities


def train(client: negbank.Client, epochs: int = 3) -> dict[str, float]:
    """Reciprocal rank of a summary's body before and after, and the greatest age of a served text, in steps."""
    torch.manual_seed(0)
    summaries, bodies = docstrings()
    queries, documents = tokens(summaries), tokens(bodies)
    groups = torch.tensor([bodies.index(body) for body in bodies])
    encoder = text_encoder(64)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=5e-3)
    before, oldest = reciprocal_rank(encoder(queries), encoder(documents), bodies), 0

    def encode(model: nn.Module, ids: Tensor) -> Tensor:
        return normalize(model(documents[ids]), dim=1)

    bank = client.create_bank("ance", dim=64, momentum=0.0)
    with torch.no_grad():
        bank.write(torch.arange(len(bodies)), encode(encoder, torch.arange(len(bodies))), groups=groups, step=0)
    # 20 of the 200 nearest. Every fifth step encodes the 100 stalest texts anew.
    sampler = negbank.Sampler(bank, negbank.Nearest(20, window=200, choose="uniform"), seed=0)
    keeper = Keeper(bank, encode=encode, every=5, rows=100, sampler=sampler)

    for step, ids in enumerate(batches(len(bodies), 32, epochs)):
        query = normalize(encoder(queries[ids]), dim=1)
        negs = sampler.sample(query, positive_ids=ids, anchor_groups=groups[ids], columns=["ids", "steps"])
        oldest = max(oldest, int(negs.ages.max()))
        # Text trainers take the ids and encode the texts again, with gradients.
        chosen = torch.cat([ids[:, None], negs.ids[negs.indices]], dim=1)
        rows = encode(encoder, chosen.flatten()).reshape(*chosen.shape, 64)
        loss = info_nce((query * rows[:, 0]).sum(dim=1), similarities(query, rows[:, 1:]), temperature=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        keeper.end_of_step(encoder, step + 1)
    after = reciprocal_rank(encoder(queries), encoder(documents), bodies)
    return {"before": before, "after": after, "oldest": float(oldest), "steps": float(step + 1)}


if __name__ == "__main__":
    print(train(negbank.connect(sys.argv[1])))
