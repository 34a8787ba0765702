"""One rank's draws, call by call: what a checkpoint must keep of them."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, SupportsIndex

import numpy.typing as npt

from .bank import Bank
from .draws import Draw
from .errors import InvalidArgument
from .negatives import Negatives
from .pending import Pending
from .receipts import Enqueued, Written
from .scalars import whole


class Sampler:
    """Draws from a bank with a seed for each call, made of `seed`, `rank` and the number of the call.

        sampler = negbank.Sampler(bank, negbank.Uniform(64), seed=7, rank=rank, exclude_same_label=True)
        for step, (images, labels) in enumerate(loader):
            negs = sampler.sample(encoder(images), anchor_labels=labels)
            ...
            sampler.write(ids=ids, embeddings=keys, step=step)
        checkpoint["sampler"] = sampler.state_dict()

    A run that loads the state goes on with the draws that the first run would have made, where the bank has the same history
    of writes as it had when the state was taken. The state serves every rank: the rank is the constructor's. Draws see what
    this sampler wrote, also over a resumption. Not for several threads at once. `Prefetch` asks a step ahead.
    """

    def __init__(self, bank: Bank, *draws: Draw, seed: SupportsIndex, rank: SupportsIndex = 0, **options: Any) -> None:
        """
        Args:
            bank: the bank that is drawn from.
            draws: as `Bank.sample`'s.
            seed: 0 to 2**64 - 1, of the whole run.
            rank: ranks of one seed draw differently by it. Give all the same rank to have them draw the same.
            options: parameters of `Bank.sample` for every call, such as exclude_same_label=True.
        """
        self.bank = bank
        self.draws = draws
        self.seed = whole(seed, "seed", 64)
        self.rank = whole(rank, "rank")
        self.step = 0
        """Calls made so far: the number of the next one, and its `step` where the call gives none."""
        self.sequence = 0
        """The highest sequence of the bank that an answer or a receipt told."""
        self._options = options
        self._written = (0, b"")
        self._flying: list[Pending[Negatives]] = []

    def sample(self, anchors: npt.ArrayLike | int | None, *, timeout: float | None = None, **options: Any) -> Negatives:
        """`Bank.sample` with the draws and options of this sampler, and those given here."""
        negatives = self.bank.sample(anchors, *self.draws, timeout=timeout, **self._asked(self.step, options))
        self.step += 1
        self.saw(negatives)
        return negatives

    def sample_async(
        self, anchors: npt.ArrayLike | int | None, *, timeout: float | None = None, **options: Any
    ) -> Pending[Negatives]:
        """As `sample`, at once; the result comes later, see `Pending`."""
        pending = self.call(self.step, anchors, timeout=timeout, **options)
        self.step += 1
        return pending

    def call(
        self, number: int, anchors: npt.ArrayLike | int | None, *, timeout: float | None = None, **options: Any
    ) -> Pending[Negatives]:
        """The draw of call `number`, whichever is next: made again, it has the same seed."""
        pending = self.bank.sample_async(anchors, *self.draws, timeout=timeout, **self._asked(number, options))
        self._look()
        self._flying.append(pending)
        return pending

    def write(self, embeddings: npt.ArrayLike, *, timeout: float | None = None, **columns: Any) -> Written | Enqueued:
        """Writes the step's rows, as `Bank.write` or `Bank.enqueue` does by the bank's kind; `columns` are their parameters.

        Waits for the draws in flight first: none of them sees these rows, whatever the network does, and all later ones do.

        Where the server is away this raises, with on_unavailable="in_batch" too: whether training goes on without a step's rows
        in the bank is the trainer's to say. `negbank.torch.Keeper` leaves them out; or catch `Unavailable` and
        `DeadlineExceeded`.
        """
        self.settle(timeout)
        receipt: Written | Enqueued
        if self.bank.kind == "keyed":
            receipt = self.bank.write(columns.pop("ids", None), embeddings, timeout=timeout, **columns)
        else:
            receipt = self.bank.enqueue(embeddings, timeout=timeout, **columns)
        self.wrote(receipt)
        return receipt

    def wrote(self, receipt: Written | Enqueued) -> None:
        """Has later draws see a write that was made elsewhere: by a callback, or another rank."""
        self.sequence = max(self.sequence, receipt.sequence)
        self._written = max(self._written, (receipt.sequence, receipt.position))

    def saw(self, negatives: Negatives) -> None:
        """Takes note of an answer; `sample` and `write` do that by themselves."""
        self.sequence = max(self.sequence, negatives.info.sequence_last)
        if negatives.written is not None:
            self.wrote(negatives.written)

    def settle(self, timeout: float | None = None) -> None:
        """Waits until no draw is in flight; what they failed with is told where their results are asked for."""
        for pending in self._flying:
            if not pending.cancelled():
                pending.exception(timeout)
        self._look()

    def state_dict(self) -> dict[str, Any]:
        """The state, of strings and whole numbers (JSON holds them)."""
        sequence, position = self._written
        return {
            "bank": self.bank.name,
            "seed": self.seed,
            "step": self.step,
            "sequence": sequence,
            "position": position.hex(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state_dict` was taken.

        The next draw raises FailedPrecondition if the bank was created anew since, or lost a write that the state had seen, and
        DeadlineExceeded if such a write does not come.

        Raises:
            InvalidArgument: this is no such state, or that of another bank.
        """
        try:
            bank, seed, step, sequence = state["bank"], state["seed"], state["step"], state["sequence"]
            position = bytes.fromhex(state["position"])
        except (KeyError, TypeError, ValueError) as fault:
            raise InvalidArgument.of("state", f"is no sampler's: {fault!r}") from fault
        if bank != self.bank.name:
            raise InvalidArgument.of("state", f"is of bank {bank!r}, and this sampler draws from {self.bank.name!r}")
        self.settle()
        self.seed, self.step = whole(seed, "state.seed", 64), whole(step, "state.step", 64)
        self.sequence = whole(sequence, "state.sequence", 64)
        self._written = (self.sequence, position)

    def __repr__(self) -> str:
        return f"<Sampler of {self.bank.name!r}, seed={self.seed}, rank={self.rank}, step={self.step}>"

    def _asked(self, number: int, options: dict[str, Any]) -> dict[str, Any]:
        mixed = {"step": number, "at_least": self._written[1], **self._options, **options}
        return {**mixed, "seed": _seed(self.seed, self.rank, number)}

    def _look(self) -> None:
        """Takes note of the draws that have landed."""
        landed = [pending for pending in self._flying if pending.done()]
        self._flying = [pending for pending in self._flying if pending not in landed]
        for pending in landed:
            if not pending.cancelled() and pending.exception() is None:
                self.saw(pending.result())


def _seed(seed: int, rank: int, number: int) -> int:
    """Sequences of neighbouring seeds, ranks and calls have nothing in common."""
    return int.from_bytes(blake2b(struct.pack("<QQQ", seed, rank, number), digest_size=8).digest(), "little")
