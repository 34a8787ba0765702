"""Calls in flight."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Any, TypeVar

from ._negbank import Flight

T = TypeVar("T")


class Pending(Future[T]):
    """A call in flight: a `concurrent.futures.Future` that can also be awaited.

    `pending.result()` waits for it in any thread; `await pending` in asyncio; `concurrent.futures.wait` and `as_completed`
    take it. `cancel()`, and the cancellation of an awaiting task, gives the call up on the server, too: a write that was
    given up may or may not have been applied, and a staged one stays in its stage. Callbacks run on a thread of this
    package's. A forked process has none of its parent's calls.

    Calls that are in flight together have no order among them. A read that must see a write waits for its result, or names
    its `position` as `at_least`.
    """

    def __init__(self) -> None:
        """Of `start`; not called by users."""
        super().__init__()
        self._turn = threading.RLock()
        self._flight: Flight | None = None

    @classmethod
    def start(
        cls,
        call: Callable[[Callable[[Any, Exception | None], None]], Flight],
        finish: Callable[[Any], T],
        recover: Callable[[Exception], T] | None = None,
    ) -> Pending[T]:
        """Begins a call; `finish` makes its result of the answer, `recover` of an error, or raises."""
        pending = cls()

        def landed(answer: Any, fault: Exception | None) -> None:
            with pending._turn:
                if pending.cancelled():
                    return
                pending.set_running_or_notify_cancel()
            try:
                if fault is None:
                    result = finish(answer)
                elif recover is None:
                    raise fault
                else:
                    result = recover(fault)
            except BaseException as raised:
                pending.set_exception(raised)
            else:
                pending.set_result(result)

        pending._flight = call(landed)
        return pending

    def cancel(self) -> bool:
        """Gives the call up; False if it has ended."""
        with self._turn:
            if self.cancelled():
                return True
            if not super().cancel():
                return False
            self.set_running_or_notify_cancel()
        if self._flight is not None:
            self._flight.cancel()
        return True

    def __await__(self) -> Generator[Any, None, T]:
        return asyncio.wrap_future(self).__await__()
