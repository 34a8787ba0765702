"""NegativeCache (Lindgren 2021): the gradient of the softmax over all texts, from a few that are drawn by it.

Run it beside `negbank serve`: python examples/negative_cache.py 127.0.0.1:7700
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

import negbank
from data import batches, docstrings, reciprocal_rank, text_encoder, tokens
from negbank.torch import Keeper, similarities

BETA = 10.0  # one over the loss temperature


def train(client: negbank.Client, epochs: int = 3) -> dict[str, float]:
    """Reciprocal rank before and after; the loss of the last batch, and what it is over a copy of the bank."""
    torch.manual_seed(0)
    summaries, bodies = docstrings()
    queries, documents = tokens(summaries), tokens(bodies)
    encoder = text_encoder(64)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=5e-3)
    before, loss, exact = reciprocal_rank(encoder(queries), encoder(documents), bodies), 0.0, 0.0

    def encode(model: nn.Module, ids: Tensor) -> Tensor:
        return normalize(model(documents[ids]), dim=1)

    bank = client.create_bank("negative-cache", dim=64, momentum=0.0)
    everything = torch.arange(len(bodies))
    bank.write(everything, encode(encoder, everything), step=0)
    keeper = Keeper(bank, encode=encode, every=5, rows=100)  # the cache's least recently encoded

    for step, ids in enumerate(batches(len(bodies), 32, epochs)):
        query, document = normalize(encoder(queries[ids]), dim=1), encode(encoder, ids)
        negs = bank.sample(query, negbank.Softmax(8, beta=BETA), positive_ids=ids, columns=["ids"], seed=step)
        positive, others = BETA * (query * document).sum(dim=1), negs.info.log_partition[0]
        assert others is not None
        log_z = torch.logaddexp(positive.detach(), others)
        # The gradient of log Z is that of the scores, averaged by softmax: of the positive by its share, and of what was drawn.
        drawn = negs.ids[negs.indices]
        fresh = encode(encoder, drawn.flatten()).reshape(*drawn.shape, 64)
        of_others = (others - log_z).exp() * (BETA * similarities(query, fresh).mean(dim=1) - positive)
        optimizer.zero_grad()
        of_others.mean().backward()
        optimizer.step()
        loss = float((log_z - positive.detach()).mean())
        scores, own = BETA * query.detach() @ bank.fetch(everything).embeddings.T, positive.detach()
        exact = float((scores.scatter(1, ids[:, None], own[:, None]).logsumexp(dim=1) - own).mean())
        keeper.end_of_step(encoder, step + 1)
    after = reciprocal_rank(encoder(queries), encoder(documents), bodies)
    return {"before": before, "after": after, "loss": loss, "exact": exact}


if __name__ == "__main__":
    print(train(negbank.connect(sys.argv[1])))
