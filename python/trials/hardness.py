"""How hard should negatives be? Digits by instance discrimination, negatives in proportion to exp(beta s), a tenth of the
entries twice in the bank under other ids.

The keys come from a momentum encoder, the bank keeps them, and 16 negatives an anchor are drawn by the server: at random (beta
0), by softmax over the whole bank, or its nearest ("top"). Filters: none; "group", which keeps the anchor's own copy away; and
"label", which keeps everything of the anchor's digit away: what no unlabelled trainer has, and the measure of what false
negatives cost. The score is the mean average precision with which held-out images find their digit.
"""

from __future__ import annotations

import dataclasses
import itertools
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from demo.contrasts import paired
from torch.nn.functional import normalize

import negbank
from data import augmented, batches, digit_retrieval, digits, image_encoder
from negbank.torch import MomentumEncoder, info_nce, similarities

BETAS = ("0", "2", "5", "10", "20", "40", "top")
FILTERS = ("none", "group", "label")
DIM, BATCH, K, EPOCHS, TEMPERATURE, COPIED = 32, 32, 16, 6, 0.2, 0.1


@dataclass(frozen=True)
class Run:
    """The score of a run, and which shares of its negatives had the anchor's group and the anchor's label."""

    score: float
    same_group: float
    same_label: float


def measure(address: str, seeds: int, workers: int) -> dict[str, Any]:
    """Every run, and what is made of them; the best beta is chosen on the first half of the seeds, compared on the others."""
    cases = list(itertools.product(FILTERS, BETAS, range(seeds)))
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        runs = list(pool.map(train, *zip(*[(address, *case) for case in cases], strict=True)))
    by_case: dict[str, dict[str, list[Run]]] = {name: {beta: [] for beta in BETAS} for name in FILTERS}
    for (name, beta, _), run in zip(cases, runs, strict=True):
        by_case[name][beta].append(run)
    scores = {name: {beta: [run.score for run in those] for beta, those in of.items()} for name, of in by_case.items()}
    best, contrasts = compared(scores)
    return {
        "seeds": seeds,
        "best_beta": best,
        "scores": scores,
        "same_group": _shares(by_case, "same_group"),
        "same_label": _shares(by_case, "same_label"),
        "contrasts": contrasts,
    }


def compared(scores: dict[str, dict[str, list[float]]]) -> tuple[str, dict[str, dict[str, float]]]:
    """The best beta without a filter on the first half of the seeds; and contrasts, those of its choice on the other half."""
    half = len(scores["none"]["0"]) // 2
    best = max(BETAS, key=lambda beta: np.mean(scores["none"][beta][:half]))

    def contrast(first: tuple[str, str], second: tuple[str, str], since: int = 0) -> dict[str, float]:
        return dataclasses.asdict(paired(scores[first[0]][first[1]][since:], scores[second[0]][second[1]][since:]))

    return best, {
        "none: best - random": contrast(("none", best), ("none", "0"), half),
        "none: best - top": contrast(("none", best), ("none", "top"), half),
        "label: best - top": contrast(("label", best), ("label", "top")),
        "best: label - none": contrast(("label", best), ("none", best)),
        "top: label - none": contrast(("label", "top"), ("none", "top")),
        "top: group - none": contrast(("group", "top"), ("none", "top")),
    }


def train(address: str, filtered: str, beta: str, seed: int) -> Run:
    """One run through the service."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    images, labels = digits()
    encoder = image_encoder(DIM)
    key_encoder = MomentumEncoder(encoder, momentum=0.99)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=2e-3)
    copies = torch.randperm(len(images))[: int(COPIED * len(images))]
    image_of = torch.cat([torch.arange(len(images)), copies])
    client, name = negbank.connect(address), f"hardness-{filtered}-{beta}-{seed}"
    bank = client.create_bank(name, dim=DIM, momentum=0.0)
    bank.write(torch.arange(len(image_of)), key_encoder(images[image_of]), labels=labels[image_of], groups=image_of, step=0)
    sampler = negbank.Sampler(bank, _draw(beta), seed=seed, columns=["embeddings", "groups", "labels"])
    same_group, same_label = [], []
    for ids in batches(len(image_of), BATCH, EPOCHS):
        seen, own = images[image_of[ids]], labels[image_of[ids]]
        anchors, keys = normalize(encoder(augmented(seen)), dim=1), normalize(key_encoder(augmented(seen)), dim=1)
        negs = sampler.sample(
            anchors,
            anchor_ids=ids,
            anchor_labels=own,
            anchor_groups=image_of[ids],
            exclude_same_group=filtered != "none",
            exclude_same_label=filtered == "label",
        )
        same_group.append((negs.groups[negs.indices] == image_of[ids][:, None]).float().mean())
        same_label.append((negs.labels[negs.indices] == own[:, None]).float().mean())
        negative = similarities(anchors, negs.embeddings[negs.indices])
        loss = info_nce((anchors * keys).sum(dim=1), negative, temperature=TEMPERATURE)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        key_encoder.update(encoder)
        sampler.write(keys, ids=ids)
    client.delete_bank(name)
    return Run(digit_retrieval(encoder), float(torch.stack(same_group).mean()), float(torch.stack(same_label).mean()))


def _draw(beta: str) -> negbank.Uniform | negbank.Nearest | negbank.Softmax:
    if beta == "0":
        return negbank.Uniform(K, with_replacement=True)
    if beta == "top":
        return negbank.Nearest(K)
    return negbank.Softmax(K, beta=float(beta))


def _shares(by_case: dict[str, dict[str, list[Run]]], which: str) -> dict[str, dict[str, float]]:
    return {
        name: {beta: float(np.mean([getattr(run, which) for run in those])) for beta, those in of.items()}
        for name, of in by_case.items()
    }
