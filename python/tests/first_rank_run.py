"""One rank of what only the first does; its process imports it by name."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

from torch import distributed

from negbank import NotFound
from negbank.torch.first_rank import on_first_rank

RANKS = 2
# Seconds: the group gives up on a rank within less than the slow work takes, and rounds have room on a busy machine.
PATIENCE, SLOW, ROUND = 3.0, 5.0, 0.5


def outcomes(rank: int, world_size: int) -> list[str]:
    """What comes of work that ends well, of slow work that does or does not, and of work that fails in its own way."""
    return [
        _outcome(rank, ROUND, lambda: None),
        _outcome(rank, ROUND, lambda: time.sleep(SLOW)),
        _outcome(rank, ROUND, partial(_fail, NotFound("no such checkpoint"), after=SLOW)),
        _outcome(rank, ROUND, partial(_fail, ZeroDivisionError("of its own"))),
        _outcome(rank, ROUND, partial(_fail, SystemExit("no Exception"))),
    ]


def outcome_in_one_round(rank: int, world_size: int) -> str:
    """What comes of slow work when the others hear nothing until it is done."""
    return _outcome(rank, 2 * SLOW, lambda: time.sleep(SLOW))


def _outcome(rank: int, round_seconds: float, work: Callable[[], object]) -> str:
    group: Any = distributed.new_group(timeout=timedelta(seconds=PATIENCE))

    def broadcast(value: Any) -> Any:
        told = [value]
        distributed.broadcast_object_list(told, 0, group)
        return told[0]

    ran: list[int] = []

    def noted() -> None:
        ran.append(rank)
        work()

    barrier = partial(distributed.barrier, group)
    try:
        on_first_rank(noted, rank=rank, barrier=barrier, broadcast=broadcast, round_seconds=round_seconds)
        came = "done"
    except BaseException as fault:
        came = f"{type(fault).__name__}: {fault}"
    assert ran == [0] * (rank == 0)
    return came


def _fail(fault: BaseException, after: float = 0.0) -> None:
    time.sleep(after)
    raise fault
