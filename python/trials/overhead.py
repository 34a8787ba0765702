"""What the service adds to a training step: the same step with a queue of tensors in the process, with the service, and with
the service asked a step ahead.

A MoCo-like step on the CPU, one thread: an encoder of 2 million parameters forward and backward, 256 anchors, a queue of 65,536
keys of 128 floats. "random": 4,096 keys, one set for all anchors. "hard": the 64 nearest keys of each anchor. The server has
the machine's other cores. Steps of the ways are taken in turns, so that what else the machine does meets them all.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

import negbank
from negbank.torch import info_nce, similarities


@dataclass(frozen=True)
class Size:
    """Floats of a key, anchors a step, keys in the queue, negatives of either kind, and steps timed and before."""

    dim: int = 128
    batch: int = 256
    queue: int = 65_536
    random: int = 4_096
    hard: int = 64
    steps: int = 60
    warm_up: int = 5


FULL = Size()


class Training:
    """The step's own work: a batch of inputs, the encoder, the loss, the optimiser."""

    def __init__(self, size: Size) -> None:
        torch.manual_seed(0)
        self.encoder = nn.Sequential(
            nn.Linear(512, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, size.dim)
        )
        self.optimizer = torch.optim.SGD(self.encoder.parameters(), lr=0.01)
        self.batches = itertools.cycle(torch.randn(16, size.batch, 512, generator=torch.Generator().manual_seed(1)))

    def anchors(self, inputs: Tensor) -> Tensor:
        return normalize(self.encoder(inputs), dim=1)

    def learn(self, anchors: Tensor, negatives: Tensor) -> None:
        loss = info_nce((anchors * anchors.detach()).sum(dim=1), similarities(anchors, negatives), temperature=0.2)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def measure(address: str, seeds: int, workers: int, size: Size = FULL) -> dict[str, Any]:
    """Median milliseconds of a step and their quartiles, by kind of negatives and way of getting them."""
    torch.set_num_threads(1)
    client = negbank.connect(address)
    found: dict[str, Any] = {"steps": size.steps, "load": round(os.getloadavg()[0], 1), "ms": {}}
    for kind in ("random", "hard"):
        ways = {"local": local(kind, size), "service": served(client, kind, "now", size)}
        if kind == "random":  # the nearest depend on the anchors, which a step ahead aren't there yet
            ways["service, a step ahead"] = served(client, kind, "ahead", size)
        times: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(size.warm_up + size.steps):
            for way, steps in ways.items():
                times[way].append(next(steps))
        found["ms"][kind] = {
            way: [round(1e3 * float(np.percentile(those[size.warm_up :], share)), 2) for share in (25, 50, 75)]
            for way, those in times.items()
        }
        for way in ("now", "ahead"):
            if f"overhead-{kind}-{way}" in {info.name for info in client.list_banks()}:
                client.delete_bank(f"overhead-{kind}-{way}")
    return found


def first_keys(size: Size) -> Tensor:
    return normalize(torch.randn(size.queue, size.dim, generator=torch.Generator().manual_seed(2)), dim=1)


def local(kind: str, size: Size) -> Iterator[float]:
    """A ring of tensors, as MoCo's code has it."""
    training, queue, at = Training(size), first_keys(size), 0
    while True:
        inputs = next(training.batches)
        began = time.perf_counter()
        anchors = training.anchors(inputs)
        if kind == "random":
            negatives = queue[torch.randint(size.queue, (size.random,))]
        else:
            negatives = queue[(anchors.detach() @ queue.T).topk(size.hard, dim=1).indices]
        training.learn(anchors, negatives)
        queue[at : at + size.batch] = anchors.detach()
        at = (at + size.batch) % size.queue
        yield time.perf_counter() - began


def served(client: negbank.Client, kind: str, when: str, size: Size) -> Iterator[float]:
    """The same from a bank."""
    training = Training(size)
    bank = client.create_bank(f"overhead-{kind}-{when}", dim=size.dim, kind="queue", capacity=size.queue)
    for rows in first_keys(size).split(8_192):
        bank.enqueue(rows)
    draw = negbank.Uniform(size.random, scope="shared") if kind == "random" else negbank.Nearest(size.hard)
    sampler = negbank.Sampler(bank, draw, seed=0, columns=["embeddings"])
    ahead = negbank.Prefetch(sampler, training.batches, lambda batch: {"anchors": size.batch})
    while True:
        if when == "ahead":
            began = time.perf_counter()
            inputs, negs = next(ahead)
            anchors = training.anchors(inputs)
        else:
            inputs = next(training.batches)
            began = time.perf_counter()
            anchors = training.anchors(inputs)
            negs = sampler.sample(size.batch if kind == "random" else anchors)
        negatives = torch.as_tensor(negs.embeddings)
        training.learn(anchors, negatives if kind == "random" else negatives[negs.indices])
        sampler.write(anchors)
        yield time.perf_counter() - began
