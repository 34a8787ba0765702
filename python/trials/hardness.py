"""How hard should negatives be? Digits by instance discrimination, negatives in proportion to exp(beta s), and a bank of which
a tenth are copies under other ids.

The keys come from a momentum encoder, which encodes views of the whole bank anew every few steps: an epoch is a dozen steps,
keys that wait that long for their turn lag behind the queries, and those then learn to leave their positives. The server draws
each anchor's negatives at random (beta 0), by softmax over the whole bank, or takes the nearest ("top"). Filters: none;
"group", which keeps the anchor's copies away; and "label", which keeps everything of the anchor's digit away: what no trainer
without labels has, and the measure of what false negatives cost. The score is the mean average precision with which held-out
images find their digit.

The regime was chosen with the tuning seeds, and so is the beta that is called best; none of them is among the seeds reported.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import uuid
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from demo.contrasts import paired
from demo.settings import TUNING_SEEDS
from torch import Tensor
from torch.nn.functional import normalize, pad

import negbank
from data import batches, digit_retrieval, digits, image_encoder
from negbank.torch import MomentumEncoder, info_nce, similarities

BETAS = ("0", "1", "2", "5", "top")
CASES = {"none": BETAS, "label": ("0", "top"), "group": ("top",)}  # betas by filter
COLUMNS = ("score", "same_group", "same_label", "first_cosine", "last_cosine")


@dataclass(frozen=True)
class Regime:
    """What all runs share; `images` copied `copies` times each make up a tenth of the bank."""

    dim: int = 32
    batch: int = 128
    negatives: int = 4
    epochs: int = 10
    temperature: float = 0.2
    rate: float = 1e-3  # Adam's
    momentum: float = 0.9  # the key encoder's
    refresh: int = 6  # steps between two encodings of the bank
    copied: int = 14
    copies: int = 10


DEFAULT = Regime()


@dataclass(frozen=True)
class Run:
    """Scores before and after training; the shares of the negatives served that had the anchor's group and its label; and the
    mean cosine of anchors and their positives in the first epoch and in the last."""

    untrained: float
    score: float
    same_group: float
    same_label: float
    first_cosine: float
    last_cosine: float


@dataclass(frozen=True)
class Case:
    """A run's filter, how hard it draws, and its seed."""

    filtered: str
    beta: str
    seed: int


def measure(
    address: str, seeds: int, workers: int, regime: Regime = DEFAULT, tuning: Sequence[int] = TUNING_SEEDS
) -> dict[str, Any]:
    """Every run, and what is made of them: lists by filter and beta, aligned with the seeds, and contrasts."""
    cases = [Case("none", beta, seed) for beta in BETAS for seed in tuning]
    cases += [Case(name, beta, seed) for seed in range(seeds) for name, betas in CASES.items() for beta in betas]
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        runs = dict(zip(cases, pool.map(train, [address] * len(cases), cases, [regime] * len(cases)), strict=True))

    def of(column: str, name: str, beta: str, chosen: Sequence[int] = range(seeds)) -> list[float]:
        return [getattr(runs[Case(name, beta, seed)], column) for seed in chosen]

    found = {column: {name: {beta: of(column, name, beta) for beta in CASES[name]} for name in CASES} for column in COLUMNS}
    tuned = {beta: of("score", "none", beta, tuning) for beta in BETAS}
    best = max(BETAS, key=lambda beta: float(np.mean(tuned[beta])))
    return {
        "seeds": seeds,
        "regime": dataclasses.asdict(regime),
        "tuning": {"seeds": list(tuning), "score": tuned},
        "best_beta": best,
        "untrained": of("untrained", "none", "0"),
        **found,
        "contrasts": compared(found["score"], best),
    }


def compared(scores: dict[str, dict[str, list[float]]], best: str) -> dict[str, dict[str, float]]:
    """Paired contrasts, named "filter beta - filter beta"; `best` was chosen on other seeds."""
    pairs = {
        "none best - none 0": ("none", best, "none", "0"),
        "none best - none top": ("none", best, "none", "top"),
        "none top - none 0": ("none", "top", "none", "0"),
        "label 0 - none 0": ("label", "0", "none", "0"),
        "label top - none top": ("label", "top", "none", "top"),
        "label top - label 0": ("label", "top", "label", "0"),
        "group top - none top": ("group", "top", "none", "top"),
    }
    return {
        name: dataclasses.asdict(paired(scores[left][first], scores[right][second]))
        for name, (left, first, right, second) in pairs.items()
        if (left, first) != (right, second)
    }


def view(images: Tensor) -> Tensor:
    """A view of each image, milder than `data.augmented`, so that copies stay among the nearest: moved by up to half a pixel,
    brightness within a fifth, noise of 0.1."""
    down, right = torch.randint(3, (2, len(images), 1)) + torch.arange(8)
    which = torch.arange(len(images))[:, None, None]
    moved = pad(images, (1, 1, 1, 1))[which, 0, down[:, :, None], right[:, None, :]]
    share = 0.5 * torch.rand(len(images), 1, 1)
    seen = ((1 - share) * images[:, 0] + share * moved) * (0.8 + 0.4 * torch.rand(len(images), 1, 1))
    return (seen + 0.1 * torch.randn(seen.shape))[:, None]


def train(address: str, case: Case, regime: Regime) -> Run:
    """One run through the service."""
    torch.set_num_threads(1)
    torch.manual_seed(case.seed)
    images, labels = digits()
    encoder = image_encoder(regime.dim)
    key_encoder = MomentumEncoder(encoder, momentum=regime.momentum)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=regime.rate)
    untrained = digit_retrieval(encoder)
    copies = torch.randperm(len(images))[: regime.copied].repeat(regime.copies)
    image_of = torch.cat([torch.arange(len(images)), copies])
    ids = torch.arange(len(image_of))
    client, name = negbank.connect(address), f"hardness-{case.filtered}-{case.beta}-{case.seed}-{uuid.uuid4().hex[:8]}"
    bank = client.create_bank(name, dim=regime.dim, momentum=0.0)
    bank.write(ids, key_encoder(view(images[image_of])), labels=labels[image_of], groups=image_of, step=0)
    sampler = negbank.Sampler(
        bank, _draw(case.beta, regime.negatives), seed=case.seed, columns=["embeddings", "groups", "labels"]
    )
    seen = []
    for step, rows in enumerate(batches(len(image_of), regime.batch, regime.epochs), start=1):
        batch, own = images[image_of[rows]], labels[image_of[rows]]
        anchors, keys = normalize(encoder(view(batch)), dim=1), normalize(key_encoder(view(batch)), dim=1)
        negs = sampler.sample(
            anchors,
            anchor_ids=rows,
            anchor_labels=own,
            anchor_groups=image_of[rows],
            exclude_same_group=case.filtered != "none",
            exclude_same_label=case.filtered == "label",
        )
        positive = (anchors * keys).sum(dim=1)
        loss = info_nce(positive, similarities(anchors, negs.embeddings[negs.indices]), temperature=regime.temperature)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        key_encoder.update(encoder)
        if step % regime.refresh == 0:
            bank.write(ids, key_encoder(view(images[image_of])), step=step)
        same_group = negs.groups[negs.indices] == image_of[rows][:, None]
        same_label = negs.labels[negs.indices] == own[:, None]
        seen.append([float(value.float().mean()) for value in (same_group, same_label, positive.detach())])
    client.delete_bank(name)
    group, label, cosine = np.array(seen).T
    epoch = len(seen) // regime.epochs
    return Run(
        untrained,
        digit_retrieval(encoder),
        float(group.mean()),
        float(label.mean()),
        float(cosine[:epoch].mean()),
        float(cosine[-epoch:].mean()),
    )


def _draw(beta: str, k: int) -> negbank.Uniform | negbank.Nearest | negbank.Softmax:
    if beta == "0":
        return negbank.Uniform(k, with_replacement=True)
    if beta == "top":
        return negbank.Nearest(k)
    return negbank.Softmax(k, beta=float(beta))
