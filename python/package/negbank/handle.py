"""What all of a bank's calls share."""

from __future__ import annotations

from ._negbank import Session
from .away import OnUnavailable, Outage
from .errors import FailedPrecondition
from .info import BankInfo


class Handle:
    """One bank of one connection."""

    def __init__(self, session: Session, info: BankInfo, *, on_unavailable: OnUnavailable, read_only: bool) -> None:
        """Of a `Client`; not called by users."""
        self._session = session
        self._opened = info
        self._on_unavailable: OnUnavailable = on_unavailable
        self._read_only = read_only
        self._outage = Outage()

    @property
    def name(self) -> str:
        """The bank's name."""
        return self._opened.name

    @property
    def dim(self) -> int:
        """Floats in an embedding, d."""
        return self._opened.dim

    @property
    def kind(self) -> str:
        """ "keyed" or "queue"."""
        return self._opened.kind

    @property
    def read_only(self) -> bool:
        """Whether this handle refuses to write."""
        return self._read_only

    def _may_write(self) -> None:
        if self._read_only:
            raise FailedPrecondition(
                f"bank {self.name!r} was opened read-only here: open it with client.bank({self.name!r}) to write to it"
            )

    def _must_be(self, kind: str, instead: str) -> None:
        if self.kind != kind:
            raise FailedPrecondition(f"bank {self.name!r} is {self.kind}, not {kind}: use bank.{instead}")
