"""Noise-contrastive estimation as InstDisc has it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..errors import InvalidArgument
from .scores import checked, heat


class InstDiscNCE(nn.Module):
    """NCE over a memory bank (Wu 2018, eqs. 4-8): P(i|v) = exp(v.f/T) / Z, noise 1/n, h = P / (P + m/n) for m negatives drawn
    uniformly; the loss of an anchor is -ln h(positive) - sum ln(1 - h(negative)).

    Z is estimated once, from the first batch: n times the mean of exp over its negatives. It is a buffer, so a checkpoint of
    the module keeps it. Under DDP each rank estimates its own Z, from its own first batch; for one Z,
    `torch.distributed.broadcast(nce.log_z, 0)` on every rank after the first step.

    The bank has all the negatives: where it was away (`negs.info.unavailable`), skip the step.
    """

    log_z: Tensor

    def __init__(self, *, temperature: float = 0.07) -> None:
        super().__init__()
        self.temperature = heat(temperature)
        self.register_buffer("log_z", torch.tensor(math.nan))

    def forward(self, positive: Tensor, negative: Tensor, n: int, counted: Tensor | None = None) -> Tensor:
        """The mean loss. positive [B], negative [B, m], n: size of the pool that was drawn from (`Picks.n`)."""
        positive, negative, counted = checked(positive, negative, counted)
        if n < 1 or not bool(counted.any()):
            raise InvalidArgument.of("negative", "there is no negative, and NCE needs noise to tell from: skip the step")
        positive, negative = positive / self.temperature, negative / self.temperature
        if self.log_z.isnan():
            seen = negative.detach()[counted]
            self.log_z = seen.logsumexp(dim=0) - math.log(len(seen)) + math.log(n)
        noise = counted.sum(dim=1).to(negative).log() - math.log(n)
        true = positive - self.log_z
        false = negative - self.log_z
        of_positive = torch.logaddexp(true, noise) - true
        of_negative = torch.logaddexp(false, noise[:, None]) - noise[:, None]
        return (of_positive + of_negative.masked_fill(~counted, 0.0).sum(dim=1)).mean()
