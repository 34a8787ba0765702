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
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

import negbank
from negbank.torch import info_nce, similarities

DIM, BATCH, QUEUE, RANDOM, HARD, STEPS, WARM_UP = 128, 256, 65_536, 4_096, 64, 60, 5


class Training:
    """The step's own work: a batch of inputs, the encoder, the loss, the optimiser."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(512, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, DIM))
        self.optimizer = torch.optim.SGD(self.encoder.parameters(), lr=0.01)
        self.batches = itertools.cycle(torch.randn(16, BATCH, 512, generator=torch.Generator().manual_seed(1)))

    def anchors(self, inputs: Tensor) -> Tensor:
        return normalize(self.encoder(inputs), dim=1)

    def learn(self, anchors: Tensor, negatives: Tensor) -> None:
        loss = info_nce((anchors * anchors.detach()).sum(dim=1), similarities(anchors, negatives), temperature=0.2)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def measure(address: str, seeds: int, workers: int) -> dict[str, Any]:
    """Median milliseconds of a step and their quartiles, by kind of negatives and way of getting them."""
    torch.set_num_threads(1)
    client = negbank.connect(address)
    found: dict[str, Any] = {"steps": STEPS, "load": round(os.getloadavg()[0], 1), "ms": {}}
    for kind in ("random", "hard"):
        ways = {"local": local(kind), "service": served(client, kind, "now")}
        if kind == "random":  # the nearest depend on the anchors, which a step ahead aren't there yet
            ways["service, a step ahead"] = served(client, kind, "ahead")
        times: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(WARM_UP + STEPS):
            for way, steps in ways.items():
                times[way].append(next(steps))
        found["ms"][kind] = {
            way: [round(1e3 * float(np.percentile(those[WARM_UP:], share)), 2) for share in (25, 50, 75)]
            for way, those in times.items()
        }
        for way in ("now", "ahead"):
            if f"overhead-{kind}-{way}" in {info.name for info in client.list_banks()}:
                client.delete_bank(f"overhead-{kind}-{way}")
    return found


def first_keys() -> Tensor:
    return normalize(torch.randn(QUEUE, DIM, generator=torch.Generator().manual_seed(2)), dim=1)


def local(kind: str) -> Iterator[float]:
    """A ring of tensors, as MoCo's code has it."""
    training, queue, at = Training(), first_keys(), 0
    while True:
        inputs = next(training.batches)
        began = time.perf_counter()
        anchors = training.anchors(inputs)
        if kind == "random":
            negatives = queue[torch.randint(QUEUE, (RANDOM,))]
        else:
            negatives = queue[(anchors.detach() @ queue.T).topk(HARD, dim=1).indices]
        training.learn(anchors, negatives)
        queue[at : at + BATCH] = anchors.detach()
        at = (at + BATCH) % QUEUE
        yield time.perf_counter() - began


def served(client: negbank.Client, kind: str, when: str) -> Iterator[float]:
    """The same from a bank."""
    training = Training()
    bank = client.create_bank(f"overhead-{kind}-{when}", dim=DIM, kind="queue", capacity=QUEUE)
    for rows in first_keys().split(8_192):
        bank.enqueue(rows)
    draw = negbank.Uniform(RANDOM, scope="shared") if kind == "random" else negbank.Nearest(HARD)
    sampler = negbank.Sampler(bank, draw, seed=0, columns=["embeddings"])
    ahead = negbank.Prefetch(sampler, training.batches, lambda batch: {"anchors": BATCH})
    while True:
        if when == "ahead":
            began = time.perf_counter()
            inputs, negs = next(ahead)
            anchors = training.anchors(inputs)
        else:
            inputs = next(training.batches)
            began = time.perf_counter()
            anchors = training.anchors(inputs)
            negs = sampler.sample(BATCH if kind == "random" else anchors)
        negatives = torch.as_tensor(negs.embeddings)
        training.learn(anchors, negatives if kind == "random" else negatives[negs.indices])
        sampler.write(anchors)
        yield time.perf_counter() - began
