"""What a sample says of sums over the whole bank: partitions from mixtures, and HCL's importance weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import negbank
from negbank.torch import debiased, hcl, sampled_softmax, similarities

ROWS, DIM = 300, 8


@pytest.fixture
def bank(client: negbank.Client, name: str, rng: np.random.Generator) -> negbank.Bank:
    """Unit rows with weights of 0.2 to 3.2."""
    bank = client.create_bank(name, dim=DIM)
    bank.write(range(ROWS), rng.standard_normal((ROWS, DIM)), weights=0.2 + 3 * rng.random(ROWS))
    return bank


def rows(bank: negbank.Bank) -> torch.Tensor:
    return torch.from_numpy(bank.fetch(range(ROWS)).embeddings).double()


def unit(count: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(count, DIM, generator=torch.Generator().manual_seed(2)), dim=1)


def test_a_mixture_estimates_the_partition_once(bank: negbank.Bank) -> None:
    draws = (negbank.Uniform(10), negbank.Weighted(30))
    anchor, repeated = unit(1), 4_000
    logits = (anchor.double() @ rows(bank).T)[0] / 0.5
    truth = float(logits.exp().sum())
    negs = bank.sample(anchor.expand(repeated, DIM), *draws, log_q_mix=True, seed=5, columns=["ids", "log_q"])
    picked = logits[negs.ids[negs.indices]]

    def estimates(log_q: torch.Tensor, count: float | torch.Tensor) -> torch.Tensor:
        """One of the partition for each sample, by logits less log_q and the logarithm of a count."""
        return (picked - log_q.double() - torch.as_tensor(count).log()).exp().sum(dim=1)

    own, mixed = estimates(negs.log_q, 40.0), estimates(negs.log_q_mix, 40.0)
    for estimate in (own, mixed):
        error = float(estimate.std()) / repeated**0.5
        assert error < 0.01 * truth
        assert float(estimate.mean()) == pytest.approx(truth, abs=4 * error)
    assert mixed.std() < own.std()
    # Each draw by its own k counts the partition twice, once a draw.
    twice = estimates(negs.log_q, torch.tensor([10.0] * 10 + [30.0] * 30))
    assert float(twice.mean()) == pytest.approx(2 * truth, rel=0.02)

    # The loss takes the mixture as it is: with a positive of logit 0, ln(1 + the estimate).
    for log_q, estimate in ((negs.log_q, own), (negs.log_q_mix, mixed)):
        loss = sampled_softmax(torch.zeros(repeated).double(), picked, log_q)
        assert float(loss) == pytest.approx(float(torch.log1p(estimate).mean()), rel=1e-6)
        assert float(loss) == pytest.approx(float(np.log1p(truth)), abs=0.02)


@pytest.mark.parametrize("tau", [0.0, 0.1])
def test_hcl_s_draws_are_the_whole_bank_weighed(bank: negbank.Bank, tau: float) -> None:
    """Both losses are ln(1 + Ng / exp(p/T)), and Ng grows with the number of negatives: 4,096 drawn, and all of the bank."""
    beta, temperature, k, anchors = 1.0, 0.25, 4_096, unit(6)
    whole = rows(bank)

    def negatives(loss: torch.Tensor, count: int) -> float:
        return float(torch.log(torch.expm1(loss) / count))

    def apart(server_s: float) -> list[float]:
        """ln Ng of one negative, as drawn with this beta, less what it is over the whole bank; for each anchor."""
        negs = bank.sample(anchors, negbank.Softmax(k, beta=server_s), seed=1)
        drawn = similarities(anchors, negs.embeddings[negs.indices]).double()
        scores, positive = similarities(anchors.double(), whole), torch.full((len(anchors),), 0.4).double()
        found = []
        for one in range(len(anchors)):
            at = slice(one, one + 1)
            of_drawn = debiased(positive[at], drawn[at], tau=tau, temperature=temperature)
            of_all = hcl(positive[at], scores[at], beta=beta, tau=tau, temperature=temperature)
            found.append(negatives(of_drawn, k) - negatives(of_all, ROWS))
        return found

    assert np.abs(apart(beta / temperature)).max() < 0.1
    assert np.max(apart(beta)) < -0.3, "beta in place of beta / T draws softer ones"
