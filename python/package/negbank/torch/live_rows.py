"""Gathered rows with a gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InvalidArgument
from ..gathered import Gathered


def live_rows(gathered: Gathered, embeddings: Tensor) -> Tensor:
    """The gathered rows [N, d] with this rank's own R rows replaced by `embeddings` [R, d], as given to `Client.gather`:
    those have their gradient, and the other ranks' are constants.

    The exact gradient of a loss over the whole batch under DistributedDataParallel, here SimCLR's:

        views = torch.cat(model(torch.cat([first, second])).chunk(2), dim=1)  # [R, 2 d]: an item a row
        gathered = client.gather("run-7", views, step=step, rank=rank, world_size=world_size, ids=ids)
        all_first, all_second = live_rows(gathered, views).chunk(2, dim=1)
        loss = nt_xent(all_first, all_second, false_negatives=gathered.false_negatives()) * gathered.loss_scale
        loss.backward()

    Every rank computes the whole loss, the same number on each, and differentiates it by its own rows only. Those gradients add
    up to that of one process with the whole batch; DDP takes their mean, so the loss is multiplied with the number of ranks.
    That holds for a partial set, too: a rank that was late has a gradient of zero, and still takes part in DDP's reduction.

    float64 rows were sent as float32, and so are taken here: every rank computes with the same values.
    """
    rows, own = gathered.embeddings, gathered.own
    if not isinstance(rows, Tensor) or embeddings.ndim != 2 or embeddings.shape[1] != rows.shape[1]:
        raise InvalidArgument.of("embeddings", f"of shape {tuple(embeddings.shape)} are not what was given to gather")
    # A late rank's rows stand nowhere; their graph stays connected.
    live = embeddings.to(rows)[:0] if gathered.late else embeddings.to(rows)
    if own.stop - own.start != len(live):
        raise InvalidArgument.of("embeddings", f"have {len(live)} rows, and this rank brought {own.stop - own.start}")
    return torch.cat([rows[: own.start], live, rows[own.stop :]])
