"""Connecting, and the banks of a server."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Literal, SupportsIndex

from ._negbank import Session
from .away import OnUnavailable, check_on_unavailable
from .bank import Bank
from .credentials import credentials
from .gathering import Gathering
from .info import BankInfo, Checkpoint
from .requests import BankSettings, RestoreCall
from .scalars import real_or_none, tag_of, whole, whole_or_none

Durability = Literal["memory", "interval", "always"]


def connect(
    address: str,
    timeout: float = 30.0,
    *,
    max_message_bytes: int = 64 << 20,
    writer: str | None = None,
    retries: SupportsIndex = 5,
    on_unavailable: OnUnavailable = "raise",
    token: str | None = None,
    ca: str | Path | None = None,
    certificate: str | Path | None = None,
    key: str | Path | None = None,
    server_name: str | None = None,
) -> Client:
    """Connects to a server and has it answer once.

    Args:
        address: "host:port", "https://host:port" for TLS, or "unix:/path"; `negbank serve` listens on 127.0.0.1:7700.
        timeout: default deadline of the calls, in seconds, all tries of a call included; every call takes its own, too.
            Connecting has 5 s of it at most. A call that meets an overloaded server, or a bank that is being recovered after a
            restart (a minute for a large one), waits as the server tells it and is tried again until then. Where calls wait,
            nothing came for 10 s and the server gives no sign of life for as long again (each a third of this, if that is
            more), the connection is given up, and calls that are tried again (see `retries`) are tried on another.
        max_message_bytes: largest request or answer, in bytes; the default is the server's.
        writer: this process's name among the bank's writers, 1 to 128 bytes such as "train-7/rank-3"; default: host and
            process. The bank recognises a write that comes again by it, a random number that every connection draws anew,
            and the write's own number.
        retries: how often a call is tried again, within its timeout, where the server is away; the waits grow from 0.1 to
            2 s, 1.6 to 3.1 s in all with the default. Reads, draws, writes and `create_bank` are tried again; `remove` and
            `delete_bank` only where the server refused them. Tries that it asked for by saying when to come back don't
            count; a client makes ten of those a second, 64 at once, and one more for every five answers. 0: no call is tried
            again, whatever the server says.
        token: what the server knows the caller by; default: the environment's NEGBANK_TOKEN. Without TLS whoever hears it can
            use it. A pickled client holds it.
        ca: PEM file of the authorities that the server's certificate may be of; default: those that the system trusts.
        certificate, key: PEM files of the client's own certificate and its key, for a server that wants one.
        server_name: what the server's certificate must be of; default: the address's host.
        on_unavailable: what `Bank.sample` and `Client.gather` do where the server is away: "raise", or "in_batch", see there.

    Raises:
        Unavailable: no server answers there. The first connection is tried once.
        InvalidArgument: this is no address, or no deadline, or a file can't be read.
        Unauthenticated: the server asks for a token and does not know this one.
    """
    check_on_unavailable(on_unavailable)
    name = f"{socket.gethostname()}/{os.getpid()}"[:128] if writer is None else writer
    bytes_at_most, tries = whole(max_message_bytes, "max_message_bytes", 48), whole(retries, "retries")
    shown = credentials(token, ca, certificate, key, server_name)
    return Client(Session(address, timeout, bytes_at_most, tries, name, shown), on_unavailable)


class Client(Gathering):
    """A connection to a server; get one from `connect`.

    Usable from many threads at once; picklable (address and settings), and usable in a forked process and in a DataLoader's
    workers: they connect anew. It reconnects by itself after a server's restart. Every call takes `timeout` in seconds
    (default: the client's) and may raise `Unavailable` or `DeadlineExceeded`.
    """

    def __init__(self, session: Session, on_unavailable: OnUnavailable = "raise") -> None:
        """Of `connect`; not called by users."""
        super().__init__(session, on_unavailable)

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
        dtype: Literal["float32", "float16", "bfloat16"] = "float32",
        durability: Durability | None = None,
        timeout: float | None = None,
    ) -> Bank:
        """Creates a bank; where it exists with these settings, returns it.

        Args:
            name: 1 to 128 letters, digits, "_", "-" or ".", the first a letter or a digit.
            dim: floats in an embedding, d.
            kind: "keyed", one entry per id, moved by momentum on a rewrite; or "queue", first in, first out.
            metric: "cosine" (rows and anchors are normalised), "dot", or "l2" (the score is minus the squared distance).
            momentum: m of v <- norm(m v + (1 - m) x), in [0, 1); default 0.5; 0 replaces. Keyed banks only.
            capacity: most entries held. Required for a queue. In a keyed bank, which is unbounded by default, a new id then
                evicts the entry of the oldest step.
            shards: 1 to 64, default 8; draws depend on it.
            dtype: how embeddings are stored. The halves take half the memory; a keyed bank of them has to move enough for
                its moves not to be rounded away: momentum at most 0.9 with bfloat16, 0.99 with float16.
            durability: what it survives: "memory", nothing; "interval", the server's end, and a power cut but for the last
                `durability.interval_ms`; "always", a power cut: a write is on disk before it is acknowledged. Default: the
                server's `durability.policy`, "memory" where it has no `durability.dir`.
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
            dtype=dtype,
            durability=durability,
        )
        return self._opened(BankInfo.of(self._session.create_bank(settings, timeout)), read_only=False)

    def bank(self, name: str, *, read_only: bool = False, timeout: float | None = None) -> Bank:
        """The bank of that name. Raises NotFound, which names the banks there are.

        `read_only`: the handle refuses to write, for evaluation jobs that must not change what a trainer fills.
        """
        return self._opened(BankInfo.of(self._session.get_bank(name, timeout)), read_only=read_only)

    def list_banks(self, *, timeout: float | None = None) -> list[BankInfo]:
        """Every bank as it stands now, by name."""
        return [BankInfo.of(fields) for fields in self._session.list_banks(timeout)]

    def delete_bank(self, name: str, *, timeout: float | None = None) -> int:
        """Deletes a bank and returns how many entries it held. Raises NotFound."""
        return self._session.delete_bank(name, timeout)

    def checkpoints(self, bank: str = "", *, timeout: float | None = None) -> list[Checkpoint]:
        """The checkpoints of a bank, or of all banks, oldest first. One that is not whole is never among them."""
        return [Checkpoint.of(fields) for fields in self._session.list_checkpoints(bank, timeout)]

    def restore(
        self,
        bank: str,
        tag: str | SupportsIndex | None = None,
        *,
        into: str = "",
        durability: Durability | None = None,
        timeout: float | None = 3600.0,
    ) -> Bank:
        """Brings a bank back exactly as it was: the same entries, the same draws for the same seed, the same writers.

        A bank that has the name is replaced, when the restored one is whole; its handles go on with the restored one.

        Args:
            bank: the bank that the checkpoint was made of.
            tag: the checkpoint's; default: the newest.
            into: the bank that it becomes; default: the same.
            durability: see `create_bank`; default: as that of the bank that is replaced.
            timeout: seconds; what is not done then is given up and changes nothing. Only if it passes while the bank takes its
                place is that done all the same: `info().sequence` tells.

        Raises:
            NotFound: there is no such checkpoint; the message lists those there are.
            AlreadyExists: the bank that is there has other settings, another dimension for one.
            FailedPrecondition: the checkpoint is of a newer format, or the server has no `checkpoints.location`.
            InternalError: the checkpoint is damaged.
        """
        call = RestoreCall(bank, "" if tag is None else tag_of(tag), into, durability)
        return self._opened(BankInfo.of(self._session.restore(call, timeout)), read_only=False)

    def delete_checkpoint(self, bank: str, tag: str | SupportsIndex, *, timeout: float | None = None) -> None:
        """Deletes a checkpoint. Raises NotFound."""
        self._session.delete_checkpoint(bank, tag_of(tag), timeout)

    def _opened(self, info: BankInfo, *, read_only: bool) -> Bank:
        return Bank(self._session, info, on_unavailable=self._on_unavailable, read_only=read_only)

    def __repr__(self) -> str:
        return f"<Client of {self._session.address}>"
