"""Synthetic hard negatives."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..errors import InvalidArgument
from .scores import must_be_beside, must_be_floats


def mochi_mix(
    queries: Tensor, hardest: Tensor, *, pairs: int, with_query: int = 0, generator: torch.Generator | None = None
) -> Tensor:
    """MoCHi's mixtures (Kalantidis 2020, eqs. 2-3) of each query's hardest negatives: unit rows [B, pairs + with_query, d].

    queries [B, d], hardest [B, N, d]: unit rows, N at least 2 for pairs. The first `pairs` rows are
    norm(a n_i + (1-a) n_j), a uniform in [0, 1], i and j different; the others are norm(b q + (1-b) n), b uniform in [0, 0.5]:
    the query's share is the smaller. Draws from `generator`, on the host. No gradient.
    """
    must_be_floats(queries, "queries")
    must_be_floats(hardest, "hardest")
    must_be_beside(hardest, "hardest", queries)
    if hardest.ndim != 3 or queries.ndim != 2 or len(queries) != len(hardest) or queries.shape[1] != hardest.shape[2]:
        raise InvalidArgument.of("hardest", f"of shape {tuple(hardest.shape)} are no [B, N, d] for {tuple(queries.shape)}")
    count = hardest.shape[1]
    if (pairs and count < 2) or (with_query and count < 1) or min(pairs, with_query) < 0:
        raise InvalidArgument.of(
            "hardest", f"{count} an anchor are too few to mix {pairs} pairs and {with_query} with the query"
        )

    def random(size: int) -> Tensor:
        return torch.rand(len(queries), size, 1, generator=generator).to(hardest)

    def picked(at: Tensor) -> Tensor:
        return hardest.gather(1, at.to(hardest.device)[:, :, None].expand(-1, -1, hardest.shape[2]))

    with torch.no_grad():
        first = torch.randint(count, (len(queries), pairs), generator=generator)
        apart = torch.randint(1, max(count, 2), (len(queries), pairs), generator=generator)
        a = random(pairs)
        of_pairs = a * picked(first) + (1 - a) * picked((first + apart) % max(count, 1))
        b = random(with_query) / 2
        one = torch.randint(max(count, 1), (len(queries), with_query), generator=generator)
        of_query = b * queries.detach()[:, None] + (1 - b) * picked(one)
        return normalize(torch.cat([of_pairs, of_query], dim=1), dim=2)
