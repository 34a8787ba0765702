"""MoCo's second encoder."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from ..errors import InvalidArgument


class MomentumEncoder(nn.Module):
    """A copy of `encoder` that follows it: theta_k <- m theta_k + (1 - m) theta_q (MoCo, He 2020, eq. 2).

    Call it for keys, `update` it after each step of the optimiser. It takes no gradients; its parameters are in `state_dict()`,
    so a checkpoint resumes with the same keys. Buffers (running statistics) are copied, not averaged. Distributed: update on
    every rank; equal encoders stay equal.
    """

    def __init__(self, encoder: nn.Module, *, momentum: float = 0.999) -> None:
        super().__init__()
        self.momentum = _share(momentum)
        self.encoder = copy.deepcopy(encoder).requires_grad_(False)

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the followed encoder's copy says, without a graph."""
        return self.encoder(*args, **kwargs)

    @torch.no_grad()
    def update(self, encoder: nn.Module, *, momentum: float | None = None) -> None:
        """Moves towards `encoder`, by another momentum than the usual where one is given (MoCo v3 raises it over the run)."""
        m = self.momentum if momentum is None else _share(momentum)
        theirs = dict(encoder.named_parameters())
        for name, own in self.encoder.named_parameters():
            if name not in theirs or theirs[name].shape != own.shape:
                raise InvalidArgument.of(
                    "encoder", f"has no parameter {name} of shape {tuple(own.shape)}: it is not the one copied"
                )
            own.lerp_(theirs[name].detach().to(own), 1.0 - m)
        for average, theirs_now in zip(self.encoder.buffers(), encoder.buffers(), strict=True):
            average.copy_(theirs_now)


def _share(momentum: float) -> float:
    if not 0 <= momentum <= 1:
        raise InvalidArgument.of("momentum", f"must be from 0 to 1, got {momentum}")
    return momentum
