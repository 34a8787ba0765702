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


def log_q_of(scores: Tensor) -> Tensor:
    """Of some strategy."""
    return -torch.rand(scores.shape, generator=torch.Generator().manual_seed(4)) * 9


Loss = Callable[[Tensor, Tensor, Tensor, float], Tensor]
HCL = [(beta, tau) for beta in (0.0, 0.5, 1.0, 3.0) for tau in (0.0, 0.1, 0.7)]


def hcl_at(beta: float, tau: float) -> tuple[Loss, Loss]:
    return (
        lambda p, n, c, t: losses.hcl(p, n, beta=beta, tau=tau, temperature=t, counted=c),
        lambda p, n, c, t: reference.hcl(p, n, c, t, tau, beta),
    )


# Each loss of p, n, counted at a temperature, and its reference.
PAIRS: dict[str, tuple[Loss, Loss]] = {
    "info_nce": (lambda p, n, c, t: losses.info_nce(p, n, temperature=t, counted=c), reference.info_nce),
    "dcl": (
        lambda p, n, c, t: losses.dcl(p, n, temperature=t, counted=c),
        lambda p, n, c, t: reference.dcl(p, n, c, t, None),
    ),
    "dclw": (
        lambda p, n, c, t: losses.dclw(p, n, temperature=t, counted=c),
        lambda p, n, c, t: reference.dcl(p, n, c, t, 0.5),
    ),
    "debiased": (
        lambda p, n, c, t: losses.debiased(p, n, tau=0.1, temperature=t, counted=c),
        lambda p, n, c, t: reference.hcl(p, n, c, t, 0.1, 0.0),
    ),
    "nce": (
        lambda p, n, c, t: losses.InstDiscNCE(temperature=t)(p, n, 5_000, c),
        lambda p, n, c, t: reference.nce(p, n, c, t, 5_000),
    ),
    "sampled_softmax": (
        lambda p, n, c, t: losses.sampled_softmax(p, n, log_q_of(n), temperature=t, counted=c),
        lambda p, n, c, t: reference.sampled_softmax(p, n, c, log_q_of(n).double(), t),
    ),
    "triplet": (
        lambda p, n, c, t: losses.triplet_semi_hard(p, n, margin=0.3, counted=c),
        lambda p, n, c, t: reference.triplet(p, n, c, 0.3),
    ),
    **{f"hcl, beta={beta}, tau={tau}": hcl_at(beta, tau) for beta, tau in HCL},
}


def with_gradient(loss: Loss, p: Tensor, n: Tensor, counted: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """The loss, and its gradients by the scores."""
    p, n = p.detach().clone().requires_grad_(), n.detach().clone().requires_grad_()
    value = loss(p, n, counted, temperature)
    of_positive, of_negative = torch.autograd.grad(value, (p, n))
    return value.detach(), of_positive, of_negative


@pytest.mark.parametrize("temperature", [0.07, 0.5, 1.3])
@pytest.mark.parametrize("name", PAIRS)
def test_losses_and_gradients_are_those_of_the_papers_formulas(
    scores: tuple[Tensor, Tensor, Tensor], name: str, temperature: float
) -> None:
    p, n, counted = scores
    ours, formula = PAIRS[name]
    expected = with_gradient(formula, p.double(), n.double(), counted, temperature)
    assert float(expected[1].abs().max()) > 1e-3
    for got, want in zip(with_gradient(ours, p, n, counted, temperature), expected, strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-5 * float(want.abs().max()))
    # In float64 there is nothing left that rounding could hide.
    for got, want in zip(with_gradient(ours, p.double(), n.double(), counted, temperature), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12 * float(want.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("temperature", [0.01, 0.07, 0.5])
@pytest.mark.parametrize("name", PAIRS)
def test_halves_lose_what_they_had_lost_before_and_no_more(
    scores: tuple[Tensor, Tensor, Tensor], name: str, temperature: float, dtype: torch.dtype
) -> None:
    p, n, counted = scores
    p, n = p.to(dtype), n.to(dtype)
    of_same, of_halves = (
        with_gradient(PAIRS[name][0], *both, counted, temperature) for both in ((p.float(), n.float()), (p, n))
    )
    assert torch.equal(of_same[0], of_halves[0]), "the loss is computed in float32"
    for want, got in zip(of_same[1:], of_halves[1:], strict=True):
        assert got.dtype == dtype
        assert bool(got.isfinite().all())
        assert torch.equal(want.to(dtype), got)


def test_how_far_rounded_scores_move_a_gradient(scores: tuple[Tensor, Tensor, Tensor]) -> None:
    """What the docstring of `negbank.torch` says of halves at low temperatures."""
    cosines = torch.linspace(0.5, 1.0, 10_001)
    for dtype, temperature, share in (
        (torch.bfloat16, 0.07, 0.03),
        (torch.bfloat16, 0.01, 0.22),
        (torch.float16, 0.07, 0.03 / 8),
        (torch.float16, 0.01, 0.22 / 8),
    ):
        off = torch.expm1((cosines.to(dtype).double() - cosines.double()).abs() / temperature).max()
        assert 0.85 * share < float(off) < share
    p, n, counted = scores
    exact, rounded = (
        with_gradient(PAIRS["info_nce"][0], p.to(dtype).float(), n.to(dtype).float(), counted, 0.01)[2]
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert 0.02 < float((rounded - exact).norm() / exact.norm()) < 0.4


def test_the_debiased_estimate_is_bounded_from_below(scores: tuple[Tensor, Tensor, Tensor]) -> None:
    _, n, _ = scores
    p, n = torch.full((B,), 0.9), n.clamp(max=-0.5)
    every = torch.ones(B, K, dtype=torch.bool)
    expected = float(reference.hcl(p.double(), n.double(), every, 0.5, 0.5, 0.0))
    assert expected == pytest.approx(float(np.log1p(K * np.exp(-2.0) / np.exp(1.8))), rel=1e-6), "the bound holds"
    assert float(losses.debiased(p, n, tau=0.5)) == pytest.approx(expected, rel=1e-5)


def test_nce_keeps_the_first_batch_s_z(scores: tuple[Tensor, Tensor, Tensor]) -> None:
    p, n, _ = scores
    nce = losses.InstDiscNCE()
    nce(p, n, 100)
    kept = float(nce.log_z)
    assert kept == pytest.approx(float(torch.log(100 * torch.exp(n.double() / 0.07).mean())), rel=1e-5)
    nce(p, n / 3, 100)
    resumed = losses.InstDiscNCE()
    resumed.load_state_dict(nce.state_dict())
    assert float(nce.log_z) == float(resumed.log_z) == kept


def test_sampled_softmax_subtracts_log_q_and_ln_k_from_the_negatives_only(scores: tuple[Tensor, Tensor, Tensor]) -> None:
    p, n, counted = scores
    log_q = log_q_of(n)
    # Drawn uniformly from n = K entries, each once: the sample is the whole, and so is the softmax.
    whole = losses.sampled_softmax(p, n, torch.full((B, K), -float(np.log(K))))
    torch.testing.assert_close(whole, losses.info_nce(p, n, temperature=1.0))
    both = losses.sampled_softmax(p, n, log_q, positive_log_q=torch.full((B,), -2.0))
    torch.testing.assert_close(both, losses.sampled_softmax(p + 2.0, n, log_q))
    # What does not count needs no log_q: the nearest have none.
    without = losses.sampled_softmax(p, n, log_q.masked_fill(~counted, torch.nan), counted=counted)
    torch.testing.assert_close(without, losses.sampled_softmax(p, n, log_q, counted=counted))


def test_no_triplet_is_no_loss(scores: tuple[Tensor, Tensor, Tensor]) -> None:
    p, n, _ = scores
    assert float(losses.triplet_semi_hard(p, n - 5.0)) == 0.0


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


ONES, FOUR = torch.ones(2), torch.ones(2, 4)
VIEWS = torch.eye(2, 3)
ELSEWHERE = torch.device("meta")


@pytest.mark.parametrize(
    ("field", "call"),
    [
        ("negative", lambda: losses.info_nce(torch.ones(3), FOUR)),
        ("negative", lambda: losses.info_nce(ONES, ONES)),
        ("counted", lambda: losses.info_nce(ONES, FOUR, counted=torch.ones(2, 4))),
        ("counted", lambda: losses.info_nce(ONES, FOUR, counted=torch.ones(2, 3, dtype=torch.bool))),
        ("counted", lambda: losses.info_nce(ONES, FOUR, counted=np.ones((2, 4), dtype=np.bool_))),  # type: ignore[arg-type]
        ("temperature", lambda: losses.info_nce(ONES, FOUR, temperature=0.0)),
        ("positive", lambda: losses.info_nce(ONES.long(), FOUR)),
        ("negative", lambda: losses.info_nce(ONES, FOUR.int())),
        ("negative", lambda: losses.info_nce(ONES, FOUR.numpy())),  # type: ignore[arg-type]
        ("positive", lambda: losses.info_nce(ONES[:0], FOUR[:0])),
        ("positive", lambda: losses.dcl(ONES[:0], FOUR[:0])),
        ("positive", lambda: losses.triplet_semi_hard(ONES[:0], FOUR[:0])),
        ("negative", lambda: losses.info_nce(ONES, FOUR.to(ELSEWHERE))),
        ("negative", lambda: losses.hcl(ONES, FOUR.to(ELSEWHERE), beta=1.0)),
        ("weights", lambda: losses.dcl(ONES, FOUR, weights=FOUR)),
        ("weights", lambda: losses.dcl(ONES, FOUR, weights=ONES.to(ELSEWHERE))),
        ("sigma", lambda: losses.dclw(ONES, FOUR, sigma=0.0)),
        ("tau", lambda: losses.debiased(ONES, FOUR, tau=1.0)),
        ("beta", lambda: losses.hcl(ONES, FOUR, beta=float("nan"))),
        ("margin", lambda: losses.triplet_semi_hard(ONES, FOUR, margin=0.0)),
        ("log_q", lambda: losses.sampled_softmax(ONES, FOUR, torch.zeros(4))),
        ("log_q", lambda: losses.sampled_softmax(ONES, FOUR, torch.zeros(2, 1))),
        ("log_q", lambda: losses.sampled_softmax(ONES, FOUR, torch.full((2, 4), torch.nan))),
        ("log_q", lambda: losses.sampled_softmax(ONES, FOUR, np.zeros((2, 4), dtype=np.float32))),  # type: ignore[arg-type]
        ("log_q", lambda: losses.sampled_softmax(ONES, FOUR, FOUR.to(ELSEWHERE))),
        ("positive_log_q", lambda: losses.sampled_softmax(ONES, FOUR, FOUR, positive_log_q=torch.zeros(2, 1))),
        ("positive_log_q", lambda: losses.sampled_softmax(ONES, FOUR, FOUR, positive_log_q=torch.full((2,), -torch.inf))),
        ("queries", lambda: losses.similarities(FOUR.int(), FOUR)),
        ("negatives", lambda: losses.similarities(FOUR, FOUR.numpy())),  # type: ignore[arg-type]
        ("negatives", lambda: losses.similarities(torch.ones(2, 3), torch.ones(3, 4, 3))),
        ("negatives", lambda: losses.similarities(torch.ones(2, 3), torch.ones(4, 5))),
        ("positives", lambda: losses.sup_con(FOUR, FOUR)),
        ("counted", lambda: losses.sup_con(FOUR, FOUR > 0, counted=FOUR)),
        ("counted", lambda: losses.sup_con(FOUR, FOUR > 0, counted=FOUR[:1] > 0)),
        ("scores", lambda: losses.sup_con(FOUR.int(), FOUR > 0)),
        ("scores", lambda: losses.sup_con(FOUR[:0], FOUR[:0] > 0)),
        ("second", lambda: losses.nt_xent(VIEWS, torch.ones(3, 3))),
        ("first", lambda: losses.nt_xent(VIEWS.int(), VIEWS.int())),
        ("second", lambda: losses.nt_xent(VIEWS, VIEWS.to(ELSEWHERE))),
        ("first", lambda: losses.nt_xent(VIEWS[:0], VIEWS[:0])),
        ("false_negatives", lambda: losses.nt_xent(VIEWS, VIEWS, false_negatives=torch.zeros(3, 3, dtype=torch.bool))),
        ("false_negatives", lambda: losses.nt_xent(VIEWS, VIEWS, false_negatives=torch.zeros(2, 2))),
        ("false_negatives", lambda: losses.nt_xent(VIEWS, VIEWS, false_negatives=np.eye(2) > 0)),  # type: ignore[arg-type]
        ("bank", lambda: losses.nt_xent(VIEWS, VIEWS, bank=torch.ones(2, 5))),
        ("bank_counted", lambda: losses.nt_xent(VIEWS, VIEWS, bank=torch.ones(4, 5), bank_counted=torch.ones(4, 5))),
        ("hardest", lambda: losses.mochi_mix(torch.ones(2, 3), torch.ones(2, 1, 3), pairs=1)),
        ("hardest", lambda: losses.mochi_mix(torch.ones(2, 3), torch.ones(2, 4, 3, device=ELSEWHERE), pairs=1)),
        ("momentum", lambda: losses.MomentumEncoder(torch.nn.Linear(2, 2), momentum=1.5)),
        ("encoder", lambda: losses.MomentumEncoder(torch.nn.Linear(2, 2)).update(torch.nn.Linear(2, 3))),
        ("negative", lambda: losses.InstDiscNCE()(ONES, FOUR, 0)),
    ],
)
def test_what_can_t_be_meant_is_refused_by_name(field: str, call: Callable[[], Any]) -> None:
    with pytest.raises(negbank.InvalidArgument) as refused:
        call()
    assert refused.value.field == field


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
