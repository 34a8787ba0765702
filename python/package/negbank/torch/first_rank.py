"""What one rank does for all."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, wait
from threading import Thread
from typing import Any

from ..errors import Error

# Far below the time after which a process group gives up on a rank: 10 minutes by default, with NCCL.
ROUND_SECONDS = 20.0


def on_first_rank(
    work: Callable[[], object],
    *,
    rank: int,
    barrier: Callable[[], object],
    broadcast: Callable[[Any], Any],
    round_seconds: float = ROUND_SECONDS,
) -> None:
    """Has rank 0 do it once every rank is here, what each wrote before acknowledged; returns when it is done.

    `broadcast` gives every rank what rank 0 gave it. It is called every `round_seconds` until the work is done, which may take
    longer than the ranks' process group waits for one of them. If the work fails, every rank raises: none is left waiting. A
    rank 0 that is interrupted leaves the call under way, for as long as it lives and the call's timeout allows.
    """
    barrier()
    outcome = _started(work) if rank == 0 else None
    done, told = False, None
    while not done:
        done, told = broadcast(_so_far(outcome, round_seconds) if outcome else None)
    if outcome:
        outcome.result()
    if told is not None:
        raise told


def _started(work: Callable[[], object]) -> Future[None]:
    outcome: Future[None] = Future()

    def run() -> None:
        try:
            work()
        # Of whatever kind: without an outcome the ranks would wait for ever.
        except BaseException as fault:
            outcome.set_exception(fault)
        else:
            outcome.set_result(None)

    # A daemon: a process that is interrupted, or whose peers are gone, does not stay for the work's end.
    try:
        Thread(target=run, name="negbank-first-rank", daemon=True).start()
    except RuntimeError as fault:
        outcome.set_exception(fault)
    return outcome


def _so_far(outcome: Future[None], seconds: float) -> tuple[bool, Exception | None]:
    """Whether it is done, for which it has so long, and what all others raise then."""
    wait([outcome], seconds)
    if not outcome.done():
        return False, None
    fault = outcome.exception()
    # Errors of this package can be pickled; of others that is not known.
    return True, fault if fault is None or isinstance(fault, Error) else RuntimeError(f"rank 0 failed: {fault!r}")
