"""Mixed negative sampling (Yang 2020): a batch's own words, which are the popular ones, beside words drawn evenly from all.

Run it beside `negbank serve`: python examples/mixed_negatives.py 127.0.0.1:7700
"""

from __future__ import annotations

import math
import sys

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import negbank
from data import WORDS, batches, word_pairs
from negbank.torch import info_nce


def train(client: negbank.Client, even: int = 64, epochs: int = 1) -> dict[str, float]:
    """Cross-entropy over all words before and after, and over the last batches, as sampled and exactly."""
    torch.manual_seed(0)
    pairs, seen = word_pairs()
    words = torch.nonzero(seen)[:, 0]
    vectors, outputs = nn.Embedding(WORDS, 32), nn.Embedding.from_pretrained(torch.zeros(WORDS, 32), freeze=False)
    optimizer = torch.optim.Adam([*vectors.parameters(), *outputs.parameters()], lr=1e-2)

    def exact(pairs: Tensor) -> float:
        logits = (vectors(pairs[:, 0]) @ outputs(words).T).detach()
        return float(cross_entropy(logits, torch.searchsorted(words, pairs[:, 1].contiguous())))

    before, of_steps = exact(pairs), []
    # The bank draws; the vectors are here, where they get gradients, so its rows are one float that nobody reads.
    bank = client.create_bank("mixed-negatives", dim=1, metric="dot")
    bank.write(words, torch.ones(len(words), 1))

    for step, rows in enumerate(batches(len(pairs), 256, epochs)):
        words_in, words_out = pairs[rows].T
        drawn = bank.sample(1, negbank.Uniform(even), columns=["ids", "log_q"], seed=step)
        candidates = torch.cat([words_out, torch.from_numpy(drawn.ids[drawn.indices[0]].astype("int64"))])
        # Both kinds are draws of one mixture: by how often a word is seen, and evenly, with one log_q.
        popular, evenly = seen[candidates] / seen.sum(), math.exp(float(drawn.log_q[0, 0]))
        log_q = torch.log((len(rows) * popular + even * evenly) / len(candidates))
        # A candidate that is the anchor's own word is not its negative, and still one of the K that were drawn: ln K is of all.
        logits = vectors(words_in) @ outputs(candidates).T - log_q - math.log(len(candidates))
        positive = (vectors(words_in) * outputs(words_out)).sum(dim=1)
        loss = info_nce(positive, logits, temperature=1.0, counted=candidates != words_out[:, None])
        of_steps.append((loss.item(), exact(pairs[rows])))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    sampled, exactly = torch.tensor(of_steps[-10:]).mean(dim=0).tolist()
    return {"before": before, "after": exact(pairs), "sampled": sampled, "exact": exactly}


if __name__ == "__main__":
    print(train(negbank.connect(sys.argv[1])))
