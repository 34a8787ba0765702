"""Losses of `negbank.torch` beside published implementations: values and gradients by the embeddings, in float64."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.losses import NTXentLoss, SupConLoss, TripletMarginLoss
from pytorch_metric_learning.miners import TripletMarginMiner
from torch import Tensor
from torch.nn.functional import normalize

import loss_references as reference
from negbank import torch as losses

N, K, D = 12, 20, 16


@pytest.fixture
def views() -> tuple[Tensor, Tensor]:
    """Two views of N items, unit rows [N, D] that are somewhat alike."""
    generator = torch.Generator().manual_seed(5)
    first, noise = torch.randn(2, N, D, generator=generator, dtype=torch.float64)
    return normalize(first, dim=1), normalize(first + 0.8 * noise, dim=1)


@pytest.fixture
def served() -> Tensor:
    """Further negatives, unit rows [K, D]."""
    rows = torch.randn(K, D, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    return normalize(rows, dim=1)


def assert_same(ours: Callable[..., Tensor], theirs: Callable[..., Tensor], *rows: Tensor) -> None:
    """The same number, and the same gradient by every row."""
    values, gradients = [], []
    for loss in (ours, theirs):
        live = [one.detach().clone().requires_grad_() for one in rows]
        value = loss(*live)
        values.append(value.detach())
        gradients.append(torch.autograd.grad(value, live))
    torch.testing.assert_close(*values, rtol=1e-9, atol=1e-12)
    assert abs(float(values[0])) > 0.01
    for own, other in zip(*gradients, strict=True):
        assert float(own.abs().max()) > 1e-4
        torch.testing.assert_close(own, other, rtol=1e-7, atol=1e-10)


def against_everything(*rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of each query's own key, those of all keys and negatives, and that its own key is none of these.

    Of rows of any length, as the others take them: the gradient is that by rows before they are normalised.
    """
    queries, keys, negatives = (normalize(one, dim=1) for one in rows)
    scores = queries @ torch.cat([keys, negatives]).T
    own = torch.eye(len(queries), len(keys) + len(negatives), dtype=torch.bool)
    return scores.diagonal(), scores, ~own


def labelled(queries: Tensor, keys: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor, None, Tensor, Tensor]:
    """The same for pytorch-metric-learning: each query and its key are a class, and so is each negative."""
    of_keys = torch.arange(len(keys))
    of_negatives = len(keys) + torch.arange(len(negatives))
    return queries, of_keys, None, torch.cat([keys, negatives]), torch.cat([of_keys, of_negatives])


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_info_nce_is_pytorch_metric_learning_s_nt_xent(
    views: tuple[Tensor, Tensor], served: Tensor, temperature: float
) -> None:
    def ours(*rows: Tensor) -> Tensor:
        positive, negative, counted = against_everything(*rows)
        return losses.info_nce(positive, negative, temperature=temperature, counted=counted)

    theirs = NTXentLoss(temperature=temperature)
    assert_same(ours, lambda *rows: theirs(*labelled(*rows)), *views, served)


def test_nt_xent_is_pytorch_metric_learning_s(views: tuple[Tensor, Tensor]) -> None:
    first, second = views
    theirs = NTXentLoss(temperature=0.3)
    assert_same(
        lambda a, b: losses.nt_xent(normalize(a, dim=1), normalize(b, dim=1), temperature=0.3),
        lambda a, b: theirs(torch.cat([a, b]), torch.arange(N).repeat(2)),
        first,
        second,
    )
    bank = torch.rand(2 * N, 5, dtype=torch.float64)
    with_bank = losses.nt_xent(first, second, bank=bank, bank_counted=torch.zeros_like(bank, dtype=torch.bool))
    torch.testing.assert_close(with_bank, losses.nt_xent(first, second))
    pair = torch.zeros(N, N, dtype=torch.bool)
    pair[0, 1] = pair[1, 0] = True
    assert losses.nt_xent(first, second, false_negatives=pair) < losses.nt_xent(first, second)


def test_semi_hard_triplets_are_pytorch_metric_learning_s(views: tuple[Tensor, Tensor], served: Tensor) -> None:
    margin = 0.4
    miner = TripletMarginMiner(margin=margin, type_of_triplets="semihard", distance=CosineSimilarity())
    loss = TripletMarginLoss(margin=margin, distance=CosineSimilarity())

    def theirs(*rows: Tensor) -> Tensor:
        queries, labels, _, others, of_others = labelled(*rows)
        mined = miner(queries, labels, others, of_others)
        value: Tensor = loss(queries, labels, mined, others, of_others)
        return value

    def ours(*rows: Tensor) -> Tensor:
        positive, negative, counted = against_everything(*rows)
        return losses.triplet_semi_hard(positive, negative, margin=margin, counted=counted)

    assert_same(ours, theirs, *views, served)


def test_sup_con_is_pytorch_metric_learning_s_and_the_formula(views: tuple[Tensor, Tensor]) -> None:
    of = torch.randint(4, (N,), generator=torch.Generator().manual_seed(7)).repeat(2)
    counted = ~torch.eye(2 * N, dtype=torch.bool)
    positives = (of[:, None] == of[None, :]) & counted
    rows = torch.cat(views)

    def ours(rows: Tensor) -> Tensor:
        rows = normalize(rows, dim=1)
        return losses.sup_con(rows @ rows.T, positives, temperature=0.2, counted=counted)

    theirs = SupConLoss(temperature=0.2)
    assert_same(ours, lambda rows: theirs(rows, of), rows)
    scores = rows @ rows.T
    assert_same(
        lambda s: losses.sup_con(s, positives, temperature=0.2, counted=counted),
        lambda s: reference.sup_con(s, positives, counted, 0.2),
        scores,
    )


@pytest.mark.filterwarnings("ignore:To copy construct from a tensor:UserWarning")  # lightly's own
@pytest.mark.parametrize("name", ["DCLLoss", "DCLWLoss"])
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_decoupled_losses_are_lightly_s(views: tuple[Tensor, Tensor], name: str, temperature: float) -> None:
    """Each view of an item against all other items' views, the mean of both directions."""
    theirs = getattr(lightly_s_dcl(), name)(temperature=temperature)
    decoupled = losses.dcl if name == "DCLLoss" else losses.dclw
    counted = ~torch.eye(N, dtype=torch.bool).repeat(1, 2)

    def one_way(anchors: Tensor, others: Tensor) -> Tensor:
        negative = torch.cat([anchors @ anchors.T, anchors @ others.T], dim=1)
        return decoupled((anchors * others).sum(dim=1), negative, temperature=temperature, counted=counted)

    def ours(first: Tensor, second: Tensor) -> Tensor:
        first, second = (normalize(rows, dim=1) for rows in (first, second))
        return (one_way(first, second) + one_way(second, first)) / 2

    assert_same(ours, theirs, *views)


def lightly_s_dcl() -> Any:
    """The module with lightly's two losses alone: its package imports all of its losses, and those all of torchvision."""
    lightly = importlib.util.find_spec("lightly")
    assert lightly is not None
    assert lightly.origin is not None
    name = "lightly_dcl_loss"
    spec = importlib.util.spec_from_file_location(name, Path(lightly.origin).parent / "loss" / "dcl_loss.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
