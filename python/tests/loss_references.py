"""The losses once more: loops over anchors in float64, written from the papers' formulas, for autograd to differentiate."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def info_nce(p: Tensor, n: Tensor, counted: Tensor, t: float) -> Tensor:
    def of(i: int) -> Tensor:
        return -torch.log(torch.exp(p[i] / t) / (torch.exp(p[i] / t) + torch.exp(n[i][counted[i]] / t).sum()))

    return torch.stack([of(i) for i in range(len(p))]).mean()


def nce(p: Tensor, n: Tensor, counted: Tensor, t: float, pool: int) -> Tensor:
    """InstDisc, eqs. 4-8; Z from this batch, a constant."""
    z = pool * torch.exp(n[counted].detach() / t).mean()

    def of(i: int) -> Tensor:
        drawn = n[i][counted[i]]
        noise = len(drawn) / pool

        def h(s: Tensor) -> Tensor:
            return torch.exp(s / t) / z / (torch.exp(s / t) / z + noise)

        return -torch.log(h(p[i])) - torch.log(1 - h(drawn)).sum()

    return torch.stack([of(i) for i in range(len(p))]).mean()


def dcl(p: Tensor, n: Tensor, counted: Tensor, t: float, sigma: float | None) -> Tensor:
    """The weights of DCLW are constants."""
    share = torch.exp(p.detach() / (sigma or 1.0))
    w = torch.ones_like(share) if sigma is None else 2 - share / share.mean()
    return torch.stack([-w[i] * p[i] / t + torch.log(torch.exp(n[i][counted[i]] / t).sum()) for i in range(len(p))]).mean()


def hcl(p: Tensor, n: Tensor, counted: Tensor, t: float, tau: float, beta: float) -> Tensor:
    """Robinson 2020; beta = 0 is Chuang 2020. The importance weights are differentiated, too."""

    def of(i: int) -> Tensor:
        pos, neg = torch.exp(p[i] / t), torch.exp(n[i][counted[i]] / t)
        importance = neg**beta
        r = (importance * neg).sum() / importance.mean()
        ng = ((r - tau * len(neg) * pos) / (1 - tau)).clamp(min=len(neg) * math.exp(-1 / t))
        return -torch.log(pos / (pos + ng))

    return torch.stack([of(i) for i in range(len(p))]).mean()


def sup_con(s: Tensor, positives: Tensor, counted: Tensor, t: float) -> Tensor:
    def of(i: int) -> Tensor:
        total = torch.log(torch.exp(s[i][counted[i]] / t).sum())
        return (total - s[i][positives[i]] / t).mean()

    return torch.stack([of(i) for i in range(len(s)) if positives[i].any()]).mean()


def triplet(p: Tensor, n: Tensor, counted: Tensor, margin: float) -> Tensor:
    terms = [x - p[i] + margin for i in range(len(p)) for x in n[i][counted[i]] if p[i] - margin < x < p[i]]
    return torch.stack(terms).mean() if terms else (p * 0.0).sum()


def sampled_softmax(p: Tensor, n: Tensor, counted: Tensor, log_q: Tensor, t: float) -> Tensor:
    def of(i: int) -> Tensor:
        drawn, q = n[i][counted[i]], torch.exp(log_q[i][counted[i]])
        return -p[i] / t + torch.log(torch.exp(p[i] / t) + (torch.exp(drawn / t) / (len(drawn) * q)).sum())

    return torch.stack([of(i) for i in range(len(p))]).mean()
