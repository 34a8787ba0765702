"""A bank, as a trainer uses it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Literal, SupportsIndex

import numpy as np

from ._negbank import Chunks
from .entries import Entries, Stalest
from .home import Home
from .info import BankInfo, Checkpoint
from .integers import vector
from .mirror import Mirror
from .pending import Pending
from .requests import CheckpointCall, FetchCall, RestoreCall, ScanCall
from .sampling import Sampling
from .scalars import tag_of, whole
from .scanning import Everything, ScanChunk, chunks, everything
from .writes import Integers
from .writing import Writing

Dtype = Literal["float32", "float16", "bfloat16"]


class Bank(Sampling, Writing):
    """A bank on a server; get one from `Client.create_bank` or `Client.bank`.

    Usable from many threads at once; picklable (address, settings and name; no connection), and usable in a forked process
    and in a DataLoader's workers: they connect anew, each as a writer of its own. Every call raises `InvalidArgument`,
    `NotFound` (the bank was deleted), `ResourceExhausted`, `Unavailable` or `DeadlineExceeded`, and takes `timeout` in seconds
    (default: the client's). The calls named `..._async` return a `Pending`: a future that can be awaited.
    """

    def info(self, *, timeout: float | None = None) -> BankInfo:
        """The bank as it stands now."""
        return BankInfo.of(self._session.get_bank(self.name, timeout))

    def fetch(self, ids: Integers, *, at_least: bytes = b"", dtype: Dtype = "float32", timeout: float | None = None) -> Entries:
        """Reads the entries of R ids, in their order; see `Entries` for absent ones. Of an id twice in a queue, the newest.

        `at_least`: the `position` of a write that must be seen; see `sample`. `dtype`: of the embeddings sent back.
        """
        call = FetchCall(self.name, vector(ids, np.uint64, "ids"), at_least, dtype)
        return Entries.aligned(call.ids, self._session.fetch(call, timeout), self.dim, Home.of(ids))

    def fetch_async(
        self, ids: Integers, *, at_least: bytes = b"", dtype: Dtype = "float32", timeout: float | None = None
    ) -> Pending[Entries]:
        """As `fetch`, at once; the result comes later, see `Pending`."""
        call, home = FetchCall(self.name, vector(ids, np.uint64, "ids"), at_least, dtype), Home.of(ids)
        return Pending.start(
            lambda landed: self._session.start_fetch(call, timeout, landed),
            lambda answer: Entries.aligned(call.ids, answer, self.dim, home),
        )

    def stalest(self, k: SupportsIndex, *, at_least: bytes = b"", timeout: float | None = None) -> Stalest:
        """The min(k, entries) entries of a keyed bank that most need a refresh: oldest step first.

        Raises FailedPrecondition for a queue, whose oldest entries leave by themselves.
        """
        self._must_be("keyed", "scan(), which begins with the oldest")
        return Stalest.of(self._session.stalest(self.name, whole(k, "k"), at_least, timeout))

    def scan(
        self,
        *,
        since: bytes = b"",
        at_least: bytes = b"",
        dtype: Dtype = "float32",
        embeddings: bool = True,
        chunk_rows: SupportsIndex = 0,
        timeout: float | None = None,
    ) -> Iterator[ScanChunk]:
        """Reads the whole bank, or what changed in it, in chunks as they come; for all of it at once see `read`.

        Args:
            since: a `position` that a write or a scan returned: only entries written after it, and the `gone` ones' stamps. Of
                a position that is too old to be remembered the whole bank is sent, `whole` set; see also `mirror`.
            at_least: the `position` of a write that must be seen.
            dtype: of the embeddings: "float32", "float16" or "bfloat16".
            embeddings: False leaves them out.
            chunk_rows: rows of a chunk at most; 0: as many as make about 1 MiB.
            timeout: seconds, of the whole scan; what is slow to take the chunks needs more of them.
        """
        call = ScanCall(self.name, dtype, not embeddings, whole(chunk_rows, "chunk_rows"), at_least, since)
        return chunks(self._session.scan(call, timeout), self.dim)

    def read(
        self, *, at_least: bytes = b"", dtype: Dtype = "float32", embeddings: bool = True, timeout: float | None = None
    ) -> Everything:
        """The whole bank as arrays, in order of arrival: a queue from its oldest entry to its newest.

        Arguments as `scan`'s. MoCo's whole queue is `bank.read().embeddings`; one that is read every step is better mirrored.
        """
        call = ScanCall(self.name, dtype, not embeddings, 0, at_least, b"")
        return everything(self._session.scan(call, timeout), self.dim)

    def mirror(self, *, dtype: Dtype = "float32") -> Mirror:
        """A local copy, empty until its `refresh` is called, which then brings only what changed."""
        return Mirror(partial(self._changes, dtype), self.dim, self._opened.capacity)

    def checkpoint(
        self,
        tag: str | SupportsIndex,
        *,
        replace: bool = False,
        keep: SupportsIndex = 0,
        timeout: float | None = 3600.0,
    ) -> Checkpoint:
        """Keeps the bank as it is now, at the server's `checkpoints.location`; reads and writes go on meanwhile.

        `Client.restore` brings it back exactly, draws of a seed included: save the tag beside the model's own checkpoint.

        Args:
            tag: its name among the bank's checkpoints: the training step, or 1 to 128 letters, digits, "_", "-" or ".".
            replace: takes the place of a checkpoint of this tag, as a resumed run's does that goes over its steps again.
            keep: checkpoints of this bank that are kept, this one included; the oldest are deleted. 0: as the server's
                `checkpoints.keep` says.
            timeout: seconds; what is not done then is given up and leaves nothing behind. Only if it passes while the
                checkpoint is published is that done all the same: `client.checkpoints` tells.

        Raises:
            AlreadyExists: the tag is taken.
            FailedPrecondition: the server has no `checkpoints.location`, or can't write there.
            ResourceExhausted: meanwhile more rows were written than `checkpoints.memory_bytes`.
        """
        call = CheckpointCall(self.name, tag_of(tag), replace, whole(keep, "keep"))
        return Checkpoint.of(self._session.checkpoint(call, timeout))

    def restore(self, tag: str | SupportsIndex, *, timeout: float | None = 3600.0) -> None:
        """Brings this bank back as it was at one of its checkpoints; see `Client.restore`."""
        self._session.restore(RestoreCall(self.name, tag_of(tag), "", None), timeout)

    def __repr__(self) -> str:
        opened = self._opened
        return f"<Bank {opened.name!r} at {self._session.address}: {opened.kind}, {opened.metric}, dim={opened.dim}>"

    def _changes(self, dtype: Dtype, since: bytes, timeout: float | None) -> Chunks:
        return self._session.scan(ScanCall(self.name, dtype, False, 0, b"", since), timeout)
