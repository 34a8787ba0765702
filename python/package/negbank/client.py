"""Connecting, and the banks of a server."""

from __future__ import annotations

from typing import Literal, SupportsIndex

from ._negbank import Session
from .bank import Bank
from .info import BankInfo
from .requests import BankSettings
from .scalars import real_or_none, whole, whole_or_none


def connect(address: str, timeout: float = 30.0, *, max_message_bytes: int = 64 << 20) -> Client:
    """Connects to a server and has it answer once.

    Args:
        address: "host:port", "http://host:port" or "unix:/path"; `negbank serve` listens on 127.0.0.1:7700.
        timeout: default deadline of the calls, in seconds; every call takes its own, too. Connecting has 5 s of it at most.
        max_message_bytes: largest request or answer, in bytes; the default is the server's.

    Raises:
        Unavailable: no server answers there.
        InvalidArgument: this is no address, or no deadline.
    """
    return Client(Session(address, timeout, whole(max_message_bytes, "max_message_bytes", 48)))


class Client:
    """A connection to a server; get one from `connect`.

    Usable from many threads at once, picklable, and usable in a forked process (both connect anew). It reconnects by itself
    after a server's restart. Every call takes `timeout` in seconds (default: the client's) and may raise `Unavailable` or
    `DeadlineExceeded`.
    """

    def __init__(self, session: Session) -> None:
        """Of `connect`; not called by users."""
        self._session = session

    def create_bank(
        self,
        name: str,
        dim: SupportsIndex,
        kind: Literal["keyed", "queue"] = "keyed",
        metric: Literal["cosine", "dot", "l2"] = "cosine",
        momentum: float | None = None,
        capacity: SupportsIndex | None = None,
        shards: SupportsIndex | None = None,
        *,
        timeout: float | None = None,
    ) -> Bank:
        """Creates a bank; where it exists with these settings, returns it.

        Args:
            name: 1 to 128 letters, digits, "_", "-" or ".", the first a letter or a digit.
            dim: floats in an embedding, d.
            kind: "keyed", one entry per id, moved by momentum on a rewrite; or "queue", first in, first out.
            metric: "cosine" (rows and anchors are normalised), "dot", or "l2" (the score is minus the squared distance).
            momentum: m of v <- norm(m v + (1 - m) x), in [0, 1); default 0.5; 0 replaces. Keyed banks only.
            capacity: most entries held. Required for a queue, and for no other kind.
            shards: 1 to 64, default 8; draws depend on it.
            timeout: seconds.

        Raises:
            AlreadyExists: it exists with other settings.
            InvalidArgument: a setting is out of range.
            ResourceExhausted: the server holds as many banks as it may.
        """
        settings = BankSettings(
            name=name,
            dim=whole(dim, "dim"),
            kind=kind,
            metric=metric,
            momentum=real_or_none(momentum, "momentum"),
            capacity=whole_or_none(capacity, "capacity", 64),
            shards=whole_or_none(shards, "shards"),
        )
        return Bank(self._session, BankInfo(**self._session.create_bank(settings, timeout)))

    def bank(self, name: str, *, timeout: float | None = None) -> Bank:
        """The bank of that name. Raises NotFound, which names the banks there are."""
        return Bank(self._session, BankInfo(**self._session.get_bank(name, timeout)))

    def list_banks(self, *, timeout: float | None = None) -> list[BankInfo]:
        """Every bank as it stands now, by name."""
        return [BankInfo(**fields) for fields in self._session.list_banks(timeout)]

    def delete_bank(self, name: str, *, timeout: float | None = None) -> int:
        """Deletes a bank and returns how many entries it held. Raises NotFound."""
        return self._session.delete_bank(name, timeout)

    def __repr__(self) -> str:
        return f"<Client of {self._session.address}>"
