"""What one rank does for all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import Error


def on_first_rank(
    work: Callable[[], object], *, rank: int, barrier: Callable[[], object], broadcast: Callable[[Any], Any]
) -> None:
    """Has rank 0 do it once every rank is here, what each wrote before acknowledged; returns when it is done.

    `broadcast` gives every rank what rank 0 gave it. If the work fails, every rank raises: none is left waiting.
    """
    barrier()
    fault: Exception | None = None
    if rank == 0:
        try:
            work()
        except Exception as raised:
            fault = raised
    # Errors of this package can be pickled; of others that is not known.
    told = broadcast(fault if fault is None or isinstance(fault, Error) else RuntimeError(f"rank 0 failed: {fault!r}"))
    if fault is not None:
        raise fault
    if told is not None:
        raise told
