"""What a call can fail with, by what the caller should do about it."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


class Error(Exception):
    """Base of every error of this package; raised itself for what none of the others says.

    Attributes:
        field: what was wrong, a parameter or its path in the server's message (`embeddings[17]`); None where the error is of
            no one field.
        limit: the limit that was passed, where one was.
        setting: the server's setting that changes that limit (`limits.max_k`), where there is one.
        retry_after: seconds (a float, above 0) after which to call again, where the server, which refused the call and did
            nothing of it, named them (google.rpc.RetryInfo); else None. Only `ResourceExhausted` and `Unavailable` have it,
            and by then the call has come back as often as `retries` and `timeout` of `connect` allowed.
    """

    field: str | None = None
    retry_after: float | None = None

    @property
    def limit(self) -> int | None:
        """The limit that was passed."""
        found = re.search(r"limit (?:of|is) (\d+)", str(self))
        return int(found[1]) if found else None

    @property
    def setting(self) -> str | None:
        """The setting of that limit."""
        found = re.search(r"\b(?:limits|compute|server|gather|durability|checkpoints|memory|index)\.\w+", str(self))
        return found[0] if found else None


class InvalidArgument(Error, ValueError):
    """Mend the arguments. Nothing was changed.

    `violations` lists the faults found, the first 16 at most, as (field, reason); the field is a parameter of the call, or
    its path in the server's message (`embeddings[17]` is row 17, `draws[1].k` the k of the second draw). `field` is the
    first's.
    """

    violations: list[tuple[str, str]]

    def __init__(self, message: str, violations: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.violations = list(violations)
        self.field = self.violations[0][0] if self.violations else None

    @classmethod
    def of(cls, parameter: str, reason: str) -> InvalidArgument:
        """One fault of one parameter."""
        return cls(f"{parameter}: {reason}", [(parameter, reason)])


class NotFound(Error, LookupError):
    """There is no such bank; the message lists the banks there are, when they are few."""


class AlreadyExists(Error):
    """A bank of that name exists with other settings, which the message names; or this rank has staged another batch, or
    brought other rows to a gather."""


class FailedPrecondition(Error):
    """The bank is not of the kind, or not in the state, that the call needs; the message says which is."""


class ResourceExhausted(Error):
    """The server is at a limit.

    `retry_after`: seconds after which there may be room; None: calling again as it is won't help, however long the wait, and
    was not tried: the message names the limit, its setting, and what to do.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unavailable(Error, ConnectionError):
    """No server answers: it is not started, stopping, or elsewhere; or it has not recovered the bank within `timeout`. The
    client reconnects by itself: call again.

    `retry_after`: seconds after which the bank may be recovered; None: no server that answers said when.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DeadlineExceeded(Error, TimeoutError):
    """No answer within `timeout`. A write may or may not have been applied."""


class Unauthenticated(Error):
    """The server does not know who calls."""


class PermissionDenied(Error):
    """The server knows who calls and does not allow it."""


class Unimplemented(Error):
    """The server is older than this package, or no negbank: it does not know the call."""


class Cancelled(Error):
    """The call was given up before it ended."""


class InternalError(Error):
    """The server, or a proxy before it, failed for a reason of its own; its log says which."""


class ShortAnswer(Error):
    """Some anchors got fewer negatives than asked for, so that there is no full [B, K] array.

    `anchors`: i64, the short ones; `shortfalls`: picks missing by reason. Pass `pad=True` and use `.mask`, or read
    `negs.anchor(i)`, or ask for less.
    """

    anchors: npt.NDArray[np.int64]
    shortfalls: dict[str, int]

    def __init__(
        self, message: str, anchors: npt.NDArray[np.int64] | None = None, shortfalls: dict[str, int] | None = None
    ) -> None:
        super().__init__(message)
        self.anchors = np.empty(0, dtype=np.int64) if anchors is None else anchors
        self.shortfalls = dict(shortfalls or {})
