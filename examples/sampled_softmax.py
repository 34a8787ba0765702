"""Sampled softmax with the logQ correction (Bengio and Senecal 2008): word vectors, negatives by popularity to the 0.75.

Run it beside `negbank serve`: python examples/sampled_softmax.py 127.0.0.1:7700
"""

from __future__ import annotations

import sys

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import negbank
from data import WORDS, batches, word_pairs
from negbank.torch import sampled_softmax, similarities


def train(client: negbank.Client, epochs: int = 1) -> dict[str, float]:
    """Cross-entropy over all words before and after, and over some of the last batches, as sampled and exactly."""
    torch.manual_seed(0)
    pairs, seen = word_pairs()
    words = torch.nonzero(seen)[:, 0]
    vectors, outputs = nn.Embedding(WORDS, 32), nn.Embedding(WORDS, 32)
    nn.init.zeros_(outputs.weight)
    optimizer = torch.optim.Adam([*vectors.parameters(), *outputs.parameters()], lr=1e-2)

    def exact(pairs: torch.Tensor) -> float:
        with torch.no_grad():
            logits = vectors(pairs[:, 0]) @ outputs(words).T
            return float(cross_entropy(logits, torch.searchsorted(words, pairs[:, 1].contiguous())))

    before, of_steps = exact(pairs), []
    # The bank draws; the vectors are here, where they get gradients, so its rows are one float that nobody reads.
    bank = client.create_bank("sampled-softmax", dim=1, metric="dot")
    bank.write(words, torch.ones(len(words), 1), weights=seen[words].float())

    for step, rows in enumerate(batches(len(pairs), 256, epochs)):
        words_in, words_out = pairs[rows].T
        negs = bank.sample(len(rows), negbank.Weighted(64, alpha=0.75), columns=["ids", "log_q"], seed=step)
        drawn, log_q = torch.from_numpy(negs.ids[negs.indices].astype("int64")), torch.from_numpy(negs.log_q)
        positive, negative = (
            (vectors(words_in) * outputs(words_out)).sum(dim=1),
            similarities(vectors(words_in), outputs(drawn)),
        )
        loss = sampled_softmax(positive, negative, log_q)
        of_steps.append((loss.item(), exact(pairs[rows])))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    sampled, exactly = torch.tensor(of_steps[-10:]).mean(dim=0).tolist()
    return {"before": before, "after": exact(pairs), "sampled": sampled, "exact": exactly}


if __name__ == "__main__":
    print(train(negbank.connect(sys.argv[1])))
