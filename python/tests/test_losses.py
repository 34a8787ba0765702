"""Losses of `negbank.torch` against second computations: formulas in float64, and published implementations."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import loss_references as reference
import negbank
from negbank import torch as losses

B, K, D = 7, 33, 16


@pytest.fixture
def scores() -> tuple[Tensor, Tensor, Tensor]:
    """Cosines [B], [B, K] and which of them count; each anchor has some that do."""
    generator = torch.Generator().manual_seed(3)
    positive = torch.rand(B, generator=generator) * 1.2 - 0.2
    negative = torch.rand(B, K, generator=generator) * 1.8 - 0.9
    counted = torch.rand(B, K, generator=generator) < 0.7
    return positive, negative, counted


def double(tensor: Tensor) -> reference.Floats:
    return tensor.numpy().astype(np.float64)


@pytest.mark.parametrize("temperature", [0.07, 0.5, 1.3])
def test_losses_are_the_papers_formulas(scores: tuple[Tensor, Tensor, Tensor], temperature: float) -> None:
    p, n, counted = scores
    p64, n64, of = double(p), double(n), counted.numpy()
    pairs: list[tuple[Tensor, float]] = [
        (losses.info_nce(p, n, temperature=temperature, counted=counted), reference.info_nce(p64, n64, of, temperature)),
        (losses.dcl(p, n, temperature=temperature, counted=counted), reference.dcl(p64, n64, of, temperature, None)),
        (losses.dclw(p, n, temperature=temperature, counted=counted), reference.dcl(p64, n64, of, temperature, 0.5)),
        (
            losses.debiased(p, n, tau=0.1, temperature=temperature, counted=counted),
            reference.hcl(p64, n64, of, temperature, 0.1, 0.0),
        ),
        (
            losses.InstDiscNCE(temperature=temperature)(p, n, 5_000, counted),
            reference.nce(p64, n64, of, temperature, 5_000),
        ),
    ]
    pairs += [
        (
            losses.hcl(p, n, beta=beta, tau=tau, temperature=temperature, counted=counted),
            reference.hcl(p64, n64, of, temperature, tau, beta),
        )
        for beta in (0.0, 0.5, 1.0, 3.0)
        for tau in (0.0, 0.1, 0.7)
    ]
    for got, expected in pairs:
        assert float(got) == pytest.approx(expected, rel=2e-5)


def test_the_debiased_estimate_is_bounded_from_below(scores: tuple[Tensor, Tensor, Tensor]) -> None:
    _, n, _ = scores
    p, n = torch.full((B,), 0.9), n.clamp(max=-0.5)
    every = np.ones((B, K), dtype=np.bool_)
    expected = reference.hcl(double(p), double(n), every, 0.5, 0.5, 0.0)
    assert expected == pytest.approx(float(np.log1p(K * np.exp(-2.0) / np.exp(1.8))), rel=1e-6), "the bound holds"
    assert float(losses.debiased(p, n, tau=0.5)) == pytest.approx(expected, rel=1e-5)


def test_nce_keeps_the_first_batch_s_z(scores: tuple[Tensor, Tensor, Tensor]) -> None:
    p, n, _ = scores
    nce = losses.InstDiscNCE()
    nce(p, n, 100)
    kept = float(nce.log_z)
    assert kept == pytest.approx(float(np.log(100 * np.exp(double(n) / 0.07).mean())), rel=1e-5)
    nce(p, n / 3, 100)
    resumed = losses.InstDiscNCE()
    resumed.load_state_dict(nce.state_dict())
    assert float(nce.log_z) == float(resumed.log_z) == kept


def test_sampled_softmax_subtracts_log_q_and_ln_k_from_the_negatives_only(scores: tuple[Tensor, Tensor, Tensor]) -> None:
    p, n, _ = scores
    log_q = -torch.rand(B, K, generator=torch.Generator().manual_seed(4)) * 9
    got = losses.sampled_softmax(p, n, log_q, temperature=0.3)
    assert float(got) == pytest.approx(reference.sampled_softmax(double(p), double(n), double(log_q), 0.3), rel=1e-5)
    # Drawn uniformly from n = K entries, each once: the sample is the whole, and so is the softmax.
    whole = losses.sampled_softmax(p, n, torch.full((B, K), -float(np.log(K))))
    torch.testing.assert_close(whole, losses.info_nce(p, n, temperature=1.0))
    both = losses.sampled_softmax(p, n, log_q, positive_log_q=torch.full((B,), -2.0))
    torch.testing.assert_close(both, losses.sampled_softmax(p + 2.0, n, log_q))


def test_triplets_are_the_semi_hard_ones(scores: tuple[Tensor, Tensor, Tensor]) -> None:
    p, n, _ = scores
    got = losses.triplet_semi_hard(p, n, margin=0.3)
    assert float(got) == pytest.approx(reference.triplet(double(p), double(n), 0.3), rel=1e-5)
    assert float(losses.triplet_semi_hard(p, n - 5.0)) == 0.0


def views(count: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    first, second = torch.nn.functional.normalize(torch.randn(2, count, D, generator=generator), dim=2)
    return first, second, torch.randint(4, (count,), generator=generator)


def test_nt_xent_is_pytorch_metric_learning_s() -> None:
    from pytorch_metric_learning.losses import NTXentLoss

    first, second, _ = views()
    theirs = NTXentLoss(temperature=0.3)(torch.cat([first, second]), torch.arange(len(first)).repeat(2))
    torch.testing.assert_close(losses.nt_xent(first, second, temperature=0.3), theirs)
    bank = torch.rand(2 * len(first), 5)
    with_bank = losses.nt_xent(first, second, bank=bank, bank_counted=torch.zeros_like(bank, dtype=torch.bool))
    torch.testing.assert_close(with_bank, losses.nt_xent(first, second))
    pair = torch.zeros(len(first), len(first), dtype=torch.bool)
    pair[0, 1] = pair[1, 0] = True
    assert losses.nt_xent(first, second, false_negatives=pair) < losses.nt_xent(first, second)


def test_sup_con_is_pytorch_metric_learning_s_and_the_formula() -> None:
    from pytorch_metric_learning.losses import SupConLoss

    first, second, labels = views()
    rows, of = torch.cat([first, second]), labels.repeat(2)
    counted = ~torch.eye(len(rows), dtype=torch.bool)
    positives = (of[:, None] == of[None, :]) & counted
    got = losses.sup_con(rows @ rows.T, positives, temperature=0.2, counted=counted)
    torch.testing.assert_close(got, SupConLoss(temperature=0.2)(rows, of))
    expected = reference.sup_con(double(rows @ rows.T), positives.numpy(), counted.numpy(), 0.2)
    assert float(got) == pytest.approx(expected, rel=1e-5)


def every_loss() -> dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]]:
    return {
        "info_nce": lambda p, n, c: losses.info_nce(p, n, temperature=0.01, counted=c),
        "dcl": lambda p, n, c: losses.dcl(p, n, temperature=0.01, counted=c),
        "dclw": lambda p, n, c: losses.dclw(p, n, temperature=0.01, counted=c),
        "debiased": lambda p, n, c: losses.debiased(p, n, tau=0.1, temperature=0.01, counted=c),
        "hcl": lambda p, n, c: losses.hcl(p, n, beta=1.0, tau=0.1, temperature=0.01, counted=c),
        "nce": lambda p, n, c: losses.InstDiscNCE(temperature=0.01)(p, n, 10, c),
        "triplet": lambda p, n, c: losses.triplet_semi_hard(p, n, counted=c),
        "sampled_softmax": lambda p, n, c: losses.sampled_softmax(p, n, torch.zeros_like(n), temperature=0.01, counted=c),
    }


@pytest.mark.parametrize("name", every_loss())
def test_nothing_overflows_and_what_does_not_count_has_no_gradient(name: str) -> None:
    positive = torch.tensor([1.0, -1.0, 0.0, 0.5], requires_grad=True)
    negative = torch.tensor([[-1.0, -1.0, 5.0], [1.0, 1.0, 5.0], [0.1, -0.1, 5.0], [5.0, 5.0, 5.0]], requires_grad=True)
    counted = torch.tensor([[True, True, False]] * 3 + [[False] * 3])
    loss = every_loss()[name](positive, negative, counted)
    assert bool(loss.isfinite())
    loss.backward()
    assert positive.grad is not None
    assert negative.grad is not None
    assert bool(positive.grad.isfinite().all() and negative.grad.isfinite().all())
    assert not negative.grad[~counted].any(), "what doesn't count pulls nothing"


@pytest.mark.parametrize(
    "call",
    [
        lambda: losses.info_nce(torch.ones(3), torch.ones(2, 4)),
        lambda: losses.info_nce(torch.ones(2), torch.ones(2, 4), counted=torch.ones(2, 4)),
        lambda: losses.info_nce(torch.ones(2), torch.ones(2, 4), temperature=0.0),
        lambda: losses.debiased(torch.ones(2), torch.ones(2, 4), tau=1.0),
        lambda: losses.hcl(torch.ones(2), torch.ones(2, 4), beta=float("nan")),
        lambda: losses.triplet_semi_hard(torch.ones(2), torch.ones(2, 4), margin=0.0),
        lambda: losses.similarities(torch.ones(2, 3), torch.ones(3, 4, 3)),
        lambda: losses.similarities(torch.ones(2, 3), torch.ones(4, 5)),
        lambda: losses.sup_con(torch.ones(2, 3), torch.ones(2, 3)),
        lambda: losses.nt_xent(torch.ones(2, 3), torch.ones(3, 3)),
        lambda: losses.mochi_mix(torch.ones(2, 3), torch.ones(2, 1, 3), pairs=1),
        lambda: losses.MomentumEncoder(torch.nn.Linear(2, 2), momentum=1.5),
        lambda: losses.MomentumEncoder(torch.nn.Linear(2, 2)).update(torch.nn.Linear(2, 3)),
        lambda: losses.InstDiscNCE()(torch.ones(2), torch.ones(2, 4), 0),
    ],
)
def test_what_can_t_be_meant_is_refused(call: Callable[[], Any]) -> None:
    with pytest.raises(negbank.InvalidArgument):
        call()


def test_similarities_are_dot_products() -> None:
    queries, own, shared = torch.randn(3, 4), torch.randn(3, 5, 4), torch.randn(6, 4, dtype=torch.float64)
    torch.testing.assert_close(losses.similarities(queries, own), (queries[:, None] * own).sum(dim=2))
    torch.testing.assert_close(losses.similarities(queries, shared), queries @ shared.float().T)


def test_mochi_mixes_two_negatives_or_one_with_less_of_the_query() -> None:
    generator = torch.Generator().manual_seed(6)
    # Orthogonal rows: what a mixture is made of can be read off it.
    hardest, query = torch.eye(4)[:3].expand(50, 3, 4), torch.eye(4)[3].expand(50, 4)
    mixed = losses.mochi_mix(query, hardest, pairs=20, with_query=10, generator=generator)
    torch.testing.assert_close(mixed.norm(dim=2), torch.ones(50, 30))
    of_pairs, of_query = mixed[:, :20], mixed[:, 20:]
    assert not of_pairs[..., 3].any(), "pairs have nothing of the query"
    assert int((of_pairs[..., :3] > 0).sum(dim=2).max()) == 2
    share = of_query[..., 3] / (of_query[..., 3] + of_query[..., :3].sum(dim=2))
    assert 0.45 < float(share.max()) <= 0.5, "the query's share is the smaller"
    assert float(share.mean()) == pytest.approx(0.25, abs=0.02)
    again = losses.mochi_mix(query, hardest, pairs=20, with_query=10, generator=torch.Generator().manual_seed(6))
    assert torch.equal(mixed, again)


def test_a_momentum_encoder_follows_without_gradients() -> None:
    torch.manual_seed(7)
    encoder = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 2))
    follower = losses.MomentumEncoder(encoder, momentum=0.9)
    before = copy.deepcopy(follower.state_dict())
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter))
    encoder(torch.randn(8, 3))
    follower.update(encoder)
    for name, value in encoder.named_parameters():
        expected = 0.9 * before[f"encoder.{name}"].double() + 0.1 * value.detach().double()
        torch.testing.assert_close(follower.state_dict()[f"encoder.{name}"].double(), expected, rtol=0, atol=1e-6)
    assert torch.equal(follower.state_dict()["encoder.1.running_mean"], encoder.state_dict()["1.running_mean"])
    assert not follower(torch.randn(4, 3)).requires_grad
    assert not any(parameter.requires_grad for parameter in follower.parameters())
    follower.update(encoder, momentum=0.0)
    torch.testing.assert_close(follower.encoder(torch.ones(2, 3)), encoder(torch.ones(2, 3)))
