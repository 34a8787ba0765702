"""RocketQA (Qu 2021): the top of the bank is read by a slower and better judge, and what it calls relevant is never served.

Run it beside `negbank serve`: python examples/rocket_qa.py 127.0.0.1:7700
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor
from torch.nn.functional import normalize

import negbank
from data import batches, docstrings, reciprocal_rank, text_encoder, tokens
from negbank.torch import info_nce, similarities


def judge(texts: list[str]) -> Tensor:
    """bool [N, N], which texts share half of all their words or more: it stands for the paper's cross-encoder."""
    words = [set(text.lower().split()) for text in texts]
    return torch.tensor([[2 * len(one & other) >= len(one | other) for other in words] for one in words])


def train(client: negbank.Client, epochs: int = 3) -> dict[str, float]:
    """Reciprocal rank of a summary's body before and after; how much of the top was denied, and how much of it served."""
    torch.manual_seed(0)
    summaries, bodies = docstrings()
    queries, documents, relevant = tokens(summaries), tokens(bodies), judge(bodies)
    encoder = text_encoder(64)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=5e-3)
    before, denied, served = reciprocal_rank(encoder(queries), encoder(documents), bodies), 0, 0

    bank = client.create_bank("rocket-qa", dim=64, momentum=0.0)
    with torch.no_grad():
        bank.write(torch.arange(len(bodies)), encoder(documents), step=0)

    for step, ids in enumerate(batches(len(bodies), 32, epochs)):
        query, document = normalize(encoder(queries[ids]), dim=1), normalize(encoder(documents[ids]), dim=1)
        # The judge reads the top 80 only; its verdicts go back with the request, a list for each query.
        top = bank.sample(query, negbank.Nearest(80), positive_ids=ids, columns=["ids"])
        verdicts = relevant[ids[:, None], top.ids[top.indices]]
        lists = [row[kept] for row, kept in zip(top.ids[top.indices], verdicts, strict=True)]
        # The window lies within what was read: the 20 nearest of those that are not denied.
        draw = negbank.Nearest(8, window=20, choose="uniform")
        negs = bank.sample(query, draw, positive_ids=ids, denied_ids=lists, columns=["ids"], seed=step)
        rows = negs.ids[negs.indices]
        denied, served = denied + int(verdicts.sum()), served + int(relevant[ids[:, None], rows].sum())
        fresh = normalize(encoder(documents[rows.flatten()]), dim=1).reshape(*rows.shape, 64)
        loss = info_nce((query * document).sum(dim=1), similarities(query, fresh), temperature=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        bank.write(ids, document, step=step)
    after = reciprocal_rank(encoder(queries), encoder(documents), bodies)
    return {"before": before, "after": after, "denied": float(denied), "served": float(served)}


if __name__ == "__main__":
    print(train(negbank.connect(sys.argv[1])))
